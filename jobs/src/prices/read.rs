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
/// Calls of providers for readers, by outcome: a page of a chart, or present prices.
const READS: &str = "millrace_price_reads_total";
const CACHE: &str = "prices";

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
    /// The newest bucket exists, but no provider could be asked for it.
    pub stale: bool,
    /// How many points should be there and are not.
    pub missing: u32,
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
    /// A number of the configured providers and their order. Processes that share a cache may be configured differently:
    /// what one has made of its providers is not what another shows.
    pub(super) salt: Generation,
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
        describe_counter!(
            READS,
            "Calls of price providers for readers: pages of charts and present prices, by outcome."
        );
        for outcome in ["hit", "miss", "error"] {
            counter!(REQUESTS, "cache" => CACHE, "outcome" => outcome).absolute(0);
        }
        counter!(LOADS, "cache" => CACHE).absolute(0);
        for source in &config.providers {
            for outcome in ["answered", "not_offered", "later", "failed"] {
                counter!(READS, "provider" => source.as_str(), "outcome" => outcome).absolute(0);
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
            salt: salt(&config.providers),
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
        self.generation_of(self.peek(generation_key(series)).await.as_ref())
    }

    /// The generation that a mark says, for these providers.
    pub(super) fn generation_of(&self, mark: Option<&Arc<Entry>>) -> Generation {
        mark.map_or(0, |mark| mark.generation) ^ self.salt
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
            Value::Asked(asked) if self.now() < entry.fresh_until && entry.generation == self.salt => {
                Some((asked, entry.fresh_until))
            }
            _ => None,
        }
    }

    async fn peek(&self, key: String) -> Option<Arc<Entry>> {
        self.cache.get(&[key]).await.ok()?.pop()?
    }

    /// Counts what came of a call. `Err` says after which time it may be made again, if the provider offers this at all.
    pub(super) fn counted<T>(&self, source: Source, result: Result<T, Trouble>) -> Result<T, Option<Duration>> {
        let outcome = match &result {
            Ok(_) => "answered",
            Err(Trouble::NotOffered(_)) => "not_offered",
            Err(trouble @ Trouble::Later { .. }) => {
                tracing::debug!(%trouble, "prices are not fetched");
                "later"
            }
            Err(trouble @ Trouble::Failed(..)) => {
                tracing::warn!(%trouble, "prices could not be fetched");
                "failed"
            }
        };
        counter!(READS, "provider" => source.as_str(), "outcome" => outcome).increment(1);
        result.map_err(|trouble| self.wait_after(&trouble))
    }

    /// After which time a call may be made again.
    pub(super) fn wait_after(&self, trouble: &Trouble) -> Option<Duration> {
        match trouble {
            Trouble::NotOffered(_) => None,
            Trouble::Later { after, .. } => Some(*after),
            Trouble::Failed(..) => Some(self.ages.failed),
        }
    }

    /// How long nobody is asked after these troubles: until the first may be asked again, within limits.
    pub(super) fn pause(&self, troubles: &[Duration]) -> Duration {
        let first = troubles.iter().min().copied().unwrap_or(self.ages.failed);
        first.clamp(self.ages.failed, self.ages.failed.max(self.ages.unknown))
    }
}

fn salt(providers: &[Source]) -> Generation {
    providers.iter().fold(0, |salt, source| {
        let place = Source::ALL.iter().position(|other| other == source).unwrap_or_default();
        salt * 8 + place as Generation + 1
    })
}
