//! How statements run on a pool, and PgBouncer in transaction mode: there a session lasts for one transaction, so nothing
//! may be left to a session.
//!
//! Three things break through it, and each has its answer here or next door:
//!
//! - It refuses the start-up parameter `options`, and would forget what `SET` says: each transaction says it, by
//!   `SET LOCAL` in the statement that begins it ([`begin`]).
//! - sqlx parses a statement in one round trip and executes it in the next, which may go to another server: each
//!   statement runs inside a transaction ([`transactional`]), and the server forgets earlier statements of the same name first.
//! - `LISTEN` hears nothing, so nobody listens: `listen::listen` leaves everything to polling.

use futures_util::{StreamExt, TryStreamExt, future::BoxFuture, stream, stream::BoxStream};
use sqlx::{
    Connection, Describe, Either, Execute, Executor, PgConnection, PgPool, Postgres, SqlStr,
    postgres::{PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};

pub use super::session::{Transaction, begin, describe};
use super::{
    db::with_time_limit,
    session::{Session, TRIES},
    settings,
    traced::{Query, traced},
    writable,
};
use crate::error::causes;

/// `DATABASE_POOLER`: what is between us and the database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pooler {
    /// Nothing, or something that gives each of our connections a session of its own.
    #[default]
    None,
    /// PgBouncer in transaction mode, or what behaves like it.
    Transaction,
}

impl Pooler {
    /// Reads its name.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "transaction" => Ok(Self::Transaction),
            _ => Err("must be none or transaction, such as DATABASE_POOLER=transaction".into()),
        }
    }
}

/// Ends the name of every session that goes through a pooler: operators see it, and a pool is told by it.
const THROUGH: &str = " through a pooler";

/// A session that asks for nothing which a pooler would refuse or forget.
pub(super) fn session(options: PgConnectOptions, role: &str) -> PgConnectOptions {
    // Every server since 12 prints floats exactly; PgBouncer refuses the parameter.
    let options = options.application_name(&format!("millrace {role}{THROUGH}")).extra_float_digits(None);
    options.statement_cache_capacity(0)
}

/// What is between a pool and the database.
pub(super) fn of(pool: &PgPool) -> Pooler {
    let is_pooled = pool.connect_options().get_application_name().is_some_and(|name| name.ends_with(THROUGH));
    if is_pooled { Pooler::Transaction } else { Pooler::None }
}

/// Where one statement runs that must not run twice: in a transaction of its own. A session that died while it was idle
/// is noticed when the transaction begins, before the statement is used, and another one is taken.
///
/// That costs two more round trips. See [`repeatable`] and [`once`] for statements that can do without.
pub fn transactional(pool: &PgPool) -> StatementExecutor<'_> {
    StatementExecutor(Target::Pool(pool, Use::Transactional))
}

/// Where one statement runs that may run twice: it only reads, or it finds its own work done. On a session that turns out
/// to be dead it is repeated on another one.
pub fn repeatable(pool: &PgPool) -> StatementExecutor<'_> {
    StatementExecutor(Target::Pool(pool, Use::Repeatable))
}

/// Where one statement runs at most once, for callers that handle its failure themselves, also that of a session which
/// died while it was idle.
pub fn once(pool: &PgPool) -> StatementExecutor<'_> {
    StatementExecutor(Target::Pool(pool, Use::Once))
}

/// Where one statement runs on a connection that belongs to no pool.
pub fn on_session<'c>(connection: &'c mut PgConnection, database: &super::db::Database) -> StatementExecutor<'c> {
    StatementExecutor(if database.has_sessions() { Target::Session(connection) } else { Target::Pooled(connection) })
}

/// Where a statement runs within a transaction that has begun.
pub fn in_transaction(transaction: &mut PgConnection) -> StatementExecutor<'_> {
    StatementExecutor(Target::Transaction(transaction))
}

/// An executor of single statements, each with a time limit, which shows them in the trace that they belong to.
#[derive(Debug)]
pub struct StatementExecutor<'c>(Target<'c>);

#[derive(Debug)]
enum Target<'c> {
    Pool(&'c PgPool, Use),
    /// A connection of its own.
    Session(&'c mut PgConnection),
    /// A connection of its own to a pooler.
    Pooled(&'c mut PgConnection),
    /// A connection of a pool, with a transaction.
    Transaction(&'c mut PgConnection),
}

/// What may be done with a statement whose session turns out to be dead.
#[derive(Debug, Clone, Copy)]
enum Use {
    Transactional,
    Repeatable,
    Once,
}

type Step = Either<PgQueryResult, PgRow>;
type Steps = sqlx::Result<Vec<Step>>;

impl<'c> Executor<'c> for StatementExecutor<'c> {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, sqlx::Result<Step>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        traced(query, move |query| {
            let steps = async move {
                let steps = match self.0 {
                    Target::Pool(pool, how) => with_time_limit(on_pool(pool, how, query)).await,
                    Target::Session(connection) => with_time_limit(run(connection, query)).await,
                    Target::Pooled(connection) => with_time_limit(run_and_commit(connection, query)).await,
                    Target::Transaction(connection) => {
                        with_time_limit(run(connection, query)).await.inspect_err(writable::note)
                    }
                };
                // Given to the reader after the session has been given back.
                steps.map(|steps| stream::iter(steps.into_iter().map(Ok)))
            };
            stream::once(steps).try_flatten().boxed()
        })
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        // To the end: what is not read to its end is not committed.
        let rows = self.fetch(query).try_collect::<Vec<PgRow>>();
        Box::pin(async move { Ok(rows.await?.into_iter().next()) })
    }

    fn prepare_with<'e>(self, sql: SqlStr, types: &'e [PgTypeInfo]) -> BoxFuture<'e, sqlx::Result<PgStatement>>
    where
        'c: 'e,
    {
        match self.0 {
            Target::Pool(pool, _) => pool.prepare_with(sql, types),
            Target::Session(connection) | Target::Pooled(connection) | Target::Transaction(connection) => {
                connection.prepare_with(sql, types)
            }
        }
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, sqlx::Result<Describe<Postgres>>>
    where
        'c: 'e,
    {
        match self.0 {
            Target::Pool(pool, _) => pool.describe(sql),
            Target::Session(connection) | Target::Pooled(connection) | Target::Transaction(connection) => {
                connection.describe(sql)
            }
        }
    }
}

async fn run(connection: &mut PgConnection, query: Query) -> Steps {
    connection.fetch_many(query).try_collect().await
}

async fn on_pool(pool: &PgPool, how: Use, query: Query) -> Steps {
    if matches!(how, Use::Repeatable) {
        for _ in 1..TRIES {
            match on_pool_once(pool, how, query.clone()).await {
                Err(error) if writable::is_dead(&error) => {
                    tracing::debug!(error = causes(&error), "trying another session")
                }
                ended => return ended,
            }
        }
    }
    on_pool_once(pool, how, query).await
}

async fn on_pool_once(pool: &PgPool, how: Use, query: Query) -> Steps {
    if matches!(how, Use::Transactional) || of(pool) == Pooler::Transaction {
        let mut transaction = begin(pool).await?;
        let steps = with_time_limit(run(&mut transaction, query)).await.inspect_err(writable::note)?;
        transaction.commit().await?;
        return Ok(steps);
    }
    Session::acquire(pool).await?.run(|connection| run(connection, query)).await
}

/// Runs a statement and commits.
async fn run_and_commit(connection: &mut PgConnection, query: Query) -> Steps {
    let mut transaction = connection.begin_with(settings::begin()).await?;
    let steps = run(&mut transaction, query).await?;
    transaction.commit().await?;
    Ok(steps)
}
