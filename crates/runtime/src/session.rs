//! A session of a pool: it is acquired, and later kept for the next statement, returned to the pool of sqlx, or closed.
//!
//! sqlx pings a session when it is returned. The ping has no time limit and occupies the session's place in the pool. On
//! a connection that died without a RST, the ping took 15 min 48 s. The pool served no caller in that time.
//!
//! Here a session is kept if its last statement succeeded, and returned only if the server refused it. The ping has a limit of
//! 1 s. Every other session is closed, which frees its place at once.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use metrics::{Histogram, Unit, describe_counter, describe_histogram, histogram};
use sqlx::PgConnection;
use sqlx_core::transaction::TransactionManager;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    db::{Pool, STATEMENTS},
    diagnose,
    kept_sessions::{KeptSessions, PgTransactionManager, PooledSession},
    pooler::Pooler,
    settings,
    time_limit::with_time_limit,
    writable,
};
use crate::error::causes;

/// How often a statement is tried if its session turns out to be dead. After the first dead session, other idle sessions
/// are pinged before use. So the second try fails only if another session dies in between.
pub(super) const MAX_TRIES: u32 = 3;

/// A session that was used this recently is not pinged by [`Session::acquire_live`].
const MOMENT: Duration = Duration::from_millis(10);

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

/// A session of a pool. Drop returns it to the pool of sqlx or closes it.
#[derive(Debug)]
pub(super) struct Session {
    pooled: PooledSession,
    /// The place in the pool, which is free when this is dropped.
    _permit: Option<OwnedSemaphorePermit>,
    /// Where it is kept after a success.
    kept: Option<Arc<KeptSessions>>,
}

impl Session {
    /// Waits for a session. The metric includes waits that ended without one.
    ///
    /// # Errors
    /// When no session becomes free in time. The error contains the cause.
    pub(super) async fn acquire(pool: &Pool) -> sqlx::Result<Self> {
        let began = Instant::now();
        let acquired = match &pool.kept {
            Some(kept) => {
                kept.take(&pool.sessions, pool.wait_limit()).await.map(|(session, permit)| (session, Some(permit)))
            }
            None => pool.sessions.acquire().await.map(|connection| (PooledSession::new(connection), None)),
        };
        if let Some(histogram) = POOL_WAIT_HISTOGRAM.get() {
            histogram.record(began.elapsed().as_secs_f64());
        }
        match acquired {
            Ok((pooled, permit)) => Ok(Self { pooled, _permit: permit, kept: pool.kept.clone() }),
            Err(sqlx::Error::PoolTimedOut) => Err(diagnose::acquire_error(pool, began.elapsed()).await),
            Err(error) => Err(error),
        }
    }

    /// Waits for a session that responds. Of those that were not used within the last [`MOMENT`], each is pinged.
    ///
    /// # Errors
    /// Like [`Session::acquire`], and when three sessions in a row do not respond.
    pub(super) async fn acquire_live(pool: &Pool) -> sqlx::Result<Self> {
        for _ in 1..MAX_TRIES {
            match Self::acquire(pool).await?.checked().await {
                Ok(session) => return Ok(session),
                Err(error) => {
                    tracing::debug!(error = causes(&error), "the database session does not respond; trying another one")
                }
            }
        }
        Self::acquire(pool).await?.checked().await
    }

    /// Pings the session, unless it was just used. The ping has a shorter limit than a statement: another session can be tried.
    async fn checked(mut self) -> sqlx::Result<Self> {
        if self.pooled.kept_within(MOMENT) {
            return Ok(self);
        }
        // Set before the await, because the caller may drop this future at any moment.
        self.pooled.is_reusable = false;
        settings::ping(&mut self.pooled.connection).await.inspect_err(writable::record_error)?;
        self.pooled.is_reusable = true;
        Ok(self)
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
        let PooledSession { connection, is_reusable, .. } = &mut self.pooled;
        // Set before the await, because the caller may drop this future at any moment.
        *is_reusable = false;
        let result = with_time_limit(statement(connection)).await;
        *is_reusable = result.as_ref().err().is_none_or(writable::is_usable_after);
        if let Err(error) = &result {
            writable::record_error(error);
        }
        result
    }

    /// Keeps the session for the next statement. The last one has succeeded, and no transaction is open.
    pub(super) fn keep(self) {
        if let Some(kept) = &self.kept {
            kept.keep(self.pooled);
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
    session.keep();
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
        &mut self.session.pooled.connection
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
        self.session.run(PgTransactionManager::commit).await?;
        self.session.keep();
        Ok(())
    }

    /// Rolls the transaction back, and waits until the server has done so.
    ///
    /// # Errors
    /// When the session is dead. The server then rolls back by itself.
    pub async fn rollback(mut self) -> sqlx::Result<()> {
        self.session.run(PgTransactionManager::rollback).await?;
        self.session.keep();
        Ok(())
    }
}
