//! The types of reads, and what all reads share: cache, then PostgreSQL, then providers.

use std::{fmt, sync::Arc, time::Duration};

use metrics::{counter, describe_counter};
use serde_json::value::RawValue;
use time::OffsetDateTime;

use super::{
    Config,
    ages::Ages,
    cache::{Cache, Coverage, Entry, Generation, Value, coverage_key, generation_key},
    model::{ProviderId, Quote, Series},
    providers::{ProviderError, Providers},
};
use runtime::{
    clients::{redis::Broken, single_flight::SingleFlight},
    clock::Clock,
    db::Pool,
    error::Error,
};

/// Cache look-ups, by outcome.
const REQUESTS: &str = "millrace_cache_requests_total";
/// Loads from the database. Fewer than misses, since concurrent misses share one load.
const LOADS: &str = "millrace_cache_loads_total";
/// Calls to providers for reads, by outcome: pages of charts, and present prices.
const READS: &str = "millrace_price_reads_total";
const CACHE: &str = "prices";

/// The lifetime of a lock: longer than all providers need, each at its slowest.
pub(super) const LOCK_TTL: Duration = Duration::from_secs(90);
/// How long a read waits for the lock of another process. After that both call the providers, which is only wasteful.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(10);
/// The pause between two attempts to take a lock.
pub(super) const LOCK_POLL: Duration = Duration::from_millis(25);

/// How many days a chart covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Days {
    /// The last finished days.
    Number(u16),
    /// All days.
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

/// The prices of a series.
#[derive(Debug, Clone)]
pub struct Chart {
    /// `[[unix_ms,"price"],…]`: finished buckets, ascending.
    pub prices: Box<RawValue>,
    /// The newest bucket is due, but no provider could be asked for it.
    pub stale: bool,
    /// The number of points that should exist and are missing.
    pub missing: u32,
}

/// The result of a read.
#[derive(Debug, Clone)]
pub enum Read<T> {
    Found(T),
    /// Nothing is stored, and no provider offers it.
    Unknown,
    /// Nothing is stored, and a provider that may offer it is unavailable.
    Nothing {
        retry_after: Duration,
    },
}

impl<T> Read<T> {
    /// The result in a cache entry. `found` reads the value of an entry with prices.
    pub(super) fn of(entry: &Entry, now: OffsetDateTime, found: impl FnOnce(&Value) -> Option<T>) -> Option<Self> {
        match &entry.value {
            Value::Unknown => Some(Self::Unknown),
            Value::Nothing => Some(Self::Nothing { retry_after: (entry.fresh_until - now).unsigned_abs() }),
            value => found(value).map(Self::Found),
        }
    }
}

/// The reader of this process.
pub(super) struct Reader {
    pub(super) pool: Pool,
    pub(super) providers: Providers,
    pub(super) config: Config,
    pub(super) cache: Cache,
    pub(super) ages: Ages,
    pub(super) clock: Clock,
    pub(super) charts: SingleFlight<String, Result<Read<Chart>, Error>>,
    pub(super) fills: SingleFlight<Series, Coverage>,
    pub(super) spots: SingleFlight<String, Result<Read<Quote>, Error>>,
    /// Identifies the configured providers and their order. Processes that share a cache may be configured differently,
    /// and must not read each other's charts.
    pub(super) salt: Generation,
}

impl Reader {
    /// Creates a reader over these parts.
    pub(super) fn new(
        pool: &Pool,
        providers: Providers,
        config: &Config,
        cache: Cache,
        ages: Ages,
        clock: Clock,
    ) -> Self {
        describe_counter!(REQUESTS, "Look-ups in a cache, by outcome.");
        describe_counter!(LOADS, "Loads of what a cache did not contain.");
        describe_counter!(READS, "Calls to price providers for reads: pages of charts, and present prices.");
        for outcome in ["hit", "miss", "error"] {
            counter!(REQUESTS, "cache" => CACHE, "outcome" => outcome).absolute(0);
        }
        counter!(LOADS, "cache" => CACHE).absolute(0);
        for provider in &config.providers {
            counter!(READS, "provider" => provider.as_str()).absolute(0);
        }
        Self {
            pool: pool.clone(),
            providers,
            config: config.clone(),
            cache,
            ages,
            clock,
            charts: SingleFlight::default(),
            fills: SingleFlight::default(),
            spots: SingleFlight::default(),
            salt: salt(&config.providers),
        }
    }

    pub(super) fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    /// Counts a cache look-up of one key.
    pub(super) fn count(&self, outcome: &'static str) {
        counter!(REQUESTS, "cache" => CACHE, "outcome" => outcome).increment(1);
    }

    /// Counts a load from the database.
    pub(super) fn count_load(&self) {
        counter!(LOADS, "cache" => CACHE).increment(1);
    }

    /// Caches an entry. A failure is only logged: the next reader loads again.
    pub(super) async fn cache_entry(&self, key: &str, entry: Arc<Entry>) {
        if let Err(error) = self.cache.put(key, entry).await {
            tracing::debug!(%error, key, "could not cache an entry");
        }
    }

    /// The current generation of a series.
    pub(super) async fn generation(&self, series: &Series) -> Generation {
        self.generation_of(self.get_cached(generation_key(series)).await.as_ref())
    }

    /// The generation of this mark, for the configured providers.
    pub(super) fn generation_of(&self, mark: Option<&Arc<Entry>>) -> Generation {
        mark.map_or(0, |mark| mark.generation) ^ self.salt
    }

    /// Begins a new generation of a series, so that all its cached charts count as old.
    ///
    /// # Errors
    /// [`Broken`] when Redis is unavailable. Then only the charts of its fallback count as old.
    pub(super) async fn begin_generation(&self, series: &Series) -> Result<(), Broken> {
        let generation = uuid::Uuid::new_v4().as_u128();
        let entry = Entry { value: Value::Mark, fresh_until: self.now(), generation };
        self.cache.put(&generation_key(series), Arc::new(entry)).await
    }

    /// The coverage of a series, and when it expires. It is empty unless providers were asked lately.
    pub(super) async fn coverage(&self, series: &Series) -> (Coverage, OffsetDateTime) {
        let (now, entry) = (self.now(), self.get_cached(coverage_key(series)).await);
        match entry.as_deref() {
            Some(Entry { value: Value::Coverage(coverage), fresh_until, generation })
                if now < *fresh_until && *generation == self.salt =>
            {
                (*coverage, *fresh_until)
            }
            _ => (Coverage::none(now), now + self.ages.absent),
        }
    }

    async fn get_cached(&self, key: String) -> Option<Arc<Entry>> {
        self.cache.get(&[key]).await.entries.pop().flatten()
    }

    /// Counts and logs the result of a call. An `Err` contains the time until the call may be repeated, or `None` if
    /// the provider does not offer this.
    pub(super) fn record_call<T>(
        &self,
        provider: ProviderId,
        result: Result<T, ProviderError>,
    ) -> Result<T, Option<Duration>> {
        match &result {
            Ok(_) | Err(ProviderError::NotOffered(_)) => {}
            Err(error @ ProviderError::RetryLater { .. }) => {
                tracing::debug!(%error, "provider paused; prices not fetched");
            }
            Err(error @ ProviderError::Failed(..)) => tracing::warn!(%error, "could not fetch prices"),
        }
        counter!(READS, "provider" => provider.as_str()).increment(1);
        result.map_err(|error| self.retry_delay(&error))
    }

    /// How long to wait before a call is repeated. `None` when the provider does not offer it.
    pub(super) fn retry_delay(&self, error: &ProviderError) -> Option<Duration> {
        match error {
            ProviderError::NotOffered(_) => None,
            ProviderError::RetryLater { after, .. } => Some(*after),
            ProviderError::Failed(..) => Some(self.ages.failed),
        }
    }
}

/// Encodes the providers and their order as one number.
fn salt(providers: &[ProviderId]) -> Generation {
    providers.iter().fold(0, |salt, provider| {
        let place = ProviderId::ALL.iter().position(|other| other == provider).unwrap_or_default();
        salt * 8 + place as Generation + 1
    })
}
