//! The ticker of every worker. A tick only starts a check; the ledger decides what is due and whether it has fired.

use std::{sync::Arc, time::Duration};

use metrics::gauge;
use time::OffsetDateTime;
use tokio::{sync::Notify, task::JoinSet};
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;

use super::{LAG, Schedule, Schedules};
use runtime::error::is_logged;

/// The intervals of the ticker, and the limit for late fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two checks without a tick. They find what a suspended worker, or one with a wrong clock, did not tick
    /// for.
    pub check: Duration,
    /// After a failed check.
    pub retry: Duration,
    /// A nominal time older than this counts as missed.
    pub late: Duration,
}

impl Default for Timing {
    /// One statement a minute. A failed check is retried long before its fire counts as missed.
    fn default() -> Self {
        Self { check: Duration::from_secs(60), retry: Duration::from_secs(1), late: Duration::from_secs(90) }
    }
}

impl Schedules {
    /// Fires all schedules when they are due, and what was missed, until `stop`.
    pub async fn run(self, timing: Timing, stop: CancellationToken) {
        let ticks: Vec<Arc<Notify>> = self.all.iter().map(|_| Arc::default()).collect();
        let mut scheduler = match start_ticks(&self, &ticks).await {
            Ok(scheduler) => Some(scheduler),
            // The checks still fire everything, but later.
            Err(error) => {
                tracing::error!(%error, check = ?timing.check, "no ticks: schedules are checked at intervals only");
                None
            }
        };
        let mut tasks = JoinSet::new();
        for (schedule, tick) in self.all.iter().zip(ticks) {
            let (schedules, schedule, stop) = (self.clone(), schedule.clone(), stop.clone());
            tasks.spawn(async move {
                tokio::select! { () = schedules.run_schedule(&schedule, timing, &tick) => {} () = stop.cancelled() => {} }
            });
        }
        stop.cancelled().await;
        if let Some(scheduler) = &mut scheduler {
            // Its own loop ends within half a second; the stop does not wait for it.
            let _ = scheduler.shutdown().await;
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Checks a schedule at each tick and interval, and fires what is due.
    async fn run_schedule(&self, schedule: &Schedule, timing: Timing, tick: &Notify) {
        let (mut is_registered, mut was_checked, mut failures) = (false, false, 0_u32);
        loop {
            let ticked_at = OffsetDateTime::now_utc();
            let check = async {
                if !is_registered {
                    self.register(schedule).await?;
                    is_registered = true;
                } else if failures > 0 {
                    // Workers of two releases may have two expressions. To register this one once more would restart the
                    // schedule, and lose the fires that are late because of the failure.
                    self.register_if_missing(schedule).await?;
                }
                self.fire_due(schedule, timing.late).await
            };
            let wait = match check.await {
                Ok((now, was_due)) => {
                    failures = 0;
                    if !was_checked && !was_due {
                        gauge!(LAG, "schedule" => schedule.name).set(0.0);
                    }
                    was_checked = true;
                    wait_after_early_tick(schedule, ticked_at, now).unwrap_or(timing.check).min(timing.check)
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    if is_logged(failures) {
                        let schedule = schedule.name;
                        tracing::warn!(%error, schedule, failures, "could not fire a schedule; retrying");
                    }
                    timing.retry
                }
            };
            tokio::select! { () = tick.notified() => {} () = tokio::time::sleep(wait) => {} }
        }
    }
}

/// Returns how long to wait if this machine's clock is ahead, so that the tick came too early by the database's clock.
fn wait_after_early_tick(schedule: &Schedule, ticked_at: OffsetDateTime, now: OffsetDateTime) -> Option<Duration> {
    let nominal = schedule.cron.latest(ticked_at)?;
    Duration::try_from(nominal - now).ok().filter(|early| !early.is_zero())
}

/// Starts a scheduler that ticks at each nominal time. It reads this machine's clock twice a second.
async fn start_ticks(schedules: &Schedules, ticks: &[Arc<Notify>]) -> Result<JobScheduler, JobSchedulerError> {
    let scheduler = JobScheduler::new().await?;
    for (schedule, tick) in schedules.all.iter().zip(ticks) {
        let tick = tick.clone();
        // The crate uses UTC by default.
        scheduler.add(Job::new(schedule.cron.as_str(), move |_, _| tick.notify_one())?).await?;
    }
    scheduler.start().await?;
    Ok(scheduler)
}
