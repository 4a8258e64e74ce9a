//! The record of what operators did.

use super::Operator;
pub use crate::order::{Action, Order, Via};
use crate::{enqueue::Tx, store::operator::audit as sql};
use runtime::error::Error;

/// Records the action of a feature on one target, in the transaction that does it. `action` is a verb, such as `pause`.
///
/// # Errors
/// An error of the database. The transaction must then be rolled back.
pub async fn record(tx: &mut Tx, order: &Order, action: &str, target: &str) -> Result<(), Error> {
    Ok(sql::record(&mut **tx, order, action, target, None, 1).await?)
}

impl Operator {
    /// Lists recorded actions, newest first: all, or those on one target. The next page begins before the last id.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn actions(&self, target: Option<&str>, before: Option<i64>, limit: u32) -> Result<Vec<Action>, Error> {
        Ok(sql::list(&self.pool, target, before.unwrap_or(i64::MAX), limit.into()).await?)
    }
}
