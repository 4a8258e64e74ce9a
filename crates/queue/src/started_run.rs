//! A run that has started: the fields of its log lines, and what its end releases.

use std::{fmt, sync::Mutex, time::Instant};

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{
    in_flight::ClaimedJob,
    job::{Failure, JobId, Origin, Outcome, Run},
    storable::StorableText,
    store::claim::Claimed,
};
use runtime::{
    mutex::lock,
    telemetry::{
        scope::{Fields, Value, Visit},
        traces::span::Span,
    },
};

/// A run that has started. It is the scope of its log lines.
pub(crate) struct StartedRun {
    pub queue: &'static str,
    pub job: Claimed,
    pub started: Instant,
    pub trace: Span,
    ending: Mutex<Option<Ending>>,
}

/// What the end of a run releases. It is taken once, so that each run has one result.
pub(crate) struct Ending {
    _slot: OwnedSemaphorePermit,
    /// The batch of runs has ended when all tokens are dropped.
    _batch: TaskTrackerToken,
}

/// How a run ended.
pub(crate) enum Ended {
    Outcome(Outcome),
    Failure(Failure),
    /// The payload cannot be decoded.
    Unreadable(StorableText),
    /// The job did not run, because too many workers died during its runs.
    Quarantined,
    /// An operator has cancelled the job.
    Cancelled,
    GracePeriodOver,
}

impl StartedRun {
    /// Starts the run of a claimed job, with its span.
    pub(crate) fn new(queue: &'static str, ClaimedJob { job, slot }: ClaimedJob, batch: TaskTrackerToken) -> Self {
        let trace = {
            let (enqueued, correlation_id) = (job.traceparent.as_deref(), job.correlation_id.as_deref());
            Span::run(queue, &job.id, enqueued, correlation_id, job.token)
        };
        let ending = Mutex::new(Some(Ending { _slot: slot, _batch: batch }));
        Self { queue, job, started: Instant::now(), trace, ending }
    }

    /// Takes what ends with this run; `None` if another has ended it.
    pub(crate) fn take_ending(&self) -> Option<Ending> {
        lock(&self.ending).take()
    }

    /// Whether the run has ended, or is about to.
    pub(crate) fn has_ended(&self) -> bool {
        lock(&self.ending).is_none()
    }

    /// Earlier runs of the job that failed.
    pub(crate) fn failures(&self) -> u32 {
        u32::try_from(self.job.failures).unwrap_or(0)
    }

    /// The run as its handler sees it.
    pub(crate) fn details(&self) -> Run {
        let traceparent = self.trace.sampled_traceparent().or_else(|| self.job.traceparent.clone());
        Run {
            id: JobId::parse(&self.job.id),
            token: self.job.token,
            failures: self.failures(),
            origin: Origin { correlation_id: self.job.correlation_id.clone(), traceparent },
        }
    }
}

impl Fields for StartedRun {
    fn visit(&self, visit: &mut Visit<'_>) -> fmt::Result {
        let job = &self.job;
        visit("queue", Value::Text(self.queue))?;
        visit("job", Value::Text(&job.id))?;
        visit("run", Value::Number(job.token.into()))?;
        for (name, value) in [("correlation_id", &job.correlation_id), ("traceparent", &job.traceparent)] {
            if let Some(value) = value {
                visit(name, Value::Text(value))?;
            }
        }
        Ok(())
    }
}
