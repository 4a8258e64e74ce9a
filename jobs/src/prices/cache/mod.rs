//! The cache of charts and present prices, in this process or shared in Redis. PostgreSQL remains the source of truth.
//!
//! Each entry contains the time until which it is fresh. It is kept longer, for when nothing better is available. The
//! entries of a series carry its generation, and every write of the series begins a new one. So an entry that was read
//! before a write counts as old, even if it is cached after the write.

mod entry;
mod memory;
mod redis;

use std::{sync::Arc, time::Duration};

pub use self::entry::{Coverage, Entry, Generation, RETENTION, Value};
use self::{memory::Memory, redis::Redis};
use super::model::Series;
use runtime::clients::{self, redis::Broken};

/// The key of a chart, as the contract defines it; `days` is a number or `max`.
pub fn chart_key(series: &Series, days: &str) -> String {
    format!("{}:{days}", series_key(series))
}

/// The key of a present price.
pub fn spot_key(asset: &str, currency: &str) -> String {
    format!("{asset}:{currency}:spot:0")
}

/// The key of the generation of a series.
pub fn generation_key(series: &Series) -> String {
    format!("{}:generation", series_key(series))
}

/// The key of the [`Coverage`] of a series.
pub fn coverage_key(series: &Series) -> String {
    format!("{}:asked", series_key(series))
}

fn series_key(Series { asset, currency, interval }: &Series) -> String {
    format!("{asset}:{currency}:{}", interval.as_str())
}

/// The cache, with locks that keep processes from loading the same thing at once.
pub enum Cache {
    /// In this process. Its callers already share one load, so it needs no locks.
    Memory(Memory),
    /// Shared by all processes.
    Redis(Redis),
}

impl Cache {
    /// The cache in Redis, or one of this process.
    pub fn start(redis: Option<clients::redis::Redis>) -> Self {
        redis.map_or_else(|| Self::Memory(memory::start()), |redis| Self::Redis(Redis(redis)))
    }

    /// Gets the entries under these keys, in order.
    pub async fn get(&self, keys: &[String]) -> Result<Vec<Option<Arc<Entry>>>, Broken> {
        match self {
            Self::Memory(memory) => Ok(keys.iter().map(|key| memory.get(key)).collect()),
            Self::Redis(redis) => redis.get(keys).await,
        }
    }

    /// Stores an entry.
    pub async fn put(&self, key: &str, entry: Arc<Entry>) -> Result<(), Broken> {
        match self {
            Self::Memory(memory) => memory.insert(key.to_owned(), entry),
            Self::Redis(redis) => redis.put(key, &entry).await?,
        }
        Ok(())
    }

    /// Takes the lock of each key that is free, for at most `ttl`. Returns whether each was taken, in order.
    pub async fn lock(&self, keys: &[String], token: u128, ttl: Duration) -> Result<Vec<bool>, Broken> {
        match self {
            Self::Memory(_) => Ok(vec![true; keys.len()]),
            Self::Redis(redis) => redis.lock(keys, token, ttl).await,
        }
    }

    /// Releases the locks that this token holds. If Redis is unavailable, they expire.
    pub async fn unlock(&self, keys: &[String], token: u128) {
        if let Self::Redis(redis) = self {
            let _ = redis.unlock(keys, token).await;
        }
    }

    /// Whether other processes read the same entries.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Redis(_))
    }
}
