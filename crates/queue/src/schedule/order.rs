//! What operators do to schedules: fire one now, and skip its next fire. Each order is recorded in the same transaction.

use serde_json::json;
use time::{Duration as Span, OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    CatchUp, Cron, Schedule, Schedules, Timing,
    catch_up::{Fire, FireKind},
    ledger::{fire_one, is_due, report_fire, unregistered},
    overview::{Upcoming, upcoming},
    store,
};
use crate::{operator::audit::Order, store::operator::audit};
use runtime::{error::Error, time_limit::with_time_limit};

/// The result of an order to skip the next fire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Skip {
    /// This nominal time will not fire.
    Skipped(OffsetDateTime),
    /// An operator skips the next fire already.
    AlreadySkipped(Upcoming),
    /// The cron expression has no further time.
    NoTime,
    NotFound,
}

impl Schedules {
    /// Fires now, in addition to the fires of the cron expression. Returns the number of jobs; `None` if there is no
    /// such schedule.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn fire(&self, name: &str, order: &Order) -> Result<Option<usize>, Error> {
        let Some(schedule) = self.find(name).await? else { return Ok(None) };
        with_time_limit(async {
            let mut tx = self.queue.begin().await?;
            store::lock(&mut tx, name).await?;
            let mut time = store::now(&mut tx).await?;
            if time.nanosecond() == 0 {
                // Nominal times are whole seconds, and each of them has at most one row.
                time += Span::MICROSECOND;
            }
            let fire = Fire { time, kind: FireKind::ByHand, passed_over: 0 };
            let jobs = fire_one(&mut tx, &schedule, &fire, Some(&order.actor)).await?;
            audit::record(&mut *tx, order, "fire", name, None, jobs.unwrap_or_default()).await?;
            tx.commit().await?;
            report_fire(&schedule, &fire, jobs.unwrap_or_default(), fire.time);
            Ok(jobs)
        })
        .await
    }

    /// Skips the next fire: its row in the ledger exists before its time comes, so no worker fires it. The fire after it
    /// is as usual.
    ///
    /// That row decides all nominal times up to its own. So what is due or was missed fires first.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn skip_next(&self, name: &str, order: &Order) -> Result<Skip, Error> {
        let Some(schedule) = self.find(name).await? else { return Ok(Skip::NotFound) };
        loop {
            self.fire_due(&schedule, Timing::default().late).await?;
            if let Some(skip) = with_time_limit(self.skip(&schedule, order)).await? {
                return Ok(skip);
            }
        }
    }

    /// Skips the next fire; `None` if a nominal time has come that is not decided yet.
    async fn skip(&self, schedule: &Schedule, order: &Order) -> Result<Option<Skip>, Error> {
        let name = schedule.name;
        let mut tx = self.queue.begin().await?;
        let state = store::lock(&mut tx, name).await?.ok_or_else(|| unregistered(name))?;
        let ahead = store::ahead(&mut *tx, &[name.to_owned()]).await?;
        let ahead: Vec<&store::Ahead> = ahead.iter().collect();
        // Read last: what has fired after this time is then among those ahead, also if a second begins in between.
        let now = store::now(&mut tx).await?;
        if is_due(schedule, &state, now) {
            return Ok(None);
        }
        let Some(next) = upcoming(&schedule.cron, now, &ahead).next() else { return Ok(Some(Skip::NoTime)) };
        if next.skipped_by.is_some() {
            return Ok(Some(Skip::AlreadySkipped(next)));
        }
        let fire = Fire { time: next.time, kind: FireKind::Skipped, passed_over: 0 };
        fire_one(&mut tx, schedule, &fire, Some(&order.actor)).await?;
        let filter = json!({ "fire_time": next.time.format(&Rfc3339).unwrap_or_default() });
        audit::record(&mut *tx, order, "skip", name, Some(filter), 1).await?;
        tx.commit().await?;
        tracing::info!(schedule = name, fire_time = %next.time, actor = order.actor, "an operator skips a fire");
        Ok(Some(Skip::Skipped(next.time)))
    }

    /// The schedule of this name, with the expression and the policy that a worker has registered. It is registered if none
    /// has.
    async fn find(&self, name: &str) -> Result<Option<Schedule>, Error> {
        let Some(schedule) = self.all.iter().find(|schedule| schedule.name == name) else { return Ok(None) };
        let mut schedule = schedule.clone();
        self.register_if_missing(&schedule).await?;
        for row in store::registered(&self.pool, &[name.to_owned()]).await? {
            if let Some(cron) = row.cron.and_then(|cron| Cron::parse(&cron).ok()) {
                schedule.cron = cron;
            }
            if let Some(catch_up) = row.catch_up.and_then(|policy| CatchUp::parse(&policy).ok()) {
                schedule.catch_up = catch_up;
            }
        }
        Ok(Some(schedule))
    }
}
