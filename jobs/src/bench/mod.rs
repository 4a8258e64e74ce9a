//! The database side of `millrace bench`: baselines, filled tables, and checks that every job ran exactly once.
//!
//! | file | what |
//! |---|---|
//! | [`baseline`] | the same rows written and claimed without Millrace |
//! | `store` | all SQL |
//!
//! Production code does not use this module.

pub mod baseline;
mod store;

use sqlx::{ConnectOptions, PgConnection};

pub use self::store::{Lateness, Wal};
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

    /// Empties every table and writes all changes to disk, so that every measurement starts from the same state.
    ///
    /// # Errors
    /// When a statement fails in the database; the same holds for all other functions here.
    pub async fn clear(&self) -> Result<(), Error> {
        store::clear(&self.pool).await?;
        self.analyze_and_checkpoint().await
    }

    /// Updates statistics, as autovacuum would later, and writes a checkpoint.
    ///
    /// # Errors
    /// The database's own.
    pub async fn analyze_and_checkpoint(&self) -> Result<(), Error> {
        let mut session = self.session().await?;
        Ok(store::analyze_and_checkpoint(&mut session).await?)
    }

    /// Adds `count` jobs with an empty payload to `queue`, all due now.
    ///
    /// # Errors
    /// The database's own.
    pub async fn add_due(&self, queue: &str, count: i64) -> Result<(), Error> {
        let mut session = self.session().await?;
        Ok(store::add_due(&mut session, queue, count).await?)
    }

    /// Adds `count` settled transactions with their finished jobs.
    ///
    /// # Errors
    /// The database's own.
    pub async fn add_finished(&self, queue: &str, count: i64) -> Result<(), Error> {
        let mut session = self.session().await?;
        Ok(store::add_finished(&mut session, queue, count).await?)
    }

    /// Adds `count` transactions that are due in a year, and their jobs.
    ///
    /// # Errors
    /// The database's own.
    pub async fn add_scheduled(&self, queue: &str, count: i64) -> Result<(), Error> {
        let mut session = self.session().await?;
        Ok(store::add_scheduled(&mut session, queue, count).await?)
    }

    /// Adds a user who owns items; returns the user's id.
    ///
    /// # Errors
    /// The database's own.
    pub async fn add_owner(&self) -> Result<i64, Error> {
        Ok(store::items::add_owner(&self.pool).await?)
    }

    /// Adds `count` items of 15 words each, out of 5,000 words of which few are common and most are rare.
    ///
    /// # Errors
    /// The database's own.
    pub async fn add_items(&self, owner: i64, count: i64) -> Result<(), Error> {
        let mut session = self.session().await?;
        Ok(store::items::add_items(&mut session, owner, count).await?)
    }

    /// Returns words from items, with the same frequencies as in the items.
    ///
    /// # Errors
    /// The database's own.
    pub async fn sample_words(&self, count: i64) -> Result<Vec<String>, Error> {
        Ok(store::items::sample_words(&self.pool, count).await?)
    }

    /// The id of the newest item.
    ///
    /// # Errors
    /// When there is no item, or a statement fails in the database.
    pub async fn newest_item(&self) -> Result<i64, Error> {
        Ok(store::items::newest_item(&self.pool).await?)
    }

    /// Adds a price for each of the last `days` days that are over.
    ///
    /// # Errors
    /// The database's own.
    pub async fn add_prices(&self, asset: &str, currency: &str, days: i32) -> Result<(), Error> {
        Ok(store::prices::add(&self.pool, asset, currency, days).await?)
    }

    /// The date, by the database's clock.
    ///
    /// # Errors
    /// The database's own.
    pub async fn today(&self) -> Result<String, Error> {
        Ok(store::today(&self.pool).await?)
    }

    /// The database's name and version.
    ///
    /// # Errors
    /// The database's own.
    pub async fn version(&self) -> Result<String, Error> {
        Ok(store::version(&self.pool).await?)
    }

    /// The database's clock, in seconds.
    ///
    /// # Errors
    /// The database's own.
    pub async fn now(&self) -> Result<f64, Error> {
        Ok(store::now(&self.pool).await?)
    }

    /// Whether a due job of `queue` waits or runs.
    ///
    /// # Errors
    /// The database's own.
    pub async fn has_due(&self, queue: &str) -> Result<bool, Error> {
        Ok(store::has_due(&self.pool, queue).await?)
    }

    /// Seconds from `since` to the end of the last job of `queue` that was claimed after `since`.
    ///
    /// # Errors
    /// When not exactly `count` jobs are done, when a job took more than one run, or when a statement fails.
    pub async fn drain_seconds(&self, queue: &str, since: f64, count: i64) -> Result<f64, Error> {
        let drained = store::drained(&self.pool, queue, since).await?;
        if (drained.done, drained.once) != (count, count) {
            return Err(Error::Internal(format!(
                "{} of {count} jobs are done, {} of them in one run",
                drained.done, drained.once
            )));
        }
        Ok(drained.seconds)
    }

    /// Counts the transactions created after `since`, and the jobs of `queue` that belong to them.
    ///
    /// # Errors
    /// The database's own.
    pub async fn count_recorded(&self, queue: &str, since: f64) -> Result<(i64, i64), Error> {
        Ok(store::count_recorded(&self.pool, queue, since).await?)
    }

    /// How long after their due time the transactions created after `since` were settled.
    ///
    /// # Errors
    /// The database's own.
    pub async fn lateness(&self, since: f64) -> Result<Lateness, Error> {
        Ok(store::lateness(&self.pool, since).await?)
    }

    /// The volume of write-ahead log so far.
    ///
    /// # Errors
    /// The database's own.
    pub async fn wal(&self) -> Result<Wal, Error> {
        Ok(store::wal(&self.pool).await?)
    }

    /// Database transactions of all sessions so far; a statement outside of a transaction counts as one.
    ///
    /// # Errors
    /// The database's own.
    pub async fn transactions(&self) -> Result<i64, Error> {
        Ok(store::transactions(&self.pool).await?)
    }
}
