//! When to look for work: at once on a notification, at a job's due time, and every poll interval behind both.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    CANCELLATIONS, CHANNEL,
    cancel::Cancellations,
    retry::Backoff,
    store::{self, DueCheck},
};
use runtime::{
    db::Database,
    error::causes,
    listen::{ListenEvent, listen},
};

/// Due times closer together than this are looked up together: at 1,000 due times a second, a look-up and a claim for
/// each would cost more than the jobs.
const TOGETHER: Duration = Duration::from_millis(5);
/// After this long without news a worker that hears notifications checks less often: they are what finds new jobs, and
/// the look is for the one whose sender died between its commit and its announcement.
const QUIET: Duration = Duration::from_secs(5);
/// Between two checks then: an idle worker asks less than two statements a second, all in all.
const QUIET_POLL: Duration = Duration::from_secs(2);

/// Between the pacer and the claimer of one queue.
#[derive(Default)]
pub struct WakeSignal {
    /// Rung when the queue may have due jobs.
    pub ring: Notify,
    /// The claimer waits for it. One that does not is about to claim, and will find by itself what a look would find;
    /// beside a busy one, checks took a seventh of the database's time.
    waits: AtomicBool,
    /// A look was left out.
    missed: AtomicBool,
}

impl WakeSignal {
    /// Waits for the ring.
    pub async fn rung(&self, look: &Notify) {
        self.waits.store(true, SeqCst);
        if self.missed.swap(false, SeqCst) {
            look.notify_one();
        }
        self.ring.notified().await;
        self.waits.store(false, SeqCst);
    }

    /// Whether the claimer waits. If not, it asks for a look when it does: between the two, one sees the other.
    fn is_waited_for(&self) -> bool {
        self.missed.store(true, SeqCst);
        let waits = self.waits.load(SeqCst);
        if waits {
            self.missed.store(false, SeqCst);
        }
        waits
    }
}

/// Rings the signal of each queue that has due jobs.
pub struct Poller {
    pub pool: PgPool,
    pub poll: Duration,
    pub signals: HashMap<&'static str, Arc<WakeSignal>>,
    /// Asks for a look.
    pub look: Arc<Notify>,
    pub cancellations: Arc<Cancellations>,
    pub stop: CancellationToken,
}

impl Poller {
    /// Rings until `stop`: one statement per look, however many queues.
    pub async fn run(self, database: Database) {
        let hears = AtomicBool::new(false);
        tokio::join!(self.listen(&database, &hears), self.watch_due_times(&hears));
    }

    async fn listen(&self, database: &Database, hears: &AtomicBool) {
        listen(database, CHANNEL, &self.stop, |heard| match heard {
            ListenEvent::Notification(news) if news == CANCELLATIONS => self.cancellations.signal.notify_one(),
            ListenEvent::Notification(queue) => {
                // The signal for what is due now, the look for what is due soon.
                if let Some(signal) = self.signals.get(queue.as_str()) {
                    signal.ring.notify_one();
                }
                self.look.notify_one();
            }
            ListenEvent::Connected => {
                hears.store(true, SeqCst);
                self.look.notify_one();
                self.cancellations.signal.notify_one();
            }
            ListenEvent::Disconnected => {
                hears.store(false, SeqCst);
                self.look.notify_one();
            }
        })
        .await;
    }

    async fn watch_due_times(&self, hears: &AtomicBool) {
        let (mut failures, mut news) = (0, Instant::now());
        while !self.stop.is_cancelled() {
            let waiting = self.signals.iter().filter(|(_, signal)| signal.is_waited_for());
            let queues: Vec<String> = waiting.map(|(queue, _)| (*queue).to_owned()).collect();
            let checks = async {
                // Without a queue there is no question.
                if queues.is_empty() { Ok(Vec::new()) } else { store::look(&self.pool, &queues).await }
            };
            let checks = tokio::select! { checks = checks => checks, () = self.stop.cancelled() => return };
            let wait = match checks {
                Ok(checks) => {
                    failures = 0;
                    let next = self.ring(&checks);
                    if next.is_some_and(|next| next < QUIET) || queues.len() < self.signals.len() {
                        news = Instant::now();
                    }
                    let quiet = hears.load(SeqCst) && news.elapsed() > QUIET;
                    let poll = if quiet { self.poll.max(QUIET_POLL) } else { self.poll };
                    next.map_or(poll, |next| poll.min(next.max(TOGETHER)))
                }
                Err(error) => {
                    failures += 1;
                    // Not each time: an outage is not worth a line every two seconds.
                    if u32::is_power_of_two(failures) {
                        let error = causes(&error);
                        tracing::warn!(failures, error, "could not look for due jobs; trying again");
                    }
                    Backoff::DATABASE.wait(failures).max(self.poll)
                }
            };
            tokio::select! {
                () = async {
                    tokio::time::sleep(TOGETHER.min(wait)).await;
                    tokio::select! {
                        () = tokio::time::sleep(wait.saturating_sub(TOGETHER)) => {}
                        () = self.look.notified() => news = Instant::now(),
                    }
                } => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// Rings for what is due, and answers when the next job will be, if one is known of.
    fn ring(&self, checks: &[DueCheck]) -> Option<Duration> {
        for look in checks.iter().filter(|look| look.is_due) {
            if let Some(signal) = self.signals.get(look.queue.as_str()) {
                signal.ring.notify_one();
            }
        }
        // What is due in this moment has come since the statement began: soon, then.
        let next = checks.iter().filter_map(|look| look.next);
        next.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_look_that_was_left_out_is_made_up_when_the_claimer_waits() {
        let (signal, look) = (WakeSignal::default(), Notify::new());
        assert!(!signal.is_waited_for(), "its claimer claims");
        let waiting = signal.rung(&look);
        tokio::pin!(waiting);
        tokio::select! {
            biased;
            () = &mut waiting => panic!("nobody has rung"),
            () = look.notified() => {}
        }
        assert!(signal.is_waited_for());
        signal.ring.notify_one();
        waiting.await;
        assert!(!signal.is_waited_for(), "it claims again");
    }

    #[tokio::test]
    async fn no_look_is_asked_for_when_none_was_left_out() {
        let (signal, look) = (WakeSignal::default(), Notify::new());
        signal.ring.notify_one();
        signal.rung(&look).await;
        tokio::select! {
            biased;
            () = look.notified() => panic!("a look for nothing"),
            () = std::future::ready(()) => {}
        }
    }
}
