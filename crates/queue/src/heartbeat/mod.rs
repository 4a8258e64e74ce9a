//! The heartbeat of a worker, and the rescue of jobs whose worker died.
//!
//! It has its own thread, runtime and connection. So neither handlers that block all other threads, nor a full pool,
//! nor long jobs delay a heartbeat.
//!
//! A worker counts as dead when its row did not change for the length of its lease. This process measures that by its
//! own monotonic clock and over one connection ([`Observer`]). The database's clock does not take part, so that its
//! steps cause no double run and delay no rescue. No lease expires during an outage of the database, in which no worker
//! can renew.

mod rescue;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use sqlx::{Connection, PgConnection};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    counts::Counts,
    lease::Lease,
    refused::RefusedJobs,
    silence::Observer,
    store::{leases as sql, minutes},
    timing::Timing,
    worker_status::WorkerStatus,
};
use runtime::{
    db::Database,
    error::{causes, is_logged, is_rolled_back},
    executor::{on_session, on_session_within},
    version::VERSION,
    writable,
};

/// How long a stop waits for the database: for the statement under way, the last counts, and to delete the worker's row.
const STOP_LIMIT: Duration = Duration::from_secs(1);
/// How long the server may take to write what only operators see. With the usual limit of 5 s, a lock on such a table, as of a
/// migration, would delay each check for dead workers by as much.
const REPORT_LIMIT: Duration = Duration::from_millis(500);

/// Starts the heartbeat thread of `worker`, which also rescues the jobs of dead workers. The thread ends after `stop`.
///
/// # Errors
/// When the thread cannot be started.
pub(crate) fn start(
    database: Database,
    worker: Arc<str>,
    queues: Vec<&'static str>,
    timing: Timing,
    report: Report,
    stop: CancellationToken,
) -> std::io::Result<(Arc<Lease>, JoinHandle<()>)> {
    let lease = Arc::new(Lease::new(timing.lease));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let heartbeat = Heartbeat {
        database,
        worker,
        queues,
        timing,
        report,
        lease: lease.clone(),
        is_recorded: AtomicBool::new(false),
        failures: Failures::default(),
        refused: Mutex::new(RefusedJobs::new("rescue")),
    };
    let thread = std::thread::Builder::new().name("lease".into()).spawn(move || {
        runtime.block_on(heartbeat.run(stop));
        // Does not wait for a look-up of the host's name, which may take longer than the whole stop.
        runtime.shutdown_background();
    })?;
    Ok((lease, thread))
}

/// What heartbeats carry for operators, and from them.
#[derive(Clone)]
pub(crate) struct Report {
    pub status: Arc<WorkerStatus>,
    pub counts: Counts,
    /// Cancelled when an operator drains this worker.
    pub drain: CancellationToken,
}

struct Heartbeat {
    database: Database,
    worker: Arc<str>,
    queues: Vec<&'static str>,
    timing: Timing,
    report: Report,
    lease: Arc<Lease>,
    /// Whether the release of this process is recorded.
    is_recorded: AtomicBool,
    failures: Failures,
    /// Jobs of dead workers that cannot be rescued now.
    refused: Mutex<RefusedJobs>,
}

/// How often each part has failed since it last succeeded, so that an outage does not fill the log.
#[derive(Default)]
struct Failures {
    heartbeats: AtomicU32,
    checks: AtomicU32,
    holders: AtomicU32,
    counts: AtomicU32,
}

/// Counts one more failure of a part. Returns the number if it is to be logged.
fn one_more(failures: &AtomicU32) -> Option<u32> {
    let number = failures.load(Relaxed).saturating_add(1);
    failures.store(number, Relaxed);
    Some(number).filter(|number| is_logged(*number))
}

impl Heartbeat {
    /// Runs until [`STOP_LIMIT`] after `stop` at most. What it then does is dropped together with the connection.
    async fn run(self, stop: CancellationToken) {
        let limit = async {
            stop.cancelled().await;
            sleep(STOP_LIMIT).await;
        };
        tokio::select! { () = self.run_sessions(&stop) => {} () = limit => {} }
    }

    /// Runs one session after another until `stop`, then deletes the worker's row.
    async fn run_sessions(&self, stop: &CancellationToken) {
        let mut connection = None;
        let mut observer = Observer::new(self.timing.lease);
        while !stop.is_cancelled() {
            let pause = match self.run_session(&mut connection, &mut observer, stop).await {
                Ok(()) => Duration::ZERO,
                Err(error) => {
                    connection = None;
                    // No worker can renew its lease while the database is unreachable.
                    observer.reset();
                    if let Some(failures) = one_more(&self.failures.heartbeats) {
                        tracing::warn!(failures, error = causes(&error), "heartbeat failed; retrying");
                    }
                    // Several attempts fit into the reserved part of the lease.
                    self.timing.heartbeat / 10
                }
            };
            tokio::select! { () = sleep(pause) => {} () = stop.cancelled() => {} }
        }
        if let Some(mut connection) = connection {
            let deregister = async {
                self.write_counts(&mut connection).await?;
                sql::delete_worker(on_session(&mut connection, &self.database), &self.worker).await?;
                connection.close().await
            };
            // Optional: a row that remains is deleted later by the cleaner.
            let _: sqlx::Result<()> = deregister.await;
        }
    }

    /// Sends heartbeats, checks other workers and rescues jobs over one connection, until it fails or `stop`.
    async fn run_session(
        &self,
        slot: &mut Option<PgConnection>,
        observer: &mut Observer,
        stop: &CancellationToken,
    ) -> sqlx::Result<()> {
        let limit = self.write_limit();
        let connection = slot.insert(within(limit, self.database.connect("lease")).await?);
        let queues = self.queues.join(",");
        let mut next_heartbeat = Instant::now();
        let mut without_row = Vec::new();
        let mut is_new = true;
        while !stop.is_cancelled() {
            let now = Instant::now();
            let is_heartbeat_due = now >= next_heartbeat;
            if is_heartbeat_due {
                writable::require_primary()?;
                // A ping quickly detects a dead connection, while a heartbeat may take longer, such as on a slow disk.
                // A new connection starts with the heartbeat, so that leases are renewed however slow the database is.
                if !is_new {
                    within(self.reply_limit(), connection.ping()).await?;
                }
                is_new = false;
                let renew = on_session(connection, &self.database);
                let status = &self.report.status;
                let (errors, report) = (status.claim_errors(), status.report());
                let renewed = sql::renew(renew, &self.worker, &queues, self.timing.lease, errors, report);
                let drain = within(limit, renewed).await?;
                self.lease.set_renewed(now);
                self.failures.heartbeats.store(0, Relaxed);
                next_heartbeat = now + self.timing.heartbeat;
                if drain && !self.report.drain.is_cancelled() {
                    tracing::info!("an operator drains this worker: it stops when its jobs have ended");
                    self.report.drain.cancel();
                }
            }
            let expiry = match self.check_leases(connection, observer, &mut without_row, is_heartbeat_due).await {
                Ok(()) => {
                    self.failures.checks.store(0, Relaxed);
                    observer.next_expiry()
                }
                // The session still works, so its heartbeats go on.
                Err(error @ sqlx::Error::Database(_)) => {
                    if let Some(failures) = one_more(&self.failures.checks) {
                        tracing::warn!(failures, error = causes(&error), "could not check for dead workers; retrying");
                    }
                    // The next expiry may be in the past, because no check has recorded it. It would leave no pause.
                    None
                }
                Err(error) => return Err(error),
            };
            let next_check = (Instant::now() + self.timing.rescue).min(next_heartbeat);
            let wake = expiry.map_or(next_check, |expiry| next_check.min(expiry));
            // After heartbeat and rescue, which must not wait for these tables.
            if is_heartbeat_due {
                self.write_counts(connection).await?;
                self.record_release(connection).await?;
            }
            let pause = wake.saturating_duration_since(Instant::now());
            tokio::select! { () = sleep(pause) => {} () = stop.cancelled() => {} }
        }
        Ok(())
    }

    /// Records the release of this process, once. If the database refuses it, the next heartbeat tries again.
    async fn record_release(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        if self.is_recorded.load(Relaxed) {
            return Ok(());
        }
        let session = on_session_within(connection, &self.database, self.report_limit());
        let record = sql::record_release(session, &VERSION);
        match within(self.write_limit(), record).await {
            Ok(()) => {
                self.is_recorded.store(true, Relaxed);
                Ok(())
            }
            Err(error @ sqlx::Error::Database(_)) => {
                tracing::debug!(error = causes(&error), "could not record the release");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Writes what was counted since the last time. It is kept for the next time if the database refuses it, and dropped if
    /// it may have been written.
    async fn write_counts(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        let taken = self.report.counts.take();
        if taken.is_empty() {
            return Ok(());
        }
        let session = on_session_within(connection, &self.database, self.report_limit());
        let add = minutes::add(session, &self.worker, &taken);
        match within(self.write_limit(), add).await {
            Ok(()) => {
                self.failures.counts.store(0, Relaxed);
                Ok(())
            }
            Err(error) => {
                let kept = is_rolled_back(&error);
                if kept {
                    self.report.counts.put_back(&taken);
                }
                if let Some(failures) = one_more(&self.failures.counts) {
                    tracing::warn!(failures, kept, error = causes(&error), "could not write the counts of the queues");
                }
                // The session still works, so its heartbeats go on.
                if matches!(error, sqlx::Error::Database(_)) { Ok(()) } else { Err(error) }
            }
        }
    }

    /// The time limit of a connection attempt or a write. Three of them fit into a lease.
    fn write_limit(&self) -> Duration {
        self.timing.lease / 3
    }

    /// [`REPORT_LIMIT`], and less for a short lease.
    fn report_limit(&self) -> Duration {
        REPORT_LIMIT.min(self.timing.lease / 10)
    }

    /// The time limit of a reply that needs no disk. If this worker's own connection dies, it restarts the observation
    /// of a dead worker's lease of 15 s. With this limit the jobs of the dead worker still run elsewhere within 20 s.
    fn reply_limit(&self) -> Duration {
        self.write_limit().min(Duration::from_secs(2))
    }
}

/// Runs a statement with a time limit, because one that hangs must not outlive the lease.
async fn within<T>(limit: Duration, statement: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    timeout(limit, statement).await.unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// With this lease, an attempt to connect takes up to 100 s.
    #[test]
    fn a_stop_does_not_wait_for_a_database_that_never_responds() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("postgres://u@{}/none", silent.local_addr().unwrap());
        let (database, stop) = (Database::parse(&url).unwrap(), CancellationToken::new());
        let report = Report {
            status: Arc::new(WorkerStatus::new(stop.clone())),
            counts: Counts::default(),
            drain: CancellationToken::new(),
        };
        let timing = Timing { lease: Duration::from_secs(300), ..Timing::default() };
        let (_, thread) = start(database, "w".into(), Vec::new(), timing, report, stop.clone()).unwrap();
        let _connection = silent.accept().unwrap();
        let stopping = Instant::now();
        stop.cancel();
        thread.join().unwrap();
        let took = stopping.elapsed();
        assert!(took < Duration::from_secs(30), "{took:?}");
    }
}
