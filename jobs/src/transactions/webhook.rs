//! A received webhook.

use super::{model::NewTransaction, sender::Sender};
use queue::Origin;

/// A received webhook.
#[derive(Debug, Clone)]
pub(super) struct Webhook {
    pub new: NewTransaction,
    pub origin: Origin,
    pub sender: Sender,
}
