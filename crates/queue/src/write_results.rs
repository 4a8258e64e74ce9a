//! Writes results of runs once: all of them, or those whose rows no other session has locked.

use std::{collections::HashSet, sync::Arc};

use sqlx::{PgConnection, PgPool};

use super::{
    result::{Disposition, RunResult},
    store::results::{self as sql, Unfinished},
};
use runtime::pooler::{StatementExecutor, begin, in_transaction, once};

/// Where results go, and the worker whose runs they are of.
pub struct ResultWriter {
    pub pool: PgPool,
    pub worker: Arc<str>,
}

impl ResultWriter {
    /// Writes what can be written now. Careful, it passes over rows that another session has locked.
    pub async fn write(&self, results: &[RunResult], careful: bool) -> sqlx::Result<Written> {
        let results: Vec<&RunResult> = results.iter().collect();
        if !careful {
            let ids = self.write_on(&mut Place::Pool(&self.pool), &results).await?;
            return Ok(Written { ids, locked: HashSet::new() });
        }
        let ids: Vec<String> = results.iter().map(|result| result.id.clone()).collect();
        let mut transaction = begin(&self.pool).await?;
        let free: HashSet<String> = sql::lock_free(&mut transaction, &ids).await?.into_iter().collect();
        let (free, others): (Vec<&RunResult>, Vec<&RunResult>) = results.iter().partition(|one| free.contains(&one.id));
        let ids = match self.write_on(&mut Place::Transaction(&mut transaction), &free).await? {
            Some(ids) => ids,
            None => free.iter().map(|result| result.id.clone()).collect(),
        };
        transaction.commit().await?;
        // The other rows are locked, or another session has changed them and the run holds them no longer.
        let (others, tokens) = keys(&others);
        let locked =
            if others.is_empty() { Vec::new() } else { sql::held(&self.pool, &self.worker, &others, &tokens).await? };
        Ok(Written { ids: Some(ids), locked: locked.into_iter().collect() })
    }

    /// Returns for which jobs the tokens held; `None` when for all.
    async fn write_on(&self, place: &mut Place<'_>, results: &[&RunResult]) -> sqlx::Result<Option<HashSet<String>>> {
        let (ids, tokens) = keys(results);
        if results.iter().all(|result| result.disposition == Disposition::Done) {
            let finished = sql::finish(place.on(), &self.worker, &ids, &tokens).await?;
            if usize::try_from(finished) == Ok(results.len()) {
                return Ok(None);
            }
            let finished = sql::finished(place.on(), &self.worker, &ids, &tokens).await?;
            return Ok(Some(finished.into_iter().collect()));
        }
        let mut runs = Unfinished::default();
        for result in results {
            runs.push(&result.id, result.token, result.attempts, result.survived, result.disposition.next());
        }
        Ok(Some(sql::put_back(place.on(), &self.worker, &runs).await?.into_iter().collect()))
    }
}

/// Where a result is written.
enum Place<'p> {
    Pool(&'p PgPool),
    Transaction(&'p mut PgConnection),
}

impl Place<'_> {
    fn on(&mut self) -> StatementExecutor<'_> {
        match self {
            Self::Pool(pool) => once(pool),
            Self::Transaction(transaction) => in_transaction(transaction),
        }
    }
}

/// What a write came to.
pub struct Written {
    /// Jobs for which the token held; `None` for all.
    pub ids: Option<HashSet<String>>,
    /// Jobs that the run still holds and whose rows another session has locked: not written.
    pub locked: HashSet<String>,
}

fn keys(results: &[&RunResult]) -> (Vec<String>, Vec<i32>) {
    results.iter().map(|result| (result.id.clone(), result.token)).unzip()
}

/// Whether the database refuses a value or a row, as it will again: data exceptions, constraints, what is too large for
/// a page of an index, and exceptions of triggers.
pub fn is_refusal(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| matches!(code.get(..2), Some("22" | "23" | "44" | "54")) || code == "P0001")
}

/// Whether the statement certainly changed nothing: it ran out of time behind a lock, or was the victim of a deadlock.
pub fn is_without_effect(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| ["57014", "55P03", "40P01"].contains(&&*code))
}
