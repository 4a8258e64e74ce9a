//! A received webhook.

use std::sync::Arc;

use uuid::Uuid;

use super::{model::NewTransaction, sender::Sender};
use queue::Origin;
use runtime::telemetry::traces::traceparent;

/// A received webhook.
#[derive(Debug, Clone)]
pub(super) struct Webhook {
    pub new: NewTransaction,
    /// The request that it came with. The rows of a batch share it.
    pub origin: Arc<Origin>,
    pub sender: Sender,
}

impl Webhook {
    /// The id of the request's trace.
    pub(super) fn trace_id(&self) -> Option<Uuid> {
        self.origin.traceparent.as_deref().and_then(traceparent::trace_id).map(Uuid::from_bytes)
    }
}
