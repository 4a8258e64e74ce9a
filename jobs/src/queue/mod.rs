//! What a job is and what the queue promises; the only folder that knows apalis.
//!
//! Execution is **at least once**, its recorded effect **exactly once**: a run holds a fencing token
//! ([`Run::token`](job::Run)), its result counts only under that token, and a job's own effects are conditional on
//! the state of the record that it works on.
//!
//! | file | what |
//! |---|---|
//! | [`job`] | the face: [`Job`], [`Outcome`], [`Failure`], [`Policy`] |
//! | [`enqueue`](mod@enqueue) | [`Tx`]: jobs that exist if and only if their transaction commits |
//! | [`batch`] | concurrent calls share one statement |
//! | `store` | every SQL statement on the queue's tables |
//! | `pace` | when to look for work: notifications, due times, and a poll behind both |
//! | `claim` | takes exactly as many due jobs as can run now |
//! | `engine` | apalis: a claimed job reaches its runner through an apalis worker |
//! | `runner` | the life of one run: decode, run, judge, settle |
//! | `retry` | how long to wait before what failed is tried again |
//! | `result` | what becomes of a job after a run |
//! | `storable` | what PostgreSQL can store of texts, waits and times from outside |
//! | `acknowledge` | writes results in batches, under the fencing token |
//! | `write_results` | one write of results, past rows that others have locked |
//! | `retain` | forgets what is finished, once it is old |
//! | `lease` | heartbeats, and the rescue of jobs whose worker died |
//! | `silence` | which workers are silent, by this process's own clock |
//! | `pulse` | keeps the runtime going beside jobs that block its threads |
//! | `cancel` | ends running jobs that an operator has cancelled |
//! | [`gauges`] | how much is in each queue, for `/metrics` |
//! | [`status`] | what an operator is told |
//! | [`operate`] | what an operator sees and does: list, show, cancel, replay, pause |
//! | [`worker`] | puts these together and takes them apart again |

mod acknowledge;
pub mod batch;
mod cancel;
mod claim;
mod engine;
pub mod enqueue;
pub mod gauges;
pub mod job;
mod lease;
pub mod metrics;
pub mod operate;
mod pace;
mod pulse;
mod result;
mod retain;
pub mod retry;
mod runner;
mod silence;
pub mod status;
mod storable;
mod store;
pub mod worker;
mod write_results;

pub use cancel::CANCELLED;
pub use enqueue::{NewJob, Queue, Tx, enqueue, hold_waiting};
pub use gauges::Gauges;
pub use job::{Failure, Job, JobId, Origin, Outcome, Policy, Priority, Run};
pub use operate::{Kinds, Operator, Revive};
pub use retain::Retention;
pub(crate) use storable::ReadTime;
pub use worker::{Registry, Timing, Worker};

use crate::{boot::pooler::repeatable, error::Error};

/// Every notification of the queue goes through this channel; the payload is the name of a queue with new work.
const CHANNEL: &str = "millrace_jobs";
/// The payload that is no queue: running jobs are to be ended.
const CANCELLATIONS: &str = "*cancellations";

/// Seconds until a waiting job is due, less than zero when it is overdue; `None` when it is not waiting.
///
/// # Errors
/// [`Error::Unavailable`] when the database cannot be asked now.
pub async fn due_in(pool: &sqlx::PgPool, id: JobId) -> Result<Option<f64>, Error> {
    Ok(store::live::due_in(repeatable(pool), &id.to_string()).await?)
}

/// Up to `most` jobs of a queue that wait or run; one whose id is no ULID counts, as the id of nothing.
///
/// # Errors
/// [`Error::Unavailable`] when the database cannot be asked now.
pub async fn live(pool: &sqlx::PgPool, queue: &str, most: usize) -> Result<Vec<JobId>, Error> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let ids = store::live::live(repeatable(pool), queue, most).await?;
    Ok(ids.iter().map(|id| JobId::parse(id)).collect())
}
