//! Ticks in every worker, each of which only says "look": what is due, and whether it was fired, is in the ledger.

use std::{sync::Arc, time::Duration};

use metrics::gauge;
use time::OffsetDateTime;
use tokio::{sync::Notify, task::JoinSet};
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;

use super::{LAG, Schedule, Schedules};

/// When to look at the ledger beside the ticks, and what counts as missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two looks without a tick: what a suspended worker, or one with a wrong clock, has not ticked for.
    pub look: Duration,
    /// After a look that failed.
    pub again: Duration,
    /// A nominal time older than this was missed.
    pub late: Duration,
}

impl Default for Timing {
    /// A statement a minute; a failed look is repeated long before its fire counts as missed.
    fn default() -> Self {
        Self { look: Duration::from_secs(60), again: Duration::from_secs(1), late: Duration::from_secs(90) }
    }
}

impl Schedules {
    /// Fires all schedules when they are due, and what was missed, until `stop`.
    pub async fn run(self, timing: Timing, stop: CancellationToken) {
        let signals: Vec<Arc<Notify>> = self.all.iter().map(|_| Arc::default()).collect();
        let mut ticking = match start(&self, &signals).await {
            Ok(scheduler) => Some(scheduler),
            // The looks between the ticks are enough, if late.
            Err(error) => {
                tracing::error!(%error, look = ?timing.look, "nothing ticks: schedules are looked at from time to time");
                None
            }
        };
        let mut keepers = JoinSet::new();
        for (schedule, bell) in self.all.iter().zip(signals) {
            let (schedules, schedule, stop) = (self.clone(), schedule.clone(), stop.clone());
            keepers.spawn(async move {
                tokio::select! { () = schedules.keep(&schedule, timing, &bell) => {} () = stop.cancelled() => {} }
            });
        }
        stop.cancelled().await;
        if let Some(scheduler) = &mut ticking {
            // Its loop ends within half a second, and nobody waits for it.
            let _ = scheduler.shutdown().await;
        }
        while keepers.join_next().await.is_some() {}
    }

    async fn keep(&self, schedule: &Schedule, timing: Timing, bell: &Notify) {
        let (mut registered, mut looked_once) = (false, false);
        loop {
            let ticked = OffsetDateTime::now_utc();
            let looked = async {
                if !registered {
                    self.register(schedule).await?;
                }
                self.fire_due(schedule, timing.late).await
            };
            let wait = match looked.await {
                Ok((now, was_due)) => {
                    registered = true;
                    if !looked_once && !was_due {
                        gauge!(LAG, "schedule" => schedule.name).set(0.0);
                    }
                    looked_once = true;
                    pause(schedule, ticked, now).unwrap_or(timing.look).min(timing.look)
                }
                Err(error) => {
                    registered = false;
                    tracing::warn!(%error, schedule = schedule.name, "could not fire what is due; trying again");
                    timing.again
                }
            };
            tokio::select! { () = bell.notified() => {} () = tokio::time::sleep(wait) => {} }
        }
    }
}

/// How long to wait when the tick came before its time, by the database's clock: ours is ahead.
fn pause(schedule: &Schedule, ticked: OffsetDateTime, now: OffsetDateTime) -> Option<Duration> {
    let meant = schedule.cron.latest(ticked)?;
    Duration::try_from(meant - now).ok().filter(|early| !early.is_zero())
}

/// One tick at each nominal time, by this machine's clock: it is looked at twice a second.
async fn start(schedules: &Schedules, signals: &[Arc<Notify>]) -> Result<JobScheduler, JobSchedulerError> {
    let scheduler = JobScheduler::new().await?;
    for (schedule, bell) in schedules.all.iter().zip(signals) {
        let bell = bell.clone();
        // In UTC, as the crate has it unless told otherwise.
        scheduler.add(Job::new(schedule.cron.as_str(), move |_, _| bell.notify_one())?).await?;
    }
    scheduler.start().await?;
    Ok(scheduler)
}
