//! The lease of a worker.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use runtime::{
    mutex::lock,
    sabotage::{self, Bug},
};

/// The lease of this worker, as this process knows it.
pub(crate) struct Lease {
    /// How long a worker may be silent before others take its jobs.
    length: Duration,
    renewed: Mutex<Option<Instant>>,
}

impl Lease {
    /// A lease that was never renewed.
    pub(super) fn new(length: Duration) -> Self {
        Self { length, renewed: Mutex::new(None) }
    }

    /// Whether enough time is left to claim. It counts from before the last renewal was sent, and reserves a third of
    /// the lease for statements under way.
    pub(crate) fn is_valid(&self) -> bool {
        let renewed = *lock(&self.renewed);
        let limit = self.length.mul_f64(2.0 / 3.0);
        renewed.is_some_and(|renewed| renewed.elapsed() < limit || sabotage::planted(Bug::LeaseKeptOverFreeze))
    }

    pub(super) fn set_renewed(&self, sent: Instant) {
        *lock(&self.renewed) = Some(sent);
    }
}
