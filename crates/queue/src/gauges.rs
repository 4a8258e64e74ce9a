//! How much is in each queue, how late it is, and who is there to run it: measured when `/metrics` is read.
//!
//! Every process that serves `/metrics` measures for itself, API and worker: that no worker lives must be said by
//! another process. So all of them say the same, and rules take `max`, never `sum`. What could not be measured is
//! absent: a 0 would say that there is nothing, and end an alert.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use sqlx::PgPool;
use tokio::time::timeout;

use super::{metrics::known, status::COUNTED, store::gauges as sql};
use runtime::error::causes;

/// Readers within this time share one measurement.
const FRESH: Duration = Duration::from_secs(2);
/// When measuring fails, what was measured this long ago is still shown, and when that was.
const KEPT: Duration = Duration::from_secs(60);
/// A reader waits for a measurement no longer: Prometheus gives up after 10 s, by default.
const PATIENCE: Duration = Duration::from_secs(2);

/// The gauges of all queues, for one process. Clones share their measurements.
#[derive(Clone)]
pub struct Gauges {
    pool: PgPool,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Held by the one that measures.
    measuring: tokio::sync::Mutex<()>,
    latest: Mutex<Latest>,
}

#[derive(Default)]
struct Latest {
    measured: Option<Measurement>,
    /// When measuring last failed. It is tried again after a while, and logged once an outage.
    failed: Option<Instant>,
}

struct Measurement {
    queues: Vec<sql::Measured>,
    taken: Instant,
    /// The same, for readers.
    unix_seconds: f64,
}

impl Gauges {
    /// Nothing is measured before the first read.
    pub fn new(pool: &PgPool) -> Self {
        Self { pool: pool.clone(), shared: Arc::default() }
    }

    /// All gauges in Prometheus' text format, measured now or a moment ago.
    pub async fn render(&self) -> String {
        // A task of its own: a reader that gives up does not leave a statement half-read on its session.
        let measuring = tokio::spawn(self.clone().measure());
        let _ = timeout(PATIENCE, measuring).await;
        let mut text = String::new();
        // Writing to a String never fails.
        let _ = render(&mut text, self.shared.latest().measured.as_ref(), &self.pool);
        text
    }

    async fn measure(self) {
        let _one = self.shared.measuring.lock().await;
        if !self.shared.latest().is_wanted() {
            return;
        }
        let taken = Instant::now();
        let measured = sql::measure(&self.pool, &known(), COUNTED).await;
        let mut latest = self.shared.latest();
        match measured {
            Ok(queues) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                latest.measured = Some(Measurement { queues, taken, unix_seconds: now.as_secs_f64() });
                latest.failed = None;
            }
            Err(error) => {
                if latest.failed.replace(Instant::now()).is_none() {
                    let error = causes(&error);
                    tracing::warn!(error, "cannot measure the queues; trying again when /metrics is read");
                }
            }
        }
    }
}

impl Shared {
    fn latest(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Latest {
    /// Whether a reader wants another measurement.
    fn is_wanted(&self) -> bool {
        let is_old = self.measured.as_ref().is_none_or(|measured| measured.taken.elapsed() >= FRESH);
        is_old && self.failed.is_none_or(|failed| failed.elapsed() >= FRESH)
    }
}

/// What one series says of a queue.
type Value = fn(&sql::Measured) -> f64;

fn render(text: &mut String, measured: Option<&Measurement>, pool: &PgPool) -> std::fmt::Result {
    let name = "millrace_db_pool_connections";
    let help = "Sessions of the pool that the features of this process share, by state: idle or used.";
    head(text, name, "gauge", help)?;
    // Both are read without a lock, so idle may be ahead by one.
    let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
    writeln!(text, "{name}{{state=\"idle\"}} {idle}")?;
    writeln!(text, "{name}{{state=\"used\"}} {}", pool.size().saturating_sub(idle))?;

    let Some(measured) = measured else { return Ok(()) };
    let name = "millrace_queue_measured_timestamp_seconds";
    head(text, name, "gauge", "When this process last measured the queues; absent before it has.")?;
    writeln!(text, "{name} {}", measured.unix_seconds)?;
    if measured.taken.elapsed() > KEPT {
        return Ok(());
    }
    let name = "millrace_queue_depth";
    let help = "Jobs by state: waiting, due (those of the waiting whose time has come) and running. Counted up to 10000, \
                which then means at least as many. The same from every process.";
    head(text, name, "gauge", help)?;
    for queue in &measured.queues {
        for (state, jobs) in [("waiting", queue.waiting), ("due", queue.due), ("running", queue.running)] {
            writeln!(text, "{name}{{queue=\"{}\",state=\"{state}\"}} {jobs}", queue.queue)?;
        }
    }
    let each: [(&str, &str, &str, Value); 4] = [
        (
            "millrace_queue_oldest_age_seconds",
            "gauge",
            "For how long the first waiting job has been due; 0 when none is. The same from every process.",
            |queue| queue.late,
        ),
        (
            "millrace_queue_paused",
            "gauge",
            "1 while an operator has paused the queue, otherwise 0. The same from every process.",
            |queue| f64::from(u8::from(queue.paused)),
        ),
        (
            "millrace_dead_jobs",
            "gauge",
            "Dead letters, counted up to 10000; cancelled jobs are not among them. The same from every process.",
            |queue| queue.dead as f64,
        ),
        (
            "millrace_jobs_cancelled_total",
            "counter",
            "Jobs that operators have cancelled, counted in the database. The same from every process.",
            |queue| queue.cancelled as f64,
        ),
    ];
    for (name, kind, help, value) in each {
        head(text, name, kind, help)?;
        for queue in &measured.queues {
            writeln!(text, "{name}{{queue=\"{}\"}} {}", queue.queue, value(queue))?;
        }
    }
    if let Some(queue) = measured.queues.first() {
        let name = "millrace_workers_live";
        head(text, name, "gauge", "Workers whose lease stands. The same from every process.")?;
        writeln!(text, "{name} {}", queue.workers)?;
    }
    Ok(())
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}")
}
