//! The cache of charts and present prices, in this process or shared in Redis. PostgreSQL remains the source of truth.
//!
//! Each entry contains the time until which it is fresh. It is kept longer, for when nothing better is available. The
//! entries of a series carry its generation, and every write of the series begins a new one. So an entry that was read
//! before a write counts as old, even if it is cached after the write.

mod memory;
mod redis;

use std::{ops::Range, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;

use self::{memory::Memory, redis::Redis};
use super::model::{Quote, Series};
use runtime::clients::{self, redis::Broken};

/// How long entries are kept, fresh or not.
pub const RETENTION: Duration = Duration::from_secs(24 * 3600);

/// Identifies the latest write of a series; 0 when none is known.
pub type Generation = u128;

/// A cache entry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    pub value: Value,
    /// When the entry must be loaded again.
    #[serde(with = "time::serde::timestamp::milliseconds")]
    pub fresh_until: OffsetDateTime,
    /// The generation of the series before it was read.
    pub generation: Generation,
}

/// The value of an entry. The names of variants and fields are the stored form.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Value {
    /// `[[unix_ms,"price"],…]`, as in responses, and how many points up to the bucket `due` are missing.
    Chart {
        prices: Box<RawValue>,
        stale: bool,
        missing: u32,
        #[serde(with = "time::serde::timestamp::milliseconds")]
        due: OffsetDateTime,
    },
    /// A present price.
    Spot(Quote),
    /// The asset or series does not exist.
    Unknown,
    /// Nothing is stored, and no provider could be reached.
    Nothing,
    /// Which buckets were requested from all providers.
    #[serde(rename = "Asked")]
    Coverage(Coverage),
    /// No value; only the generation is used.
    Mark,
}

/// Which buckets of a series were requested from the providers, and when they may be requested again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// The buckets that all providers were asked for. What is missing there, no provider has.
    #[serde(with = "time::serde::timestamp::milliseconds")]
    pub from: OffsetDateTime,
    #[serde(with = "time::serde::timestamp::milliseconds")]
    pub to: OffsetDateTime,
    /// Until when no provider is called for buckets from `tried_from` on.
    #[serde(with = "time::serde::timestamp::milliseconds")]
    pub pause_until: OffsetDateTime,
    #[serde(with = "time::serde::timestamp::milliseconds")]
    pub tried_from: OffsetDateTime,
    /// A provider that may have more buckets failed.
    pub failed: bool,
    /// A provider offers the series.
    pub offered: bool,
}

impl Coverage {
    /// No provider was called.
    pub fn none(now: OffsetDateTime) -> Self {
        Self { from: now, to: now, pause_until: now, tried_from: now, failed: false, offered: false }
    }

    /// The buckets that all providers were asked for.
    pub fn known(&self) -> Range<OffsetDateTime> {
        self.from..self.to
    }

    /// Whether it is too early to request buckets from `from` on.
    pub fn is_paused(&self, from: OffsetDateTime, now: OffsetDateTime) -> bool {
        now < self.pause_until && self.tried_from <= from
    }

    /// Adds buckets that all providers were asked for.
    #[must_use]
    pub fn extended(self, (from, to): (OffsetDateTime, OffsetDateTime)) -> Self {
        let touches = self.from < self.to && from <= self.to && self.from <= to;
        if touches {
            Self { from: from.min(self.from), to: to.max(self.to), ..self }
        } else {
            Self { from, to, ..self }
        }
    }

    /// Sets the time until which no provider is called.
    #[must_use]
    pub fn with_pause(self, until: OffsetDateTime) -> Self {
        Self { pause_until: until, ..self }
    }
}

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
