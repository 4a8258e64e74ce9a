//! A session of a pool: it is acquired, and later returned to the pool or closed.
//!
//! sqlx pings a session when it is returned. The ping has no time limit and occupies the session's place in the pool. On
//! a connection that died without a RST, the ping took 15 min 48 s. The pool served no caller in that time.
//!
//! Here a session is returned only if its last statement succeeded or the server refused it. The ping has a limit of 1 s.
//! Every other session is closed, which frees its place at once.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use metrics::{Histogram, Unit, describe_counter, describe_histogram, histogram};
use sqlx::{PgConnection, Postgres, pool::PoolConnection};
use sqlx_core::transaction::TransactionManager;
use tokio::{runtime::Handle, time::timeout};

use super::{
    db::{Pool, STATEMENTS},
    diagnose,
    pooler::Pooler,
    settings,
    time_limit::with_time_limit,
    writable,
};
use crate::error::causes;

/// How long a returned session may take to respond to the ping; then it is closed.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a statement is tried if its session turns out to be dead. After the first dead session, other idle sessions
/// are pinged before use. So the second try fails only if another session dies in between.
pub(super) const MAX_TRIES: u32 = 3;

/// The metric of how long callers wait for a session of a pool.
const POOL_WAIT: &str = "millrace_db_pool_wait_seconds";
/// The histogram handle, cached because each statement records a value.
static POOL_WAIT_HISTOGRAM: OnceLock<Histogram> = OnceLock::new();

/// Registers the metric, which is exported from then on.
pub fn describe() {
    describe_histogram!(
        POOL_WAIT,
        Unit::Seconds,
        "How long statements and transactions waited for a session of their pool."
    );
    describe_counter!(
        STATEMENTS,
        "Single SQL statements by pool of sessions. Statements inside a larger transaction are not counted."
    );
    POOL_WAIT_HISTOGRAM.get_or_init(|| histogram!(POOL_WAIT));
}

type PgTransactionManager = <Postgres as sqlx::Database>::TransactionManager;

/// A session of a pool. Drop returns it to the pool or closes it.
#[derive(Debug)]
pub(super) struct Session {
    connection: PoolConnection<Postgres>,
    /// Whether no statement is running and the last one left the session usable.
    is_reusable: bool,
}

impl Session {
    /// Waits for a session. The metric includes waits that ended without one.
    ///
    /// # Errors
    /// When no session becomes free in time. The error contains the cause.
    pub(super) async fn acquire(pool: &Pool) -> sqlx::Result<Self> {
        let began = Instant::now();
        let acquired = pool.sessions.acquire().await;
        if let Some(histogram) = POOL_WAIT_HISTOGRAM.get() {
            histogram.record(began.elapsed().as_secs_f64());
        }
        match acquired {
            Ok(connection) => Ok(Self { connection, is_reusable: true }),
            Err(sqlx::Error::PoolTimedOut) => Err(diagnose::acquire_error(pool, began.elapsed()).await),
            Err(error) => Err(error),
        }
    }

    /// Runs the future that `statement` makes from the connection, with a time limit.
    ///
    /// # Errors
    /// When the statement fails or times out.
    pub(super) async fn run<'s, T, F>(
        &'s mut self,
        statement: impl FnOnce(&'s mut PgConnection) -> F,
    ) -> sqlx::Result<T>
    where
        F: Future<Output = sqlx::Result<T>>,
    {
        // Set before the await, because the caller may drop this future at any moment.
        self.is_reusable = false;
        let result = with_time_limit(statement(&mut self.connection)).await;
        self.is_reusable = result.as_ref().err().is_none_or(writable::is_usable_after);
        if let Err(error) = &result {
            writable::record_error(error);
        }
        result
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // This future owns the session. Dropped without being polled, it closes the session and frees its place.
        let released = self.connection.return_to_pool();
        if self.is_reusable
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(timeout(RELEASE_TIMEOUT, released));
        }
    }
}

/// Checks whether a session of the pool can write, and records the result in [`writable`].
///
/// # Errors
/// When no session becomes free in time, or the session is dead.
pub(super) async fn probe(pool: &Pool) -> sqlx::Result<()> {
    let mut session = Session::acquire(pool).await?;
    writable::record_probe(session.run(settings::probe).await?);
    Ok(())
}

/// A transaction with our settings. Drop without [`Transaction::commit`] rolls it back.
#[derive(Debug)]
pub struct Transaction {
    session: Session,
}

/// Begins a transaction, also through a pooler. If the session turns out to be dead, another one is tried: no statement
/// has run yet.
///
/// # Errors
/// When no session becomes free in time, three sessions in a row are dead, or the server refuses `BEGIN`.
pub async fn begin(pool: &Pool) -> sqlx::Result<Transaction> {
    for _ in 1..MAX_TRIES {
        match begin_once(pool).await {
            Err(error) if writable::is_dead(&error) => {
                tracing::debug!(error = causes(&error), "the database session is dead; trying another one")
            }
            result => return result,
        }
    }
    begin_once(pool).await
}

async fn begin_once(pool: &Pool) -> sqlx::Result<Transaction> {
    let statement = (pool.pooler == Pooler::Transaction).then(|| settings::begin_statement(pool.limit));
    let mut session = Session::acquire(pool).await?;
    session.run(|connection| PgTransactionManager::begin(connection, statement)).await?;
    Ok(Transaction { session })
}

impl Transaction {
    /// The connection. Its statements have neither time limit nor span.
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.session.connection
    }

    /// Sets a savepoint. [`Transaction::release`] or [`Transaction::undo`] ends it.
    ///
    /// # Errors
    /// When the session is dead, or the transaction is aborted.
    pub async fn savepoint(&mut self) -> sqlx::Result<()> {
        self.session.run(|connection| PgTransactionManager::begin(connection, None)).await
    }

    /// Keeps what was done since the last savepoint.
    ///
    /// # Errors
    /// When the session is dead, or a statement has failed since.
    pub async fn release(&mut self) -> sqlx::Result<()> {
        self.session.run(PgTransactionManager::commit).await
    }

    /// Undoes what was done since the last savepoint, also after a failed statement.
    ///
    /// # Errors
    /// When the session is dead.
    pub async fn undo(&mut self) -> sqlx::Result<()> {
        self.session.run(PgTransactionManager::rollback).await
    }

    /// Commits the transaction.
    ///
    /// # Errors
    /// When the server refuses the commit, or its outcome is unknown.
    pub async fn commit(mut self) -> sqlx::Result<()> {
        self.session.run(PgTransactionManager::commit).await
    }

    /// Rolls the transaction back, and waits until the server has done so.
    ///
    /// # Errors
    /// When the session is dead. The server then rolls back by itself.
    pub async fn rollback(mut self) -> sqlx::Result<()> {
        self.session.run(PgTransactionManager::rollback).await
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        // Queues a ROLLBACK for each open savepoint and for the transaction, which the ping on return sends. Does nothing
        // if the transaction has ended.
        while PgTransactionManager::get_transaction_depth(&self.session.connection) > 0 {
            PgTransactionManager::start_rollback(&mut self.session.connection);
        }
    }
}
