//! Where prices come from: one interface, and each provider's quirks behind it.

mod answer;
mod binance;
mod budget;
mod caller;
mod circuit;
mod coinbase;
mod coingecko;
mod kraken;
mod listing;
mod metrics;
mod pages;
mod spots;

use std::{collections::HashSet, sync::Arc};

use futures_util::{future::BoxFuture, stream::BoxStream};
use time::OffsetDateTime;

use super::{
    Config,
    model::{AssetId, Candle, Currency, Series, Source, Spot},
};
use crate::{clock::Clock, error::Error};

/// Why a source has not answered with prices. No text has a key or more than a line of what it sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It does not have this asset in this currency, or not at this interval: asking again will not help.
    #[error("{0} does not have it")]
    NotOffered(Source),
    /// Not now: its limits, its ban, or our circuit breaker say so.
    #[error("{source_name} is not to be asked for another {} s: {why}", after.as_secs())]
    Later { source_name: Source, after: std::time::Duration, why: String },
    /// It cannot be reached, is broken, or sends what cannot be read; tried several times.
    #[error("{0}: {1}")]
    Failed(Source, String),
}

/// Finished buckets, in the order of time and each once; what was wrong is left out and told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetched {
    pub candles: Vec<Candle>,
    /// Rows that broke an invariant, each with its reason; they are never stored.
    pub rejected: Vec<String>,
}

/// The pages of a range, the newest first, no two with the same bucket. A page that fails costs its own buckets only;
/// after [`Trouble::NotOffered`] and [`Trouble::Later`] there are no more.
pub type Pages<'a> = BoxStream<'a, Result<Fetched, Trouble>>;

/// Present prices of some assets. An asset that is in neither list is not offered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spots {
    pub found: Vec<(AssetId, Spot)>,
    /// Assets that the provider may have, and why their price is not here.
    pub failed: Vec<(AssetId, Trouble)>,
}

impl Spots {
    /// No price, for one reason. What is not offered is in neither list.
    pub fn failed<'a>(assets: impl IntoIterator<Item = &'a AssetId>, trouble: &Trouble) -> Self {
        let mut spots = Self::default();
        if !matches!(trouble, Trouble::NotOffered(_)) {
            spots.failed.extend(assets.into_iter().map(|asset| (asset.clone(), trouble.clone())));
        }
        spots
    }
}

/// What a provider knows by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    pub assets: HashSet<String>,
    pub currencies: HashSet<String>,
}

/// One source of prices. The price of a bucket is the one at its end.
pub trait Provider: Send + Sync {
    /// Which one.
    fn source(&self) -> Source;

    /// The finished buckets that start from `from` on and before `to`, as far as the source reaches.
    fn candles<'a>(&'a self, series: &'a Series, from: OffsetDateTime, to: OffsetDateTime) -> Pages<'a>;

    /// The present prices of those of these assets that it has, each with the provider's own time.
    fn spots<'a>(&'a self, assets: &'a [AssetId], currency: &'a Currency) -> BoxFuture<'a, Spots>;

    /// The assets and currencies that it knows.
    ///
    /// # Errors
    /// Why its lists cannot be read now.
    fn names(&self) -> BoxFuture<'_, Result<Names, Trouble>>;
}

/// All sources, in the order of preference.
#[derive(Clone)]
pub struct Providers(pub Arc<[Arc<dyn Provider>]>);

impl Providers {
    /// Those that the configuration names.
    ///
    /// # Errors
    /// When an HTTP client cannot be built, or a key is none.
    pub fn start(config: &Config, clock: &Clock) -> Result<Self, Error> {
        let client = caller::client()?;
        let start = |source: &Source| -> Result<Arc<dyn Provider>, Error> {
            let (client, url, clock) = (client.clone(), config.url(*source), clock.clone());
            Ok(match source {
                Source::CoinGecko => {
                    Arc::new(coingecko::CoinGecko::new(client, url, config.coingecko_key.as_ref(), clock)?)
                }
                Source::Kraken => Arc::new(kraken::Kraken::new(client, url, clock)),
                Source::Coinbase => Arc::new(coinbase::Coinbase::new(client, url, clock)),
                Source::Binance => Arc::new(binance::Binance::new(client, url, clock)),
            })
        };
        Ok(Self(config.providers.iter().map(start).collect::<Result<_, _>>()?))
    }
}
