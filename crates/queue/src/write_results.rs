//! One write of results: of all of them, or of those whose rows no other session has locked.

use std::{collections::HashSet, sync::Arc};

use super::{
    result::{Disposition, RunResult},
    store::results::{self as sql, Unfinished},
};
use runtime::{
    db::Pool,
    error::is_temporary,
    executor::{StatementExecutor, Transaction, begin, once},
    writable,
};

/// Writes results of one worker's runs.
pub(crate) struct ResultWriter {
    pub pool: Pool,
    pub worker: Arc<str>,
}

impl ResultWriter {
    /// Writes results. With `skip_locked` it skips rows that another session has locked.
    pub(crate) async fn write(&self, results: &[RunResult], skip_locked: bool) -> sqlx::Result<Written> {
        let results: Vec<&RunResult> = results.iter().collect();
        if !skip_locked {
            let ids = self.write_all(&mut Place::Pool(&self.pool), &results).await?;
            return Ok(Written { ids, locked: HashSet::new() });
        }
        let ids: Vec<String> = results.iter().map(|result| result.id().to_owned()).collect();
        let mut transaction = begin(&self.pool).await?;
        let free: HashSet<String> = sql::lock_free(&mut transaction, &ids).await?.into_iter().collect();
        let (free, others): (Vec<&RunResult>, Vec<&RunResult>) =
            results.iter().partition(|one| free.contains(one.id()));
        let ids = match self.write_all(&mut Place::Transaction(&mut transaction), &free).await? {
            Some(ids) => ids,
            None => free.iter().map(|result| result.id().to_owned()).collect(),
        };
        transaction.commit().await?;
        // The other rows are locked, or another session has changed them and the run no longer holds them.
        let (others, tokens) = keys(&others);
        let locked = if others.is_empty() {
            Vec::new()
        } else {
            sql::find_held(&self.pool, &self.worker, &others, &tokens).await?
        };
        Ok(Written { ids: Some(ids), locked: locked.into_iter().collect() })
    }

    /// Writes all these results. Returns the jobs whose token matched; `None` if all did.
    async fn write_all(&self, place: &mut Place<'_>, results: &[&RunResult]) -> sqlx::Result<Option<HashSet<String>>> {
        let (ids, tokens) = keys(results);
        if results.iter().all(|result| result.disposition == Disposition::Done) {
            let finished = sql::finish(place.executor(), &self.worker, &ids, &tokens).await?;
            if usize::try_from(finished) == Ok(results.len()) {
                return Ok(None);
            }
            let finished = sql::find_finished(place.executor(), &self.worker, &ids, &tokens).await?;
            return Ok(Some(finished.into_iter().collect()));
        }
        let mut runs = Unfinished::default();
        for result in results {
            runs.push(result.id(), result.token(), result.attempts, result.survived, result.disposition.next());
        }
        Ok(Some(sql::put_back(place.executor(), &self.worker, &runs).await?.into_iter().collect()))
    }
}

/// Where results are written.
enum Place<'p> {
    Pool(&'p Pool),
    Transaction(&'p mut Transaction),
}

impl Place<'_> {
    fn executor(&mut self) -> StatementExecutor<'_> {
        match self {
            Self::Pool(pool) => once(pool),
            Self::Transaction(transaction) => transaction.executor(),
        }
    }
}

/// What a write did.
pub(crate) struct Written {
    /// The jobs whose token matched; `None` for all.
    pub ids: Option<HashSet<String>>,
    /// Jobs that were not written: the run still holds them, but another session has locked their rows.
    pub locked: HashSet<String>,
}

fn keys(results: &[&RunResult]) -> (Vec<String>, Vec<i32>) {
    results.iter().map(|result| (result.id().to_owned(), result.token())).unzip()
}

/// Whether the database refuses a value or a row, and would do so again: data exceptions, constraint violations, values
/// too large for an index page, and exceptions of triggers. At the limit of transaction ids it refuses every write, until it
/// is vacuumed.
pub(crate) fn is_refusal(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| matches!(code.get(..2), Some("22" | "23" | "44" | "54" | "P0")))
        && !writable::is_out_of_ids(error)
}

/// Whether a write may fail because of one of its rows: it is refused, or fails for a reason that is not temporary. The rows
/// are then written apart, so that the others are not delayed. Class 42 is about tables and rights, not rows.
pub(crate) fn may_be_of_one_row(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| !code.starts_with("42")) && !is_temporary(error)
}

/// Whether the statement certainly changed nothing: it timed out behind a lock, or was the victim of a deadlock.
pub(crate) fn is_without_effect(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| ["57014", "55P03", "40P01"].contains(&&*code))
}

/// Whether the server has cancelled the statement, as at its time limit.
pub(crate) fn is_cancelled(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "57014")
}
