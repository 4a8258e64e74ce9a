//! What `millrace bench` asks of the database: the limits that our own figures are compared with, tables filled to a
//! size, and the proof that everything was done once.
//!
//! | file | what |
//! |---|---|
//! | [`baseline`] | the same rows written and claimed without Millrace |
//! | `store` | all SQL |
//!
//! Nothing of production uses this.

pub mod baseline;
mod store;

use sqlx::{ConnectOptions, PgConnection, PgPool};

pub use self::store::{Lateness, Wal};
use crate::{boot::db::Database, error::Error};

/// The tables of a database that belongs to a benchmark.
#[derive(Clone)]
pub struct Bench {
    database: Database,
    pool: PgPool,
}

impl Bench {
    /// Nothing is asked yet.
    pub fn new(database: &Database) -> Self {
        Self { database: database.clone(), pool: database.pool("bench", 2) }
    }

    /// A session of its own, for one client of a baseline.
    async fn session(&self) -> Result<PgConnection, Error> {
        Ok(self.database.session("bench").connect().await?)
    }

    /// Empties every table and gives the disk a rest, so that each figure begins alike.
    ///
    /// # Errors
    /// As all others here: the database's own.
    pub async fn clear(&self) -> Result<(), Error> {
        store::clear(&self.pool).await?;
        self.settle().await
    }

    /// Brings statistics up to date, as autovacuum would in its own time, and writes everything to disk.
    ///
    /// # Errors
    /// The database's own.
    pub async fn settle(&self) -> Result<(), Error> {
        let mut session = self.session().await?;
        Ok(store::settle(&mut session).await?)
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

    /// Adds somebody to whom items can belong; their id.
    ///
    /// # Errors
    /// The database's own.
    pub async fn add_owner(&self) -> Result<i64, Error> {
        Ok(store::items::add_owner(&self.pool).await?)
    }

    /// Adds `count` items of 15 words each out of 5,000, some of them common and most of them rare.
    ///
    /// # Errors
    /// The database's own.
    pub async fn add_items(&self, owner: i64, count: i64) -> Result<(), Error> {
        let mut session = self.session().await?;
        Ok(store::items::add_items(&mut session, owner, count).await?)
    }

    /// Words that stand in items, as often as they do there.
    ///
    /// # Errors
    /// The database's own.
    pub async fn words(&self, count: i64) -> Result<Vec<String>, Error> {
        Ok(store::items::words(&self.pool, count).await?)
    }

    /// The id of an item.
    ///
    /// # Errors
    /// The database's own; there is none.
    pub async fn any_item(&self) -> Result<i64, Error> {
        Ok(store::items::any_item(&self.pool).await?)
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

    /// When the last job of `queue` was done that was begun after `since`, in seconds from then. Fails unless exactly
    /// `count` were, each in one run.
    ///
    /// # Errors
    /// What is wrong with the count, or the database's own.
    pub async fn drained(&self, queue: &str, since: f64, count: i64) -> Result<f64, Error> {
        let drained = store::drained(&self.pool, queue, since).await?;
        if (drained.done, drained.once) != (count, count) {
            return Err(Error::Internal(format!(
                "of {count} jobs {} are done, {} in one run",
                drained.done, drained.once
            )));
        }
        Ok(drained.seconds)
    }

    /// How many transactions and how many jobs of `queue` there are, created after `since`.
    ///
    /// # Errors
    /// The database's own.
    pub async fn recorded(&self, queue: &str, since: f64) -> Result<(i64, i64), Error> {
        Ok(store::recorded(&self.pool, queue, since).await?)
    }

    /// How late the transactions created after `since` were settled, against their due time.
    ///
    /// # Errors
    /// The database's own.
    pub async fn lateness(&self, since: f64) -> Result<Lateness, Error> {
        Ok(store::lateness(&self.pool, since).await?)
    }

    /// What has been written to the log so far.
    ///
    /// # Errors
    /// The database's own.
    pub async fn wal(&self) -> Result<Wal, Error> {
        Ok(store::wal(&self.pool).await?)
    }

    /// Transactions of everybody so far; a statement outside of one counts as one.
    ///
    /// # Errors
    /// The database's own.
    pub async fn transactions(&self) -> Result<i64, Error> {
        Ok(store::transactions(&self.pool).await?)
    }
}
