//! Executors of SQL statements: each with the time limit, the span, and the rules for poolers and dead sessions.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, future::BoxFuture, stream, stream::BoxStream};
use sqlx::{
    Connection, Describe, Either, Execute, Executor, PgConnection, Postgres, SqlStr,
    postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};

pub use super::session::{Transaction, begin, describe};
use super::{
    db::Pool,
    pooler::Pooler,
    session::{MAX_TRIES, Session},
    settings,
    statement_span::{Query, run_in_span},
    time_limit::with_time_limit,
    writable,
};
use crate::error::causes;

/// Runs one statement in its own transaction, for a statement that must not run twice. If the session died while it was
/// idle, `BEGIN` fails before the statement is sent, and another session is used.
///
/// The transaction costs two more round trips. [`repeatable`] and [`once`] avoid them.
pub fn transactional(pool: &Pool) -> StatementExecutor<'_> {
    StatementExecutor(Target::Pool(pool, ExecutionMode::Transactional))
}

/// Runs one statement that may run twice, because it only reads or is idempotent. If its session turns out to be dead, the
/// statement is repeated on another session.
pub fn repeatable(pool: &Pool) -> StatementExecutor<'_> {
    StatementExecutor(Target::Pool(pool, ExecutionMode::Repeatable))
}

/// Runs one statement at most once. The caller handles every failure, including that of a session which died while it was
/// idle.
pub fn once(pool: &Pool) -> StatementExecutor<'_> {
    StatementExecutor(Target::Pool(pool, ExecutionMode::Once))
}

/// Like [`once`], for a statement whose caller cannot try again: a session that was idle for longer than a moment is pinged first.
/// So a session that died while it was idle fails no statement.
pub fn once_on_live(pool: &Pool) -> StatementExecutor<'_> {
    StatementExecutor(Target::Pool(pool, ExecutionMode::OnceOnLive))
}

/// Runs one statement on a connection that belongs to no pool.
pub fn on_session<'c>(connection: &'c mut PgConnection, database: &super::db::Database) -> StatementExecutor<'c> {
    StatementExecutor(if database.has_sessions() {
        Target::Session(connection)
    } else {
        Target::OwnTransaction(connection, settings::begin_statement(None))
    })
}

/// Runs one statement on a connection that belongs to no pool, in its own transaction. The server cancels it after `limit`,
/// also while it waits for a lock: then it has changed nothing, and the connection can be used further.
pub fn on_session_within<'c>(
    connection: &'c mut PgConnection,
    database: &super::db::Database,
    limit: Duration,
) -> StatementExecutor<'c> {
    let begin = if database.has_sessions() {
        settings::limited_begin_statement(limit)
    } else {
        settings::begin_statement(Some(limit))
    };
    StatementExecutor(Target::OwnTransaction(connection, begin))
}

/// An executor of single statements. It gives each statement a time limit, and a span in the current trace.
#[derive(Debug)]
pub struct StatementExecutor<'c>(Target<'c>);

#[derive(Debug)]
enum Target<'c> {
    Pool(&'c Pool, ExecutionMode),
    /// A connection outside any pool.
    Session(&'c mut PgConnection),
    /// A connection outside any pool, on which the statement runs in a transaction that this statement begins.
    OwnTransaction(&'c mut PgConnection, SqlStr),
    /// A connection of a pool, inside a transaction.
    Transaction(&'c mut PgConnection),
}

/// How a statement runs on a pool, which decides what happens if its session turns out to be dead.
#[derive(Debug, Clone, Copy)]
enum ExecutionMode {
    Transactional,
    Repeatable,
    Once,
    OnceOnLive,
}

type StatementItem = Either<PgQueryResult, PgRow>;
type StatementResult = sqlx::Result<Vec<StatementItem>>;

impl<'c> Executor<'c> for StatementExecutor<'c> {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, sqlx::Result<StatementItem>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        run_in_span(query, move |query| {
            let items = async move {
                let items = match self.0 {
                    Target::Pool(pool, mode) => with_time_limit(run_on_pool(pool, mode, query)).await,
                    Target::Session(connection) => with_time_limit(run(connection, query)).await,
                    Target::OwnTransaction(connection, begin) => {
                        with_time_limit(run_and_commit(connection, begin, query)).await
                    }
                    Target::Transaction(connection) => {
                        with_time_limit(run(connection, query)).await.inspect_err(writable::record_error)
                    }
                };
                // The session is back in its pool before the caller reads the first row.
                items.map(|items| stream::iter(items.into_iter().map(Ok)))
            };
            stream::once(items).try_flatten().boxed()
        })
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        // All rows are read, because the transaction commits only after the last one.
        let rows = self.fetch(query).try_collect::<Vec<PgRow>>();
        Box::pin(async move { Ok(rows.await?.into_iter().next()) })
    }

    fn prepare_with<'e>(self, sql: SqlStr, types: &'e [PgTypeInfo]) -> BoxFuture<'e, sqlx::Result<PgStatement>>
    where
        'c: 'e,
    {
        match self.0 {
            Target::Pool(pool, _) => pool.sessions.prepare_with(sql, types),
            Target::Session(connection) | Target::OwnTransaction(connection, _) | Target::Transaction(connection) => {
                connection.prepare_with(sql, types)
            }
        }
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, sqlx::Result<Describe<Postgres>>>
    where
        'c: 'e,
    {
        match self.0 {
            Target::Pool(pool, _) => pool.sessions.describe(sql),
            Target::Session(connection) | Target::OwnTransaction(connection, _) | Target::Transaction(connection) => {
                connection.describe(sql)
            }
        }
    }
}

impl Transaction {
    /// The executor of one statement in this transaction. `&mut Transaction` is one as well; this gives it the type of
    /// the other executors.
    pub fn executor(&mut self) -> StatementExecutor<'_> {
        StatementExecutor(Target::Transaction(self.connection()))
    }
}

/// Each statement of a transaction has a time limit and a span.
impl<'c> Executor<'c> for &'c mut Transaction {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, sqlx::Result<StatementItem>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        self.executor().fetch_many(query)
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        self.executor().fetch_optional(query)
    }

    fn prepare_with<'e>(self, sql: SqlStr, types: &'e [PgTypeInfo]) -> BoxFuture<'e, sqlx::Result<PgStatement>>
    where
        'c: 'e,
    {
        self.executor().prepare_with(sql, types)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, sqlx::Result<Describe<Postgres>>>
    where
        'c: 'e,
    {
        self.executor().describe(sql)
    }
}

async fn run(connection: &mut PgConnection, query: Query) -> StatementResult {
    connection.fetch_many(query).try_collect().await
}

async fn run_on_pool(pool: &Pool, mode: ExecutionMode, query: Query) -> StatementResult {
    if matches!(mode, ExecutionMode::Repeatable) {
        for _ in 1..MAX_TRIES {
            match try_on_pool(pool, mode, query.clone()).await {
                Err(error) if writable::is_dead(&error) => {
                    tracing::debug!(error = causes(&error), "the database session is dead; trying another one")
                }
                result => return result,
            }
        }
    }
    try_on_pool(pool, mode, query).await
}

async fn try_on_pool(pool: &Pool, mode: ExecutionMode, query: Query) -> StatementResult {
    pool.statements.increment(1);
    if matches!(mode, ExecutionMode::Transactional) || pool.pooler == Pooler::Transaction {
        let mut transaction = begin(pool).await?;
        let items = with_time_limit(run(transaction.connection(), query)).await.inspect_err(writable::record_error)?;
        transaction.commit().await?;
        return Ok(items);
    }
    let mut session = match mode {
        ExecutionMode::OnceOnLive => Session::acquire_live(pool).await?,
        _ => Session::acquire(pool).await?,
    };
    let items = session.run(|connection| run(connection, query)).await?;
    session.keep();
    Ok(items)
}

/// Runs a statement in its own transaction.
async fn run_and_commit(connection: &mut PgConnection, begin: SqlStr, query: Query) -> StatementResult {
    let mut transaction = connection.begin_with(begin).await?;
    let items = run(&mut transaction, query).await?;
    transaction.commit().await?;
    Ok(items)
}
