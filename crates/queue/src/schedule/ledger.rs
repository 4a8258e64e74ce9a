//! Fires, each once: a row and its jobs in one transaction, whoever asks for it and however many do.

use std::time::Duration;

use metrics::gauge;
use time::{Duration as Span, OffsetDateTime};

use super::{
    LAG, Schedule, Schedules,
    catch_up::{Fire, Kind},
    store,
};
use crate::{Tx, enqueue};
use runtime::{db::with_time_limit, error::Error};

/// Fires in one transaction: however many are made up, nobody waits long for the schedule.
const AT_ONCE: usize = 50;

impl Schedules {
    /// Fires what is due by the database's clock, so that a worker whose clock is wrong neither doubles nor loses
    /// anything; returns that clock, and whether anything was due. Nominal times older than `late` count as missed.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database cannot be asked now, as of all calls in here: what was not committed will
    /// be found due again.
    pub async fn fire_due(&self, schedule: &Schedule, late: Duration) -> Result<(OffsetDateTime, bool), Error> {
        let mut was_due = false;
        loop {
            // Without a lock: most of the time nothing is due, and of many workers one is enough.
            let standing = store::standing(&self.pool, schedule.name).await?;
            let Some(standing) = standing else { return Err(unknown(schedule.name)) };
            if standing.is_ahead() {
                tracing::warn!(schedule = schedule.name, "the database's clock went back: the schedule begins anew");
                self.register(schedule).await?;
                continue;
            }
            if schedule.cron.latest(standing.now()).is_none_or(|due| due <= standing.decided()) {
                return Ok((standing.now(), was_due));
            }
            was_due = true;
            self.fire_some(schedule, late).await?;
        }
    }

    async fn fire_some(&self, schedule: &Schedule, late: Duration) -> Result<(), Error> {
        let mut tx = self.queue.begin().await?;
        let standing = store::hold(&mut tx, schedule.name).await?.ok_or_else(|| unknown(schedule.name))?;
        let mut fires = schedule.catch_up.plan(&schedule.cron, standing.decided(), standing.now(), late);
        fires.truncate(AT_ONCE);
        let mut fired = Vec::new();
        for fire in fires {
            if let Some(jobs) = fire_one(&mut tx, schedule, &fire).await? {
                fired.push((fire, jobs));
            }
        }
        store::forget(&mut tx, schedule.name).await?;
        tx.commit().await?;
        for (fire, jobs) in fired {
            told(schedule, &fire, jobs, standing.now());
        }
        Ok(())
    }

    /// Fires now, whatever the schedule says; `None` when there is no such schedule. Its own fires stay as they are.
    ///
    /// # Errors
    /// See [`Schedules::fire_due`].
    pub async fn fire_by_hand(&self, name: &str) -> Result<Option<usize>, Error> {
        let Some(schedule) = self.all.iter().find(|schedule| schedule.name == name) else { return Ok(None) };
        self.register(schedule).await?;
        with_time_limit(async {
            let mut tx = self.queue.begin().await?;
            store::hold(&mut tx, name).await?;
            let mut time = store::now(&mut tx).await?;
            if time.nanosecond() == 0 {
                // Whole seconds are nominal times, each of which has one row.
                time += Span::MICROSECOND;
            }
            let fire = Fire { time, kind: Kind::ByHand, passed_over: 0 };
            let jobs = fire_one(&mut tx, schedule, &fire).await?;
            tx.commit().await?;
            told(schedule, &fire, jobs.unwrap_or_default(), fire.time);
            Ok(jobs)
        })
        .await
    }

    /// Makes a schedule known to the ledger as this process has it.
    pub(super) async fn register(&self, schedule: &Schedule) -> Result<(), Error> {
        let Schedule { name, cron, catch_up, .. } = schedule;
        store::register(&self.pool, name, cron.as_str(), catch_up.as_str()).await.map_err(Error::from)
    }
}

/// Fires, unless somebody has; answers how many jobs that made.
async fn fire_one(tx: &mut Tx, schedule: &Schedule, fire: &Fire) -> Result<Option<usize>, Error> {
    if !store::insert(tx, schedule.name, fire).await? {
        return Ok(None);
    }
    if fire.kind == Kind::Skipped {
        return Ok(Some(0));
    }
    let jobs = schedule.work.jobs(tx, fire.time).await?;
    let added = enqueue(tx, &jobs).await?.len();
    store::note_jobs(tx, schedule.name, fire.time, added).await?;
    Ok(Some(added))
}

/// For the log and the metrics, after the commit.
fn told(schedule: &Schedule, fire: &Fire, jobs: usize, now: OffsetDateTime) {
    let (name, passed_over) = (schedule.name, fire.passed_over);
    if passed_over > 0 || fire.kind == Kind::Skipped {
        tracing::warn!(schedule = name, passed_over, policy = schedule.catch_up.as_str(), "SCHEDULE_MISSED");
    }
    if fire.kind == Kind::Skipped {
        return;
    }
    let lag = (now - fire.time).as_seconds_f64().max(0.0);
    gauge!(LAG, "schedule" => name).set(lag);
    tracing::info!(schedule = name, fire_time = %fire.time, kind = fire.kind.as_str(), jobs, lag, "SCHEDULE_FIRED");
}

fn unknown(name: &str) -> Error {
    Error::Internal(format!("the schedule {name} is not registered"))
}
