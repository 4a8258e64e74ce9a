//! One session of a pool: how it is acquired, and whether it goes back.
//!
//! sqlx pings a session before it takes it back, without a time limit, and keeps the session's place meanwhile. Over a
//! connection that died without a RST that took 15 min 48 s, in which the pool served no one. Here a session goes back
//! only after its last statement has ended well or was refused by the server, and the ping has a limit; every other
//! session is closed, and its place is free at once.

use std::{
    ops::{Deref, DerefMut},
    sync::OnceLock,
    time::{Duration, Instant},
};

use metrics::{Histogram, Unit, describe_histogram, histogram};
use sqlx::{PgConnection, PgPool, Postgres, pool::PoolConnection};
use sqlx_core::transaction::TransactionManager;
use tokio::{runtime::Handle, time::timeout};

use super::{
    db::with_time_limit,
    diagnose,
    pooler::{self, Pooler},
    settings, writable,
};
use crate::error::causes;

/// A session that does not reply by then is closed instead of going back.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a statement is tried whose session turned out to be dead. After the first, sessions that were idle then are
/// probed before use, so the second try fails only if more sessions die meanwhile.
pub(super) const TRIES: u32 = 3;

/// How long callers waited for a connection.
const WAIT: &str = "millrace_db_pool_wait_seconds";
/// Looked up once: each statement would pay for it.
static WAITS: OnceLock<Histogram> = OnceLock::new();

/// Describes the metric, and shows it from then on.
pub fn describe() {
    describe_histogram!(
        WAIT,
        Unit::Seconds,
        "How long statements and transactions waited for a session of their pool."
    );
    WAITS.get_or_init(|| histogram!(WAIT));
}

type PgTransactionManager = <Postgres as sqlx::Database>::TransactionManager;

/// A session of a pool. Dropped, it goes back or is closed.
#[derive(Debug)]
pub(super) struct Session {
    connection: PoolConnection<Postgres>,
    /// Nothing is under way and nothing went wrong: it may be used again.
    is_reusable: bool,
}

impl Session {
    /// Waits for a session; those who give up have waited too.
    ///
    /// # Errors
    /// No session became free in time; the error has the cause.
    pub(super) async fn acquire(pool: &PgPool) -> sqlx::Result<Self> {
        let began = Instant::now();
        let acquired = pool.acquire().await;
        if let Some(waits) = WAITS.get() {
            waits.record(began.elapsed().as_secs_f64());
        }
        match acquired {
            Ok(connection) => Ok(Self { connection, is_reusable: true }),
            Err(sqlx::Error::PoolTimedOut) => Err(diagnose::no_session(pool, began.elapsed()).await),
            Err(error) => Err(error),
        }
    }

    /// Runs what `statement` makes of the connection, with a time limit.
    ///
    /// # Errors
    /// The statement's, or a time-out.
    pub(super) async fn run<'s, T, F>(
        &'s mut self,
        statement: impl FnOnce(&'s mut PgConnection) -> F,
    ) -> sqlx::Result<T>
    where
        F: Future<Output = sqlx::Result<T>>,
    {
        // Until it has ended: a caller may leave at any moment.
        self.is_reusable = false;
        let result = with_time_limit(statement(&mut self.connection)).await;
        self.is_reusable = result.as_ref().err().is_none_or(writable::is_usable_after);
        if let Err(error) = &result {
            writable::note(error);
        }
        result
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Made without waiting for anything, and it owns the session: dropping it closes that and frees its place.
        let released = self.connection.return_to_pool();
        if self.is_reusable
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(timeout(RELEASE_TIMEOUT, released));
        }
    }
}

/// Finds out whether a session of a pool can write.
///
/// # Errors
/// No session became free in time, or it is dead.
pub(super) async fn probe(pool: &PgPool) -> sqlx::Result<()> {
    let mut session = Session::acquire(pool).await?;
    writable::found(session.run(settings::probe).await?);
    Ok(())
}

/// A transaction that has our settings. Dropped without [`Transaction::commit`], it is rolled back.
#[derive(Debug)]
pub struct Transaction {
    session: Session,
}

/// Begins a transaction, also through a pooler. On a session that turns out to be dead nothing has happened yet, so the
/// next one is tried.
///
/// # Errors
/// There is no session in time, or too many of them die.
pub async fn begin(pool: &PgPool) -> sqlx::Result<Transaction> {
    for _ in 1..TRIES {
        match begin_once(pool).await {
            Err(error) if writable::is_dead(&error) => {
                tracing::debug!(error = causes(&error), "trying another session")
            }
            begun => return begun,
        }
    }
    begin_once(pool).await
}

async fn begin_once(pool: &PgPool) -> sqlx::Result<Transaction> {
    let statement = (pooler::of(pool) == Pooler::Transaction).then(settings::begin);
    let mut session = Session::acquire(pool).await?;
    session.run(|connection| PgTransactionManager::begin(connection, statement)).await?;
    Ok(Transaction { session })
}

impl Transaction {
    /// Commits.
    ///
    /// # Errors
    /// When the outcome is not known to be a commit.
    pub async fn commit(mut self) -> sqlx::Result<()> {
        self.session.run(PgTransactionManager::commit).await
    }

    /// Rolls back, and waits for it.
    ///
    /// # Errors
    /// The session is dead; the server rolls back then.
    pub async fn rollback(mut self) -> sqlx::Result<()> {
        self.session.run(PgTransactionManager::rollback).await
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        // Sent with the ping that precedes the return to the pool; nothing when the transaction has ended.
        PgTransactionManager::start_rollback(&mut self.session.connection);
    }
}

impl Deref for Transaction {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        &self.session.connection
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.session.connection
    }
}
