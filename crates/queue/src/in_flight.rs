//! The jobs of one queue that this worker has claimed and whose results are not yet written.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::OwnedSemaphorePermit;

use super::store::claim::Claimed;

/// A claimed job with the slot that it occupies.
pub(crate) struct ClaimedJob {
    pub job: Claimed,
    pub slot: OwnedSemaphorePermit,
}

/// The jobs of one queue that this worker has claimed and whose results are not yet written.
#[derive(Clone, Default)]
pub(crate) struct InFlight(Arc<Mutex<HashMap<String, i32>>>);

impl InFlight {
    pub(super) fn tokens(&self) -> MutexGuard<'_, HashMap<String, i32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a run whose result is written or whose token no longer matches. A later run of the same job stays.
    pub(crate) fn release(&self, id: &str, token: i32) {
        let mut tokens = self.tokens();
        if tokens.get(id) == Some(&token) {
            tokens.remove(id);
        }
    }
}
