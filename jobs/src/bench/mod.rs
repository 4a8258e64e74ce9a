//! The database side of `millrace bench`: baselines, filled tables, and checks that every job ran exactly once.
//!
//! Production code does not use this module. Each function fails only if a statement fails in the database, unless its
//! documentation says more.

pub mod baseline;
mod store;

use sqlx::{ConnectOptions, PgConnection};

pub use self::store::{
    ClaimLatency, Lateness, Wal, add_due, add_finished, add_scheduled, analyze_and_checkpoint, claim_latency, clear,
    count_recorded, drain_seconds, empty, has_due, hold_snapshot, items, lateness, lift_limit, limit_inserts, now,
    operators, prices, scanned_rows, today, transactions, version, wal,
};
pub use queue::counts::switch_off as switch_off_counts;
use runtime::{
    db::{Database, Pool},
    error::Error,
};

/// The database of a benchmark.
#[derive(Clone)]
pub struct Bench {
    database: Database,
    pool: Pool,
}

impl Bench {
    /// Creates the handle without connecting.
    pub fn new(database: &Database) -> Self {
        Self { database: database.clone(), pool: database.pool("bench", 2) }
    }

    /// Opens a separate session, for one client of a baseline.
    async fn session(&self) -> Result<PgConnection, Error> {
        Ok(self.database.session_options("bench").connect().await?)
    }
}
