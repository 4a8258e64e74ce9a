//! Sources of prices that a test fills, breaks and counts, and the clock that they and the feature go by.

use std::{
    collections::BTreeMap,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use jobs::{
    clock::Clock,
    prices::{
        model::{AssetId, Candle, Currency, Interval, Series, Source, Spot},
        providers::{Fetched, Names, Pages, Provider, Spots, Trouble},
    },
};
use sqlx::types::BigDecimal;
use time::{OffsetDateTime, macros::datetime};
use tokio::sync::Semaphore;

/// The time at which every test begins.
pub const NOON: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

/// How a source answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FakeMode {
    Well,
    Down,
    /// For so many seconds.
    Banned(u64),
    /// Not before its gate opens.
    Slow,
}

/// Two sources; the first is preferred.
pub struct Market {
    pub coingecko: Arc<Stall>,
    pub kraken: Arc<Stall>,
    /// The time that the clock shows; it stands still until a test sets it.
    time: Arc<Mutex<OffsetDateTime>>,
}

/// One source.
pub struct Stall {
    source: Source,
    clock: Clock,
    pub gate: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    mood: Option<FakeMode>,
    /// Finished and unfinished buckets of dollar series, by asset, interval and start.
    buckets: BTreeMap<(String, Interval, OffsetDateTime), String>,
    present: BTreeMap<String, String>,
    charts: usize,
    /// The assets of each call for present prices.
    spots: Vec<Vec<String>>,
    /// How old its present prices are.
    behind: Duration,
}

impl Market {
    pub fn new() -> Self {
        let time = Arc::new(Mutex::new(NOON));
        let stall = |source| {
            let (clock, gate) = (clock(&time), Semaphore::new(0));
            Arc::new(Stall { source, clock, gate, state: Mutex::default() })
        };
        Self { coingecko: stall(Source::CoinGecko), kraken: stall(Source::Kraken), time }
    }

    pub fn sources(&self) -> [Arc<dyn Provider>; 2] {
        [self.coingecko.clone(), self.kraken.clone()]
    }

    pub fn clock(&self) -> Clock {
        clock(&self.time)
    }

    pub fn now(&self) -> OffsetDateTime {
        self.clock().now()
    }

    /// Sets the clock.
    pub fn set(&self, time: OffsetDateTime) {
        *self.time.lock().unwrap() = time;
    }

    pub fn pass(&self, time: Duration) {
        *self.time.lock().unwrap() += time;
    }
}

fn clock(time: &Arc<Mutex<OffsetDateTime>>) -> Clock {
    let time = time.clone();
    Clock::new(move || *time.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Stall {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn is(&self, mood: FakeMode) {
        self.state().mood = Some(mood);
    }

    /// Says what this bucket's price is.
    pub fn put(&self, asset: &str, interval: Interval, bucket: OffsetDateTime, price: &str) {
        assert_eq!(interval.bucket(bucket), bucket);
        self.state().buckets.insert((asset.to_owned(), interval, bucket), price.to_owned());
    }

    /// Fills this many buckets up to the running one, that one included, with the number of each as its price.
    pub fn fill(&self, asset: &str, interval: Interval, count: u32) {
        let running = interval.bucket(self.clock.now());
        for back in 0..=count {
            let bucket = running - interval.length() * back;
            let price = bucket.unix_timestamp() / interval.length().whole_seconds();
            self.put(asset, interval, bucket, &format!("{price}.50"));
        }
    }

    /// Says what an asset costs now.
    pub fn quote(&self, asset: &str, price: &str) {
        self.state().present.insert(asset.to_owned(), price.to_owned());
    }

    /// From now on its present prices are of the past.
    pub fn lag(&self, behind: Duration) {
        self.state().behind = behind;
    }

    /// How often it was asked for a series.
    pub fn charts(&self) -> usize {
        self.state().charts
    }

    /// What it was asked for at once, call by call.
    pub fn spots(&self) -> Vec<Vec<String>> {
        self.state().spots.clone()
    }

    /// All it has of a series that is finished by now, from a time on.
    pub fn finished(&self, asset: &str, interval: Interval, from: OffsetDateTime) -> Vec<(i64, String)> {
        let now = self.clock.now();
        let state = self.state();
        let of_it = state.buckets.iter().filter(|((of, at, bucket), _)| {
            of == asset && *at == interval && *bucket >= from && *bucket + interval.length() <= now
        });
        of_it.map(|((.., bucket), price)| (bucket.unix_timestamp() * 1000, price.clone())).collect()
    }

    async fn mood(&self) -> Result<(), Trouble> {
        let mood = self.state().mood;
        match mood.unwrap_or(FakeMode::Well) {
            FakeMode::Well => Ok(()),
            FakeMode::Down => Err(Trouble::Failed(self.source, "connection refused".into())),
            FakeMode::Banned(seconds) => Err(Trouble::Later {
                source_name: self.source,
                after: Duration::from_secs(seconds),
                why: "banned".into(),
            }),
            FakeMode::Slow => {
                self.gate.acquire().await.expect("a gate").forget();
                Ok(())
            }
        }
    }
}

impl Stall {
    async fn page(&self, series: &Series, from: OffsetDateTime, to: OffsetDateTime) -> Result<Fetched, Trouble> {
        self.state().charts += 1;
        // As long as a fast one takes: what comes at one moment overlaps.
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.mood().await?;
        let (asset, interval) = (series.asset.as_str(), series.interval);
        let offered = self.state().buckets.keys().any(|(of, at, _)| of == asset && *at == interval);
        if !offered || series.currency.as_str() != "usd" {
            return Err(Trouble::NotOffered(self.source));
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
        });
        Ok(Fetched { candles: candles.collect(), rejected: Vec::new() })
    }
}

impl Provider for Stall {
    fn source(&self) -> Source {
        self.source
    }

    fn candles<'a>(&'a self, series: &'a Series, from: OffsetDateTime, to: OffsetDateTime) -> Pages<'a> {
        stream::once(self.page(series, from, to)).boxed()
    }

    fn spots<'a>(&'a self, assets: &'a [AssetId], currency: &'a Currency) -> BoxFuture<'a, Spots> {
        async move {
            let wanted = assets.iter().map(|asset| asset.as_str().to_owned()).collect();
            self.state().spots.push(wanted);
            tokio::time::sleep(Duration::from_millis(20)).await;
            if let Err(trouble) = self.mood().await {
                return Spots::failed(assets, &trouble);
            }
            if currency.as_str() != "usd" {
                return Spots::default();
            }
            let (as_of, state) = (self.clock.now(), self.state());
            let spot = |asset: &AssetId| {
                let price = BigDecimal::from_str(state.present.get(asset.as_str())?).unwrap();
                Some((asset.clone(), Spot { price, as_of: as_of - state.behind, source: self.source }))
            };
            Spots { found: assets.iter().filter_map(spot).collect(), failed: Vec::new() }
        }
        .boxed()
    }

    fn names(&self) -> BoxFuture<'_, Result<Names, Trouble>> {
        async { Ok(Names::default()) }.boxed()
    }
}
