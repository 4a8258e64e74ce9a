//! The life of one run: decode, run under a deadline, judge, bury if it was the last, hand over the result.

use std::{any::Any, future::Future, sync::Arc, time::Instant};

use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinError},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, info_span};

use super::{
    acknowledge::{Result as RunResult, Verdict},
    cancel::{CANCELLED, Cancellations},
    claim::Held,
    engine::Handler,
    job::{Failure, Job, JobId, Origin, Outcome, Policy, Run},
    metrics::Runs,
    store::Claimed,
};
use crate::boot::telemetry::traces;

/// A job during which a worker died this often is not run again, but set aside with the evidence: it is likely to kill
/// the next worker too, with everything else in it.
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
    async fn live(&self, Held { job, slot }: Held) {
        self.runs.wait.record((job.claimed_at - job.run_at).as_seconds_f64().max(0.0));
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
        let verdict = self.verdict(&job, &Around { span: &span, trace: &trace }).await;
        self.runs.run.record(started.elapsed());
        self.runs.finished(verdict.outcome());
        trace.set("millrace.job.outcome", verdict.outcome());
        if matches!(verdict, Verdict::Retry { .. } | Verdict::Dead { .. }) {
            trace.failed(verdict.outcome());
        }
        trace.around(async { span.in_scope(|| verdict.log()) }).await;
        drop(trace);
        let attempts = i32::try_from(self.policy.attempts).unwrap_or(i32::MAX);
        // The receiver outlives every runner; were it gone, the lease would end and the job run again.
        let _ = self.results.send(RunResult { queue: J::NAME, id: job.id, token: job.token, attempts, verdict });
        drop(slot);
    }

    async fn verdict(&self, job: &Claimed, around: &Around<'_>) -> Verdict {
        let payload: J = match serde_json::from_slice(&job.payload) {
            Ok(payload) => payload,
            Err(error) => return Verdict::Dead { error: format!("undecodable payload: {error}") },
        };
        let failures = u32::try_from(job.failures).unwrap_or(0);
        if job.crashes >= CRASHES {
            let error = format!("quarantined: a worker died during {} of its runs", job.crashes);
            return self.bury(job, error, failures + 1, around).await;
        }
        let run = self.guarded(payload.run(self.context.clone(), run_of(job, failures, around.trace)), around);
        // Dropped by a cancellation, the run is aborted at its next await.
        let ended = tokio::select! {
            biased;
            () = self.cancellations.requested(&job.id) => Ended::Outcome(Outcome::Reject(CANCELLED.into())),
            ended = run => ended,
        };
        let verdict = match ended {
            Ended::Outcome(Outcome::Done) => Verdict::Done,
            Ended::Outcome(Outcome::Snooze(wait)) => Verdict::Snooze { wait },
            Ended::Outcome(Outcome::Reject(error)) => Verdict::Dead { error },
            Ended::Failure(failure) if failures + 1 >= self.policy.attempts => Verdict::Dead { error: failure.error },
            Ended::Failure(failure) => self.retry(failure, failures + 1),
            Ended::TimeIsUp => Verdict::GivenBack,
        };
        match verdict {
            Verdict::Dead { error } => self.bury(job, storable(error), failures + 1, around).await,
            other => other,
        }
    }

    fn retry(&self, failure: Failure, failures: u32) -> Verdict {
        let wait = self.policy.backoff.wait(failures).max(failure.not_before);
        Verdict::Retry { error: storable(failure.error), wait }
    }

    /// Lets the job record its own end; only then it may become a dead letter.
    async fn bury(&self, job: &Claimed, error: String, failures: u32, around: &Around<'_>) -> Verdict {
        let Ok(payload) = serde_json::from_slice::<J>(&job.payload) else { return Verdict::Dead { error } };
        let buried = payload.bury(self.context.clone(), error.clone());
        match self.guarded(async { buried.await.map(|()| Outcome::Done) }, around).await {
            Ended::Outcome(_) => Verdict::Dead { error },
            Ended::Failure(failure) => self.retry(failure, failures),
            Ended::TimeIsUp => Verdict::GivenBack,
        }
    }

    /// Runs on a task of its own, so that a panic stays in it and the deadline can cancel it.
    async fn guarded<F>(&self, work: F, around: &Around<'_>) -> Ended
    where
        F: Future<Output = Result<Outcome, Failure>> + Send + 'static,
    {
        let mut task = tokio::spawn(around.trace.around(work.instrument(around.span.clone())));
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
    TimeIsUp,
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

/// What PostgreSQL takes as a text, and an operator reads: no NUL, and no more than a screen of it.
fn storable(error: String) -> String {
    const LONGEST: usize = 4000;
    let clean = if error.contains('\0') { error.replace('\0', "\u{FFFD}") } else { error };
    if clean.len() <= LONGEST { clean } else { clean.chars().take(LONGEST / 4).chain("…".chars()).collect() }
}

fn panic_message(error: JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "cancelled".into() };
    let panic: &(dyn Any + Send) = &*panic;
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("no message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_of_an_error_can_be_stored() {
        assert_eq!(storable("plain".into()), "plain");
        assert_eq!(storable("a\0b".into()), "a\u{FFFD}b");
        let long = storable("ä".repeat(100_000));
        assert!(long.len() <= 4000 && long.ends_with('…'), "{} bytes", long.len());
    }
}
