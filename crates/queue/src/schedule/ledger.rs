//! The ledger of fires: a fire is a row and its jobs in one transaction, so it happens once, however many workers try.

use std::time::Duration;

use metrics::gauge;
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use super::{
    LAG, Schedule, Schedules,
    catch_up::{Fire, FireKind},
    store::{self, ScheduleState},
};
use crate::{JobId, Tx, enqueue};
use runtime::{
    error::Error,
    executor::repeatable,
    sabotage::{self, Bug},
};

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
            if !is_due(schedule, &state, state.now()) {
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
            if let Some(jobs) = fire_one(&mut tx, schedule, &fire, None).await? {
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

    /// Registers a schedule in the ledger with this process's cron expression and policy. Each process does it when it
    /// starts, and after the database's clock went back.
    pub(super) async fn register(&self, schedule: &Schedule) -> Result<(), Error> {
        let Schedule { name, cron, catch_up, .. } = schedule;
        store::register(&self.pool, name, cron.as_str(), catch_up.as_str()).await.map_err(Error::from)
    }

    /// Registers a schedule that is not in the ledger. If it is, its expression and its policy stay.
    pub(super) async fn register_if_missing(&self, schedule: &Schedule) -> Result<(), Error> {
        let Schedule { name, cron, catch_up, .. } = schedule;
        store::register_new(&self.pool, name, cron.as_str(), catch_up.as_str()).await.map_err(Error::from)
    }
}

/// Whether a nominal time has come by `now` that is not decided.
pub(super) fn is_due(schedule: &Schedule, state: &ScheduleState, now: OffsetDateTime) -> bool {
    schedule.cron.latest(now).is_some_and(|due| due > state.decided_until())
}

/// Fires, unless the ledger has this fire already. `by` is the operator who fires it. Returns the number of enqueued jobs.
pub(super) async fn fire_one(
    tx: &mut Tx,
    schedule: &Schedule,
    fire: &Fire,
    by: Option<&str>,
) -> Result<Option<usize>, Error> {
    if !store::insert(tx, schedule.name, fire, by).await? {
        return Ok(None);
    }
    if fire.kind == FireKind::Skipped {
        return Ok(Some(0));
    }
    let mut jobs = schedule.work.jobs(tx, fire.time).await?;
    if sabotage::planted(Bug::ScheduleFiredTwice) {
        jobs.extend(schedule.work.jobs(tx, fire.time).await?);
    }
    for job in &mut jobs {
        // Other jobs may have ids between those of this fire.
        job.origin.correlation_id = Some(correlation_id(schedule.name, fire));
    }
    let added = enqueue(tx, &jobs).await?;
    let ids = added.iter().min().zip(added.iter().max()).map(|(first, last)| [first, last].map(JobId::to_string));
    store::record_jobs(tx, schedule.name, fire.time, added.len(), ids).await?;
    Ok(Some(added.len()))
}

/// The correlation id of the jobs of a fire, such as `daily_prices@2026-11-28T00:15:00Z`. [`store::fires`] repeats it.
fn correlation_id(schedule: &str, fire: &Fire) -> String {
    const SECONDS: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    const MICROS: &[BorrowedFormatItem<'_>] =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    let format = if fire.kind == FireKind::ByHand { MICROS } else { SECONDS };
    let time = fire.time.to_offset(time::UtcOffset::UTC);
    format!("{schedule}@{}", time.format(format).unwrap_or_default())
}

/// Logs and measures a committed fire.
pub(super) fn report_fire(schedule: &Schedule, fire: &Fire, jobs: usize, now: OffsetDateTime) {
    let (name, passed_over) = (schedule.name, fire.passed_over);
    if passed_over > 0 || fire.kind == FireKind::Skipped {
        tracing::warn!(schedule = name, passed_over, policy = schedule.catch_up.as_str(), "a schedule missed fires");
    }
    if fire.kind == FireKind::Skipped {
        return;
    }
    let lag = (now - fire.time).as_seconds_f64().max(0.0);
    gauge!(LAG, "schedule" => name).set(lag);
    tracing::info!(schedule = name, fire_time = %fire.time, kind = fire.kind.as_str(), jobs, lag, "schedule fired");
}

pub(super) fn unregistered(name: &str) -> Error {
    Error::Internal(format!("the schedule {name} is not registered"))
}
