//! The trait of all providers, and what its calls return.

use std::{collections::HashSet, time::Duration};

use futures_util::{future::BoxFuture, stream::BoxStream};
use time::OffsetDateTime;

use crate::prices::model::{AssetId, Candle, Currency, ProviderId, Series, Spot};

/// Why a provider returned no prices. No text contains a key, a URL, or more than one line of a response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// It does not offer this asset in this currency, or not at this interval. Retrying does not help.
    #[error("{0} does not offer it")]
    NotOffered(ProviderId),
    /// Retry later: the provider has limited or banned us, or our circuit breaker is open.
    #[error("{provider} is paused for another {} s: {reason}", after.as_secs())]
    RetryLater { provider: ProviderId, after: Duration, reason: String },
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

    pub(super) fn extend(&mut self, other: Self) {
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
