//! The record of what operators did.

use super::Operator;
pub use crate::order::{Action, Order, Via};
use crate::store::operator::audit as sql;
use runtime::error::Error;

impl Operator {
    /// Lists recorded actions, newest first: all, or those on one target. The next page begins before the last id.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn actions(&self, target: Option<&str>, before: Option<i64>, limit: u32) -> Result<Vec<Action>, Error> {
        Ok(sql::list(&self.pool, target, before.unwrap_or(i64::MAX), limit.into()).await?)
    }
}
