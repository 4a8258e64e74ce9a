//! Where prices come from: one interface, and each source's quirks behind it.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use time::OffsetDateTime;

use super::{
    Config,
    model::{AssetId, Candle, Currency, Series, Source, Spot},
};
use crate::error::Error;

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

/// One source of prices.
pub trait Provider: Send + Sync {
    /// Which one.
    fn source(&self) -> Source;

    /// The finished buckets that start from `from` on and before `to`, as far as the source reaches; all its pages.
    ///
    /// # Errors
    /// Why there are none to be had.
    fn candles<'a>(
        &'a self,
        series: &'a Series,
        from: OffsetDateTime,
        to: OffsetDateTime,
    ) -> BoxFuture<'a, Result<Fetched, Trouble>>;

    /// The present prices of those of these assets that it has.
    ///
    /// # Errors
    /// As [`Provider::candles`].
    fn spots<'a>(
        &'a self,
        assets: &'a [AssetId],
        currency: &'a Currency,
    ) -> BoxFuture<'a, Result<Vec<(AssetId, Spot)>, Trouble>>;
}

/// All sources, in the order of preference.
#[derive(Clone)]
pub struct Providers(pub Arc<[Arc<dyn Provider>]>);

impl Providers {
    /// Those that the configuration names.
    ///
    /// # Errors
    /// When an HTTP client cannot be built.
    pub fn start(_config: &Config) -> Result<Self, Error> {
        Ok(Self(Arc::new([])))
    }
}
