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
    due_timer::sleep_until,
    low_water::{LowWater, Marks},
    pace::Pace,
    retry::Backoff,
    store::due::{self, DueCheck},
    worker_status::WorkerStatus,
};
use runtime::{
    db::{Database, Pool},
    error::{causes, is_logged},
    listen::{ListenEvent, listen},
    sabotage::{self, Bug},
    writable,
};

/// While polls are requested frequently, one comes in this time: due times between two polls share one. With 1,000 due times a
/// second, a poll and a claim for each would cost more than the jobs.
const POLL_EVERY: Duration = Duration::from_millis(5);
/// A poll for jobs that are due soon comes within this time after the one before: sooner than any of them is due.
const SOON_POLL_EVERY: Duration = Duration::from_millis(25);
/// After this time without activity, a worker that receives notifications polls less often. It then polls only for jobs
/// whose sender crashed between its commit and its notification.
const QUIET_AFTER: Duration = Duration::from_secs(5);
/// The poll interval of such a worker. Each of these polls is also a probe, and the next one comes before another probe
/// would be due: a separate probe for each poll would be half a statement a second. An idle worker sends less than two
/// statements a second in total.
const QUIET_INTERVAL: Duration = writable::PROBE_EVERY.saturating_sub(Duration::from_millis(100));
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
    /// The claimer is to check for lost claims before its next claim.
    lost_claim_check: AtomicBool,
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

    /// Wakes the claimer, which counts as busy from now on.
    fn notify(&self) {
        self.is_idle.store(false, SeqCst);
        self.wake.notify_one();
    }

    /// Wakes the claimer, and makes it check for lost claims first.
    pub(crate) fn request_lost_claim_check(&self) {
        self.lost_claim_check.store(true, SeqCst);
        self.notify_and_poll();
    }

    /// Whether a check for lost claims was requested since the last call.
    pub(crate) fn take_lost_claim_check(&self) -> bool {
        self.lost_claim_check.swap(false, SeqCst)
    }

    /// Wakes the claimer. It requests a poll before it waits again, because the next due time is not known.
    fn notify_and_poll(&self) {
        self.poll_skipped.store(true, SeqCst);
        self.notify();
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
        let (is_quiet, soon_request, sweep_request) = (AtomicBool::new(false), Notify::new(), Notify::new());
        tokio::join!(
            self.listen(&database, &soon_request, &sweep_request),
            self.poll_due_times(&is_quiet, &soon_request),
            self.sweep(&is_quiet, &sweep_request),
        );
    }

    async fn listen(&self, database: &Database, soon_request: &Notify, sweep_request: &Notify) {
        listen(database, CHANNEL, &self.stop, |event| match event {
            ListenEvent::Notification(payload) if payload == CANCELLATIONS => self.cancellations.signal.notify_one(),
            ListenEvent::Notification(queue) => {
                match self.signals.get(queue.as_str()) {
                    Some(signal) => signal.notify_and_poll(),
                    // Jobs that are due soon, or jobs of another worker.
                    None => soon_request.notify_one(),
                }
                sweep_request.notify_one();
            }
            ListenEvent::Connected => {
                self.status.is_listening.store(true, SeqCst);
                if !sabotage::planted(Bug::NoRecheckAfterListen) {
                    self.poll_request.notify_one();
                }
                self.cancellations.signal.notify_one();
            }
            ListenEvent::Disconnected => {
                self.status.is_listening.store(false, SeqCst);
                self.poll_request.notify_one();
            }
        })
        .await;
    }

    async fn poll_due_times(&self, is_quiet: &AtomicBool, soon_request: &Notify) {
        let (mut failures, mut last_activity) = (0, Instant::now());
        let mut pace = Pace::new(POLL_EVERY);
        while !self.stop.is_cancelled() {
            pace.count(Instant::now());
            let idle = self.signals.iter().filter(|(_, signal)| signal.needs_poll());
            let queues: Vec<(&str, Marks)> = idle.map(|(queue, signal)| (*queue, signal.low_water.get())).collect();
            let checks = async {
                // While every claimer is busy, no statement is needed.
                if queues.is_empty() { Ok(Vec::new()) } else { due::check_due(&self.pool, &queues).await }
            };
            let checks = tokio::select! { checks = checks => checks, () = self.stop.cancelled() => return };
            let polled = Instant::now();
            let (wait, mut due_times) = match checks {
                Ok(checks) => {
                    failures = 0;
                    let is_read_only = checks.iter().any(|check| check.is_read_only);
                    if is_quiet.load(SeqCst) && !checks.is_empty() {
                        writable::record_probe(is_read_only);
                    }
                    self.wake_claimers(&checks, &queues);
                    let due_times = due_times(&checks, polled);
                    let is_next_near = due_times.last().is_some_and(|(next, _)| *next < polled + QUIET_AFTER);
                    if is_next_near || queues.len() < self.signals.len() {
                        last_activity = Instant::now();
                    }
                    // After a failover the next poll comes soon, because another session may reach the new primary.
                    let is_calm = last_activity.elapsed() > QUIET_AFTER && !is_read_only;
                    let is_now_quiet = self.status.is_listening.load(SeqCst) && is_calm;
                    is_quiet.store(is_now_quiet, SeqCst);
                    (if is_now_quiet { self.interval.max(QUIET_INTERVAL) } else { self.interval }, due_times)
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
            let mut poll_at = polled + wait;
            while Instant::now() < poll_at {
                let next = due_times.last().map_or(poll_at, |(due, _)| poll_at.min(*due));
                let soonest = tokio::select! {
                    () = sleep_until(next) => None,
                    () = self.poll_request.notified() => Some(polled),
                    () = soon_request.notified() => Some(polled + SOON_POLL_EVERY),
                    () = self.stop.cancelled() => return,
                };
                let now = Instant::now();
                if let Some(soonest) = soonest {
                    last_activity = now;
                    poll_at = poll_at.min(soonest.max(pace.next(now)));
                }
                // Their claims need no poll. The next poll comes when these claims have ended, so it does not wake the
                // claimers again.
                while let Some((_, queue)) = due_times.pop_if(|(due, _)| *due <= now) {
                    if let Some(signal) = self.signals.get(queue.as_str()) {
                        signal.notify_and_poll();
                    }
                }
            }
        }
    }

    /// Wakes the claimers of queues with due jobs. Raises the marks of the others.
    fn wake_claimers(&self, checks: &[DueCheck], marks: &[(&str, Marks)]) {
        for check in checks {
            let Some(signal) = self.signals.get(check.queue.as_str()) else { continue };
            if check.is_due {
                // The next due time is known from the same poll.
                signal.notify();
            } else if let Some((_, from)) = marks.iter().find(|(queue, _)| *queue == check.queue) {
                signal.low_water.nothing_due(*from, check.now);
            }
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
            let look = due::find_missed(&self.pool, &queues);
            let Some(missed) = self.stop.run_until_cancelled(look).await else { return };
            pause = self.interval.max((started.elapsed() * SWEEP_PAUSE_FACTOR).min(LONGEST_SWEEP_PAUSE));
            match missed {
                Ok(missed) => {
                    for job in missed {
                        if let Some(signal) = self.signals.get(job.queue.as_str()) {
                            signal.low_water.lower(job.priority, job.due);
                            signal.notify();
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

/// When the next job of each queue is due, the earliest last. A negative time means that the job became due during the
/// statement, so it is due now.
fn due_times(checks: &[DueCheck], now: Instant) -> Vec<(Instant, String)> {
    let next = checks.iter().filter_map(|check| Some((check.next?, check)));
    let mut times: Vec<_> = next
        .map(|(seconds, check)| (now + Duration::try_from_secs_f64(seconds).unwrap_or_default(), check.queue.clone()))
        .collect();
    times.sort_unstable();
    times.reverse();
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
