//! The record of what operators did.

use super::Operator;
pub use crate::order::{Action, Order, Via};
use crate::{Page, enqueue::Tx, store::operator::audit as sql};
use runtime::error::Error;

/// Records the action of a feature on one target, in the transaction that does it. `action` is a verb, such as `pause`.
///
/// # Errors
/// An error of the database. The transaction must then be rolled back.
pub async fn record(tx: &mut Tx, order: &Order, action: &str, target: &str) -> Result<(), Error> {
    Ok(sql::record(&mut **tx, order, action, target, None, 1).await?)
}

impl Operator {
    /// Returns the latest recorded actions on one target, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn actions(&self, target: &str, limit: u32) -> Result<Vec<Action>, Error> {
        Ok(self.list_actions(Some(target), None, limit).await?.rows)
    }

    /// Returns a page of recorded actions before an id, newest first, at most `limit`: all, or those on one target.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn list_actions(
        &self,
        target: Option<&str>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Page<Action, i64>, Error> {
        let rows = sql::list(&self.pool, target, before.unwrap_or(i64::MAX), i64::from(limit) + 1).await?;
        Ok(Page::new(rows, limit, |last| last.id))
    }
}
