//! Heartbeats, and the rescue of jobs whose worker died.
//!
//! A thread, a runtime and a connection of their own: handlers that block every other thread of the process, a full
//! pool and long jobs delay no heartbeat.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use metrics::counter;
use sqlx::{Connection, PgConnection};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{metrics::RESCUED, store, worker::Timing};
use crate::{
    boot::{db::Database, pooler::on_session, writable},
    error::causes,
};

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
    stop: CancellationToken,
) -> std::io::Result<(Arc<Lease>, JoinHandle<()>)> {
    let lease = Arc::new(Lease { length: timing.lease, renewed: Mutex::new(None) });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let keeper = Keeper { database, worker, queues, timing, lease: lease.clone() };
    let thread = std::thread::Builder::new().name("lease".into()).spawn(move || runtime.block_on(keeper.run(stop)))?;
    Ok((lease, thread))
}

struct Keeper {
    database: Database,
    worker: Arc<str>,
    queues: Vec<&'static str>,
    timing: Timing,
    lease: Arc<Lease>,
}

impl Keeper {
    async fn run(self, stop: CancellationToken) {
        let mut connection = None;
        let mut was_away = false;
        while !stop.is_cancelled() {
            let next = match self.tend(&mut connection, was_away, &stop).await {
                Ok(()) => Duration::ZERO,
                Err(error) => {
                    connection = None;
                    was_away = true;
                    tracing::warn!(error = causes(&error), "heartbeat failed; trying again");
                    // Several tries fit into the part of the lease that is kept back.
                    self.timing.heartbeat / 10
                }
            };
            tokio::select! { () = sleep(next) => {} () = stop.cancelled() => {} }
        }
        if let Some(mut connection) = connection {
            let leave = async {
                store::leave(on_session(&mut connection, &self.database), &self.worker).await?;
                connection.close().await
            };
            // Nothing depends on it: a worker that does not say goodbye is forgotten when its lease has ended.
            let _ = timeout(GOODBYE, leave).await;
        }
    }

    /// Beats and rescues over one connection until it fails or `stop`.
    ///
    /// After the database was away, every worker looks dead to whoever is back first: then the others get time to beat,
    /// or what they still run would run twice and count as their death.
    async fn tend(
        &self,
        slot: &mut Option<PgConnection>,
        was_away: bool,
        stop: &CancellationToken,
    ) -> sqlx::Result<()> {
        let limit = self.timing.heartbeat;
        let connection = slot.insert(within(limit, self.database.connect("lease")).await?);
        let queues = self.queues.join(",");
        let mut next_beat = Instant::now();
        // A try to connect takes a heartbeat at most, and the next one follows within a tenth of it.
        let first_rescue = if was_away { next_beat + self.timing.heartbeat * 2 } else { next_beat };
        while !stop.is_cancelled() {
            let now = Instant::now();
            if now >= next_beat {
                writable::require_primary()?;
                within(
                    limit,
                    store::beat(on_session(connection, &self.database), &self.worker, &queues, self.timing.lease),
                )
                .await?;
                self.lease.renew(now);
                next_beat = now + self.timing.heartbeat;
            }
            if now >= first_rescue {
                self.rescue(connection).await?;
            }
            let pause = self.timing.rescue.min(next_beat.saturating_duration_since(Instant::now()));
            tokio::select! { () = sleep(pause) => {} () = stop.cancelled() => {} }
        }
        Ok(())
    }

    /// Takes back what dead workers held, and tells everybody at once.
    async fn rescue(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        let rescued = within(self.timing.heartbeat, store::rescue(on_session(connection, &self.database))).await?;
        if rescued.is_empty() {
            return Ok(());
        }
        tracing::warn!(jobs = rescued.len(), "took jobs back from workers that are gone");
        for queue in &rescued {
            counter!(RESCUED, "queue" => queue.clone()).increment(1);
        }
        let queues: std::collections::BTreeSet<String> = rescued.into_iter().collect();
        within(
            self.timing.heartbeat,
            store::announce(on_session(connection, &self.database), &queues.into_iter().collect::<Vec<_>>()),
        )
        .await
    }
}

/// A statement that hangs must not outlive the lease it is to renew.
async fn within<T>(limit: Duration, statement: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    timeout(limit, statement).await.unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))
}
