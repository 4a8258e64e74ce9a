//! Webhooks at a fixed rate. A client that waits for its response sends fewer webhooks just when the product is slow.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{Reply, Shared};

/// The most requests at once. Others wait for their turn.
const MOST_REQUESTS: usize = 100;
/// After a request that must be repeated, the next one in its place comes this much later.
const RETRY: Duration = Duration::from_millis(200);
/// The most webhooks that wait for a 202. Further ones are left out, and counted.
const MOST_WAITING: usize = 50_000;
/// Between two looks at the clock.
const STEP: Duration = Duration::from_millis(10);
/// More than there are other clients.
const FIRST_CLIENT: usize = 1_000_000;

/// What became of the webhooks of a fixed rate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RateReport {
    /// New webhooks a second that were due.
    pub offered_per_s: u32,
    /// Those that got a 202, divided by the whole time of the load, also that in which no API served.
    pub acknowledged_per_s: f64,
    /// The longest time from the moment at which a webhook was due until its 202, in seconds.
    pub longest_wait_s: f64,
    /// Webhooks that were never sent, because too many others waited.
    pub left_out: usize,
}

/// A load of a fixed rate.
#[derive(Clone)]
pub(super) struct OpenLoop {
    rate: u32,
    begun: Instant,
    counts: Arc<Counts>,
}

struct Counts {
    requests: Semaphore,
    acknowledged: AtomicUsize,
    longest_wait_ms: AtomicU64,
    left_out: AtomicUsize,
}

impl OpenLoop {
    /// A load that begins now.
    pub(super) fn new(rate: u32) -> Self {
        let counts = Counts {
            requests: Semaphore::new(MOST_REQUESTS),
            acknowledged: AtomicUsize::new(0),
            longest_wait_ms: AtomicU64::new(0),
            left_out: AtomicUsize::new(0),
        };
        Self { rate, begun: Instant::now(), counts: Arc::new(counts) }
    }

    /// What became of the load, which lasted this long.
    pub(super) fn report(&self, time: Duration) -> RateReport {
        let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        let longest_wait = Duration::from_millis(self.counts.longest_wait_ms.load(Ordering::Relaxed));
        RateReport {
            offered_per_s: self.rate,
            acknowledged_per_s: count(&self.counts.acknowledged) as f64 / time.as_secs_f64(),
            longest_wait_s: longest_wait.as_secs_f64(),
            left_out: count(&self.counts.left_out),
        }
    }

    /// How long the load lasts so far.
    pub(super) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Sends webhooks until the clients stop.
    pub(super) async fn run(self, shared: Arc<Shared>) {
        let (mut waiting, mut sent) = (JoinSet::new(), 0);
        while !shared.stop.load(Ordering::Relaxed) {
            let due = (self.begun.elapsed().as_secs_f64() * f64::from(self.rate)) as usize;
            while waiting.try_join_next().is_some() {}
            if shared.is_paused.load(Ordering::Relaxed) {
                sent = due;
            }
            for number in sent..due {
                if waiting.len() < MOST_WAITING {
                    waiting.spawn(self.counts.clone().post(shared.clone(), number));
                } else {
                    self.counts.left_out.fetch_add(1, Ordering::Relaxed);
                }
            }
            sent = due;
            tokio::time::sleep(STEP).await;
        }
        while waiting.join_next().await.is_some() {}
    }
}

impl Counts {
    /// Posts one webhook until it has a 202, or the clients stop.
    async fn post(self: Arc<Self>, shared: Arc<Shared>, number: usize) {
        let (begun, id) = (Instant::now(), format!("rate-{number}"));
        loop {
            let Ok(_request) = self.requests.acquire().await else { return };
            match shared.post(FIRST_CLIENT + number, &id, 0).await {
                Reply::Acknowledged => break,
                Reply::Refused => return,
                Reply::Again if shared.stop.load(Ordering::Relaxed) => return,
                // While no API responds, the requests that are kept here limit the attempts.
                Reply::Again => tokio::time::sleep(RETRY).await,
            }
        }
        let waited = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        self.longest_wait_ms.fetch_max(waited, Ordering::Relaxed);
    }
}
