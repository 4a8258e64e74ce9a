//! Crypto prices: fetched every day and when they are asked for, normalised, kept in PostgreSQL, and read through a
//! cache.
//!
//! | file | what |
//! |---|---|
//! | [`model`] | prices as all sources are brought to |
//! | [`providers`] | the sources, each with its quirks |
//! | [`normalise`] | from their rows to candles, without one that is wrong |
//! | [`symbols`] | what each source calls an asset |
//! | `config` | what the feature can be told |
//! | `store` | all SQL |

mod config;
pub mod model;
pub mod normalise;
pub mod providers;
mod store;
pub mod symbols;

use std::sync::Arc;

pub use config::{ApiKey, Config};
use sqlx::PgPool;

use self::providers::Providers;
use crate::{error::Error, queue::Queue, remote::redis::Redis};

/// The feature. Clones share everything.
#[derive(Clone)]
pub struct Prices {
    pool: PgPool,
    queue: Queue,
    providers: Providers,
    redis: Option<Redis>,
    config: Arc<Config>,
}

impl Prices {
    /// Starts the feature; its cache is shared through `redis`, if there is one.
    ///
    /// # Errors
    /// When an HTTP client cannot be built.
    pub fn start(pool: &PgPool, queue: &Queue, config: &Config, redis: Option<Redis>) -> Result<Self, Error> {
        let providers = Providers::start(config)?;
        Ok(Self { pool: pool.clone(), queue: queue.clone(), providers, redis, config: Arc::new(config.clone()) })
    }
}
