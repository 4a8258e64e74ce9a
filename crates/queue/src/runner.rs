//! One run of a job: decodes the payload, runs it under a deadline, decides the disposition, and hands over the result.

use std::{
    any::Any,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinError},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, info_span};

use super::{
    cancel::Cancellations,
    counts::QueueCounts,
    engine::Handler,
    in_flight::ClaimedJob,
    job::{Failure, Job, JobId, Origin, Outcome, Policy, Run},
    metrics::Runs,
    result::{Disposition, RunResult},
    storable::StorableText,
    store::claim::Claimed,
};
use runtime::{
    sabotage::{self, Bug},
    telemetry::traces,
};

/// A job is quarantined after this many consecutive crashes: it becomes a dead letter with the evidence instead of
/// running again, because it is likely to kill the next worker and every job in it.
///
/// One crash proves nothing. A worker that cannot reach the database for longer than its lease, or is killed, leaves a
/// crash on every job it held. Such an incident affects a job at most once, and only while it runs. A harmless job
/// would need three of them within its seconds or minutes of running. A job that kills its worker needs three runs, at
/// most three leases apart.
const MAX_CRASHES: i32 = 3;

/// What all runs of one job kind share.
struct Runner<J: Job> {
    context: J::Context,
    policy: Policy,
    parts: RunnerParts,
    runs: Runs,
}

/// What the runner of a job kind needs from its worker.
pub(crate) struct RunnerParts {
    pub results: mpsc::UnboundedSender<RunResult>,
    /// Cancelled when the grace period of a stop is over.
    pub give_back: CancellationToken,
    pub cancellations: Arc<Cancellations>,
    pub counts: Arc<QueueCounts>,
}

/// Creates the handler of one job kind.
pub(crate) fn handler<J: Job>(context: J::Context, policy: Policy, parts: RunnerParts) -> Handler {
    let runner = Arc::new(Runner::<J> { context, policy, parts, runs: Runs::of(J::NAME) });
    Arc::new(move |claimed| {
        let runner = runner.clone();
        Box::pin(async move { runner.run(claimed).await })
    })
}

impl<J: Job> Runner<J> {
    /// Runs a job from its start to its result, then frees its slot.
    async fn run(&self, ClaimedJob { job, slot }: ClaimedJob) {
        self.runs.wait.record(job.waited.max(0.0));
        self.parts.counts.start(job.waited);
        let started = Instant::now();
        let span = info_span!(
            "job",
            queue = J::NAME,
            job = job.id,
            run = job.token,
            correlation_id = job.correlation_id,
            traceparent = job.traceparent,
        );
        let trace = {
            let (enqueued, correlation_id) = (job.traceparent.as_deref(), job.correlation_id.as_deref());
            traces::span::Span::run(J::NAME, &job.id, enqueued, correlation_id, job.token)
        };
        let disposition = self.execute(&job, &RunSpans { log: &span, trace: &trace }).await;
        let duration = started.elapsed();
        self.runs.run.record(duration);
        self.runs.finished(disposition.outcome());
        self.parts.counts.end(disposition.outcome(), duration);
        trace.set_attribute("millrace.job.outcome", disposition.outcome());
        if matches!(disposition, Disposition::Retry { .. } | Disposition::Dead { .. }) {
            trace.record_error(disposition.outcome());
        }
        trace.attach_to(async { span.in_scope(|| disposition.log()) }).await;
        drop(trace);
        let attempts = i32::try_from(self.policy.attempts).unwrap_or(i32::MAX);
        // A quarantined job did not run: its crashes are kept, also when its `on_discard` failed.
        let survived =
            job.crashes < MAX_CRASHES && matches!(disposition, Disposition::Retry { .. } | Disposition::Snooze { .. });
        // The receiver outlives every runner; without it, the lease would expire and the job would run again.
        let result = RunResult { queue: J::NAME, id: job.id, token: job.token, attempts, survived, disposition };
        let _ = self.parts.results.send(result);
        drop(slot);
    }

    /// Runs the job, or quarantines it, and decides what becomes of it.
    async fn execute(&self, job: &Claimed, spans: &RunSpans<'_>) -> Disposition {
        let payload: J = match decode(&job.payload) {
            Ok(payload) => payload,
            Err(error) => return Disposition::Dead { error },
        };
        let failures = u32::try_from(job.failures).unwrap_or(0);
        let next_failure = failures.saturating_add(1);
        if job.crashes >= MAX_CRASHES {
            let error = format!("quarantined: a worker died during {} of its runs", job.crashes);
            return self.discard(job, Disposition::Dead { error: error.into() }, next_failure, spans).await;
        }
        let (context, run) = (self.context.clone(), run_of(job, failures, spans.trace));
        // The handler is called inside the task, so that even a panic before its first await stays there.
        let run = self.run_isolated(async move { payload.run(context, run).await }, spans);
        // A cancellation drops `run`, which aborts the task at its next await.
        let ended = tokio::select! {
            biased;
            () = self.parts.cancellations.wait_for_request(&job.id) => Ended::Cancelled,
            ended = run => ended,
        };
        let discarded = match ended {
            Ended::Outcome(Outcome::Done) => return Disposition::Done,
            Ended::Outcome(Outcome::Snooze(wait)) => return Disposition::Snooze { wait, reason: None },
            Ended::Outcome(Outcome::SnoozeBecause(wait, reason)) => {
                return Disposition::Snooze { wait, reason: Some(reason.into()) };
            }
            Ended::GracePeriodOver => return Disposition::GivenBack,
            Ended::Failure(failure) if next_failure < self.policy.attempts => return self.retry(failure, next_failure),
            Ended::Failure(failure) => Disposition::Dead { error: failure.error.into() },
            Ended::Outcome(Outcome::Reject(error)) => Disposition::Dead { error: error.into() },
            Ended::Cancelled => Disposition::cancelled(),
        };
        self.discard(job, discarded, next_failure, spans).await
    }

    /// The disposition after a failure that is retried.
    fn retry(&self, failure: Failure, failures: u32) -> Disposition {
        let mut wait = self.policy.backoff.wait(failures).max(failure.not_before);
        if sabotage::planted(Bug::RetrySkipsBackoff) {
            wait = Duration::ZERO;
        }
        Disposition::Retry { error: failure.error.into(), wait }
    }

    /// Runs [`Job::on_discard`]. The job becomes a dead letter, or a cancelled job, only if that succeeds.
    async fn discard(
        &self,
        job: &Claimed,
        disposition: Disposition,
        failures: u32,
        spans: &RunSpans<'_>,
    ) -> Disposition {
        let (Disposition::Dead { error } | Disposition::Cancelled { error }) = &disposition else { return disposition };
        let Ok(payload) = decode::<J>(&job.payload) else { return disposition };
        let (context, reason) = (self.context.clone(), error.to_string());
        let on_discard = async move { payload.on_discard(context, reason).await.map(|()| Outcome::Done) };
        match self.run_isolated(on_discard, spans).await {
            Ended::Outcome(_) | Ended::Cancelled => disposition,
            Ended::Failure(failure) => self.retry(failure, failures),
            Ended::GracePeriodOver => Disposition::GivenBack,
        }
    }

    /// Runs `work` in its own task, so that a panic stays there and the deadline can abort it.
    async fn run_isolated<F>(&self, work: F, spans: &RunSpans<'_>) -> Ended
    where
        F: Future<Output = Result<Outcome, Failure>> + Send + 'static,
    {
        let mut task = tokio::spawn(spans.trace.attach_to(work.instrument(spans.log.clone())));
        let _end = AbortOnDrop(task.abort_handle());
        let ended = tokio::select! {
            biased;
            ended = timeout(self.policy.deadline, &mut task) => ended,
            () = self.parts.give_back.cancelled() => return Ended::GracePeriodOver,
        };
        match ended {
            Ok(Ok(Ok(outcome))) => Ended::Outcome(outcome),
            Ok(Ok(Err(failure))) => Ended::Failure(failure),
            Ok(Err(panic)) => Ended::Failure(Failure::new(panic_message(panic))),
            Err(_elapsed) => {
                Ended::Failure(Failure::new(format!("cancelled after its deadline of {:?}", self.policy.deadline)))
            }
        }
    }
}

/// The spans of a run: one for its log lines and one for its trace.
struct RunSpans<'a> {
    log: &'a Span,
    trace: &'a traces::span::Span,
}

/// Aborts a task when the future that waits for it is dropped. Does nothing if the task has ended.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How isolated work ended.
enum Ended {
    Outcome(Outcome),
    Failure(Failure),
    /// An operator has cancelled the job.
    Cancelled,
    GracePeriodOver,
}

/// Decodes a payload. The decoder of a feature may panic too, which must not end the worker.
fn decode<J: Job>(payload: &[u8]) -> Result<J, StorableText> {
    let decoded = catch_unwind(AssertUnwindSafe(|| serde_json::from_slice(payload)));
    match decoded {
        Ok(Ok(payload)) => Ok(payload),
        Ok(Err(error)) => Err(format!("undecodable payload: {error}").into()),
        Err(panic) => Err(format!("undecodable payload: {}", panic_text(&*panic)).into()),
    }
}

fn run_of(job: &Claimed, failures: u32, trace: &traces::span::Span) -> Run {
    let traceparent = trace.sampled_traceparent().or_else(|| job.traceparent.clone());
    Run {
        id: JobId::parse(&job.id),
        token: job.token,
        failures,
        origin: Origin { correlation_id: job.correlation_id.clone(), traceparent },
    }
}

fn panic_message(error: JoinError) -> String {
    error.try_into_panic().map_or_else(|_| "cancelled".into(), |panic| panic_text(&*panic))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("no message"))
}
