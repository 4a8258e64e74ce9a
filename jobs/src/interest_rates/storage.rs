//! Where averages are kept: one interface, two storages.

use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::{
    Rate,
    model::{Cursor, Reading, Submission, Submitted},
};
use crate::{
    error::Error,
    queue::{Failure, Origin, Outcome},
};

/// Keeps averages, and remembers all of them.
pub trait Storage: Send + Sync {
    /// Saves the average of a submission, once for each of its keys.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it cannot be saved now: then nothing is, nor will it be.
    fn save(&self, submission: Submission, rate: Rate, origin: Origin) -> BoxFuture<'_, Result<Submitted, Error>>;

    /// The newest one.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the storage cannot be asked now, as for all that follow.
    fn current(&self) -> BoxFuture<'_, Result<Option<Reading>, Error>>;

    /// At most `limit` of those before `before`, newest first.
    fn history(&self, before: Option<Cursor>, limit: u32) -> BoxFuture<'_, Result<Vec<Reading>, Error>>;

    /// Whether it could save something now; the error says why not.
    fn ready(&self) -> BoxFuture<'_, Result<(), String>>;

    /// Brings a submission to its end whose process may have died on the way.
    fn reconcile(&self, id: Uuid) -> BoxFuture<'_, Result<Outcome, Failure>>;

    /// Withdraws a submission whose job is given up, if nothing of it was sent; otherwise it can still be saved.
    fn abandon(&self, id: Uuid) -> BoxFuture<'_, Result<(), Failure>>;
}
