//! Statements with their spans: a statement gives away its text only when it is given away itself, so it is put together
//! again. Without a trace it is passed on as it came.

use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use sqlx::{
    Either, Execute, Postgres, SqlStr,
    error::BoxDynError,
    postgres::{PgArguments, PgQueryResult, PgRow, PgStatement},
};

use super::telemetry::traces::span::{self, Span};

type Steps<'e> = BoxStream<'e, sqlx::Result<Either<PgQueryResult, PgRow>>>;

/// A statement whose text is known.
pub(super) enum Query<E> {
    /// As it came.
    Untraced(E),
    /// Taken apart.
    Known { sql: SqlStr, arguments: Option<Result<Option<PgArguments>, BoxDynError>>, persistent: bool },
}

impl<'q, E: Execute<'q, Postgres>> Execute<'q, Postgres> for Query<E> {
    fn sql(self) -> SqlStr {
        match self {
            Self::Untraced(query) => query.sql(),
            Self::Known { sql, .. } => sql,
        }
    }

    fn statement(&self) -> Option<&PgStatement> {
        match self {
            Self::Untraced(query) => query.statement(),
            Self::Known { .. } => None,
        }
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        match self {
            Self::Untraced(query) => query.take_arguments(),
            Self::Known { arguments, .. } => arguments.take().unwrap_or(Ok(None)),
        }
    }

    fn persistent(&self) -> bool {
        match self {
            Self::Untraced(query) => query.persistent(),
            Self::Known { persistent, .. } => *persistent,
        }
    }
}

/// Runs a statement; its span ends with its last row, or when nobody reads on.
pub(super) fn traced<'q: 'e, 'e, E>(mut query: E, run: impl FnOnce(Query<E>) -> Steps<'e>) -> Steps<'e>
where
    E: Execute<'q, Postgres>,
{
    // A prepared one would have to be prepared again.
    if !span::in_trace() || query.statement().is_some() {
        return run(Query::Untraced(query));
    }
    let (arguments, persistent) = (Some(query.take_arguments()), query.persistent());
    let sql = query.sql();
    let span = Span::statement(|| sql.as_str().to_owned());
    let steps = run(Query::Known { sql, arguments, persistent });
    steps.inspect_err(move |error| span.failed(kind(error))).boxed()
}

/// The SQLSTATE of an error, or where it comes from; never its text.
fn kind(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.code().map_or_else(|| "database".to_owned(), |code| code.into_owned()),
        sqlx::Error::PoolTimedOut => "no connection in time".to_owned(),
        sqlx::Error::Io(_) => "connection".to_owned(),
        _ => "client".to_owned(),
    }
}
