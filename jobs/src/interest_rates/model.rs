//! What is submitted, what is saved, and what can come of it.

use time::OffsetDateTime;
use uuid::Uuid;

use super::rate::Rate;

/// One asset of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asset {
    /// The sender's name for it.
    pub id: String,
    /// Its interest rate.
    pub rate: Rate,
}

/// Assets whose average is to be saved; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    pub assets: Vec<Asset>,
    /// The sender's name for this submission: repeated, it is saved once.
    pub idempotency_key: Option<String>,
}

/// What became of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// Saved.
    Saved,
    /// It had been saved before.
    Replayed,
    /// Its key belongs to other assets, which stand.
    Conflict,
    /// It was handed to the storage, which has not confirmed it in time. It will be saved, once.
    Outstanding,
}

/// A saved average.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    pub rate: Rate,
    /// When it was saved.
    pub at: OffsetDateTime,
    /// Where the history goes on after it.
    pub cursor: Cursor,
}

/// A place in the history of one storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub u128);

/// A submission as it is recorded in PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    pub id: Uuid,
    pub rate: Rate,
    pub state: State,
}

/// Where a recorded submission stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// To be saved.
    Pending,
    /// Saved; it never changes again.
    Saved,
    /// Its sender was told that nothing was saved, and nothing was or will be.
    Withdrawn,
}

impl State {
    /// As the table has it.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "pending" => Some(Self::Pending),
            "saved" => Some(Self::Saved),
            "withdrawn" => Some(Self::Withdrawn),
            _ => None,
        }
    }
}
