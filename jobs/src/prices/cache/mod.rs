//! The cache of charts and present prices, in this process or shared in Redis. PostgreSQL remains the source of truth.
//!
//! Each entry contains the time until which it is fresh. It is kept longer, for when nothing better is available. The
//! entries of a series carry its generation, and every write of the series begins a new one. So an entry that was read
//! before a write counts as old, even if it is cached after the write.
//!
//! While Redis is unavailable, prices are read from PostgreSQL. What only the cache contains, such as which buckets no
//! provider has, each process also keeps itself. Otherwise every read would call the providers.

mod entry;
mod memory;
mod redis;
mod unlocks;

use std::{sync::Arc, time::Duration};

pub use self::entry::{Coverage, Entry, Generation, RETENTION, Value};
use self::{memory::Memory, redis::Redis, unlocks::PendingUnlocks};
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
    /// Shared by all processes. The fallback has what this process has put and PostgreSQL does not have.
    Redis { redis: Redis, fallback: Memory, unlocks: Arc<PendingUnlocks> },
}

/// The result of a look-up.
pub struct Lookup {
    /// The entries under the keys, in order.
    pub entries: Vec<Option<Arc<Entry>>>,
    /// Redis is unavailable, and the entries are from the fallback.
    pub is_fallback: bool,
}

impl Cache {
    /// The cache in Redis, or one of this process.
    pub fn start(redis: Option<clients::redis::Redis>) -> Self {
        match redis {
            None => Self::Memory(memory::start(memory::MAX_BYTES)),
            Some(redis) => Self::Redis {
                redis: Redis(redis),
                fallback: memory::start(memory::MAX_FALLBACK_BYTES),
                unlocks: Arc::default(),
            },
        }
    }

    /// Gets the entries under these keys. If Redis is unavailable, those of the fallback.
    pub async fn get(&self, keys: &[String]) -> Lookup {
        match self {
            Self::Memory(memory) => Lookup { entries: get_all(memory, keys), is_fallback: false },
            Self::Redis { redis, fallback, .. } => match redis.get(keys).await {
                Ok(entries) => Lookup { entries, is_fallback: false },
                Err(_) => Lookup { entries: get_all(fallback, keys), is_fallback: true },
            },
        }
    }

    /// Stores an entry.
    ///
    /// # Errors
    /// [`Broken`] when Redis is unavailable. The fallback has the entry nevertheless, if it holds such entries.
    pub async fn put(&self, key: &str, entry: Arc<Entry>) -> Result<(), Broken> {
        match self {
            Self::Memory(memory) => memory.insert(key.to_owned(), entry),
            Self::Redis { redis, fallback, .. } => {
                if entry.value.is_only_cached() {
                    fallback.insert(key.to_owned(), entry.clone());
                } else {
                    fallback.invalidate(key);
                }
                redis.put(key, &entry).await?;
            }
        }
        Ok(())
    }

    /// Takes the lock of each key that is free, for at most `ttl`. Returns whether each was taken, in order.
    ///
    /// # Errors
    /// [`Broken`] when Redis is unavailable. It may take the locks nevertheless, so [`Cache::unlock`] must follow.
    pub async fn lock(&self, keys: &[String], token: u128, ttl: Duration) -> Result<Vec<bool>, Broken> {
        match self {
            Self::Memory(_) => Ok(vec![true; keys.len()]),
            Self::Redis { redis, .. } => redis.lock(keys, token, ttl).await,
        }
    }

    /// Releases the locks that this token holds. If Redis is unavailable, that is repeated in the background until the
    /// locks have expired after `ttl`.
    pub async fn unlock(&self, keys: &[String], token: u128, ttl: Duration) {
        if let Self::Redis { redis, unlocks, .. } = self
            && redis.unlock(keys, token).await.is_err()
        {
            unlocks.add(redis, keys, token, ttl);
        }
    }

    /// Whether other processes read the same entries.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Redis { .. })
    }
}

fn get_all(memory: &Memory, keys: &[String]) -> Vec<Option<Arc<Entry>>> {
    keys.iter().map(|key| memory.get(key)).collect()
}
