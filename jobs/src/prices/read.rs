//! What readers are given, and what all reads share: cache, then PostgreSQL, then the sources.

use std::{fmt, sync::Arc, time::Duration};

use metrics::{counter, describe_counter};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::PgPool;
use time::OffsetDateTime;

use super::{
    Config,
    ages::Ages,
    cache::{Asked, Cache, Entry, Generation, Value, asked_key, generation_key},
    model::{Series, Source},
    providers::{Providers, Trouble},
};
use crate::{
    clock::Clock,
    error::Error,
    remote::{flights::Flights, redis::Broken},
};

/// Look-ups, by what the cache came to.
const REQUESTS: &str = "millrace_cache_requests_total";
/// Look-ups that went to the database; fewer than misses, since those at one moment share one.
const LOADS: &str = "millrace_cache_loads_total";
/// Calls of sources because somebody reads, by what came of each.
const FETCHES: &str = "millrace_price_fetches_total";
const CACHE: &str = "prices";

/// No source is waited for longer than this.
pub(super) const SOURCE_LIMIT: Duration = Duration::from_secs(20);
/// How long a turn lasts at most: all sources, each at its slowest, and some more.
pub(super) const TURN: Duration = Duration::from_secs(90);
/// How long somebody else's turn is waited for; then both ask, which is only wasteful.
pub(super) const TURN_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks whether it has ended.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// How many days a chart covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Days {
    /// The last ones that are over.
    Number(u16),
    /// All there are.
    Max,
}

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Max => f.write_str("max"),
        }
    }
}

/// The price of an asset at one moment, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// Plain decimal digits.
    pub price: String,
    #[serde(with = "time::serde::rfc3339")]
    pub as_of: OffsetDateTime,
    pub source: Source,
    /// A newer one was to be had, but not now.
    pub stale: bool,
}

/// The prices of a series.
#[derive(Debug, Clone)]
pub struct Chart {
    /// `[[unix_ms,"price"],…]`: finished buckets, ascending.
    pub prices: Box<RawValue>,
    /// The newest bucket was to be had, but not now.
    pub stale: bool,
}

/// What came of a read.
#[derive(Debug, Clone)]
pub enum Read<T> {
    Found(T),
    /// It is not stored, and no source has it.
    Unknown,
    /// It is not stored, and a source that may have it cannot be asked now.
    Nothing {
        retry_after: Duration,
    },
}

/// Reads for all callers of this process.
pub(super) struct Reader {
    pub(super) pool: PgPool,
    pub(super) providers: Providers,
    pub(super) config: Arc<Config>,
    pub(super) cache: Arc<dyn Cache>,
    pub(super) ages: Ages,
    pub(super) clock: Clock,
    pub(super) charts: Flights<String, Result<Read<Chart>, Error>>,
    pub(super) fills: Flights<Series, Asked>,
    pub(super) spots: Flights<String, Result<Read<Quote>, Error>>,
}

impl Reader {
    /// Reads from `pool` and `providers` what `cache` does not have.
    pub(super) fn new(
        pool: &PgPool,
        providers: &Providers,
        config: &Arc<Config>,
        cache: Arc<dyn Cache>,
        ages: Ages,
        clock: Clock,
    ) -> Self {
        describe_counter!(REQUESTS, "Reads of a cache, by outcome.");
        describe_counter!(LOADS, "Reads of what a cache did not have.");
        describe_counter!(FETCHES, "Fetches that readers of prices waited for, by what they came to.");
        for outcome in ["hit", "miss", "error"] {
            counter!(REQUESTS, "cache" => CACHE, "outcome" => outcome).absolute(0);
        }
        counter!(LOADS, "cache" => CACHE).absolute(0);
        for source in &config.providers {
            for outcome in ["answered", "not_offered", "later", "failed"] {
                counter!(FETCHES, "source" => source.as_str(), "outcome" => outcome).absolute(0);
            }
        }
        Self {
            pool: pool.clone(),
            providers: providers.clone(),
            config: config.clone(),
            cache,
            ages,
            clock,
            charts: Flights::default(),
            fills: Flights::default(),
            spots: Flights::default(),
        }
    }

    pub(super) fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    /// Counts the look-up of one key.
    pub(super) fn count(&self, outcome: &'static str) {
        counter!(REQUESTS, "cache" => CACHE, "outcome" => outcome).increment(1);
    }

    /// Counts a look-up that went on to the database.
    pub(super) fn count_load(&self) {
        counter!(LOADS, "cache" => CACHE).increment(1);
    }

    /// Keeps an entry; when that is not to be, the next reader looks for itself.
    pub(super) async fn keep(&self, key: &str, entry: Arc<Entry>) {
        if let Err(error) = self.cache.put(key, entry).await {
            tracing::debug!(%error, key, "not cached");
        }
    }

    /// The present generation of a series.
    pub(super) async fn generation(&self, series: &Series) -> Generation {
        generation_of(self.peek(generation_key(series)).await.as_ref())
    }

    /// Begins a new generation of a series: nobody takes for fresh what was read before.
    ///
    /// # Errors
    /// When the cache cannot be told now.
    pub(super) async fn renew(&self, series: &Series) -> Result<(), Broken> {
        let generation = uuid::Uuid::new_v4().as_u128();
        let entry = Entry { value: Value::Mark, fresh_until: self.now(), generation };
        self.cache.put(&generation_key(series), Arc::new(entry)).await
    }

    /// What is known of asking for a series, as long as it counts.
    pub(super) async fn asked(&self, series: &Series) -> Option<(Asked, OffsetDateTime)> {
        let entry = self.peek(asked_key(series)).await?;
        match entry.value {
            Value::Asked(asked) if self.now() < entry.fresh_until => Some((asked, entry.fresh_until)),
            _ => None,
        }
    }

    async fn peek(&self, key: String) -> Option<Arc<Entry>> {
        self.cache.get(&[key]).await.ok()?.pop()?
    }

    /// Waits for a source, and counts what came of it. `Err` says when it may be asked again, if it offers this at all.
    pub(super) async fn fetched<T>(
        &self,
        source: Source,
        call: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, Option<Duration>> {
        let slow = |_| Err(Trouble::Failed(source, format!("no answer within {} s", SOURCE_LIMIT.as_secs())));
        let (outcome, answer) = match tokio::time::timeout(SOURCE_LIMIT, call).await.unwrap_or_else(slow) {
            Ok(answer) => ("answered", Ok(answer)),
            Err(Trouble::NotOffered(_)) => ("not_offered", Err(None)),
            Err(trouble @ Trouble::Later { after, .. }) => {
                tracing::debug!(%trouble, "prices are not fetched");
                ("later", Err(Some(after)))
            }
            Err(trouble @ Trouble::Failed(..)) => {
                tracing::warn!(%trouble, "prices could not be fetched");
                ("failed", Err(Some(self.ages.failed)))
            }
        };
        counter!(FETCHES, "source" => source.as_str(), "outcome" => outcome).increment(1);
        answer
    }

    /// How long nobody is asked after these troubles: until the first may be asked again, within limits.
    pub(super) fn pause(&self, troubles: &[Duration]) -> Duration {
        let first = troubles.iter().min().copied().unwrap_or(self.ages.failed);
        first.clamp(self.ages.failed, self.ages.failed.max(self.ages.unknown))
    }
}

/// The generation that a mark says.
pub(super) fn generation_of(mark: Option<&Arc<Entry>>) -> Generation {
    mark.map_or(0, |mark| mark.generation)
}
