//! The jobs of one queue that this worker has claimed and whose results are not yet written.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::OwnedSemaphorePermit;

use super::store::claim::Claimed;
use runtime::mutex::lock;

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
        lock(&self.0)
    }

    /// Forgets runs whose results are written or whose tokens no longer match. A later run of the same job stays.
    pub(crate) fn release<'r>(&self, runs: impl Iterator<Item = (&'r str, i32)>) {
        let mut tokens = self.tokens();
        for (id, token) in runs {
            if let Some((id, current)) = tokens.remove_entry(id)
                && current != token
            {
                tokens.insert(id, current);
            }
        }
    }
}
