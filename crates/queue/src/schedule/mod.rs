//! Work at fixed times: any number of workers fire each time once, and what was missed is made up.
//!
//! A *fire* is a row of the ledger, named by its schedule and its nominal time, in one transaction with its jobs. Every
//! worker ticks; a tick, a start and a look each minute do the same: they fire what the ledger has not.
//!
//! - A nominal time fires when the database's clock has reached it, whatever the workers' clocks say. When that clock
//!   goes back, nominal times that have fired do not fire again, and those that have not do.
//! - Up to 90 s late it counts as on time: a restart, or a database that was away for a moment, misses nothing.
//! - What is older was missed, and [`CatchUp`] says what becomes of it.
//! - A schedule that was never seen before has missed nothing, and neither has one whose cron expression is new.
//!
//! | file | what |
//! |---|---|
//! | `cron` | when: expressions in UTC |
//! | `catch_up` | which fires are due |
//! | `ledger` | fires, each once |
//! | `ticker` | ticks and looks in every worker |
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
use sqlx::PgPool;
pub use ticker::Timing;
use time::OffsetDateTime;

use crate::{NewJob, Queue, Tx};
use runtime::error::Error;

const LAG: &str = "millrace_cron_lag_seconds";

/// What a schedule does.
pub trait Work: Send + Sync {
    /// The jobs of one fire; what is written beside them goes into the same transaction.
    fn jobs<'a>(&'a self, tx: &'a mut Tx, fire_time: OffsetDateTime) -> BoxFuture<'a, Result<Vec<NewJob>, Error>>;
}

/// Work and its times.
#[derive(Clone)]
pub struct Schedule {
    /// Its name, for ever: it is in the ledger.
    pub name: &'static str,
    pub cron: Cron,
    pub catch_up: CatchUp,
    pub work: Arc<dyn Work>,
}

/// All schedules, and their ledger. Clones share everything.
#[derive(Clone)]
pub struct Schedules {
    pool: PgPool,
    queue: Queue,
    all: Arc<[Schedule]>,
}

/// A schedule, for an operator.
#[derive(Debug, Serialize)]
pub struct Overview {
    pub name: &'static str,
    pub cron: String,
    pub catch_up: &'static str,
    /// Its latest fires, newest first.
    pub latest: Vec<Fired>,
    /// The next fire by the database's clock. A nominal time that has fired already does not fire again, also when the
    /// clock went back since.
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
    /// Missed times before it that are not made up.
    pub passed_over: i32,
    /// What it enqueued.
    pub jobs: i32,
}

/// Fires that [`Schedules::overview`] shows of each schedule.
const SHOWN: u32 = 3;

impl Schedules {
    /// These schedules; nothing fires before [`Schedules::run`].
    pub fn new(pool: &PgPool, queue: &Queue, all: Vec<Schedule>) -> Self {
        describe_gauge!(
            LAG,
            Unit::Seconds,
            "From the nominal time of this process's latest fire to its jobs; 0 once it has looked and fired none."
        );
        Self { pool: pool.clone(), queue: queue.clone(), all: all.into() }
    }

    /// What there is.
    pub fn names(&self) -> Vec<&'static str> {
        self.all.iter().map(|schedule| schedule.name).collect()
    }

    /// Every schedule as this process has it, with what the ledger says.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database cannot be asked now.
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

    /// The latest fires of one schedule or of all, newest first.
    ///
    /// # Errors
    /// See [`Schedules::overview`].
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
