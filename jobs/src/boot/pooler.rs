//! PgBouncer in transaction mode: a session lasts for one transaction, so nothing may be left to a session.
//!
//! Three things break through it, and each has its answer here or next door:
//!
//! - It refuses the start-up parameter `options`, and would forget what `SET` says: each transaction says it, by
//!   `SET LOCAL` in the statement that begins it ([`begin`]).
//! - sqlx parses a statement in one round trip and executes it in the next, which may go to another server: each
//!   statement runs inside a transaction ([`on`]), and the server forgets earlier statements of the same name first.
//! - `LISTEN` hears nothing, so nobody listens: `listen::listen` leaves everything to polling.

use std::{sync::OnceLock, time::Instant};

use futures_util::{StreamExt, TryStreamExt, future::BoxFuture, stream, stream::BoxStream};
use metrics::{Histogram, Unit, describe_histogram, histogram};
use sqlx::{
    AssertSqlSafe, Connection, Describe, Either, Execute, Executor, PgConnection, PgPool, PgTransaction, Postgres,
    SqlSafeStr, SqlStr,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};

use super::{
    db::{IDLE_IN_TRANSACTION_TIMEOUT, STATEMENT_TIMEOUT},
    traced::traced,
};

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

/// What a refusal to start a session may mean: PgBouncer knows few parameters, PostgreSQL all that we send.
pub(super) fn hint(error: &sqlx::Error) -> Option<&'static str> {
    const PROTOCOL_VIOLATION: &str = "08P01";
    let code = error.as_database_error().and_then(|error| error.code());
    (code.as_deref() == Some(PROTOCOL_VIOLATION)).then_some("for a PgBouncer, set DATABASE_POOLER=transaction")
}

/// How long callers waited for a connection.
const WAIT: &str = "millrace_db_pool_wait_seconds";
/// Looked up once: each statement would pay for it.
static WAITS: OnceLock<Histogram> = OnceLock::new();

/// Says what the metric means, and shows it from then on.
pub fn describe() {
    describe_histogram!(
        WAIT,
        Unit::Seconds,
        "How long statements and transactions waited for a session of their pool."
    );
    WAITS.get_or_init(|| histogram!(WAIT));
}

/// Waits for a connection; those who give up have waited too.
async fn acquire(pool: &PgPool) -> sqlx::Result<PoolConnection<Postgres>> {
    let began = Instant::now();
    let acquired = pool.acquire().await;
    if let Some(waits) = WAITS.get() {
        waits.record(began.elapsed().as_secs_f64());
    }
    acquired
}

/// Ends the name of every session that goes through a pooler: operators see it, and a pool is told by it.
const THROUGH: &str = " through a pooler";

/// A session that asks for nothing which a pooler would refuse or forget.
pub(super) fn session(options: PgConnectOptions, role: &str) -> PgConnectOptions {
    // Every server since 12 prints floats exactly; PgBouncer refuses the parameter.
    let options = options.application_name(&format!("millrace {role}{THROUGH}")).extra_float_digits(None);
    options.statement_cache_capacity(0)
}

fn is_pooled(pool: &PgPool) -> bool {
    pool.connect_options().get_application_name().is_some_and(|name| name.ends_with(THROUGH))
}

fn begin_statement() -> AssertSqlSafe<String> {
    AssertSqlSafe(format!(
        "BEGIN; DEALLOCATE ALL; SET LOCAL synchronous_commit = on; SET LOCAL plan_cache_mode = force_generic_plan;
         SET LOCAL jit = off;
         SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}';
         SET LOCAL idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION_TIMEOUT}'"
    ))
}

/// Begins a transaction that has our settings, also through a pooler.
///
/// # Errors
/// When there is no connection to be had.
pub async fn begin(pool: &PgPool) -> sqlx::Result<PgTransaction<'static>> {
    let statement = is_pooled(pool).then(|| begin_statement().into_sql_str());
    // What `PgPool::begin` does, with the wait measured.
    PgTransaction::begin(acquire(pool).await?, statement).await
}

/// Where one statement runs: by itself, or through a pooler in a transaction of its own.
pub fn on(pool: &PgPool) -> On<'_> {
    On { target: Target::Pool(pool), pooled: is_pooled(pool) }
}

/// As [`on`], for a connection that belongs to no pool.
pub fn on_session<'c>(connection: &'c mut PgConnection, database: &super::db::Database) -> On<'c> {
    On { target: Target::Session(connection), pooled: !database.has_sessions() }
}

/// As [`on`], for a statement within a transaction that has begun.
pub fn within(transaction: &mut PgConnection) -> On<'_> {
    On { target: Target::Session(transaction), pooled: false }
}

/// An executor of single statements, which shows them in the trace that they belong to.
#[derive(Debug)]
pub struct On<'c> {
    target: Target<'c>,
    pooled: bool,
}

#[derive(Debug)]
enum Target<'c> {
    Pool(&'c PgPool),
    Session(&'c mut PgConnection),
}

type Step = Either<PgQueryResult, PgRow>;

impl<'c> Executor<'c> for On<'c> {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, sqlx::Result<Step>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let pooled = self.pooled;
        traced(query, move |query| match self.target {
            Target::Pool(pool) if !pooled => stream::once(by_itself(pool, query)).try_flatten().boxed(),
            Target::Session(connection) if !pooled => connection.fetch_many(query),
            target => stream::once(in_transaction(target, query)).try_flatten().boxed(),
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
        match self.target {
            Target::Pool(pool) => pool.prepare_with(sql, types),
            Target::Session(connection) => connection.prepare_with(sql, types),
        }
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, sqlx::Result<Describe<Postgres>>>
    where
        'c: 'e,
    {
        match self.target {
            Target::Pool(pool) => pool.describe(sql),
            Target::Session(connection) => connection.describe(sql),
        }
    }
}

/// Runs a statement on a connection of the pool, and gives that back before anybody reads what came of it.
async fn by_itself<'q, E>(pool: &PgPool, query: E) -> sqlx::Result<BoxStream<'static, sqlx::Result<Step>>>
where
    E: 'q + Execute<'q, Postgres>,
{
    let mut session = acquire(pool).await?;
    let steps: Vec<Step> = session.fetch_many(query).try_collect().await?;
    Ok(stream::iter(steps.into_iter().map(Ok)).boxed())
}

/// Runs a statement, commits, and only then shows what came of it.
async fn in_transaction<'q, E>(target: Target<'_>, query: E) -> sqlx::Result<BoxStream<'static, sqlx::Result<Step>>>
where
    E: 'q + Execute<'q, Postgres>,
{
    let mut transaction = match target {
        Target::Pool(pool) => begin(pool).await?,
        Target::Session(connection) => connection.begin_with(begin_statement()).await?,
    };
    let steps: Vec<Step> = transaction.fetch_many(query).try_collect().await?;
    transaction.commit().await?;
    Ok(stream::iter(steps.into_iter().map(Ok)).boxed())
}
