//! Sessions that a pool keeps between two statements.
//!
//! sqlx pings a session when it returns to its pool, and takes the one that was idle longest. So each statement cost a second
//! round trip, and a session seldom found its data in the cache of a CPU. A session whose last statement has succeeded needs no
//! ping. It is kept here, and the one that was used last is used next.

use std::{
    sync::{Arc, Mutex, Weak},
    time::{Duration, Instant},
};

use sqlx::{PgConnection, PgPool, Postgres, pool::PoolConnection};
use sqlx_core::transaction::TransactionManager;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{timeout, timeout_at},
};

use super::{
    settings,
    writable::{self, Reuse},
};
use crate::mutex::lock;

/// A session that was idle for this long returns to the pool of sqlx, which closes it after ten minutes.
const MAX_IDLE: Duration = Duration::from_secs(30);
/// A session that was kept for this long returns as well. The pool closes those that are older than half an hour.
const MAX_KEPT: Duration = Duration::from_secs(600);
/// How long a returned session may take to respond to the ping; then it is closed.
const RETURN_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) type PgTransactionManager = <Postgres as sqlx::Database>::TransactionManager;

/// A session of the pool of sqlx. Drop returns it there, which pings it and ends its transaction, or closes it.
#[derive(Debug)]
pub(super) struct PooledSession {
    pub connection: PoolConnection<Postgres>,
    /// Whether no statement is running and the last one left the session usable.
    pub is_reusable: bool,
    /// When the pool gave it, after a check.
    received: Instant,
    /// When it was kept last; `None` for a session of the pool of sqlx, which may have been idle there.
    kept: Option<Instant>,
}

impl PooledSession {
    /// A session that the pool has just given.
    pub(super) fn new(connection: PoolConnection<Postgres>) -> Self {
        Self { connection, is_reusable: true, received: Instant::now(), kept: None }
    }

    /// Whether it was kept within this time.
    pub(super) fn kept_within(&self, time: Duration) -> bool {
        self.kept.is_some_and(|kept| kept.elapsed() <= time)
    }

    /// Checks it as the pool of sqlx would.
    async fn is_usable(&mut self) -> bool {
        let idle = self.kept.unwrap_or(self.received).elapsed();
        let check = writable::reuse(self.received.elapsed(), idle);
        // Set before the await, because the caller may drop this future at any moment.
        self.is_reusable = false;
        self.is_reusable = check_session(&mut self.connection, check).await;
        self.is_reusable
    }
}

impl Drop for PooledSession {
    fn drop(&mut self) {
        // Queues a ROLLBACK for each open savepoint and for the transaction, which the ping sends. Does nothing if the
        // transaction has ended.
        while PgTransactionManager::get_transaction_depth(&self.connection) > 0 {
            PgTransactionManager::start_rollback(&mut self.connection);
        }
        // This future owns the session. Dropped without being polled, it closes the session and frees its place.
        let returned = self.connection.return_to_pool();
        if self.is_reusable
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(timeout(RETURN_TIMEOUT, returned));
        }
    }
}

/// Makes this check of a session, and returns whether it can be used. An error is recorded as a hint about the others.
pub(super) async fn check_session(session: &mut PgConnection, check: Reuse) -> bool {
    let usable = match check {
        Reuse::Immediately => Ok(true),
        Reuse::Never => Ok(false),
        Reuse::AfterPing => settings::ping(session).await.map(|()| true),
        Reuse::AfterProbe => settings::probe(session).await.map(|read_only| {
            writable::record_probe(read_only);
            !read_only
        }),
    };
    usable.inspect_err(writable::record_error).unwrap_or(false)
}

/// The sessions that a pool keeps.
#[derive(Debug)]
pub(super) struct KeptSessions {
    /// One permit for each session that the pool may open. Callers wait for one in the order of their arrival.
    permits: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Each was kept later than the one before it.
    sessions: Vec<PooledSession>,
    /// Whether a task returns those that are idle for too long.
    is_returning: bool,
}

impl KeptSessions {
    pub(super) fn new(max_sessions: u32) -> Self {
        let permits = Semaphore::new(usize::try_from(max_sessions).unwrap_or(Semaphore::MAX_PERMITS));
        Self { permits: Arc::new(permits), state: Mutex::default() }
    }

    /// Takes a kept session, or one of the pool. The permit must live as long as the session is in use.
    ///
    /// # Errors
    /// When no session becomes free within `wait`, the pool cannot open one, or the pool is closed.
    pub(super) async fn take(
        &self,
        pool: &PgPool,
        wait: Duration,
    ) -> sqlx::Result<(PooledSession, OwnedSemaphorePermit)> {
        let timed_out = |_| sqlx::Error::PoolTimedOut;
        let deadline = tokio::time::Instant::now() + wait;
        let permit = match self.permits.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let permit = timeout_at(deadline, self.permits.clone().acquire_owned()).await.map_err(timed_out)?;
                permit.map_err(|_| sqlx::Error::PoolClosed)?
            }
        };
        // Only one kept session is checked. If it has died silently, its check takes a second, and all others may have died too.
        if let Some(mut session) = self.pop()
            && timeout_at(deadline, session.is_usable()).await.map_err(timed_out)?
        {
            return Ok((session, permit));
        }
        let connection = timeout_at(deadline, pool.acquire()).await.map_err(timed_out)??;
        Ok((PooledSession::new(connection), permit))
    }

    fn pop(&self) -> Option<PooledSession> {
        lock(&self.state).sessions.pop()
    }

    /// Keeps a session whose last statement has succeeded, outside a transaction.
    pub(super) fn keep(self: &Arc<Self>, mut session: PooledSession) {
        let Ok(runtime) = Handle::try_current() else { return };
        if session.received.elapsed() > MAX_KEPT {
            return;
        }
        session.kept = Some(Instant::now());
        let mut state = lock(&self.state);
        // Checked under the lock, so that `close` misses no session.
        if self.permits.is_closed() {
            return;
        }
        state.sessions.push(session);
        if !state.is_returning {
            state.is_returning = true;
            runtime.spawn(return_idle(Arc::downgrade(self)));
        }
    }

    /// How many sessions are kept.
    pub(super) fn count(&self) -> usize {
        lock(&self.state).sessions.len()
    }

    /// Takes the sessions that were kept before this time. Returns them, and whether others are left.
    fn take_idle(&self, before: Instant) -> (Vec<PooledSession>, bool) {
        let mut state = lock(&self.state);
        let count = state.sessions.partition_point(|session| session.kept < Some(before));
        let idle = state.sessions.drain(..count).collect();
        state.is_returning = !state.sessions.is_empty();
        (idle, state.is_returning)
    }

    /// Ends all waits, and returns all sessions to the pool.
    pub(super) fn close(&self) {
        self.permits.close();
        drop(std::mem::take(&mut lock(&self.state).sessions));
    }
}

/// Returns sessions that are idle for too long, until none is kept.
async fn return_idle(kept: Weak<KeptSessions>) {
    loop {
        tokio::time::sleep(MAX_IDLE / 2).await;
        let Some(kept) = kept.upgrade() else { return };
        let Some(before) = Instant::now().checked_sub(MAX_IDLE) else { continue };
        let (idle, is_more) = kept.take_idle(before);
        drop(idle);
        if !is_more {
            return;
        }
    }
}
