//! A received webhook.

use std::sync::Arc;

use super::model::NewTransaction;
use queue::Origin;

/// A received webhook.
#[derive(Debug, Clone)]
pub(super) struct Webhook {
    pub new: NewTransaction,
    pub origin: Origin,
    /// As in [`Transaction::sender`](super::Transaction::sender).
    pub sender: Option<Arc<str>>,
}
