//! Counts of what happened in each queue of this process, for operators. They are written per minute into
//! `queue_minutes`, so that a rate or a latency never needs a count of jobs.
//!
//! A count costs one atomic addition. What a process has not written yet when it is killed is missing from the minutes:
//! at most the counts since its last heartbeat. So are the counts of a write whose outcome is unknown. Each event is in the
//! minutes at most once: rates, trends and totals stay lower bounds, and the next count of a queue corrects its depth.
//! Counts that are written twice would stay in the totals. While commits wait for an absent standby, each of them is
//! written but not confirmed, so the same counts would be written every few seconds.
//!
//! The cancellation and the replay of one job are counted in their own transactions instead: the command line may do them, and
//! its process ends before it would write counts.

use std::{
    array,
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use runtime::mutex::lock;

/// The upper edges of the buckets of waits and runs, in seconds. A last bucket has everything above.
pub const BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
const ALL_BUCKETS: usize = BUCKETS.len() + 1;

/// What is counted, in the order of the columns of `queue_minutes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Enqueued,
    Started,
    Done,
    Retried,
    Snoozed,
    Dead,
    Cancelled,
    Rescued,
    Fenced,
}

const EVENTS: usize = 9;

/// Whether this process counts nothing.
#[cfg(feature = "bench")]
static IS_OFF: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Switches off all counts of this process, so that `millrace bench` can measure what they cost.
#[cfg(feature = "bench")]
pub fn switch_off() {
    IS_OFF.store(true, Relaxed);
}

#[cfg(feature = "bench")]
fn is_off() -> bool {
    IS_OFF.load(Relaxed)
}

#[cfg(not(feature = "bench"))]
const fn is_off() -> bool {
    false
}

/// The counts of one queue since they were last taken.
#[derive(Debug, Default)]
pub struct QueueCounts {
    events: [AtomicU64; EVENTS],
    /// The time of all runs that ended, in microseconds.
    run_us: AtomicU64,
    waits: [AtomicU64; ALL_BUCKETS],
    runs: [AtomicU64; ALL_BUCKETS],
}

impl QueueCounts {
    /// Adds to the count of an event.
    pub fn add(&self, event: Event, count: u64) {
        if is_off() {
            return;
        }
        self.events[event as usize].fetch_add(count, Relaxed);
    }

    /// Counts the starts of runs, and how long their jobs had been due, in seconds. Other threads count ends meanwhile, so
    /// that each addition moves the counts between processors: a whole claim is added at once.
    pub fn start(&self, waits: impl Iterator<Item = f64>) {
        if is_off() {
            return;
        }
        let mut started = [0; ALL_BUCKETS];
        waits.for_each(|waited| started[bucket(waited)] += 1);
        for (count, started) in self.waits.iter().zip(started).filter(|(_, started)| *started > 0) {
            count.fetch_add(started, Relaxed);
        }
        self.add(Event::Started, started.iter().sum());
    }

    /// Counts the end of a run by its value of the label `outcome`.
    pub fn end(&self, outcome: &str, run: Duration) {
        if is_off() {
            return;
        }
        self.runs[bucket(run.as_secs_f64())].fetch_add(1, Relaxed);
        self.run_us.fetch_add(u64::try_from(run.as_micros()).unwrap_or(u64::MAX), Relaxed);
        let event = match outcome {
            "done" => Event::Done,
            "retry" => Event::Retried,
            "snooze" => Event::Snoozed,
            "dead" => Event::Dead,
            "cancelled" => Event::Cancelled,
            _ => return,
        };
        self.add(event, 1);
    }
}

fn bucket(seconds: f64) -> usize {
    BUCKETS.iter().position(|edge| seconds <= *edge).unwrap_or(BUCKETS.len())
}

/// The counts of one queue, taken to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    pub queue: String,
    /// By [`Event`].
    pub events: [i64; EVENTS],
    pub run_us: i64,
    pub waits: Vec<i64>,
    pub runs: Vec<i64>,
}

impl Taken {
    /// Events of one kind, without a run.
    pub fn events(queue: &str, event: Event, count: i64) -> Self {
        let mut events = [0; EVENTS];
        events[event as usize] = count;
        Self { queue: queue.to_owned(), events, run_us: 0, waits: vec![0; ALL_BUCKETS], runs: vec![0; ALL_BUCKETS] }
    }

    pub fn count(&self, event: Event) -> i64 {
        self.events[event as usize]
    }
}

/// The counts of all queues of a process. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Counts(Arc<Mutex<BTreeMap<String, Arc<QueueCounts>>>>);

impl Counts {
    /// The counts of a queue.
    pub fn of(&self, queue: &str) -> Arc<QueueCounts> {
        let mut queues = lock(&self.0);
        if let Some(counts) = queues.get(queue) {
            return counts.clone();
        }
        queues.entry(queue.to_owned()).or_default().clone()
    }

    /// Takes the counts that are not zero.
    pub fn take(&self) -> Vec<Taken> {
        let queues = lock(&self.0);
        let take = |count: &AtomicU64| i64::try_from(count.swap(0, Relaxed)).unwrap_or(i64::MAX);
        let taken = queues.iter().map(|(queue, counts)| Taken {
            queue: queue.clone(),
            events: array::from_fn(|event| take(&counts.events[event])),
            run_us: take(&counts.run_us),
            waits: counts.waits.iter().map(take).collect(),
            runs: counts.runs.iter().map(take).collect(),
        });
        taken.filter(|taken| taken.events.iter().chain(&taken.runs).any(|count| *count > 0)).collect()
    }

    /// Adds counts that were certainly not written.
    pub fn put_back(&self, taken: &[Taken]) {
        let add = |counts: &[AtomicU64], more: &[i64]| {
            for (count, more) in counts.iter().zip(more) {
                count.fetch_add(u64::try_from(*more).unwrap_or(0), Relaxed);
            }
        };
        for taken in taken {
            let counts = self.of(&taken.queue);
            add(&counts.events, &taken.events);
            add(std::slice::from_ref(&counts.run_us), &[taken.run_us]);
            add(&counts.waits, &taken.waits);
            add(&counts.runs, &taken.runs);
        }
    }
}

/// Estimates a quantile from counts by bucket: the upper edge of the bucket that contains it, `None` without counts. A
/// value above the last edge is returned as infinite.
pub fn quantile(buckets: &[i64], share: f64) -> Option<f64> {
    let total: i64 = buckets.iter().sum();
    // The number of values is far below 2^52.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    let rank = (total as f64 * share).ceil() as i64;
    let mut seen = 0;
    let at = buckets.iter().position(|count| {
        seen += count;
        seen >= rank && *count > 0
    })?;
    Some(BUCKETS.get(at).copied().unwrap_or(f64::INFINITY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_taken_once_and_can_be_put_back() {
        let counts = Counts::default();
        let queue = counts.of("q");
        assert_eq!(counts.take(), [], "nothing happened");
        queue.start([0.004, 1e9].into_iter());
        queue.end("done", Duration::from_millis(20));
        queue.end("given_back", Duration::ZERO);
        queue.add(Event::Enqueued, 5);
        let taken = counts.take();
        let [one] = &taken[..] else { panic!("one queue: {taken:?}") };
        assert_eq!((one.count(Event::Started), one.count(Event::Done), one.count(Event::Enqueued)), (2, 1, 5));
        assert_eq!((one.waits[0], one.waits[ALL_BUCKETS - 1], one.runs[2], one.runs[0]), (1, 1, 1, 1));
        assert_eq!(counts.take(), []);
        counts.put_back(&taken);
        assert_eq!(counts.take(), taken);
    }

    #[test]
    fn a_quantile_is_the_edge_of_its_bucket() {
        let mut buckets = vec![0; ALL_BUCKETS];
        assert_eq!(quantile(&buckets, 0.99), None);
        buckets[1] = 99;
        buckets[4] = 1;
        assert_eq!(
            (quantile(&buckets, 0.5), quantile(&buckets, 0.99), quantile(&buckets, 1.0)),
            (Some(0.01), Some(0.01), Some(0.1))
        );
        buckets[ALL_BUCKETS - 1] = 1000;
        assert_eq!(quantile(&buckets, 0.99), Some(f64::INFINITY));
    }
}
