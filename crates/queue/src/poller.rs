//! Polling: wakes claimers on a notification, at the next due time, and at the poll interval.
//!
//! Claims and polls begin at the [low-water marks](crate::low_water) of a queue. A sweep looks for jobs below them.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    CANCELLATIONS, CHANNEL,
    cancel::Cancellations,
    low_water::{LowWater, Marks},
    retry::Backoff,
    store::due::{self, DueCheck},
    worker_status::WorkerStatus,
};
use runtime::{
    db::{Database, Pool},
    error::{causes, is_logged},
    listen::{ListenEvent, listen},
    sabotage::{self, Bug},
};

/// After claimers were woken, due times within this time share the next poll. With 1,000 due times a second, a poll and a
/// claim for each would cost more than the jobs.
const MERGE_WINDOW: Duration = Duration::from_millis(5);
/// After this time without activity, a worker that receives notifications polls less often. It then polls only for jobs
/// whose sender crashed between its commit and its notification.
const QUIET_AFTER: Duration = Duration::from_secs(5);
/// The poll interval of such a worker. An idle worker sends less than two statements a second in total.
const QUIET_INTERVAL: Duration = Duration::from_secs(2);
/// Between two sweeps of such a worker, unless a notification arrives.
const QUIET_SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// Between two sweeps while the database cannot be reached.
const SWEEP_RETRY: Duration = Duration::from_secs(1);
/// A sweep reads every dead entry of the index. While an old snapshot keeps many of them, sweeps use one twentieth of
/// the time of a session.
const SWEEP_PAUSE_FACTOR: u32 = 19;
/// The longest of these pauses. A sweep may also be slow because it had to reconnect, as after a failover, and then rescued
/// jobs wait below the marks.
const LONGEST_SWEEP_PAUSE: Duration = Duration::from_secs(3);

/// Wakes the claimer of one queue.
#[derive(Default)]
pub(crate) struct WakeSignal {
    /// Notified when the queue may have due jobs.
    pub wake: Notify,
    /// Where claims and polls begin.
    pub low_water: LowWater,
    /// Whether the claimer waits for it. A busy claimer is about to claim and finds due jobs itself, so its queue is
    /// not polled: next to a busy claimer, polls took 14 % of the database's time.
    is_idle: AtomicBool,
    /// A poll was skipped because the claimer was busy.
    poll_skipped: AtomicBool,
}

impl WakeSignal {
    /// Waits for the signal. Requests a poll first if one was skipped.
    pub(crate) async fn wait(&self, poll_request: &Notify) {
        self.is_idle.store(true, SeqCst);
        if self.poll_skipped.swap(false, SeqCst) {
            poll_request.notify_one();
        }
        self.wake.notified().await;
        self.is_idle.store(false, SeqCst);
    }

    /// Whether the claimer is idle. If not, it requests the skipped poll before it next waits; `SeqCst` guarantees that
    /// at least one side sees the other's flag.
    fn needs_poll(&self) -> bool {
        self.poll_skipped.store(true, SeqCst);
        let is_idle = self.is_idle.load(SeqCst);
        if is_idle {
            self.poll_skipped.store(false, SeqCst);
        }
        is_idle
    }
}

/// Wakes the claimers of queues that have due jobs.
pub(crate) struct Poller {
    pub pool: Pool,
    pub interval: Duration,
    pub signals: HashMap<&'static str, Arc<WakeSignal>>,
    /// Requests a poll.
    pub poll_request: Arc<Notify>,
    pub cancellations: Arc<Cancellations>,
    /// Learns whether notifications arrive.
    pub status: Arc<WorkerStatus>,
    pub stop: CancellationToken,
}

impl Poller {
    /// Polls until `stop`. One statement polls all queues.
    pub(crate) async fn run(self, database: Database) {
        let is_listening = &self.status.is_listening;
        let (is_quiet, sweep_request) = (AtomicBool::new(false), Notify::new());
        tokio::join!(
            self.listen(&database, is_listening, &sweep_request),
            self.poll_due_times(is_listening, &is_quiet),
            self.sweep(&is_quiet, &sweep_request),
        );
    }

    async fn listen(&self, database: &Database, is_listening: &AtomicBool, sweep_request: &Notify) {
        listen(database, CHANNEL, &self.stop, |event| match event {
            ListenEvent::Notification(payload) if payload == CANCELLATIONS => self.cancellations.signal.notify_one(),
            ListenEvent::Notification(queue) => {
                // The signal is for jobs that are due now, the poll for jobs that are due soon.
                if let Some(signal) = self.signals.get(queue.as_str()) {
                    signal.wake.notify_one();
                }
                self.poll_request.notify_one();
                sweep_request.notify_one();
            }
            ListenEvent::Connected => {
                is_listening.store(true, SeqCst);
                if !sabotage::planted(Bug::NoRecheckAfterListen) {
                    self.poll_request.notify_one();
                }
                self.cancellations.signal.notify_one();
            }
            ListenEvent::Disconnected => {
                is_listening.store(false, SeqCst);
                self.poll_request.notify_one();
            }
        })
        .await;
    }

    async fn poll_due_times(&self, is_listening: &AtomicBool, is_quiet: &AtomicBool) {
        let (mut failures, mut last_activity) = (0, Instant::now());
        while !self.stop.is_cancelled() {
            let idle = self.signals.iter().filter(|(_, signal)| signal.needs_poll());
            let queues: Vec<(&str, Marks)> = idle.map(|(queue, signal)| (*queue, signal.low_water.get())).collect();
            let checks = async {
                // While every claimer is busy, no statement is needed.
                if queues.is_empty() { Ok(Vec::new()) } else { due::check_due(&self.pool, &queues).await }
            };
            let checks = tokio::select! { checks = checks => checks, () = self.stop.cancelled() => return };
            let polled = Instant::now();
            let (wait, due_times) = match checks {
                Ok(checks) => {
                    failures = 0;
                    self.wake_claimers(&checks, &queues);
                    let due_times = due_times(&checks);
                    let next = due_times.first().map(|(next, _)| *next);
                    if next.is_some_and(|next| next < QUIET_AFTER) || queues.len() < self.signals.len() {
                        last_activity = Instant::now();
                    }
                    is_quiet.store(is_listening.load(SeqCst) && last_activity.elapsed() > QUIET_AFTER, SeqCst);
                    let is_quiet = is_quiet.load(SeqCst);
                    let interval = if is_quiet { self.interval.max(QUIET_INTERVAL) } else { self.interval };
                    (next.map_or(interval, |next| interval.min(next)), due_times)
                }
                Err(error) => {
                    failures += 1;
                    if is_logged(failures) {
                        let error = causes(&error);
                        tracing::warn!(failures, error, "could not poll for due jobs; retrying");
                    }
                    (Backoff::DATABASE.wait(failures).max(self.interval), Vec::new())
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {
                    // Their claims need no poll. The next poll comes when these claims have ended, so it does not wake
                    // the claimers again.
                    for (_, queue) in due_times.into_iter().take_while(|(next, _)| *next <= polled.elapsed()) {
                        self.wake(&queue);
                    }
                }
                () = self.poll_request.notified() => last_activity = Instant::now(),
                () = self.stop.cancelled() => return,
            }
            tokio::select! { () = tokio::time::sleep(MERGE_WINDOW) => {} () = self.stop.cancelled() => return }
        }
    }

    /// Wakes the claimers of queues with due jobs. Raises the marks of the others.
    fn wake_claimers(&self, checks: &[DueCheck], marks: &[(&str, Marks)]) {
        for check in checks {
            if check.is_due {
                self.wake(&check.queue);
            } else if let Some(signal) = self.signals.get(check.queue.as_str())
                && let Some((_, from)) = marks.iter().find(|(queue, _)| *queue == check.queue)
            {
                signal.low_water.nothing_due(*from, check.now);
            }
        }
    }

    fn wake(&self, queue: &str) {
        if let Some(signal) = self.signals.get(queue) {
            signal.wake.notify_one();
        }
    }

    /// Looks for jobs below the marks until `stop`. It has its own pace, so that it delays no poll.
    async fn sweep(&self, is_quiet: &AtomicBool, request: &Notify) {
        let mut pause = self.interval;
        loop {
            tokio::select! { () = tokio::time::sleep(pause) => {} () = self.stop.cancelled() => return }
            let rest = if is_quiet.load(SeqCst) { QUIET_SWEEP_INTERVAL.saturating_sub(pause) } else { Duration::ZERO };
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                () = request.notified() => {}
                () = self.stop.cancelled() => return,
            }
            let queues: Vec<(&str, Marks)> =
                self.signals.iter().map(|(queue, signal)| (*queue, signal.low_water.get())).collect();
            let started = Instant::now();
            let missed = tokio::select! {
                missed = due::find_missed(&self.pool, &queues) => missed,
                () = self.stop.cancelled() => return,
            };
            pause = self.interval.max((started.elapsed() * SWEEP_PAUSE_FACTOR).min(LONGEST_SWEEP_PAUSE));
            match missed {
                Ok(missed) => {
                    for job in missed {
                        if let Some(signal) = self.signals.get(job.queue.as_str()) {
                            signal.low_water.lower(job.priority, job.due);
                            signal.wake.notify_one();
                        }
                    }
                }
                Err(error) => {
                    // Only its time limit shows that the sweep is long. The polls log an outage.
                    if !matches!(error, sqlx::Error::Database(_)) {
                        pause = self.interval.max(SWEEP_RETRY);
                    }
                    tracing::debug!(error = causes(&error), "could not look for jobs below the marks");
                }
            }
        }
    }
}

/// The times from now until the next job of each queue is due, ascending. A negative time means that the job became due
/// during the statement, so it is zero.
fn due_times(checks: &[DueCheck]) -> Vec<(Duration, String)> {
    let next = checks.iter().filter_map(|check| Some((check.next?, check)));
    let mut times: Vec<_> = next
        .map(|(seconds, check)| (Duration::try_from_secs_f64(seconds).unwrap_or_default(), check.queue.clone()))
        .collect();
    times.sort_unstable();
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_claimer_requests_a_skipped_poll_before_it_waits() {
        let (signal, poll_request) = (WakeSignal::default(), Notify::new());
        assert!(!signal.needs_poll(), "the claimer is busy");
        let waiting = signal.wait(&poll_request);
        tokio::pin!(waiting);
        tokio::select! {
            biased;
            () = &mut waiting => panic!("the signal was not notified"),
            () = poll_request.notified() => {}
        }
        assert!(signal.needs_poll());
        signal.wake.notify_one();
        waiting.await;
        assert!(!signal.needs_poll(), "the claimer is busy again");
    }

    #[tokio::test]
    async fn no_poll_is_requested_when_none_was_skipped() {
        let (signal, poll_request) = (WakeSignal::default(), Notify::new());
        signal.wake.notify_one();
        signal.wait(&poll_request).await;
        tokio::select! {
            biased;
            () = poll_request.notified() => panic!("no poll was skipped"),
            () = std::future::ready(()) => {}
        }
    }
}
