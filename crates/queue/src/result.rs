//! The result of one run: the disposition of its job, and the log line about it.

use std::{sync::Arc, time::Duration};

use super::{cancel::CANCELLED, job::Failure, started_run::StartedRun, storable::StorableText, store::results::Next};
use runtime::error::causes;

/// What a run's result does to its job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Disposition {
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
    /// An operator has cancelled it.
    Cancelled {
        error: StorableText,
    },
    GivenBack,
}

impl Disposition {
    /// The disposition of a job that an operator has cancelled.
    pub(crate) fn cancelled() -> Self {
        Self::Cancelled { error: CANCELLED.into() }
    }

    /// The value of the label `outcome`.
    pub(crate) fn outcome(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Retry { .. } => "retry",
            Self::Snooze { .. } => "snooze",
            Self::Dead { .. } => "dead",
            Self::Cancelled { .. } => "cancelled",
            Self::GivenBack => "given_back",
        }
    }

    /// The new state of the row. Runs that are done are written by another statement.
    pub(crate) fn next(&self) -> Next<'_> {
        match self {
            Self::Retry { error, wait } => Next::Wait { wait: *wait, error: Some(error), reason: None },
            Self::Snooze { wait, reason } => Next::Wait { wait: *wait, error: None, reason: reason.as_ref() },
            Self::Dead { error } => Next::Dead { error },
            Self::Cancelled { error } => Next::Cancelled { error },
            Self::GivenBack | Self::Done => Next::GiveBack,
        }
    }

    /// Logs the result of the run.
    pub(crate) fn log(&self) {
        match self {
            Self::Done => tracing::info!("job done"),
            Self::Retry { error, wait } => tracing::warn!(%error, retry_in = ?wait, "job failed; retrying"),
            Self::Snooze { wait, reason } => {
                let reason = reason.as_ref().map(StorableText::as_str);
                tracing::info!(due_in = ?wait, reason, "job snoozed");
            }
            Self::Dead { error } => tracing::error!(%error, "job became a dead letter"),
            Self::Cancelled { .. } => tracing::warn!("job cancelled by an operator"),
            Self::GivenBack => tracing::info!("job given back, because the worker stops"),
        }
    }
}

impl<E: std::error::Error + 'static> From<E> for Failure {
    /// Keeps the message of the error and of all its causes.
    fn from(error: E) -> Self {
        Self::new(causes(&error))
    }
}

/// The result of one run.
pub(crate) struct RunResult {
    pub run: Arc<StartedRun>,
    /// The limit of failures that applied.
    pub attempts: i32,
    /// The run ended without a crash and its job goes on, so the job's consecutive crashes are reset.
    pub survived: bool,
    pub disposition: Disposition,
}

impl RunResult {
    pub(crate) fn queue(&self) -> &'static str {
        self.run.queue
    }

    /// The id of the job.
    pub(crate) fn id(&self) -> &str {
        &self.run.job.id
    }

    pub(crate) fn token(&self) -> i32 {
        self.run.job.token
    }
}
