//! The gauges of the queues: depth, delay and live workers, measured when `/metrics` is read.
//!
//! Every API and worker process measures for itself, because only another process can report that no worker is alive.
//! So all processes report the same values, and rules use `max`, never `sum`. A gauge that could not be measured is
//! absent: a 0 would mean that there is nothing, and end an alert.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use tokio::time::timeout;

use super::{metrics::queue_names, operator::scale::workers_needed, status::COUNTED, store::gauges as sql};
use runtime::{db::Pool, error::causes, mutex::lock};

/// Readers within this time share one measurement.
const FRESH: Duration = Duration::from_secs(2);
/// While measuring fails, older values are shown for this long, together with their time.
const MAX_AGE: Duration = Duration::from_secs(60);
/// How long a reader waits for a measurement. Prometheus gives up after 10 s by default.
const READER_LIMIT: Duration = Duration::from_secs(2);

/// The queue gauges of one process. Clones share their measurements.
#[derive(Clone)]
pub struct Gauges {
    pool: Pool,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Locked during a measurement.
    measuring: tokio::sync::Mutex<()>,
    latest: Mutex<Latest>,
}

#[derive(Default)]
struct Latest {
    measured: Option<Measurement>,
    /// When measuring last failed. It is retried after [`FRESH`], and logged once per outage.
    failed: Option<Instant>,
}

struct Measurement {
    queues: Vec<sql::Measured>,
    /// The workers that each queue needs.
    needed: BTreeMap<String, u32>,
    taken: Instant,
    /// The time of the measurement as a Unix time, for readers.
    unix_seconds: f64,
}

impl Gauges {
    /// Creates gauges without a measurement; the first read measures.
    pub fn new(pool: &Pool) -> Self {
        Self { pool: pool.clone(), shared: Arc::default() }
    }

    /// Renders all gauges in Prometheus' text format. A recent measurement is reused.
    pub async fn render(&self) -> String {
        // In its own task, so that a reader that gives up does not leave a statement half-read on its session.
        let measuring = tokio::spawn(self.clone().measure());
        let _ = timeout(READER_LIMIT, measuring).await;
        let mut text = String::new();
        // Writing to a String never fails.
        let _ = render(&mut text, lock(&self.shared.latest).measured.as_ref(), &self.pool);
        text
    }

    async fn measure(self) {
        let _lock = self.shared.measuring.lock().await;
        if !lock(&self.shared.latest).is_outdated() {
            return;
        }
        let taken = Instant::now();
        let measured = async {
            let queues = sql::measure(&self.pool, &queue_names(), COUNTED).await?;
            let needed = workers_needed(&self.pool, &queues).await?;
            Ok::<_, sqlx::Error>((queues, needed))
        };
        let measured = measured.await;
        let mut latest = lock(&self.shared.latest);
        match measured {
            Ok((queues, needed)) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                latest.measured = Some(Measurement { queues, needed, taken, unix_seconds: now.as_secs_f64() });
                latest.failed = None;
            }
            Err(error) => {
                if latest.failed.replace(Instant::now()).is_none() {
                    let error = causes(&error);
                    tracing::warn!(error, "cannot measure the queues; retrying when /metrics is read");
                }
            }
        }
    }
}

impl Latest {
    /// Whether the next reader needs a new measurement.
    fn is_outdated(&self) -> bool {
        let is_old = self.measured.as_ref().is_none_or(|measured| measured.taken.elapsed() >= FRESH);
        is_old && self.failed.is_none_or(|failed| failed.elapsed() >= FRESH)
    }
}

/// Reads the value of one gauge from the measurement of a queue.
type Value = fn(&sql::Measured) -> f64;

fn render(text: &mut String, measured: Option<&Measurement>, pool: &Pool) -> std::fmt::Result {
    let name = "millrace_db_pool_connections";
    let help = "Sessions of the pool that the features of this process share, by state: idle or used.";
    write_header(text, name, "gauge", help)?;
    let sessions = pool.session_counts();
    writeln!(text, "{name}{{state=\"idle\"}} {}", sessions.idle)?;
    writeln!(text, "{name}{{state=\"used\"}} {}", sessions.used)?;

    let Some(measured) = measured else { return Ok(()) };
    let name = "millrace_queue_measured_timestamp_seconds";
    write_header(text, name, "gauge", "When this process last measured the queues; absent before the first time.")?;
    writeln!(text, "{name} {}", measured.unix_seconds)?;
    if measured.taken.elapsed() > MAX_AGE {
        return Ok(());
    }
    let name = "millrace_queue_depth";
    let help = "Jobs by state: waiting, due (part of waiting) and running. Waiting and due jobs are counted up to 10000; \
                higher values are estimates. 10000 means at least 10000. The same from every process.";
    write_header(text, name, "gauge", help)?;
    for queue in &measured.queues {
        for (state, jobs) in [("waiting", queue.waiting), ("due", queue.due), ("running", queue.running)] {
            writeln!(text, "{name}{{queue=\"{}\",state=\"{state}\"}} {jobs}", queue.queue)?;
        }
    }
    let each: [(&str, &str, &str, Value); 4] = [
        (
            "millrace_queue_oldest_age_seconds",
            "gauge",
            "Seconds since the first waiting job became due; 0 when none is due. The same from every process.",
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
            "Dead letters without cancelled jobs; the count stops at 10000. The same from every process.",
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
        write_header(text, name, kind, help)?;
        for queue in &measured.queues {
            writeln!(text, "{name}{{queue=\"{}\"}} {}", queue.queue, value(queue))?;
        }
    }
    let name = "millrace_workers_needed";
    let help = "Workers that the queue needs so that 99 of 100 jobs start within 30 s, and all due jobs within ten minutes; 0 \
                while it is paused or idle. The same from every process.";
    write_header(text, name, "gauge", help)?;
    for (queue, needed) in &measured.needed {
        writeln!(text, "{name}{{queue=\"{queue}\"}} {needed}")?;
    }
    if let Some(queue) = measured.queues.first() {
        let name = "millrace_workers_live";
        write_header(text, name, "gauge", "Workers whose lease is valid. The same from every process.")?;
        writeln!(text, "{name} {}", queue.workers)?;
    }
    Ok(())
}

fn write_header(text: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}")
}
