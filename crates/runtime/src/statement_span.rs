//! Trace spans of SQL statements. sqlx consumes a statement to return its text, so a statement is first split into parts.

use std::future::ready;

use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use sqlx::{
    Either, Execute, Postgres, SqlStr,
    error::BoxDynError,
    postgres::{PgArguments, PgQueryResult, PgRow, PgStatement},
};

use super::telemetry::traces::span::{self, Span};

type ResultStream<'e> = BoxStream<'e, sqlx::Result<Either<PgQueryResult, PgRow>>>;

/// The parts of a statement. Its text can be read, and it can run more than once.
#[derive(Clone)]
pub(super) struct Query {
    sql: SqlStr,
    arguments: Option<PgArguments>,
    persistent: bool,
}

impl<'q> Execute<'q, Postgres> for Query {
    fn sql(self) -> SqlStr {
        self.sql
    }

    /// `None`: sqlx finds a prepared statement by its text.
    fn statement(&self) -> Option<&PgStatement> {
        None
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        Ok(self.arguments.take())
    }

    fn persistent(&self) -> bool {
        self.persistent
    }
}

/// Runs a statement in a span, which ends after the last row or when the caller drops the stream.
pub(super) fn run_in_span<'q: 'e, 'e, E>(mut query: E, run: impl FnOnce(Query) -> ResultStream<'e>) -> ResultStream<'e>
where
    E: Execute<'q, Postgres>,
{
    let arguments = match query.take_arguments() {
        Ok(arguments) => arguments,
        Err(error) => return stream::once(ready(Err(sqlx::Error::Encode(error)))).boxed(),
    };
    let persistent = query.persistent();
    let query = Query { sql: query.sql(), arguments, persistent };
    if !span::is_traced() {
        return run(query);
    }
    let span = Span::statement(|| query.sql.as_str().to_owned());
    run(query).inspect_err(move |error| span.record_error(error_kind(error))).boxed()
}

/// The SQLSTATE of an error, or its origin. The span never contains the text of an error.
fn error_kind(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.code().map_or_else(|| "database".to_owned(), |code| code.into_owned()),
        sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => "timed out".to_owned(),
        sqlx::Error::Io(_) => "connection".to_owned(),
        _ => "client".to_owned(),
    }
}
