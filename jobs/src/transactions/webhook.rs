//! A received webhook.

use std::sync::Arc;

use super::{model::NewTransaction, sender::Sender};
use queue::Origin;

/// A received webhook.
#[derive(Debug, Clone)]
pub(super) struct Webhook {
    pub new: NewTransaction,
    /// The request that it came with. The rows of a batch share it.
    pub origin: Arc<Origin>,
    pub sender: Sender,
}
