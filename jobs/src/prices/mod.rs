//! Crypto prices: fetched every day and on request, normalised, stored in PostgreSQL, and read through a cache.

pub mod ages;
pub mod cache;
mod charts;
mod config;
pub mod fetch;
mod hedge;
pub mod model;
mod names;
pub mod normalise;
pub mod providers;
pub mod read;
mod refill;
mod spots;
mod store;
pub mod symbols;

use std::sync::Arc;

pub use config::Config;

use self::{
    ages::Ages,
    cache::Cache,
    model::{AssetId, Currency, Quote, Series},
    names::NameCheck,
    providers::Providers,
    read::{Chart, Days, Read, Reader},
};
use queue::Queue;
use runtime::{
    clients::redis::Redis,
    clock::Clock,
    db::Pool,
    error::{Error, causes},
};

/// The price feature. Clones share everything.
#[derive(Clone)]
pub struct Prices {
    queue: Queue,
    reader: Arc<Reader>,
    names: NameCheck,
}

impl Prices {
    /// Starts the feature. With `redis`, its cache is shared by all processes.
    ///
    /// # Errors
    /// [`Error::Internal`] when the HTTP client cannot be built.
    pub fn start(pool: &Pool, queue: &Queue, config: &Config, redis: Option<Redis>) -> Result<Self, Error> {
        fetch::describe(&config.providers);
        let clock = Clock::system();
        let providers = Providers::start(config, &clock)?;
        Ok(Self::with_parts(pool, queue, config, redis, providers, Ages::DEFAULT, clock))
    }

    /// Starts the feature with the given providers, ages and clock.
    pub fn with_parts(
        pool: &Pool,
        queue: &Queue,
        config: &Config,
        redis: Option<Redis>,
        providers: Providers,
        ages: Ages,
        clock: Clock,
    ) -> Self {
        let reader = Reader::new(pool, providers, config, Cache::start(redis), ages, clock);
        Self { queue: queue.clone(), reader: Arc::new(reader), names: NameCheck::default() }
    }

    /// The currencies that may be requested.
    pub fn currencies(&self) -> &[Currency] {
        &self.reader.config.currencies
    }

    /// The present prices of these assets, in their order. A price is at most a minute old, unless it is marked as
    /// stale.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is needed and unavailable.
    pub async fn quotes(&self, assets: &[AssetId], currency: &Currency) -> Result<Vec<(AssetId, Read<Quote>)>, Error> {
        self.reader.spots(assets, currency).await
    }

    /// The prices of the last days, or of all. Contains every bucket that is due, unless marked as stale. When
    /// processes do not share a cache, prices that another process has just stored may be missing for a minute.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is needed and unavailable.
    pub async fn chart(&self, series: &Series, days: Days) -> Result<Read<Chart>, Error> {
        self.reader.chart(series, days).await
    }

    /// Invalidates the cached charts of a series after its prices were stored. With a shared cache this covers all
    /// processes.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the shared cache is unavailable; call it again.
    pub async fn invalidate(&self, series: &Series) -> Result<(), Error> {
        self.reader.begin_generation(series).await.map_err(|error| Error::Unavailable(causes(&error)))
    }
}
