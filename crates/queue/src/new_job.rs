//! A job that is about to be enqueued.

use std::time::Duration;

use runtime::error::Error;
use time::OffsetDateTime;

use super::{
    fair_key::FairKey,
    job::{Job, JobId, Origin, Priority},
};

/// A job that is about to be enqueued.
#[derive(Debug, Clone)]
pub struct NewJob {
    pub(super) id: JobId,
    pub(super) queue: &'static str,
    pub(super) payload: Vec<u8>,
    pub(super) due: Due,
    pub(super) priority: Priority,
    pub(super) origin: Origin,
    pub(super) key: Option<String>,
    pub(super) fair_key: Option<FairKey>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Due {
    After(Duration),
    At(OffsetDateTime),
}

impl NewJob {
    /// Creates a job of normal priority that is due at once.
    ///
    /// # Errors
    /// [`Error::Internal`] when the payload cannot be written as JSON, such as a map whose keys are not strings.
    pub fn of<J: Job>(job: &J) -> Result<Self, Error> {
        let payload = serde_json::to_vec(job).map_err(|error| Error::Internal(format!("{}: {error}", J::NAME)))?;
        Ok(Self {
            id: JobId::generate(),
            queue: J::NAME,
            payload,
            due: Due::After(Duration::ZERO),
            priority: Priority::Normal,
            origin: Origin::default(),
            key: None,
            fair_key: None,
        })
    }

    /// Makes it due this long after the start of the transaction, by the database's clock and to the microsecond.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self { due: Due::After(delay), ..self }
    }

    /// Makes it due at this time, or at the start of the transaction if the time is in the past.
    #[must_use]
    pub fn at(self, time: OffsetDateTime) -> Self {
        Self { due: Due::At(time), ..self }
    }

    /// Sets its priority among the jobs of its queue.
    #[must_use]
    pub fn priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// Sets its id, so that it can be referred to later.
    #[must_use]
    pub fn id(self, id: JobId) -> Self {
        Self { id, ..self }
    }

    /// Enqueues it only if no job of its queue with this key waits or runs. A job that has ended frees its key. A
    /// running job may already have read what this job is about, so the key must name the work and not only its topic.
    #[must_use]
    pub fn unique(self, key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    /// Sets what its queue shares its slots by, such as a sender. Only [`Policy::fair`](crate::Policy::fair) and
    /// [`Policy::per_key`](crate::Policy::per_key) read it.
    #[must_use]
    pub fn fair_key(self, key: FairKey) -> Self {
        Self { fair_key: Some(key), ..self }
    }

    /// Sets the request that caused it.
    #[must_use]
    pub fn origin(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }
}
