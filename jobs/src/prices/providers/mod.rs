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
mod provider;
mod rate_limiter;
mod spots;

use std::sync::Arc;

pub use self::provider::{CandlePage, Names, Pages, Provider, ProviderError, Spots};
use self::{binance::BINANCE, coinbase::COINBASE, coingecko::CoinGecko, exchange::Exchange, kraken::KRAKEN};
use super::{Config, model::ProviderId};
use runtime::{clock::Clock, error::Error};

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
