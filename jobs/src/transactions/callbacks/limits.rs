//! How many calls a destination may have at once, so that receivers that hang cannot take all slots of a worker.
//!
//! A receiver that begins to hang looks like all others for a second. So beyond half of the slots, the limit of every
//! destination falls with the slots that are free: many receivers that hang at once leave slots to the next one.
//!
//! The limits count the calls of this process only. [`Limit::begin`] is their whole interface: a limit that the queue applies
//! when it claims can take its place.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::Instant;

use runtime::mutex::lock;

/// Callbacks that are sent at once in one worker: the slots of its queue. 1,000 callbacks a second to receivers that respond
/// in 500 ms need half of them. Each costs a connection, but no thread.
pub(super) const SLOTS: usize = 1024;
/// Calls that a destination may have before its receiver has responded, and after a failure.
pub(super) const INITIAL: usize = 16;
/// The most calls of one destination. It gets from [`INITIAL`] to here while its receiver responds.
pub(super) const MOST: usize = 128;
/// While so many calls run in a worker, no destination gets more than its [`share`].
const SHARED: usize = SLOTS / 2;
/// A call that takes longer is slow.
const SLOW: Duration = Duration::from_secs(1);
/// While so many slow calls run in a worker, destinations that are slow or failing get no further one. So receivers that hang
/// have this many slots together, and those calls that began before the first one was slow.
const SLOW_CALLS: usize = SLOTS / 16;
/// The duration of a call before the first one has ended.
const FIRST_GUESS: Duration = Duration::from_millis(100);
/// The range of the time that a callback waits for its turn. A shorter wait would cost more claims than it saves time.
const LEAST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// The most calls of one destination while at least [`SHARED`] calls run: [`INITIAL`] while half of the slots are free, half as
/// many while a quarter is, and always one.
fn share(running: usize) -> usize {
    let free = SLOTS.saturating_sub(running);
    (INITIAL * free / (SLOTS - SHARED)).max(1)
}

/// The calls of one worker.
#[derive(Debug, Clone, Default)]
pub(super) struct WorkerCalls(Arc<Mutex<Running>>);

/// The calls that run, by number: the first one is the oldest.
#[derive(Debug, Default)]
struct Running {
    begun: BTreeMap<u64, Instant>,
    next: u64,
}

impl Running {
    fn slow(&self, now: Instant) -> usize {
        self.begun.values().take_while(|begun| now - **begun >= SLOW).count()
    }
}

/// The limit of one destination.
#[derive(Debug)]
pub(super) struct Limit {
    worker: WorkerCalls,
    own: Mutex<Own>,
}

/// The calls of one destination.
#[derive(Debug)]
struct Own {
    begun: BTreeMap<u64, Instant>,
    /// The most calls at once while the receiver responds.
    window: usize,
    /// Whether the last call that ended has failed.
    is_failing: bool,
    /// The moving average of the durations.
    duration: Duration,
    /// Callbacks that wait for their turn, as of `counted`. They leave at the rate at which calls end.
    line: f64,
    counted: Instant,
}

/// A call that runs. It ends without a result when it is dropped, such as when its job is aborted.
#[derive(Debug)]
pub(super) struct Call<'l> {
    limit: &'l Limit,
    number: u64,
    begun: Instant,
}

impl Limit {
    /// Creates the limit of a destination whose calls are among those of this worker.
    pub(super) fn new(worker: &WorkerCalls) -> Self {
        let own = Own {
            begun: BTreeMap::new(),
            window: INITIAL,
            is_failing: false,
            duration: FIRST_GUESS,
            line: 0.0,
            counted: Instant::now(),
        };
        Self { worker: worker.clone(), own: Mutex::new(own) }
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        lock(&self.own)
    }

    /// Begins a call, without waiting for one to end.
    ///
    /// # Errors
    /// How long a callback waits until its turn comes, if as many calls run as may.
    pub(super) fn begin(&self) -> Result<Call<'_>, Duration> {
        let now = Instant::now();
        let mut own = self.own();
        let mut running = lock(&self.worker.0);
        if !own.may_begin(&running, now) {
            return Err(own.line_up(now));
        }
        let number = running.next;
        running.next += 1;
        running.begun.insert(number, now);
        own.begun.insert(number, now);
        Ok(Call { limit: self, number, begun: now })
    }
}

impl Own {
    fn may_begin(&self, running: &Running, now: Instant) -> bool {
        let is_slow = self.is_failing || self.oldest(now) >= SLOW;
        let calls = running.begun.len();
        let most = if calls >= SHARED {
            share(calls)
        } else if is_slow {
            INITIAL
        } else {
            self.window
        };
        self.begun.len() < most && !(is_slow && running.slow(now) >= SLOW_CALLS)
    }

    /// The age of the oldest call that runs.
    fn oldest(&self, now: Instant) -> Duration {
        self.begun.first_key_value().map_or(Duration::ZERO, |(_, begun)| now - *begun)
    }

    /// Counts another callback that waits. Returns when its turn comes: a burst comes back at the rate at which it can be sent.
    fn line_up(&mut self, now: Instant) -> Duration {
        let per_call = self.duration.max(self.oldest(now)).as_secs_f64() / self.window as f64;
        // A turn takes at least a microsecond.
        let per_call = per_call.max(1e-6);
        self.line = (self.line - (now - self.counted).as_secs_f64() / per_call).max(0.0) + 1.0;
        self.counted = now;
        let wait = Duration::try_from_secs_f64(self.line * per_call).unwrap_or(LONGEST_WAIT);
        wait.clamp(LEAST_WAIT, LONGEST_WAIT)
    }
}

impl Call<'_> {
    /// Ends the call, and records its duration and whether the receiver is up.
    pub(super) fn end(self, is_up: bool) {
        let took = self.begun.elapsed();
        let mut own = self.limit.own();
        own.duration = (own.duration * 7 + took) / 8;
        own.is_failing = !is_up;
        if !is_up {
            own.window = INITIAL;
        } else if own.begun.len() >= own.window {
            own.window = (own.window + 1).min(MOST);
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.limit.own().begun.remove(&self.number);
        lock(&self.limit.worker.0).begun.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    /// Begins as many calls as the limit allows.
    fn fill(limit: &Limit) -> Vec<Call<'_>> {
        std::iter::from_fn(|| limit.begin().ok()).collect()
    }

    /// Ends one call with this result, and the others without any.
    fn end(mut calls: Vec<Call<'_>>, is_up: bool) {
        calls.pop().expect("a call").end(is_up);
    }

    /// A destination whose receiver has responded often enough for the most calls.
    fn healthy(worker: &WorkerCalls) -> Limit {
        let limit = Limit::new(worker);
        while limit.own().window < MOST {
            end(fill(&limit), true);
        }
        limit
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_responds_gets_more_calls_and_one_that_fails_the_initial_ones() {
        let limit = Limit::new(&WorkerCalls::default());
        assert_eq!(fill(&limit).len(), INITIAL);
        end((0..INITIAL / 2).map(|_| limit.begin().expect("a call")).collect(), true);
        assert_eq!(fill(&limit).len(), INITIAL, "more are not needed");
        let limit = healthy(&WorkerCalls::default());
        assert_eq!(fill(&limit).len(), MOST);
        end(fill(&limit), false);
        assert_eq!(fill(&limit).len(), INITIAL);
        end(vec![limit.begin().expect("a call")], true);
        assert_eq!(fill(&limit).len(), INITIAL, "it begins again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_hangs_gets_no_more_than_the_initial_calls() {
        let limit = healthy(&WorkerCalls::default());
        let calls: Vec<_> = (0..INITIAL).map(|_| limit.begin().expect("a call")).collect();
        advance(SLOW).await;
        assert!(limit.begin().is_err());
        drop(calls);
        assert!(limit.begin().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn receivers_that_hang_leave_slots_for_all_others() {
        let worker = WorkerCalls::default();
        let hanging: Vec<_> = (0..50).map(|_| Limit::new(&worker)).collect();
        let mut calls = Vec::new();
        // Each second every one of them gets another callback.
        for _ in 0..60 {
            for limit in &hanging {
                calls.extend(limit.begin());
            }
            advance(SLOW).await;
        }
        assert_eq!(calls.len(), 100, "50 in the first second, 50 in the next one, when 50 slow calls run");
        let other = healthy(&worker);
        assert_eq!(fill(&other).len(), MOST);
    }

    /// Each has a burst in the same moment, before any call is slow.
    #[tokio::test(start_paused = true)]
    async fn receivers_that_hang_at_once_leave_slots_for_all_others() {
        for (hanging, left) in [(32, 15), (40, 12), (64, 6), (100, 2), (128, 1)] {
            let worker = WorkerCalls::default();
            let limits: Vec<_> = (0..hanging).map(|_| Limit::new(&worker)).collect();
            let calls: Vec<_> = limits.iter().flat_map(fill).collect();
            assert!(limits.iter().all(|limit| !limit.own().begun.is_empty()), "{hanging}: each has a call");
            assert!(calls.len() < SLOTS, "{hanging}");
            assert_eq!(fill(&Limit::new(&worker)).len(), left, "{hanging}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn large_destinations_leave_half_of_the_slots_to_others() {
        let worker = WorkerCalls::default();
        let large: Vec<_> = (0..6).map(|_| healthy(&worker)).collect();
        let calls: Vec<_> = large.iter().flat_map(fill).collect();
        assert_eq!(calls.len(), SHARED + 2 * 15, "four have all, and two have a share of the free slots");
        assert_eq!(fill(&Limit::new(&worker)).len(), 14);
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_comes_back_at_the_rate_at_which_it_can_be_sent() {
        let limit = Limit::new(&WorkerCalls::default());
        let calls = fill(&limit);
        // 16 calls of 100 ms are 160 a second.
        let waits: Vec<Duration> = (0..1600).filter_map(|_| limit.begin().err()).collect();
        assert_eq!(waits[0], LEAST_WAIT);
        assert!(waits.is_sorted() && (9.9..=10.1).contains(&waits[1599].as_secs_f64()), "{:?}", waits[1599]);
        advance(Duration::from_secs(5)).await;
        // They hang: the line gets shorter by 16 in 5 s.
        let wait = limit.begin().expect_err("as many run as may");
        assert!((490.0..=500.0).contains(&wait.as_secs_f64()), "{wait:?}");
        advance(Duration::from_secs(3600)).await;
        assert_eq!(limit.begin().err(), Some(LONGEST_WAIT));
        drop(calls);
        assert!(limit.begin().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_line_is_shorter_when_the_receiver_is_faster_again() {
        let limit = Limit::new(&WorkerCalls::default());
        let calls = fill(&limit);
        advance(Duration::from_secs(10)).await;
        for _ in 0..160 {
            assert!(limit.begin().is_err());
        }
        calls.into_iter().for_each(|call| call.end(true));
        for _ in 0..100 {
            let call = limit.begin().expect("a call");
            advance(Duration::from_millis(10)).await;
            call.end(true);
        }
        let _calls = fill(&limit);
        assert_eq!(limit.begin().err(), Some(LEAST_WAIT), "160 had their turn in the second of these calls");
    }
}
