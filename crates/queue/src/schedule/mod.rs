//! Schedules: jobs at fixed times. Any number of workers fire each nominal time once, and missed fires are made up.
//!
//! A *fire* is a row of the ledger, identified by its schedule and its nominal time, in one transaction with its jobs.
//! Every worker fires what is due and not yet in the ledger: at each tick, at its start, and at a check every minute.
//!
//! - A nominal time fires when the database's clock reaches it, regardless of the workers' clocks. When that clock goes
//!   back, nominal times that have fired do not fire again, and the others do.
//! - Up to 90 s late a fire counts as on time, so a restart or a short outage of the database misses nothing.
//! - Older nominal times were missed; [`CatchUp`] decides whether they fire.
//! - A new schedule, or one with a new cron expression, has missed nothing. A process registers its expression once, when it
//!   starts.
//!
//! | file | content |
//! |---|---|
//! | `cron` | cron expressions in UTC |
//! | `catch_up` | which fires are due |
//! | `ledger` | firing, each nominal time once |
//! | `order` | what operators do: fire now, skip the next fire |
//! | `overview`, `fired`, `position` | what operators see: the next fires, past ones and their outcomes, page by page |
//! | `ticker` | ticks and checks in every worker |
//! | `store` | all SQL |

mod catch_up;
mod cron;
mod fired;
mod ledger;
mod order;
mod overview;
mod position;
mod store;
mod ticker;

use std::sync::Arc;

pub use catch_up::CatchUp;
pub use cron::Cron;
pub use fired::{FireOutcome, Fired, JobStates};
use futures_util::future::BoxFuture;
use metrics::{Unit, describe_gauge};
pub use order::Skip;
pub use overview::{Overview, Upcoming};
pub use position::FirePosition;
pub use ticker::Timing;
use time::OffsetDateTime;

use crate::{NewJob, Queue, Tx};
use runtime::{db::Pool, error::Error};

const LAG: &str = "millrace_cron_lag_seconds";

/// The work of a schedule.
pub trait Work: Send + Sync {
    /// Creates the jobs of one fire. Its own writes belong to the same transaction.
    fn jobs<'a>(&'a self, tx: &'a mut Tx, fire_time: OffsetDateTime) -> BoxFuture<'a, Result<Vec<NewJob>, Error>>;
}

/// Work that is done at the times of a cron expression.
#[derive(Clone)]
pub struct Schedule {
    /// Its name. It is stored in the ledger, so it never changes.
    pub name: &'static str,
    pub cron: Cron,
    pub catch_up: CatchUp,
    pub work: Arc<dyn Work>,
}

/// All schedules with their ledger. Clones share everything.
#[derive(Clone)]
pub struct Schedules {
    pool: Pool,
    queue: Queue,
    all: Arc<[Schedule]>,
}

impl Schedules {
    /// Creates the schedules; nothing fires before [`Schedules::run`].
    pub fn new(pool: &Pool, queue: &Queue, all: Vec<Schedule>) -> Self {
        describe_gauge!(
            LAG,
            Unit::Seconds,
            "From the nominal time of this process's latest fire to its jobs; 0 after a check that fired nothing."
        );
        Self { pool: pool.clone(), queue: queue.clone(), all: all.into() }
    }

    /// The names of all schedules.
    pub fn names(&self) -> Vec<&'static str> {
        self.all.iter().map(|schedule| schedule.name).collect()
    }
}
