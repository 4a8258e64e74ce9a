//! How much is in each queue, how late it is, and who is there to run it: measured every few seconds for `/metrics`, for
//! as long as somebody reads them.
//!
//! Every process that serves `/metrics` measures for itself, API and worker: that no worker lives must be told by
//! somebody else. So all of them tell the same, and whoever reads takes `max`, never `sum`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use metrics::{Unit, describe_gauge, gauge};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::{metrics::known, status::COUNTED, store::gauges as sql};
use crate::{
    boot::{db::answered, telemetry},
    error::causes,
};

const DEPTH: &str = "millrace_queue_depth";
const OLDEST: &str = "millrace_queue_oldest_age_seconds";
const DEAD: &str = "millrace_dead_jobs";
const WORKERS: &str = "millrace_workers_live";
const MEASURED: &str = "millrace_queue_measured_timestamp_seconds";
const SESSIONS: &str = "millrace_db_pool_connections";

/// Between two measurements: more often than anybody scrapes.
const EVERY: Duration = Duration::from_secs(5);
/// Four times the usual pause between scrapes. Whoever comes after a longer one reads what was measured last, and when.
const WATCHED: Duration = Duration::from_secs(60);

/// Measures the queues of one process. Clones are the same: however many run, one measures.
#[derive(Clone)]
pub struct Gauges {
    pool: PgPool,
    stop: CancellationToken,
    taken: Arc<AtomicBool>,
}

impl Gauges {
    /// Shows every gauge at 0; nothing is measured before [`Gauges::run`].
    pub fn new(pool: &PgPool, stop: CancellationToken) -> Self {
        describe();
        for queue in known() {
            show(&sql::Measured { queue, waiting: 0, due: 0, running: 0, dead: 0, late: 0.0, workers: 0 });
        }
        gauge!(MEASURED).set(0.0);
        show_sessions(pool);
        Self { pool: pool.clone(), stop, taken: Arc::default() }
    }

    /// Measures until the stop; returns at once when another clone does already.
    pub async fn run(self) {
        if self.taken.swap(true, Ordering::SeqCst) {
            return;
        }
        // Also in the middle of a measurement: a database that hangs must not hold up the stop.
        tokio::select! { () = self.measure() => {} () = self.stop.cancelled() => {} }
    }

    async fn measure(&self) {
        let queues = known();
        let mut failing = false;
        loop {
            show_sessions(&self.pool);
            match answered(sql::measure(&self.pool, &queues, COUNTED)).await {
                Ok(all) => {
                    all.iter().for_each(show);
                    gauge!(MEASURED).set(unix_seconds());
                    failing = false;
                }
                // Once an outage. The gauges stay where they were, and when that was is a gauge too.
                Err(error) if !failing => {
                    tracing::warn!(error = causes(&error), "cannot measure the queues; trying again");
                    failing = true;
                }
                Err(_) => {}
            }
            // An idle system must ask its database next to nothing.
            loop {
                tokio::time::sleep(EVERY).await;
                if telemetry::is_read(WATCHED) {
                    break;
                }
            }
        }
    }
}

fn describe() {
    describe_gauge!(
        DEPTH,
        "Jobs by state: waiting, due (those of the waiting whose time has come) and running. Counted up to 10000, which \
         then means at least as many. The same from every process."
    );
    describe_gauge!(
        OLDEST,
        Unit::Seconds,
        "For how long the first waiting job has been due; 0 when none is. The same from every process."
    );
    describe_gauge!(DEAD, "Dead letters, counted up to 10000. The same from every process.");
    describe_gauge!(WORKERS, "Workers whose lease stands. The same from every process.");
    describe_gauge!(MEASURED, Unit::Seconds, "When this process last measured the queues; 0: not yet.");
    describe_gauge!(SESSIONS, "Sessions of the pool that the features of this process share, by state: idle or used.");
}

fn show(measured: &sql::Measured) {
    let queue = &measured.queue;
    for (state, jobs) in [("waiting", measured.waiting), ("due", measured.due), ("running", measured.running)] {
        gauge!(DEPTH, "queue" => queue.clone(), "state" => state).set(jobs as f64);
    }
    gauge!(OLDEST, "queue" => queue.clone()).set(measured.late);
    gauge!(DEAD, "queue" => queue.clone()).set(measured.dead as f64);
    gauge!(WORKERS).set(measured.workers as f64);
}

fn show_sessions(pool: &PgPool) {
    // Both are read without a lock, so idle may be ahead by one.
    let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
    gauge!(SESSIONS, "state" => "idle").set(idle);
    gauge!(SESSIONS, "state" => "used").set(pool.size().saturating_sub(idle));
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
