//! Storage interface of averages. PostgreSQL and the smart contract implement it.

use async_trait::async_trait;
use uuid::Uuid;

use super::{
    Rate,
    model::{Cursor, SavedRate, Submission, SubmissionOutcome},
};
use queue::{Failure, Origin, Outcome};
use runtime::error::Error;

/// The outcome after a failure of the database that leaves open whether a submission is saved, such as that of its commit.
///
/// # Errors
/// Returns the error if it is a fault of Millrace.
pub(super) fn outcome_after(error: Error) -> Result<SubmissionOutcome, Error> {
    match error {
        Error::Internal(_) => Err(error),
        Error::Unavailable(_) | Error::Overloaded(_) => {
            tracing::warn!(%error, "it is not known whether a submission is saved");
            Ok(SubmissionOutcome::Unknown)
        }
    }
}

/// A storage of averages and their history.
#[async_trait]
pub trait Storage: Send + Sync {
    /// Saves the average of a submission, at most once per idempotency key.
    ///
    /// # Errors
    /// Returns [`Error::Unavailable`] if it cannot be saved now. Then it is not saved, and will not be saved later. A
    /// failure after which it may be saved is no error, but [`SubmissionOutcome::Unknown`].
    async fn save(&self, submission: Submission, rate: Rate, origin: Origin) -> Result<SubmissionOutcome, Error>;

    /// The newest average.
    ///
    /// # Errors
    /// Returns [`Error::Unavailable`] if the storage cannot be read now.
    async fn current(&self) -> Result<Option<SavedRate>, Error>;

    /// At most `limit` averages before the cursor `before`, newest first.
    ///
    /// # Errors
    /// Returns [`Error::Unavailable`] if the storage cannot be read now.
    async fn history(&self, before: Option<Cursor>, limit: u32) -> Result<Vec<SavedRate>, Error>;

    /// Checks that the storage can save a submission now.
    ///
    /// # Errors
    /// Returns the reason if it cannot.
    async fn ready(&self) -> Result<(), String>;

    /// Completes a submission whose process may have crashed.
    ///
    /// # Errors
    /// Fails if the storage cannot complete it now, and a retry counts as an attempt.
    async fn reconcile(&self, id: Uuid) -> Result<Outcome, Failure>;

    /// Withdraws a submission whose job is discarded, unless a transaction for it was signed. Then it may still be
    /// saved.
    ///
    /// # Errors
    /// Fails if the database cannot be written to now.
    async fn abandon(&self, id: Uuid) -> Result<(), Failure>;
}
