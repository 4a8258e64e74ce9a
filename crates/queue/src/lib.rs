//! A durable job queue on PostgreSQL.
//!
#![doc = include_str!("../README.md")]
//!
//! ## Modules
//!
//! Start with [`job`], [`enqueue`](mod@enqueue) and [`worker`]. The SQL is in `store`. Below `worker`: `poller` decides
//! when to poll for due jobs, `claim` claims them, `engine` passes them through apalis, `runner` runs them,
//! `acknowledge` writes results, `heartbeat` renews the lease and rescues the jobs of dead workers, `watchdog` ends a
//! blocked process.

mod acknowledge;
pub mod batch;
mod cancel;
mod claim;
mod cleaner;
pub mod counts;
mod discard;
mod due_timer;
mod engine;
pub mod enqueue;
pub mod error_group;
mod fair;
mod fair_key;
pub mod filter;
pub mod gauges;
mod heartbeat;
mod history;
mod in_flight;
pub mod job;
mod lease;
mod load;
mod lost_claims;
mod low_water;
pub mod metrics;
mod new_job;
pub mod operator;
pub mod order;
mod pace;
mod page;
mod payload;
mod poller;
mod refused;
pub mod replay;
mod result;
pub mod retry;
mod runner;
pub mod schedule;
mod silence;
mod started_run;
pub mod status;
mod storable;
mod store;
mod timing;
mod turns;
mod watchdog;
pub mod worker;
mod worker_status;
mod write_results;

pub use cancel::CANCELLED;
pub use cleaner::Retention;
pub use enqueue::{Queue, Tx, enqueue, lock_waiting_job};
pub use fair_key::FairKey;
pub use gauges::Gauges;
pub use job::{Failure, Job, JobId, Origin, Outcome, Policy, Priority, Run};
pub use new_job::NewJob;
pub use operator::{JobKinds, Operator, Replayable};
pub use page::Page;
pub(crate) use storable::ReadTime;
pub use timing::Timing;
pub use worker::{Registry, Worker};

pub use runtime::migrate::run_queue_only as migrate;
use runtime::{db::Pool, error::Error, executor::repeatable};

/// The notification channel of the queue. The payload is the name of a queue with new jobs.
const CHANNEL: &str = "millrace_jobs";
/// The payload that announces cancellation requests instead of new jobs.
const CANCELLATIONS: &str = "*cancellations";
/// The payload that announces jobs of any queue that are due soon.
const SOON: &str = "*soon";

/// Returns the seconds until a waiting job is due, negative if it is overdue; `None` if it is not waiting.
///
/// # Errors
/// [`Error::Unavailable`] when the database is unreachable.
pub async fn due_in(pool: &Pool, id: JobId) -> Result<Option<f64>, Error> {
    Ok(store::lookup::due_in(repeatable(pool), &id.to_string()).await?)
}

/// Returns the ids of up to `limit` jobs of a queue that wait or run. An id of another program that is no ULID is
/// returned as the nil id, so that the job is still counted.
///
/// # Errors
/// [`Error::Unavailable`] when the database is unreachable.
pub async fn unfinished_jobs(pool: &Pool, queue: &str, limit: usize) -> Result<Vec<JobId>, Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let ids = store::lookup::unfinished_jobs(repeatable(pool), queue, limit).await?;
    Ok(ids.iter().map(|id| JobId::parse(id)).collect())
}

#[cfg(test)]
mod model;
