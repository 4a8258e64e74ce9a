//! Heartbeats, and the rescue of jobs whose worker died.
//!
//! A thread, a runtime and a connection of their own: handlers that block every other thread of the process, a full
//! pool and long jobs delay no heartbeat.
//!
//! A worker is dead when this process has watched its row unchanged for that worker's lease, by its own monotonic clock
//! and over one connection ([`Observer`]). No reading of the database's clock decides, so that its steps double no run
//! and delay no rescue. An outage of the database, in which no worker can renew, ends no lease either.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use metrics::counter;
use sqlx::{Connection, PgConnection};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    claim::ClaimErrors,
    metrics::RESCUED,
    silence::Observer,
    store::{
        self,
        leases::{self as sql, Holder},
    },
    worker::Timing,
};
use runtime::{db::Database, error::causes, pooler::on_session, writable};

/// A stop does not wait longer for a server that no longer answers.
const GOODBYE: Duration = Duration::from_secs(1);

/// The lease of this process, as far as it knows.
pub struct Lease {
    /// How long a worker may be silent before its jobs are taken away.
    length: Duration,
    renewed: Mutex<Option<Instant>>,
}

impl Lease {
    /// Whether there is time enough left to claim: counted from before the last renewal was sent, and with a third of
    /// the lease kept back for what is on its way.
    pub fn stands(&self) -> bool {
        let renewed = *self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        renewed.is_some_and(|renewed| renewed.elapsed() < self.length.mul_f64(2.0 / 3.0))
    }

    fn renew(&self, sent: Instant) {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = Some(sent);
    }
}

/// Keeps the lease of `worker` until `stop`, and rescues jobs of others; the thread ends after `stop`.
///
/// # Errors
/// When the thread cannot be started.
pub fn keep(
    database: Database,
    worker: Arc<str>,
    queues: Vec<&'static str>,
    timing: Timing,
    claim_errors: Arc<ClaimErrors>,
    stop: CancellationToken,
) -> std::io::Result<(Arc<Lease>, JoinHandle<()>)> {
    let lease = Arc::new(Lease { length: timing.lease, renewed: Mutex::new(None) });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let keeper = Heartbeat { database, worker, queues, timing, claim_errors, lease: lease.clone() };
    let thread = std::thread::Builder::new().name("lease".into()).spawn(move || runtime.block_on(keeper.run(stop)))?;
    Ok((lease, thread))
}

struct Heartbeat {
    database: Database,
    worker: Arc<str>,
    queues: Vec<&'static str>,
    timing: Timing,
    /// Shown in this worker's row.
    claim_errors: Arc<ClaimErrors>,
    lease: Arc<Lease>,
}

impl Heartbeat {
    async fn run(self, stop: CancellationToken) {
        let mut connection = None;
        let mut observer = Observer::new(self.timing.lease);
        while !stop.is_cancelled() {
            let next = match self.tend(&mut connection, &mut observer, &stop).await {
                Ok(()) => Duration::ZERO,
                Err(error) => {
                    connection = None;
                    // No worker can renew while the database is away.
                    observer.forget();
                    tracing::warn!(error = causes(&error), "heartbeat failed; trying again");
                    // Several tries fit into the part of the lease that is kept back.
                    self.timing.heartbeat / 10
                }
            };
            tokio::select! { () = sleep(next) => {} () = stop.cancelled() => {} }
        }
        if let Some(mut connection) = connection {
            let leave = async {
                sql::leave(on_session(&mut connection, &self.database), &self.worker).await?;
                connection.close().await
            };
            // Nothing depends on it: a worker that does not say goodbye is forgotten when its lease has ended.
            let _ = timeout(GOODBYE, leave).await;
        }
    }

    /// Beats, watches the other workers and rescues over one connection until it fails or `stop`.
    async fn tend(
        &self,
        slot: &mut Option<PgConnection>,
        observer: &mut Observer,
        stop: &CancellationToken,
    ) -> sqlx::Result<()> {
        let limit = self.limit();
        let connection = slot.insert(within(limit, self.database.connect("lease")).await?);
        let queues = self.queues.join(",");
        let mut next_beat = Instant::now();
        let mut without_row = Vec::new();
        let mut is_new = true;
        while !stop.is_cancelled() {
            let now = Instant::now();
            let beats = now >= next_beat;
            if beats {
                writable::require_primary()?;
                // A connection that died without a word is noticed by a ping. A heartbeat may take longer, as on a slow disk;
                // a new connection begins with it, so that however slow the database is, leases are renewed.
                if !is_new {
                    within(self.reply_limit(), connection.ping()).await?;
                }
                is_new = false;
                let renew = on_session(connection, &self.database);
                let errors = self.claim_errors.as_json();
                within(limit, sql::renew(renew, &self.worker, &queues, self.timing.lease, errors)).await?;
                self.lease.renew(now);
                next_beat = now + self.timing.heartbeat;
            }
            match self.look(connection, observer, &mut without_row, beats).await {
                Ok(()) => {}
                // The session is good: its heartbeats go on.
                Err(error @ sqlx::Error::Database(_)) => {
                    tracing::warn!(error = causes(&error), "could not look for dead workers; trying again");
                }
                Err(error) => return Err(error),
            }
            let now = Instant::now();
            let look = (now + self.timing.rescue).min(next_beat);
            let pause = observer.next_end().map_or(look, |end| look.min(end)).saturating_duration_since(now);
            tokio::select! { () = sleep(pause) => {} () = stop.cancelled() => {} }
        }
        Ok(())
    }

    /// How long a connection or a write may take. Three of them fit into a lease.
    fn limit(&self) -> Duration {
        self.timing.lease / 3
    }

    /// How long a reply that needs no disk is waited for. Together with a lease of 15 s that is watched anew, the jobs of a
    /// dead worker still run elsewhere within 20 s after this worker's own connection died.
    fn reply_limit(&self) -> Duration {
        self.limit().min(Duration::from_secs(2))
    }

    /// Looks at the leases of others once, and takes back what the silent ones hold.
    async fn look(
        &self,
        connection: &mut PgConnection,
        observer: &mut Observer,
        without_row: &mut Vec<Holder>,
        whole: bool,
    ) -> sqlx::Result<()> {
        let limit = self.reply_limit();
        if whole {
            // Rare, and it walks the running jobs: less often than the workers are looked at.
            let holders = sql::unknown_holders(on_session(connection, &self.database), &self.worker);
            *without_row = within(limit, holders).await?;
        }
        let sent = Instant::now();
        let mut found = within(limit, sql::workers(on_session(connection, &self.database), &self.worker)).await?;
        without_row.retain(|holder| !found.iter().any(|worker| worker.worker == holder.worker));
        found.extend(without_row.iter().cloned());
        observer.note(found, sent, Instant::now());
        let silent = observer.silent();
        if silent.is_empty() { Ok(()) } else { self.rescue(connection, &silent).await }
    }

    /// Takes back what dead workers held, and tells all workers at once.
    async fn rescue(&self, connection: &mut PgConnection, silent: &[Holder]) -> sqlx::Result<()> {
        let limit = self.limit();
        let rescued = within(limit, sql::rescue(on_session(connection, &self.database), silent)).await?;
        if rescued.is_empty() {
            return Ok(());
        }
        tracing::warn!(jobs = rescued.len(), "took jobs back from workers that are gone");
        for queue in &rescued {
            counter!(RESCUED, "queue" => queue.clone()).increment(1);
        }
        let queues: std::collections::BTreeSet<String> = rescued.into_iter().collect();
        let queues: Vec<String> = queues.into_iter().collect();
        within(limit, store::announce(on_session(connection, &self.database), &queues)).await
    }
}

/// A statement that hangs must not outlive the lease it is to renew.
async fn within<T>(limit: Duration, statement: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    timeout(limit, statement).await.unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))
}
