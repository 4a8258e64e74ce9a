#![doc = include_str!("../README.md")]
//!
//! ## Modules
//!
//! Start with [`job`], [`enqueue`](mod@enqueue) and [`worker`]. The SQL is in `store`. Below `worker`: `poller` decides when to look for
//! work, `claim` takes due jobs, `engine` passes them through apalis, `runner` runs one of them, `acknowledge` writes results,
//! `heartbeat` renews the lease and rescues jobs of dead workers, `watchdog` ends a blocked process.

mod acknowledge;
pub mod batch;
mod cancel;
mod claim;
mod cleaner;
mod engine;
pub mod enqueue;
pub mod gauges;
mod heartbeat;
pub mod job;
pub mod metrics;
pub mod operator;
mod poller;
mod result;
pub mod retry;
mod runner;
pub mod schedule;
mod silence;
pub mod status;
mod storable;
mod store;
mod watchdog;
pub mod worker;
mod write_results;

pub use cancel::CANCELLED;
pub use cleaner::Retention;
pub use enqueue::{NewJob, Queue, Tx, enqueue, hold_waiting};
pub use gauges::Gauges;
pub use job::{Failure, Job, JobId, Origin, Outcome, Policy, Priority, Run};
pub use operator::{JobKinds, Operator, Replayable};
pub(crate) use storable::ReadTime;
pub use worker::{Registry, Timing, Worker};

use runtime::{error::Error, pooler::repeatable};

/// Every notification of the queue goes through this channel; the payload is the name of a queue with new work.
const CHANNEL: &str = "millrace_jobs";
/// The payload that is no queue: running jobs are to be ended.
const CANCELLATIONS: &str = "*cancellations";

/// Seconds until a waiting job is due, less than zero when it is overdue; `None` when it is not waiting.
///
/// # Errors
/// [`Error::Unavailable`] when the database cannot be asked now.
pub async fn due_in(pool: &sqlx::PgPool, id: JobId) -> Result<Option<f64>, Error> {
    Ok(store::lookup::due_in(repeatable(pool), &id.to_string()).await?)
}

/// Up to `most` jobs of a queue that wait or run; one whose id is no ULID counts, as the id of nothing.
///
/// # Errors
/// [`Error::Unavailable`] when the database cannot be asked now.
pub async fn live(pool: &sqlx::PgPool, queue: &str, most: usize) -> Result<Vec<JobId>, Error> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let ids = store::lookup::live(repeatable(pool), queue, most).await?;
    Ok(ids.iter().map(|id| JobId::parse(id)).collect())
}
