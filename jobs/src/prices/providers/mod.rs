//! The providers of prices: one trait. CoinGecko has its own client; exchanges share one and differ in a table.

mod binance;
mod client;
mod coinbase;
mod coingecko;
mod exchange;
mod json;
mod kraken;
mod listing;
mod metrics;
mod pages;
mod pause;
mod rate_limiter;
mod spots;

use std::{collections::HashSet, sync::Arc};

use futures_util::{future::BoxFuture, stream::BoxStream};
use time::OffsetDateTime;

use self::{binance::BINANCE, coinbase::COINBASE, coingecko::CoinGecko, exchange::Exchange, kraken::KRAKEN};
use super::{
    Config,
    model::{AssetId, Candle, Currency, ProviderId, Series, Spot},
};
use runtime::{clock::Clock, error::Error};

/// Why a provider returned no prices. No text contains a key, a URL, or more than one line of a response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// It does not offer this asset in this currency, or not at this interval. Retrying does not help.
    #[error("{0} does not offer it")]
    NotOffered(ProviderId),
    /// Retry later: the provider has limited or banned us, or our circuit breaker is open.
    #[error("{provider} is paused for another {} s: {reason}", after.as_secs())]
    RetryLater { provider: ProviderId, after: std::time::Duration, reason: String },
    /// It is unreachable or broken, or its response is unreadable; after several attempts.
    #[error("{0}: {1}")]
    Failed(ProviderId, String),
}

/// Finished buckets, in the order of time and each once. Invalid rows are left out and reported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CandlePage {
    pub candles: Vec<Candle>,
    /// Rows that broke an invariant, each with its reason. They are never stored.
    pub rejected: Vec<String>,
}

/// The pages of a range, the newest first. No two pages contain the same bucket. A failed page loses only its own
/// buckets; [`ProviderError::NotOffered`] and [`ProviderError::RetryLater`] end the stream.
pub type Pages<'a> = BoxStream<'a, Result<CandlePage, ProviderError>>;

/// Present prices of some assets. An asset in neither list is not offered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spots {
    pub found: Vec<(AssetId, Spot)>,
    /// Assets that the provider may offer, and why their price is missing.
    pub failed: Vec<(AssetId, ProviderError)>,
}

impl Spots {
    /// All assets failed for one reason. If the reason is [`ProviderError::NotOffered`], both lists are empty.
    pub fn failed<'a>(assets: impl IntoIterator<Item = &'a AssetId>, error: &ProviderError) -> Self {
        let mut spots = Self::default();
        if !matches!(error, ProviderError::NotOffered(_)) {
            spots.failed.extend(assets.into_iter().map(|asset| (asset.clone(), error.clone())));
        }
        spots
    }

    fn extend(&mut self, other: Self) {
        self.found.extend(other.found);
        self.failed.extend(other.failed);
    }
}

/// The assets and currencies that a provider offers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    pub assets: HashSet<String>,
    pub currencies: HashSet<String>,
}

/// A provider of prices. The price of a bucket is the price at its end.
pub trait Provider: Send + Sync {
    /// The id of the provider.
    fn id(&self) -> ProviderId;

    /// Fetches the finished buckets that start at `from` or later and before `to`, as far back as the provider goes.
    fn candles<'a>(&'a self, series: &'a Series, from: OffsetDateTime, to: OffsetDateTime) -> Pages<'a>;

    /// Fetches the present prices of those of these assets that it offers, each with the time of the provider.
    fn spots<'a>(&'a self, assets: &'a [AssetId], currency: &'a Currency) -> BoxFuture<'a, Spots>;

    /// Fetches the assets and currencies that it offers.
    ///
    /// # Errors
    /// The [`ProviderError`] of the call when its lists cannot be fetched.
    fn names(&self) -> BoxFuture<'_, Result<Names, ProviderError>>;
}

/// The configured providers, in the order of preference.
#[derive(Clone)]
pub struct Providers(pub Arc<[Arc<dyn Provider>]>);

impl Providers {
    /// Starts the configured providers.
    ///
    /// # Errors
    /// [`Error::Internal`] when the HTTP client cannot be built, or a key cannot be sent in a header.
    pub fn start(config: &Config, clock: &Clock) -> Result<Self, Error> {
        let http = client::http_client()?;
        let start = |id: &ProviderId| -> Result<Arc<dyn Provider>, Error> {
            let (http, url, clock) = (http.clone(), config.url(*id), clock.clone());
            let spec = match id {
                ProviderId::CoinGecko => {
                    return Ok(Arc::new(CoinGecko::new(http, url, config.coingecko_key.as_ref(), clock)?));
                }
                ProviderId::Kraken => &KRAKEN,
                ProviderId::Coinbase => &COINBASE,
                ProviderId::Binance => &BINANCE,
            };
            Ok(Arc::new(Exchange::new(spec, http, url, clock)))
        };
        Ok(Self(config.providers.iter().map(start).collect::<Result<_, _>>()?))
    }
}

#[cfg(test)]
mod tests;
