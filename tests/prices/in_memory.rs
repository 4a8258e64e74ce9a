//! In-memory providers that a test fills, breaks and counts, and the test clock.

use std::{
    collections::BTreeMap,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use jobs::prices::{
    model::{AssetId, Candle, Currency, Interval, ProviderId, Series, Spot},
    providers::{CandlePage, Names, Pages, Provider, ProviderError, Spots},
};
use runtime::clock::Clock;
use sqlx::types::BigDecimal;
use time::{OffsetDateTime, macros::datetime};
use tokio::sync::Semaphore;

/// The time at which every test starts.
pub(super) const NOON: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

/// How a provider responds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProviderMode {
    Well,
    Down,
    /// Banned for this many seconds.
    Banned(u64),
    /// Responds when its gate opens.
    Slow,
}

/// Two providers; CoinGecko is preferred.
pub(super) struct InMemoryProviders {
    pub coingecko: Arc<InMemoryProvider>,
    pub kraken: Arc<InMemoryProvider>,
    /// The time of the clock. It stands still until a test sets it.
    time: Arc<Mutex<OffsetDateTime>>,
}

/// One provider.
pub(super) struct InMemoryProvider {
    id: ProviderId,
    clock: Clock,
    pub gate: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    mode: Option<ProviderMode>,
    /// Finished and unfinished buckets in dollars, by asset, interval and start.
    buckets: BTreeMap<(String, Interval, OffsetDateTime), String>,
    present: BTreeMap<String, String>,
    charts: usize,
    /// The assets of each call for present prices.
    spots: Vec<Vec<String>>,
    /// The age of its present prices.
    age: Duration,
}

impl InMemoryProviders {
    pub(super) fn new() -> Self {
        let time = Arc::new(Mutex::new(NOON));
        let provider = |id| {
            let (clock, gate) = (clock(&time), Semaphore::new(0));
            Arc::new(InMemoryProvider { id, clock, gate, state: Mutex::default() })
        };
        Self { coingecko: provider(ProviderId::CoinGecko), kraken: provider(ProviderId::Kraken), time }
    }

    pub(super) fn all(&self) -> [Arc<dyn Provider>; 2] {
        [self.coingecko.clone(), self.kraken.clone()]
    }

    pub(super) fn clock(&self) -> Clock {
        clock(&self.time)
    }

    pub(super) fn now(&self) -> OffsetDateTime {
        self.clock().now()
    }

    /// Sets the clock.
    pub(super) fn set(&self, time: OffsetDateTime) {
        *self.time.lock().unwrap() = time;
    }

    pub(super) fn advance(&self, time: Duration) {
        *self.time.lock().unwrap() += time;
    }
}

fn clock(time: &Arc<Mutex<OffsetDateTime>>) -> Clock {
    let time = time.clone();
    Clock::new(move || *time.lock().unwrap_or_else(PoisonError::into_inner))
}

impl InMemoryProvider {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn set_mode(&self, mode: ProviderMode) {
        self.state().mode = Some(mode);
    }

    /// Sets the price of a bucket.
    pub(super) fn put(&self, asset: &str, interval: Interval, bucket: OffsetDateTime, price: &str) {
        assert_eq!(interval.bucket(bucket), bucket);
        self.state().buckets.insert((asset.to_owned(), interval, bucket), price.to_owned());
    }

    /// Fills `count` buckets before the running one, and the running one. The price is the number of the bucket.
    pub(super) fn fill(&self, asset: &str, interval: Interval, count: u32) {
        let running = interval.bucket(self.clock.now());
        for back in 0..=count {
            let bucket = running - interval.length() * back;
            let price = bucket.unix_timestamp() / interval.length().whole_seconds();
            self.put(asset, interval, bucket, &format!("{price}.50"));
        }
    }

    /// Sets the present price of an asset.
    pub(super) fn quote(&self, asset: &str, price: &str) {
        self.state().present.insert(asset.to_owned(), price.to_owned());
    }

    /// Makes its present prices `age` old.
    pub(super) fn lag(&self, age: Duration) {
        self.state().age = age;
    }

    /// The number of calls for series.
    pub(super) fn charts(&self) -> usize {
        self.state().charts
    }

    /// The assets of each call for present prices.
    pub(super) fn spots(&self) -> Vec<Vec<String>> {
        self.state().spots.clone()
    }

    /// All its finished buckets of a series from a time on.
    pub(super) fn finished(&self, asset: &str, interval: Interval, from: OffsetDateTime) -> Vec<(i64, String)> {
        let now = self.clock.now();
        let state = self.state();
        let finished = state.buckets.iter().filter(|((of, at, bucket), _)| {
            of == asset && *at == interval && *bucket >= from && *bucket + interval.length() <= now
        });
        finished.map(|((.., bucket), price)| (bucket.unix_timestamp() * 1000, price.clone())).collect()
    }

    async fn mode(&self) -> Result<(), ProviderError> {
        let mode = self.state().mode;
        match mode.unwrap_or(ProviderMode::Well) {
            ProviderMode::Well => Ok(()),
            ProviderMode::Down => Err(ProviderError::Failed(self.id, "connection refused".into())),
            ProviderMode::Banned(seconds) => Err(ProviderError::RetryLater {
                provider: self.id,
                after: Duration::from_secs(seconds),
                reason: "banned".into(),
            }),
            ProviderMode::Slow => {
                self.gate.acquire().await.expect("a gate").forget();
                Ok(())
            }
        }
    }
}

impl InMemoryProvider {
    async fn page(
        &self,
        series: &Series,
        from: OffsetDateTime,
        to: OffsetDateTime,
    ) -> Result<CandlePage, ProviderError> {
        self.state().charts += 1;
        // Takes as long as a fast provider, so that concurrent calls overlap.
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.mode().await?;
        let (asset, interval) = (series.asset.as_str(), series.interval);
        let offered = self.state().buckets.keys().any(|(of, at, _)| of == asset && *at == interval);
        if !offered || series.currency.as_str() != "usd" {
            return Err(ProviderError::NotOffered(self.id));
        }
        let to = to.unix_timestamp() * 1000;
        let finished = self.finished(asset, interval, from).into_iter().filter(|(millis, _)| *millis < to);
        let candles = finished.map(|(millis, price)| Candle {
            bucket: OffsetDateTime::from_unix_timestamp(millis / 1000).unwrap(),
            open: None,
            high: None,
            low: None,
            close: BigDecimal::from_str(&price).unwrap(),
            volume: None,
            body_sha256: None,
        });
        Ok(CandlePage { candles: candles.collect(), rejected: Vec::new() })
    }
}

impl Provider for InMemoryProvider {
    fn id(&self) -> ProviderId {
        self.id
    }

    fn candles<'a>(&'a self, series: &'a Series, from: OffsetDateTime, to: OffsetDateTime) -> Pages<'a> {
        stream::once(self.page(series, from, to)).boxed()
    }

    fn spots<'a>(&'a self, assets: &'a [AssetId], currency: &'a Currency) -> BoxFuture<'a, Spots> {
        async move {
            let wanted = assets.iter().map(|asset| asset.as_str().to_owned()).collect();
            self.state().spots.push(wanted);
            tokio::time::sleep(Duration::from_millis(20)).await;
            if let Err(error) = self.mode().await {
                return Spots::failed(assets, &error);
            }
            if currency.as_str() != "usd" {
                return Spots::default();
            }
            let (as_of, state) = (self.clock.now(), self.state());
            let spot = |asset: &AssetId| {
                let price = BigDecimal::from_str(state.present.get(asset.as_str())?).unwrap();
                let as_of = as_of - state.age;
                Some((asset.clone(), Spot { price, as_of, provider: self.id, body_sha256: None }))
            };
            Spots { found: assets.iter().filter_map(spot).collect(), failed: Vec::new() }
        }
        .boxed()
    }

    fn names(&self) -> BoxFuture<'_, Result<Names, ProviderError>> {
        async { Ok(Names::default()) }.boxed()
    }
}
