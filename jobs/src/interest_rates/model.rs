//! Data types of interest rates: submissions, their outcomes, and saved averages.

use strum::EnumString;
use time::OffsetDateTime;
use uuid::Uuid;

use super::rate::Rate;

/// One asset of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asset {
    /// The client's id of the asset.
    pub id: String,
    /// The interest rate.
    pub rate: Rate,
}

/// A request to save the average of one or more assets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    pub assets: Vec<Asset>,
    /// The client's key of the submission. A repetition with the same key is saved once.
    pub idempotency_key: Option<String>,
}

/// The outcome of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubmissionOutcome {
    /// It was saved now.
    Saved,
    /// It had been saved by an earlier request.
    Replayed,
    /// Its key belongs to a submission with other assets, which stays unchanged.
    Conflict,
    /// The storage has not confirmed it in time. It will be saved later, exactly once.
    Outstanding,
    /// The response of the database was lost, such as that to a commit: it may be saved, or may be saved later. A repetition
    /// with the same key finds out.
    Unknown,
}

/// A saved average.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedRate {
    pub rate: Rate,
    /// The time of saving.
    pub at: OffsetDateTime,
    /// The cursor of the history after this average.
    pub cursor: Cursor,
}

/// A position in the history of one storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub u128);

/// A submission as recorded in PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedSubmission {
    pub id: Uuid,
    pub rate: Rate,
    pub state: SubmissionState,
}

/// The state of a recorded submission. The table has the names in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString)]
#[strum(serialize_all = "lowercase")]
pub enum SubmissionState {
    /// It is yet to be saved.
    Pending,
    /// It is saved. This state is final.
    Saved,
    /// The client got an error, and the submission is not and will not be saved. This state is final.
    Withdrawn,
}
