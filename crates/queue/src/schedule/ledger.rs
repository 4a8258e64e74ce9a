//! The ledger of fires: a fire is a row and its jobs in one transaction, so it happens once, however many workers try.

use std::time::Duration;

use metrics::gauge;
use time::{Duration as Span, OffsetDateTime};

use super::{
    LAG, Schedule, Schedules,
    catch_up::{Fire, FireKind},
    store,
};
use crate::{Tx, enqueue, operator::audit::Order, store::operator::audit};
use runtime::{error::Error, executor::repeatable, time_limit::with_time_limit};

/// The most fires of one transaction, so that the lock of the schedule is held only briefly.
const MAX_FIRES: usize = 50;

impl Schedules {
    /// Fires what is due by the database's clock, so that a worker with a wrong clock neither doubles nor loses a fire.
    /// Returns that clock, and whether anything was due. Nominal times older than `late` count as missed.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable, [`Error::Internal`] when the schedule is not
    /// registered. A fire that was not committed is due again.
    pub async fn fire_due(&self, schedule: &Schedule, late: Duration) -> Result<(OffsetDateTime, bool), Error> {
        let mut was_due = false;
        loop {
            // Without a lock: usually nothing is due, and then no worker needs it.
            let state = store::state(repeatable(&self.pool), schedule.name).await?;
            let Some(state) = state else { return Err(unregistered(schedule.name)) };
            if state.is_ahead() {
                tracing::warn!(schedule = schedule.name, "the database's clock went back; the schedule restarts");
                self.register(schedule).await?;
                continue;
            }
            if schedule.cron.latest(state.now()).is_none_or(|due| due <= state.decided_until()) {
                return Ok((state.now(), was_due));
            }
            was_due = true;
            self.fire_batch(schedule, late).await?;
        }
    }

    async fn fire_batch(&self, schedule: &Schedule, late: Duration) -> Result<(), Error> {
        let mut tx = self.queue.begin().await?;
        let state = store::lock(&mut tx, schedule.name).await?.ok_or_else(|| unregistered(schedule.name))?;
        let mut fires = schedule.catch_up.plan(&schedule.cron, state.decided_until(), state.now(), late);
        fires.truncate(MAX_FIRES);
        let mut fired = Vec::new();
        for fire in fires {
            if let Some(jobs) = fire_one(&mut tx, schedule, &fire).await? {
                fired.push((fire, jobs));
            }
        }
        store::delete_old_fires(&mut tx, schedule.name).await?;
        tx.commit().await?;
        for (fire, jobs) in fired {
            report_fire(schedule, &fire, jobs, state.now());
        }
        Ok(())
    }

    /// Fires now, in addition to the fires of the cron expression. Returns the number of jobs; `None` if there is no
    /// such schedule.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn fire_by_hand(&self, name: &str) -> Result<Option<usize>, Error> {
        self.fire_now(name, None).await
    }

    /// Fires as [`Schedules::fire_by_hand`] does, and records the order in the same transaction.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn fire_by_order(&self, name: &str, order: &Order) -> Result<Option<usize>, Error> {
        self.fire_now(name, Some(order)).await
    }

    async fn fire_now(&self, name: &str, order: Option<&Order>) -> Result<Option<usize>, Error> {
        let Some(schedule) = self.all.iter().find(|schedule| schedule.name == name) else { return Ok(None) };
        self.register(schedule).await?;
        with_time_limit(async {
            let mut tx = self.queue.begin().await?;
            store::lock(&mut tx, name).await?;
            let mut time = store::now(&mut tx).await?;
            if time.nanosecond() == 0 {
                // Nominal times are whole seconds, and each of them has at most one row.
                time += Span::MICROSECOND;
            }
            let fire = Fire { time, kind: FireKind::ByHand, passed_over: 0 };
            let jobs = fire_one(&mut tx, schedule, &fire).await?;
            if let Some(order) = order {
                audit::record(&mut *tx, order, "fire", name, None, jobs.unwrap_or_default()).await?;
            }
            tx.commit().await?;
            report_fire(schedule, &fire, jobs.unwrap_or_default(), fire.time);
            Ok(jobs)
        })
        .await
    }

    /// Registers a schedule in the ledger with this process's cron expression and policy.
    pub(super) async fn register(&self, schedule: &Schedule) -> Result<(), Error> {
        let Schedule { name, cron, catch_up, .. } = schedule;
        store::register(&self.pool, name, cron.as_str(), catch_up.as_str()).await.map_err(Error::from)
    }
}

/// Fires, unless the ledger has this fire already. Returns the number of enqueued jobs.
async fn fire_one(tx: &mut Tx, schedule: &Schedule, fire: &Fire) -> Result<Option<usize>, Error> {
    if !store::insert(tx, schedule.name, fire).await? {
        return Ok(None);
    }
    if fire.kind == FireKind::Skipped {
        return Ok(Some(0));
    }
    let jobs = schedule.work.jobs(tx, fire.time).await?;
    let added = enqueue(tx, &jobs).await?.len();
    store::record_jobs(tx, schedule.name, fire.time, added).await?;
    Ok(Some(added))
}

/// Logs and measures a committed fire.
fn report_fire(schedule: &Schedule, fire: &Fire, jobs: usize, now: OffsetDateTime) {
    let (name, passed_over) = (schedule.name, fire.passed_over);
    if passed_over > 0 || fire.kind == FireKind::Skipped {
        tracing::warn!(schedule = name, passed_over, policy = schedule.catch_up.as_str(), "SCHEDULE_MISSED");
    }
    if fire.kind == FireKind::Skipped {
        return;
    }
    let lag = (now - fire.time).as_seconds_f64().max(0.0);
    gauge!(LAG, "schedule" => name).set(lag);
    tracing::info!(schedule = name, fire_time = %fire.time, kind = fire.kind.as_str(), jobs, lag, "SCHEDULE_FIRED");
}

fn unregistered(name: &str) -> Error {
    Error::Internal(format!("the schedule {name} is not registered"))
}
