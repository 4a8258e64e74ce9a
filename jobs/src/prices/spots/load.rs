//! Loads present prices from PostgreSQL, else from the providers. The newest known price is returned.

use std::{collections::HashMap, sync::Arc, time::Duration};

use time::OffsetDateTime;

use super::{
    super::{
        cache::{Entry, Value, spot_key},
        hedge::{HedgedCalls, Step},
        model::{AssetId, Currency, Quote, Spot},
        normalise::is_stale,
        providers::{Provider, ProviderError, Spots},
        read::{LOCK_TTL, Read, Reader},
        store,
    },
    QuoteResults, keys, read_entry,
};
use runtime::error::Error;

/// The newest known price of an asset.
pub(super) struct Known {
    quote: Quote,
    /// When it was fetched; `None` unless it is a stored present price.
    fetched_at: Option<OffsetDateTime>,
}

/// The prices that a provider reported, and after how long it may be called again for each failed asset.
struct SpotReport {
    found: Vec<(AssetId, Spot)>,
    failed: Vec<(AssetId, Duration)>,
}

impl Reader {
    /// Loads the assets whose locks this process holds. Releases the locks when the result is cached.
    pub(super) async fn load_locked(
        self: Arc<Self>,
        mut rest: Vec<AssetId>,
        currency: &Currency,
        token: u128,
    ) -> QuoteResults {
        let keys = keys(&rest, currency);
        // The previous owner of the lock may have cached a result.
        let (mut results, mut old) = self.read_cached(&mut rest, currency).await;
        let known = match self.known_spots(&rest, currency, &old).await {
            Ok(known) => known,
            Err(error) => {
                self.cache.unlock(&keys, token, LOCK_TTL).await;
                results.extend(rest.into_iter().map(|asset| match (old.remove(&asset), &error) {
                    (Some(quote), Error::Unavailable(_)) => (asset, Ok(Read::Found(quote))),
                    _ => (asset, Err(error.clone())),
                }));
                return results;
            }
        };
        let now = self.now();
        for (asset, Known { quote, fetched_at }) in &known {
            let fresh_until = fetched_at.map_or(now, |at| at.min(now) + self.ages.spot);
            if now < fresh_until {
                let result = self.cache_result(asset, currency, Value::Spot(quote.clone()), fresh_until).await;
                results.insert(asset.clone(), result);
            }
        }
        rest.retain(|asset| !results.contains_key(asset));
        if rest.is_empty() {
            self.cache.unlock(&keys, token, LOCK_TTL).await;
            return results;
        }
        let all_known = rest.iter().all(|asset| known.contains_key(asset));
        let max_wait = if all_known { self.ages.max_wait } else { self.ages.max_wait_with_nothing };
        let known = Arc::new(known);
        // Its own task, so that it continues when its callers are gone.
        let fetching = tokio::spawn({
            let (this, rest, currency, known) = (self.clone(), rest.clone(), currency.clone(), known.clone());
            async move {
                let results = this.fetch_spots(rest, &currency, &known).await;
                this.cache.unlock(&keys, token, LOCK_TTL).await;
                results
            }
        });
        match tokio::time::timeout(max_wait, fetching).await {
            Ok(Ok(fetched)) => results.extend(fetched),
            Ok(Err(_)) | Err(_) => {
                for asset in rest {
                    let value = stale_or_nothing(known.get(&asset).map(|known| &known.quote));
                    let result = self.cache_result(&asset, currency, value, self.now() + self.ages.failed).await;
                    results.insert(asset, result);
                }
            }
        }
        results
    }

    /// The newest stored or cached price of each asset: a present price, or the close of a day or an hour.
    async fn known_spots(
        &self,
        assets: &[AssetId],
        currency: &Currency,
        cached: &HashMap<AssetId, Quote>,
    ) -> Result<HashMap<AssetId, Known>, Error> {
        let mut known = HashMap::new();
        if assets.is_empty() {
            return Ok(known);
        }
        let (providers, now) = (&self.config.providers, self.now());
        let spots = store::spots(&self.pool, assets, currency, providers).await?;
        let closes = store::latest(&self.pool, assets, currency, providers).await?;
        let spots = spots.into_iter().map(|(asset, spot, at)| {
            (asset, Known { quote: quote(&spot, is_stale(spot.as_of, now)), fetched_at: Some(at) })
        });
        let closes =
            closes.into_iter().map(|(asset, spot)| (asset, Known { quote: quote(&spot, true), fetched_at: None }));
        let cached = assets.iter().filter_map(|asset| {
            let quote = cached.get(asset)?.clone();
            Some((asset.clone(), Known { quote, fetched_at: None }))
        });
        for (asset, price) in spots.chain(closes).chain(cached) {
            let newer = known.get(&asset).is_none_or(|other: &Known| other.quote.as_of < price.quote.as_of);
            if newer {
                known.insert(asset, price);
            }
        }
        Ok(known)
    }

    /// Calls the providers, each for the assets that are still missing, and caches the results.
    async fn fetch_spots(
        self: &Arc<Self>,
        assets: Vec<AssetId>,
        currency: &Currency,
        known: &HashMap<AssetId, Known>,
    ) -> QuoteResults {
        let (mut results, mut rest) = (QuoteResults::new(), assets);
        let mut newest: HashMap<AssetId, Quote> =
            known.iter().map(|(asset, known)| (asset.clone(), known.quote.clone())).collect();
        let mut retry_delays = HashMap::<AssetId, Vec<Duration>>::new();
        let mut calls = HedgedCalls::new(self.providers.0.iter().cloned(), self.ages.hedge);
        while !rest.is_empty() {
            let report = match calls.next().await {
                Step::Call(provider) => {
                    let (this, rest, currency) = (self.clone(), rest.clone(), currency.clone());
                    calls.spawn(|reporter| async move {
                        let report = this.store_spots(&*provider, &rest, &currency).await;
                        // When all prices are found, the receiver is gone; the prices are stored anyway.
                        let _ = reporter.report(report);
                    });
                    continue;
                }
                Step::Report(report) => report,
                Step::Finished => break,
            };
            for (asset, after) in report.failed {
                retry_delays.entry(asset).or_default().push(after);
            }
            for (asset, spot) in report.found {
                let is_newer = newest.get(&asset).is_none_or(|known| known.as_of <= spot.as_of);
                if is_newer {
                    newest.insert(asset.clone(), quote(&spot, true));
                }
                // Another provider may have a current price.
                if is_stale(spot.as_of, self.now()) || !rest.contains(&asset) {
                    continue;
                }
                rest.retain(|other| *other != asset);
                let shown = newest
                    .get(&asset)
                    .map_or_else(|| quote(&spot, false), |newest| Quote { stale: false, ..newest.clone() });
                let until = self.now() + self.ages.spot;
                let result = self.cache_result(&asset, currency, Value::Spot(shown), until).await;
                results.insert(asset, result);
            }
        }
        for asset in rest {
            let (value, life) = match (newest.get(&asset), retry_delays.get(&asset)) {
                (known, Some(retry_delays)) => (stale_or_nothing(known), self.ages.pause_after(retry_delays)),
                (None, None) => (Value::Unknown, self.ages.unknown),
                (known, None) => (stale_or_nothing(known), self.ages.unknown),
            };
            let result = self.cache_result(&asset, currency, value, self.now() + life).await;
            results.insert(asset, result);
        }
        results
    }

    /// Calls one provider and stores its prices.
    async fn store_spots(&self, provider: &dyn Provider, assets: &[AssetId], currency: &Currency) -> SpotReport {
        let Spots { found, failed } = provider.spots(assets, currency).await;
        let result = match (found.is_empty(), failed.first()) {
            (true, Some((_, error))) => Err(error.clone()),
            (true, None) => Err(ProviderError::NotOffered(provider.id())),
            (false, _) => Ok(()),
        };
        let _ = self.record_call(provider.id(), result);
        if !found.is_empty()
            && let Err(error) = store::upsert_spots(&self.pool, currency, &found, self.now()).await
        {
            // The prices are valid, and the next call stores them.
            tracing::warn!(%error, "could not store present prices");
        }
        let failed = failed.into_iter().filter_map(|(asset, error)| Some((asset, self.retry_delay(&error)?)));
        SpotReport { found, failed: failed.collect() }
    }

    /// Caches the result for an asset and returns it.
    async fn cache_result(
        &self,
        asset: &AssetId,
        currency: &Currency,
        value: Value,
        fresh_until: OffsetDateTime,
    ) -> Result<Read<Quote>, Error> {
        let entry = Arc::new(Entry { value, fresh_until, generation: self.salt });
        self.cache_entry(&spot_key(asset.as_str(), currency.as_str()), entry.clone()).await;
        read_entry(&entry, self.now()).ok_or_else(|| Error::Internal("cache entry is not a price".into()))
    }
}

fn quote(spot: &Spot, stale: bool) -> Quote {
    Quote { price: spot.price.to_plain_string(), as_of: spot.as_of, provider: spot.provider, stale }
}

fn stale_or_nothing(known: Option<&Quote>) -> Value {
    known.map_or(Value::Nothing, |quote| Value::Spot(Quote { stale: true, ..quote.clone() }))
}
