//! apalis: a claimed job reaches its runner through an apalis worker, over a backend of our own.
//!
//! apalis-core drives; claiming, leases, results and shutdown are ours. The stock PostgreSQL backend has them too, but
//! hangs in shutdown above four times its batch size, loses wake-ups for up to a heartbeat, and starves heartbeats
//! behind slow handlers; measured with apalis-postgres 1.0.0.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use apalis_core::{
    backend::{Backend, BackendConfig, finalize::Ephemeral},
    error::WorkerError,
    task::{Task, builder::TaskBuilder, task_id::TaskId},
    worker::{builder::WorkerBuilder, context::WorkerContext},
};
use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::mpsc;
use tower::{layer::util::Identity, service_fn};
use ulid::Ulid;

use super::claim::ClaimedJob;

/// Runs one claimed job to its result, whatever happens in it.
pub type Handler = Arc<dyn Fn(ClaimedJob) -> BoxFuture<'static, ()> + Send + Sync>;

/// Runs what comes in until the channel closes and everything in it has ended.
///
/// # Errors
/// apalis' own; with this backend and an infallible service there is none that is expected.
pub fn run(
    name: &str,
    jobs: mpsc::Receiver<ClaimedJob>,
    handler: Handler,
) -> BoxFuture<'static, Result<(), WorkerError>> {
    let service = service_fn(move |task: Task<ClaimedJob>| handler(task.args).map(Ok::<(), Infallible>));
    WorkerBuilder::new(name).backend(Claims(jobs)).build(service).run().boxed()
}

/// The backend: a stream of jobs that are already claimed, one for each slot that is free.
struct Claims(mpsc::Receiver<ClaimedJob>);

impl Backend for Claims {
    type Task = Task<ClaimedJob>;
    type Error = Infallible;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, _: &WorkerContext) -> Poll<Option<Result<Self::Task, Infallible>>> {
        self.0.poll_recv(cx).map(|held| {
            held.map(|held| {
                let id = TaskId::from_string(held.job.id.clone());
                Ok(TaskBuilder::new(held).task_id(id).build())
            })
        })
    }

    fn poll_close(&mut self, _: &mut Context<'_>, worker: &WorkerContext) -> Poll<Result<(), Infallible>> {
        // The end of the stream alone does not end an apalis worker; the one error, not started, cannot happen here.
        let _ = worker.stop();
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for Claims {
    type Args = ClaimedJob;
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
