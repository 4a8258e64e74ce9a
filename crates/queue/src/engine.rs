//! The adapter to apalis: claimed jobs reach their runner through an apalis worker with our own backend.
//!
//! A task of apalis carries all claimed jobs that wait at this moment. A task for each would cost nine allocations and two
//! copies of the worker's context, for features that we do not use.
//!
//! apalis-core drives the jobs; claims, leases, results and shutdown are ours. The stock PostgreSQL backend also has
//! these, but it hangs in shutdown above four times its batch size. It loses wake-ups for up to a heartbeat, and slow
//! handlers starve its heartbeats (measured with apalis-postgres 1.0.0).

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use apalis_core::{
    backend::{Backend, BackendConfig, finalize::Ephemeral},
    error::WorkerError,
    task::{Task, builder::TaskBuilder},
    worker::{builder::WorkerBuilder, context::WorkerContext},
};
use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::mpsc;
use tower::{layer::util::Identity, service_fn};
use ulid::Ulid;

use super::in_flight::ClaimedJob;

/// The most jobs of one task.
const MAX_BATCH: usize = 256;

/// Runs claimed jobs until their results are handed over. It never fails.
pub(crate) type Handler = Arc<dyn Fn(Vec<ClaimedJob>) -> BoxFuture<'static, ()> + Send + Sync>;

/// Runs the jobs of the channel until the channel closes and all of them have ended.
///
/// # Errors
/// An error of apalis itself. None is expected, because neither the backend nor the service can fail.
pub(crate) fn run(
    name: &str,
    jobs: mpsc::Receiver<ClaimedJob>,
    handler: Handler,
) -> BoxFuture<'static, Result<(), WorkerError>> {
    let service = service_fn(move |task: Task<Vec<ClaimedJob>>| handler(task.args).map(Ok::<(), Infallible>));
    WorkerBuilder::new(name).backend(ClaimedJobs(jobs)).build(service).run().boxed()
}

/// The apalis backend: a stream of jobs that are already claimed, each with a free slot.
struct ClaimedJobs(mpsc::Receiver<ClaimedJob>);

impl Backend for ClaimedJobs {
    type Task = Task<Vec<ClaimedJob>>;
    type Error = Infallible;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, _: &WorkerContext) -> Poll<Option<Result<Self::Task, Infallible>>> {
        let mut jobs = Vec::new();
        let received = self.0.poll_recv_many(cx, &mut jobs, MAX_BATCH);
        received.map(|count| (count > 0).then(|| Ok(TaskBuilder::new(jobs).build())))
    }

    fn poll_close(&mut self, _: &mut Context<'_>, worker: &WorkerContext) -> Poll<Result<(), Infallible>> {
        // The end of the stream does not end an apalis worker. `stop` fails only for a worker that has not started.
        let _ = worker.stop();
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for ClaimedJobs {
    type Args = Vec<ClaimedJob>;
    type Id = Ulid;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = Identity;

    fn config(&self) -> &() {
        &()
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> Identity {
        Identity::new()
    }
}
