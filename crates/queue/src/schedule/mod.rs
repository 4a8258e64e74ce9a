//! Schedules: jobs at fixed times. Any number of workers fire each nominal time once, and missed fires are made up.
//!
//! A *fire* is a row of the ledger, identified by its schedule and its nominal time, in one transaction with its jobs.
//! Every worker fires what is due and not yet in the ledger: at each tick, at its start, and at a check every minute.
//!
//! - A nominal time fires when the database's clock reaches it, regardless of the workers' clocks. When that clock goes
//!   back, nominal times that have fired do not fire again, and the others do.
//! - Up to 90 s late a fire counts as on time, so a restart or a short outage of the database misses nothing.
//! - Older nominal times were missed; [`CatchUp`] decides whether they fire.
//! - A new schedule, or one with a new cron expression, has missed nothing.
//!
//! | file | content |
//! |---|---|
//! | `cron` | cron expressions in UTC |
//! | `catch_up` | which fires are due |
//! | `ledger` | firing, each nominal time once |
//! | `ticker` | ticks and checks in every worker |
//! | `store` | all SQL |

mod catch_up;
mod cron;
mod ledger;
mod store;
mod ticker;

use std::{collections::HashSet, sync::Arc};

pub use catch_up::CatchUp;
pub use cron::Cron;
use futures_util::future::BoxFuture;
use metrics::{Unit, describe_gauge};
use serde::Serialize;
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

/// A schedule, as operators see it.
#[derive(Debug, Serialize)]
pub struct Overview {
    pub name: &'static str,
    pub cron: String,
    pub catch_up: &'static str,
    /// Its latest fires, newest first.
    pub latest: Vec<Fired>,
    /// The next fire by the database's clock. A nominal time that has fired is skipped, even if the clock has gone back
    /// since.
    #[serde(with = "time::serde::rfc3339::option")]
    pub next: Option<OffsetDateTime>,
}

/// A row of the ledger.
#[derive(Debug, Serialize)]
pub struct Fired {
    pub schedule: String,
    /// The nominal time.
    #[serde(with = "time::serde::rfc3339")]
    pub fire_time: OffsetDateTime,
    /// `on_time`, `made_up`, `skipped` or `by_hand`.
    pub kind: String,
    #[serde(with = "time::serde::rfc3339")]
    pub fired_at: OffsetDateTime,
    /// The number of missed nominal times before it that do not fire.
    pub passed_over: i32,
    /// The number of jobs that it enqueued.
    pub jobs: i32,
}

/// The number of fires of each schedule in [`Schedules::overview`].
const SHOWN: u32 = 3;

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

    /// Returns every schedule of this process, with its fires from the ledger.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn overview(&self) -> Result<Vec<Overview>, Error> {
        let mut overview = Vec::new();
        for Schedule { name, cron, catch_up, .. } in self.all.iter() {
            let latest = self.fires(Some(name), SHOWN).await?;
            let (now, ahead) = store::fired_ahead(&self.pool, name).await?;
            let ahead: HashSet<OffsetDateTime> = ahead.into_iter().collect();
            let next =
                std::iter::successors(cron.next(now), |time| cron.next(*time)).find(|time| !ahead.contains(time));
            overview.push(Overview { name, cron: cron.as_str().into(), catch_up: catch_up.as_str(), latest, next });
        }
        Ok(overview)
    }

    /// Returns the latest fires of one schedule or of all, newest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn fires(&self, name: Option<&str>, limit: u32) -> Result<Vec<Fired>, Error> {
        let rows = store::fires(&self.pool, name, limit.into()).await?;
        let fired = |row: store::Recorded| Fired {
            schedule: row.schedule,
            fire_time: row.fire_time.into(),
            kind: row.kind,
            fired_at: row.fired_at.into(),
            passed_over: row.passed_over,
            jobs: row.jobs,
        };
        Ok(rows.into_iter().map(fired).collect())
    }
}
