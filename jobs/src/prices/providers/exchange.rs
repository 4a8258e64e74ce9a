//! Exchanges: providers that trade pairs. What differs between them is a table; everything else is written once here.

use std::{slice, sync::Arc};

use futures_util::{StreamExt, future::BoxFuture, stream};
use reqwest::{Client, StatusCode};
use time::OffsetDateTime;

use super::{
    client::{Hashed, Parsed, ProviderClient, ProviderLimits},
    listing::{Convention, Listing, Pairs, name_pairs},
    pages::{fetch_pages, request_window, split_pages},
    provider::{Names, Pages, Provider, ProviderError, Spots},
    rate_limiter::RateLimit,
    spots::{ReportedPrice, add_reported},
};
use crate::prices::{
    model::{AssetId, Currency, ProviderId, Series},
    normalise::{CandleSet, Window},
    symbols::code,
};
use runtime::clock::Clock;

/// Concurrent calls, when each pair needs its own. With more, the last one would wait too long for the rate limiter.
const AT_ONCE: usize = 4;

/// What differs between exchanges: limits, paths, and the parsers of their responses.
pub(super) struct ExchangeSpec {
    pub id: ProviderId,
    pub rate_limit: RateLimit,
    /// The pause after a rate limit response without `Retry-After`.
    pub default_pause: std::time::Duration,
    /// The path of the list of pairs.
    pub pairs_path: &'static str,
    pub parse_pairs: fn(StatusCode, &str) -> Parsed<Pairs>,
    pub pair_name: Convention,
    /// The longest page, in buckets.
    pub rows: i32,
    /// There are no older prices, and empty pages cost calls.
    pub beginning: OffsetDateTime,
    /// The path of a page of a pair.
    pub candles_path: fn(&str, Window) -> String,
    pub parse_candles: fn(StatusCode, &str, Window) -> Parsed<CandleSet>,
    /// Pairs per call for present prices.
    pub spots_per_call: usize,
    /// The path of the present prices of these pairs, at this time.
    pub spots_path: fn(&[&str], OffsetDateTime) -> String,
    /// Finds the present price of a pair in a response.
    pub parse_spot: fn(StatusCode, &str, &str) -> Parsed<ReportedPrice>,
}

/// The client of an exchange.
pub(super) struct Exchange {
    spec: &'static ExchangeSpec,
    client: ProviderClient,
    pairs: Listing<Pairs>,
}

impl Exchange {
    pub(super) fn new(spec: &'static ExchangeSpec, http: Client, url: &str, clock: Clock) -> Self {
        let limits = ProviderLimits { rate_limit: spec.rate_limit, default_pause: spec.default_pause, key: None };
        let client = ProviderClient::new(spec.id, http, url, clock, limits);
        Self { spec, client, pairs: Listing::default() }
    }

    async fn listed_pairs(&self) -> Result<Arc<Pairs>, ProviderError> {
        self.pairs.get(self.client.get(self.spec.pairs_path, self.spec.parse_pairs)).await
    }

    async fn pairs_of(&self, assets: &[AssetId], currency: &Currency) -> Vec<(AssetId, String)> {
        // Without a code an asset is in no list, which is then not fetched for it.
        if assets.iter().all(|asset| code(asset.as_str()).is_none()) {
            return Vec::new();
        }
        let list = self.listed_pairs().await.ok();
        name_pairs(list.as_deref(), self.spec.pair_name, assets, currency)
    }

    async fn fetch_page(&self, series: &Series, page: Window) -> Result<CandleSet, ProviderError> {
        let pairs = self.pairs_of(slice::from_ref(&series.asset), &series.currency).await;
        let (_, pair) = pairs.first().ok_or(ProviderError::NotOffered(self.spec.id))?;
        let path = (self.spec.candles_path)(pair, page);
        let parse = |status, body: &str| (self.spec.parse_candles)(status, body, page);
        let (candle_set, hash) = self.client.get_hashed(&path, parse).await?;
        Ok(candle_set.with_body_hash(hash))
    }

    async fn fetch_spots(&self, pairs: &[(AssetId, String)], per_call: usize) -> Spots {
        // Calls for many pairs are few and heavy, so they are made one after the other.
        let at_once = if per_call == 1 { AT_ONCE } else { 1 };
        let call = |pairs| async move { (pairs, self.fetch_prices(pairs).await) };
        let calls: Vec<_> = pairs.chunks(per_call).map(call).collect();
        let results: Vec<_> = stream::iter(calls).buffer_unordered(at_once).collect().await;
        let mut spots = Spots::default();
        for (pairs, result) in results {
            match result {
                Ok((reported, hash)) => add_reported(&self.client, &mut spots, reported, hash),
                // One unknown pair fails the whole call.
                Err(ProviderError::NotOffered(_)) if per_call > 1 => {
                    spots.extend(Box::pin(self.fetch_spots(pairs, 1)).await);
                }
                Err(error) => spots.extend(Spots::failed(pairs.iter().map(|(asset, _)| asset), &error)),
            }
        }
        spots
    }

    async fn fetch_prices(
        &self,
        pairs: &[(AssetId, String)],
    ) -> Result<Hashed<Vec<(AssetId, ReportedPrice)>>, ProviderError> {
        let names: Vec<&str> = pairs.iter().map(|(_, name)| name.as_str()).collect();
        let path = (self.spec.spots_path)(&names, self.client.clock.now());
        let parse = |status, body: &str| {
            let price_of =
                |(asset, name): &(AssetId, String)| Ok((asset.clone(), (self.spec.parse_spot)(status, body, name)?));
            pairs.iter().map(price_of).collect()
        };
        self.client.get_hashed(&path, parse).await
    }
}

impl Provider for Exchange {
    fn id(&self) -> ProviderId {
        self.spec.id
    }

    fn candles<'a>(&'a self, series: &'a Series, from: OffsetDateTime, to: OffsetDateTime) -> Pages<'a> {
        let window = request_window(&self.client, series, from.max(self.spec.beginning), to);
        let pages = split_pages(window, self.spec.rows);
        fetch_pages(&self.client, series, pages, |page| Box::pin(self.fetch_page(series, page)))
    }

    fn spots<'a>(&'a self, assets: &'a [AssetId], currency: &'a Currency) -> BoxFuture<'a, Spots> {
        Box::pin(async move {
            let pairs = self.pairs_of(assets, currency).await;
            self.fetch_spots(&pairs, self.spec.spots_per_call).await
        })
    }

    fn names(&self) -> BoxFuture<'_, Result<Names, ProviderError>> {
        Box::pin(async { Ok(self.listed_pairs().await?.names()) })
    }
}
