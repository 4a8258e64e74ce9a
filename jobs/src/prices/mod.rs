//! Crypto prices: fetched every day and when they are asked for, normalised, kept in PostgreSQL, and read through a
//! cache.
//!
//! | file | what |
//! |---|---|
//! | [`model`] | prices as all sources are brought to |
//! | [`providers`] | the sources, each with its quirks |
//! | [`normalise`] | from their rows to candles, without one that is wrong |
//! | [`symbols`] | the codes under which exchanges trade assets |
//! | `names` | the configured names, checked against what the providers offer |
//! | [`read`] | what readers are given, and what all reads share |
//! | `charts`, `spots` | series, and present prices: from the cache, else PostgreSQL, else the sources |
//! | `refill`, `hedge` | what a series lacks, fetched page by page; a silent source is not waited for alone |
//! | [`ages`] | how long answers are good, and which buckets can be had |
//! | [`cache`] | in this process, or shared through Redis |
//! | `config` | what the feature can be told |
//! | [`fetch`] | the job of each day |
//! | `store` | all SQL |

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

pub use config::{ApiKey, Config};
use sqlx::PgPool;
use tokio::sync::OnceCell;

use self::{
    ages::Ages,
    cache::{Cache, memory::Memory},
    model::{AssetId, Currency, Series},
    names::UnknownName,
    providers::Providers,
    read::{Chart, Days, Quote, Read, Reader},
};
use crate::{clock::Clock, error::Error, queue::Queue, remote::redis::Redis};

/// The feature. Clones share everything.
#[derive(Clone)]
pub struct Prices {
    pool: PgPool,
    queue: Queue,
    providers: Providers,
    config: Arc<Config>,
    clock: Clock,
    reader: Arc<Reader>,
    unknown_names: Arc<OnceCell<Vec<UnknownName>>>,
}

impl Prices {
    /// Starts the feature; its cache is shared through `redis`, if there is one.
    ///
    /// # Errors
    /// When an HTTP client cannot be built.
    pub fn start(pool: &PgPool, queue: &Queue, config: &Config, redis: Option<Redis>) -> Result<Self, Error> {
        fetch::describe(&config.providers);
        let clock = Clock::system();
        let providers = Providers::start(config, &clock)?;
        Ok(Self::with(pool, queue, config, redis, providers, Ages::SHIPPED, clock))
    }

    /// The feature with sources, ages and a clock of the caller's own.
    pub fn with(
        pool: &PgPool,
        queue: &Queue,
        config: &Config,
        redis: Option<Redis>,
        providers: Providers,
        ages: Ages,
        clock: Clock,
    ) -> Self {
        let cache: Arc<dyn Cache> = match redis {
            Some(redis) => Arc::new(cache::redis::Redis { redis }),
            None => Arc::new(Memory::default()),
        };
        let config = Arc::new(config.clone());
        let reader = Arc::new(Reader::new(pool, &providers, &config, cache, ages, clock.clone()));
        let (pool, queue) = (pool.clone(), queue.clone());
        Self { pool, queue, providers, config, clock, reader, unknown_names: Arc::default() }
    }

    /// What may be asked for.
    pub fn currencies(&self) -> &[Currency] {
        &self.config.currencies
    }

    /// The present prices of these assets, in their order: at most a minute old, unless marked as stale.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is needed and cannot be asked now.
    pub async fn quotes(&self, assets: &[AssetId], currency: &Currency) -> Result<Vec<(AssetId, Read<Quote>)>, Error> {
        self.reader.spots(assets, currency).await
    }

    /// The prices of the last days, or of all: with every bucket that is due, unless marked as stale. Where processes do
    /// not share a cache, what another one has stored since may be left out for a minute.
    ///
    /// # Errors
    /// As [`Prices::quotes`].
    pub async fn chart(&self, series: &Series, days: Days) -> Result<Read<Chart>, Error> {
        self.reader.chart(series, days).await
    }

    /// Hears that prices of a series were stored: readers see them from here on, those of other processes too when the
    /// cache is shared.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when a shared cache could not be told: tell it again.
    pub async fn stored(&self, series: &Series) -> Result<(), Error> {
        self.reader.renew(series).await.map_err(|error| Error::Unavailable(error.to_string()))
    }
}
