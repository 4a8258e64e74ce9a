//! What operators see of schedules: the next fires, the last ones, and what came of them.

use std::collections::BTreeMap;

use serde::Serialize;
use time::OffsetDateTime;

use super::{Cron, Schedule, Schedules, fired::Fired, position::FirePosition, store};
use crate::Page;
use runtime::{error::Error, executor::repeatable};

/// The number of past fires of each schedule in [`Schedules::overview`].
const PAST: i64 = 20;
/// The number of next fires.
const NEXT: usize = 5;

/// A schedule, as operators see it.
#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    pub name: &'static str,
    /// The expression that a worker has registered last; that of this process if none has.
    pub cron: String,
    /// The policy for missed fires: `skip`, `latest` or `all`.
    pub catch_up: String,
    /// The next fire by the database's clock. A nominal time that an operator skips is left out, and so is one that has
    /// fired, even if the clock has gone back since.
    #[serde(with = "time::serde::rfc3339::option")]
    pub next: Option<OffsetDateTime>,
    /// The next five nominal times, with those that an operator skips.
    pub upcoming: Vec<Upcoming>,
    /// Its latest 20 fires that are not after now, newest first.
    pub latest: Vec<Fired>,
}

/// A nominal time that is still to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Upcoming {
    #[serde(with = "time::serde::rfc3339")]
    pub time: OffsetDateTime,
    /// The operator who skips it.
    pub skipped_by: Option<String>,
}

impl Schedules {
    /// Returns every schedule of this process, in three statements whose cost has a bound.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn overview(&self) -> Result<Vec<Overview>, Error> {
        let names: Vec<String> = self.all.iter().map(|schedule| schedule.name.to_owned()).collect();
        // Read before the time of the schedules: what has fired after that time is then among these, even if a second
        // begins in between.
        let ahead = store::ahead(repeatable(&self.pool), &names).await?;
        let registered = store::registered(&self.pool, &names).await?;
        let mut latest: BTreeMap<String, Vec<Fired>> = BTreeMap::new();
        for row in store::fires(&self.pool, &names, true, None, PAST).await? {
            latest.entry(row.schedule.clone()).or_default().push(row.into());
        }
        let overview = self.all.iter().map(|Schedule { name, cron, catch_up, .. }| {
            let row = registered.iter().find(|row| row.name == *name);
            let cron = row.and_then(|row| Cron::parse(row.cron.as_deref()?).ok()).unwrap_or_else(|| cron.clone());
            let now = row.map_or_else(OffsetDateTime::now_utc, |row| row.now.into());
            let ahead: Vec<&store::Ahead> = ahead.iter().filter(|row| row.schedule == *name).collect();
            let upcoming: Vec<Upcoming> = upcoming(&cron, now, &ahead).take(NEXT).collect();
            Overview {
                name,
                catch_up: row.and_then(|row| row.catch_up.clone()).unwrap_or_else(|| catch_up.as_str().to_owned()),
                next: upcoming.iter().find(|upcoming| upcoming.skipped_by.is_none()).map(|upcoming| upcoming.time),
                upcoming,
                latest: latest.remove(*name).unwrap_or_default(),
                cron: cron.as_str().to_owned(),
            }
        });
        Ok(overview.collect())
    }

    /// Returns a page of the fires of one schedule or of all after a position, newest first, at most `limit`. Fires after
    /// now are among them: those that an operator skips, and those from before the clock went back.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn fires(
        &self,
        name: Option<&str>,
        after: Option<&FirePosition>,
        limit: u32,
    ) -> Result<Page<Fired, FirePosition>, Error> {
        let names = match name {
            Some(name) => vec![name.to_owned()],
            None => store::names(&self.pool).await?,
        };
        let rows = store::fires(&self.pool, &names, false, after, i64::from(limit) + 1).await?;
        let mut fires: Vec<Fired> = rows.into_iter().map(Fired::from).collect();
        fires.sort_by(|one, other| other.fire_time.cmp(&one.fire_time).then_with(|| one.schedule.cmp(&other.schedule)));
        Ok(Page::new(fires, limit, |last| FirePosition {
            time: last.fire_time,
            schedule: name.is_none().then(|| last.schedule.clone()),
        }))
    }
}

/// The nominal times after `now` that have not fired, each with the operator who skips it.
pub(super) fn upcoming<'a>(
    cron: &'a Cron,
    now: OffsetDateTime,
    ahead: &'a [&store::Ahead],
) -> impl Iterator<Item = Upcoming> + 'a {
    let ahead: BTreeMap<OffsetDateTime, Option<&String>> =
        ahead.iter().map(|row| (row.fire_time.into(), row.fired_by.as_ref())).collect();
    std::iter::successors(cron.next(now), |time| cron.next(*time)).filter_map(move |time| match ahead.get(&time) {
        None => Some(Upcoming { time, skipped_by: None }),
        Some(Some(by)) => Some(Upcoming { time, skipped_by: Some((*by).clone()) }),
        // It fired before the clock went back.
        Some(None) => None,
    })
}
