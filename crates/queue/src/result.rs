//! The result of one run: what becomes of its job, and the one log line about it.

use std::time::Duration;

use super::{cancel::CANCELLED, job::Failure, storable::StorableText, store::results::Next};
use runtime::error::causes;

/// What becomes of a job after a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    Done,
    Retry {
        error: StorableText,
        wait: Duration,
    },
    Snooze {
        wait: Duration,
        reason: Option<StorableText>,
    },
    Dead {
        error: StorableText,
    },
    /// Ended by an operator.
    Cancelled {
        error: StorableText,
    },
    GivenBack,
}

impl Disposition {
    /// Ended by an operator, with the text that says so.
    pub fn cancelled() -> Self {
        Self::Cancelled { error: CANCELLED.into() }
    }

    /// The `outcome` label.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Retry { .. } => "retry",
            Self::Snooze { .. } => "snooze",
            Self::Dead { .. } => "dead",
            Self::Cancelled { .. } => "cancelled",
            Self::GivenBack => "given_back",
        }
    }

    /// What becomes of the row; a run that is done is written by another statement.
    pub fn next(&self) -> Next<'_> {
        match self {
            Self::Retry { error, wait } => Next::Wait { wait: *wait, error: Some(error), reason: None },
            Self::Snooze { wait, reason } => Next::Wait { wait: *wait, error: None, reason: reason.as_ref() },
            Self::Dead { error } => Next::Dead { error },
            Self::Cancelled { error } => Next::Cancelled { error },
            Self::GivenBack | Self::Done => Next::GiveBack,
        }
    }

    /// The one line about a run.
    pub fn log(&self) {
        match self {
            Self::Done => tracing::info!("job done"),
            Self::Retry { error, wait } => tracing::warn!(%error, retry_in = ?wait, "job failed; trying again"),
            Self::Snooze { wait, reason } => {
                let reason = reason.as_ref().map(StorableText::as_str);
                tracing::info!(again_in = ?wait, reason, "job snoozed");
            }
            Self::Dead { error } => tracing::error!(%error, "job given up: now a dead letter"),
            Self::Cancelled { .. } => tracing::warn!("job cancelled by an operator"),
            Self::GivenBack => tracing::info!("stopping: job given back"),
        }
    }
}

impl<E: std::error::Error + 'static> From<E> for Failure {
    /// Keeps the message of the error and of everything that caused it.
    fn from(error: E) -> Self {
        Self::new(causes(&error))
    }
}

/// The result of one run.
#[derive(Debug)]
pub struct RunResult {
    pub queue: &'static str,
    pub id: String,
    pub token: i32,
    /// The limit of failures that applied.
    pub attempts: i32,
    /// The run came to an end of its own and its job goes on: deaths of its workers are counted anew.
    pub survived: bool,
    pub disposition: Disposition,
}
