//! The life of one run: decode, run under a deadline, judge, on_discard if it was the last, hand over the result.

use std::{
    any::Any,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
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
    claim::ClaimedJob,
    engine::Handler,
    job::{Failure, Job, JobId, Origin, Outcome, Policy, Run},
    metrics::Runs,
    result::{Disposition, RunResult},
    storable::StorableText,
    store::Claimed,
};
use runtime::telemetry::traces;

/// A job during which a worker died this often, without a run that came to an end in between, is not run again, but set
/// aside with the evidence: it is likely to kill the next worker too, with everything else in it.
///
/// One death proves nothing: a worker that loses the database for longer than its lease, or is stopped without one,
/// leaves a crash on every job it held. Such an incident hits a job at most once, and only while it runs; an innocent
/// one would need three of them in its few seconds or minutes of running. A job that kills its worker needs three
/// runs for it, at most three leases apart.
const CRASHES: i32 = 3;

/// What every run of one kind of job shares.
struct Runner<J: Job> {
    context: J::Context,
    policy: Policy,
    results: mpsc::UnboundedSender<RunResult>,
    /// Cancelled when the time for finishing is over.
    give_back: CancellationToken,
    cancellations: Arc<Cancellations>,
    runs: Runs,
}

/// Makes the handler of one kind of job.
pub fn handler<J: Job>(
    context: J::Context,
    policy: Policy,
    results: mpsc::UnboundedSender<RunResult>,
    give_back: CancellationToken,
    cancellations: Arc<Cancellations>,
) -> Handler {
    let runs = Runs::of(J::NAME);
    let runner = Arc::new(Runner::<J> { context, policy, results, give_back, cancellations, runs });
    Arc::new(move |held| {
        let runner = runner.clone();
        Box::pin(async move { runner.live(held).await })
    })
}

impl<J: Job> Runner<J> {
    /// One run from its start to its result. The slot is free again when this ends.
    async fn live(&self, ClaimedJob { job, slot }: ClaimedJob) {
        self.runs.wait.record(job.waited.max(0.0));
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
        let disposition = self.disposition(&job, &Around { span: &span, trace: &trace }).await;
        self.runs.run.record(started.elapsed());
        self.runs.finished(disposition.outcome());
        trace.set_attribute("millrace.job.outcome", disposition.outcome());
        if matches!(disposition, Disposition::Retry { .. } | Disposition::Dead { .. }) {
            trace.record_error(disposition.outcome());
        }
        trace.attach_to(async { span.in_scope(|| disposition.log()) }).await;
        drop(trace);
        let attempts = i32::try_from(self.policy.attempts).unwrap_or(i32::MAX);
        // A quarantined job did not run: its deaths stand, also when it could not be given up yet.
        let survived =
            job.crashes < CRASHES && matches!(disposition, Disposition::Retry { .. } | Disposition::Snooze { .. });
        // The receiver outlives every runner; were it gone, the lease would end and the job run again.
        let result = RunResult { queue: J::NAME, id: job.id, token: job.token, attempts, survived, disposition };
        let _ = self.results.send(result);
        drop(slot);
    }

    async fn disposition(&self, job: &Claimed, around: &Around<'_>) -> Disposition {
        let payload: J = match decode(&job.payload) {
            Ok(payload) => payload,
            Err(error) => return Disposition::Dead { error },
        };
        let failures = u32::try_from(job.failures).unwrap_or(0);
        let next_failure = failures.saturating_add(1);
        if job.crashes >= CRASHES {
            let error = format!("quarantined: a worker died during {} of its runs", job.crashes);
            return self.on_discard(job, Disposition::Dead { error: error.into() }, next_failure, around).await;
        }
        let (context, run) = (self.context.clone(), run_of(job, failures, around.trace));
        // Not called before it is polled: what panics in it does so on its own task.
        let run = self.guarded(async move { payload.run(context, run).await }, around);
        // Dropped by a cancellation, the run is aborted at its next await.
        let ended = tokio::select! {
            biased;
            () = self.cancellations.requested(&job.id) => Ended::Cancelled,
            ended = run => ended,
        };
        let given_up = match ended {
            Ended::Outcome(Outcome::Done) => return Disposition::Done,
            Ended::Outcome(Outcome::Snooze(wait)) => return Disposition::Snooze { wait, reason: None },
            Ended::Outcome(Outcome::SnoozeBecause(wait, reason)) => {
                return Disposition::Snooze { wait, reason: Some(reason.into()) };
            }
            Ended::TimeIsUp => return Disposition::GivenBack,
            Ended::Failure(failure) if next_failure < self.policy.attempts => return self.retry(failure, next_failure),
            Ended::Failure(failure) => Disposition::Dead { error: failure.error.into() },
            Ended::Outcome(Outcome::Reject(error)) => Disposition::Dead { error: error.into() },
            Ended::Cancelled => Disposition::cancelled(),
        };
        self.on_discard(job, given_up, next_failure, around).await
    }

    fn retry(&self, failure: Failure, failures: u32) -> Disposition {
        let wait = self.policy.backoff.wait(failures).max(failure.not_before);
        Disposition::Retry { error: failure.error.into(), wait }
    }

    /// Lets the job record its own end; only then it may become a dead letter, or a cancelled job.
    async fn on_discard(
        &self,
        job: &Claimed,
        given_up: Disposition,
        failures: u32,
        around: &Around<'_>,
    ) -> Disposition {
        let (Disposition::Dead { error } | Disposition::Cancelled { error }) = &given_up else { return given_up };
        let Ok(payload) = decode::<J>(&job.payload) else { return given_up };
        let (context, reason) = (self.context.clone(), error.to_string());
        let discarded = async move { payload.on_discard(context, reason).await.map(|()| Outcome::Done) };
        match self.guarded(discarded, around).await {
            Ended::Outcome(_) | Ended::Cancelled => given_up,
            Ended::Failure(failure) => self.retry(failure, failures),
            Ended::TimeIsUp => Disposition::GivenBack,
        }
    }

    /// Runs on a task of its own, so that a panic stays in it and the deadline can cancel it.
    async fn guarded<F>(&self, work: F, around: &Around<'_>) -> Ended
    where
        F: Future<Output = Result<Outcome, Failure>> + Send + 'static,
    {
        let mut task = tokio::spawn(around.trace.attach_to(work.instrument(around.span.clone())));
        let _end = AbortOnDrop(task.abort_handle());
        let ended = tokio::select! {
            biased;
            ended = timeout(self.policy.deadline, &mut task) => ended,
            () = self.give_back.cancelled() => return Ended::TimeIsUp,
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

/// What is noted about a run while it runs: for its log lines, and for its trace.
struct Around<'a> {
    span: &'a Span,
    trace: &'a traces::span::Span,
}

/// Ends a task with the future that waits for it; one that has ended does not notice.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How guarded work came to its end.
enum Ended {
    Outcome(Outcome),
    Failure(Failure),
    /// An operator wants it to end.
    Cancelled,
    TimeIsUp,
}

/// Reads a payload. A decoder of a feature may panic as well: that must not end the queue.
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
