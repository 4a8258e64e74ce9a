//! The end of a job without success: `on_discard` runs before the job becomes a dead letter or is cancelled.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{
    task::{AbortHandle, JoinError},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    job::{Failure, Job, Policy},
    payload::{decode, panic_text},
    result::Disposition,
    started_run::StartedRun,
    store::results::find_held,
};
use runtime::{
    db::Pool,
    error::causes,
    sabotage::{self, Bug},
    telemetry::scope,
};

/// Ends jobs of one kind without success.
pub(crate) trait Discard: Send + Sync {
    /// Runs [`Job::on_discard`] for a job that becomes a dead letter or is cancelled. Only if that succeeds, it does. Otherwise it
    /// is retried.
    ///
    /// A run that no longer holds its job skips it: another run may be under way, whose record this one must not change. The
    /// result of this run is then dropped.
    ///
    /// Boxed, so that the task of a job that is done is small.
    fn discard<'r>(&'r self, run: &'r StartedRun, disposition: Disposition) -> BoxFuture<'r, Disposition>;
}

/// What ends jobs of one kind that have failed.
pub(crate) struct Discarder<J: Job> {
    pub context: J::Context,
    pub policy: Policy,
    pub pool: Pool,
    pub worker: Arc<str>,
    /// Cancelled when the grace period of a stop is over.
    pub give_back: CancellationToken,
}

impl<J: Job> Discarder<J> {
    /// The disposition after a failure that is retried.
    pub(crate) fn retry(&self, failure: Failure, failures: u32) -> Disposition {
        let mut wait = self.policy.backoff.wait(failures).max(failure.not_before);
        if sabotage::planted(Bug::RetrySkipsBackoff) {
            wait = Duration::ZERO;
        }
        Disposition::Retry { error: failure.error.into(), wait }
    }
}

impl<J: Job> Discard for Discarder<J> {
    fn discard<'r>(&'r self, run: &'r StartedRun, disposition: Disposition) -> BoxFuture<'r, Disposition> {
        Box::pin(async move {
            let (Disposition::Dead { error } | Disposition::Cancelled { error }) = &disposition else {
                return disposition;
            };
            let Ok(payload) = decode::<J>(&run.job.payload) else { return disposition };
            let (pool, worker) = (self.pool.clone(), self.worker.clone());
            let (ids, tokens) = ([run.job.id.clone()], [run.job.token]);
            let (context, reason) = (self.context.clone(), error.to_string());
            // In a task of its own, so that a panic stays there and the deadline can abort it.
            let on_discard = scope::inherit(async move {
                let held = find_held(&pool, &worker, &ids, &tokens).await;
                let held = held.map_err(|error| Failure::new(causes(&error)))?;
                if held.is_empty() { Ok(()) } else { payload.on_discard(context, reason).await }
            });
            let mut task = tokio::spawn(run.trace.attach_to(on_discard));
            let _end = AbortOnDrop(task.abort_handle());
            let ended = tokio::select! {
                biased;
                ended = timeout(self.policy.deadline, &mut task) => ended,
                () = self.give_back.cancelled() => return Disposition::GivenBack,
            };
            let failure = match ended {
                Ok(Ok(Ok(()))) => return disposition,
                Ok(Ok(Err(failure))) => failure,
                Ok(Err(panic)) => Failure::new(join_error_text(panic)),
                Err(_elapsed) => Failure::new(format!("cancelled after its deadline of {:?}", self.policy.deadline)),
            };
            self.retry(failure, run.failures().saturating_add(1))
        })
    }
}

/// Aborts a task when it is dropped. Does nothing if the task has ended.
pub(crate) struct AbortOnDrop(pub AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn join_error_text(error: JoinError) -> String {
    error.try_into_panic().map_or_else(|_| "cancelled".into(), |panic| panic_text(&*panic))
}
