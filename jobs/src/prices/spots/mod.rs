//! Reads of present prices: each asset is loaded once for all callers, and assets that are requested together share one
//! call.

mod load;

use std::{
    collections::HashMap,
    future::poll_fn,
    sync::{Arc, Mutex},
    task::Poll,
    time::Instant,
};

use futures_util::future::{join_all, maybe_done};
use time::OffsetDateTime;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    cache::{Entry, Value, spot_key},
    model::{AssetId, Currency, Quote},
    read::{LOCK_POLL, LOCK_TTL, LOCK_WAIT, Read, Reader},
};
use runtime::{error::Error, mutex::lock};

/// The result for each asset.
type QuoteResults = HashMap<AssetId, Result<Read<Quote>, Error>>;

/// The assets of one request that no other request is loading, and their results.
#[derive(Default)]
struct Batch {
    assets: Mutex<Vec<AssetId>>,
    /// Cancelled when no more assets will be added.
    complete: CancellationToken,
    results: OnceCell<QuoteResults>,
}

impl Reader {
    /// Reads the present prices of these assets, in their order.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is needed and unavailable.
    pub(super) async fn spots(
        self: &Arc<Self>,
        assets: &[AssetId],
        currency: &Currency,
    ) -> Result<Vec<(AssetId, Read<Quote>)>, Error> {
        let keys = keys(assets, currency);
        let cached = self.cache.get(&keys).await;
        let missed = if cached.is_fallback { "error" } else { "miss" };
        let batch = Arc::new(Batch::default());
        let mut reads = Vec::with_capacity(assets.len());
        for ((asset, key), entry) in assets.iter().zip(keys).zip(cached.entries) {
            let hit = entry.as_deref().and_then(|entry| self.fresh_spot(entry));
            self.count(if hit.is_some() { "hit" } else { missed });
            let (this, batch) = (self.clone(), batch.clone());
            reads.push(Box::pin(maybe_done(async move {
                match hit {
                    Some(hit) => Ok(hit),
                    None => this.join_load(asset, currency, key, &batch).await,
                }
            })));
        }
        // Polling each read once starts the loads that no other request has started. After that the batch is complete.
        poll_fn(|context| {
            for read in &mut reads {
                let _ = read.as_mut().poll(context);
            }
            Poll::Ready(())
        })
        .await;
        batch.complete.cancel();
        join_all(reads.iter_mut().map(|read| read.as_mut())).await;
        let missing = || Err(Error::Internal("a price was not loaded".into()));
        let results = reads.iter_mut().map(|read| read.as_mut().take_output().unwrap_or_else(missing));
        assets.iter().cloned().zip(results).map(|(asset, result)| Ok((asset, result?))).collect()
    }

    async fn join_load(
        self: Arc<Self>,
        asset: &AssetId,
        currency: &Currency,
        key: String,
        batch: &Arc<Batch>,
    ) -> Result<Read<Quote>, Error> {
        let missing = || Err(Error::Internal("loading a price panicked".into()));
        let loaded = self.spots.join(key, || {
            lock(&batch.assets).push(asset.clone());
            let (this, batch, asset, currency) = (self.clone(), batch.clone(), asset.clone(), currency.clone());
            async move {
                batch.complete.cancelled().await;
                let results = batch.results.get_or_init(|| {
                    let assets = lock(&batch.assets).clone();
                    async move { this.load_spots(assets, currency).await }
                });
                results.await.get(&asset).cloned().unwrap_or_else(missing)
            }
        });
        loaded.await.unwrap_or_else(missing)
    }

    pub(super) fn fresh_spot(&self, entry: &Entry) -> Option<Read<Quote>> {
        let now = self.now();
        if now < entry.fresh_until && self.is_usable(entry) { read_entry(entry, now) } else { None }
    }

    /// Whether an entry is of a configured provider. Processes with other providers may share the cache.
    fn is_usable(&self, entry: &Entry) -> bool {
        match &entry.value {
            Value::Spot(quote) => self.config.providers.contains(&quote.provider),
            _ => entry.generation == self.salt,
        }
    }

    /// Loads these assets, under locks shared by all processes.
    async fn load_spots(self: Arc<Self>, assets: Vec<AssetId>, currency: Currency) -> QuoteResults {
        self.count_load();
        let (token, started_at) = (Uuid::new_v4().as_u128(), Instant::now());
        let (mut results, mut rest) = (QuoteResults::new(), assets);
        loop {
            let keys = keys(&rest, &currency);
            let locked = match self.cache.lock(&keys, token, LOCK_TTL).await {
                Ok(locked) if started_at.elapsed() < LOCK_WAIT => locked,
                // Neither an unavailable cache nor a process that has died may block a read.
                Ok(_) | Err(_) => vec![true; keys.len()],
            };
            let (mut mine, mut others) = (Vec::new(), Vec::new());
            for (asset, locked) in rest.into_iter().zip(locked) {
                if locked { mine.push(asset) } else { others.push(asset) }
            }
            if !mine.is_empty() {
                results.extend(self.clone().load_locked(mine, &currency, token).await);
            }
            rest = others;
            if rest.is_empty() {
                return results;
            }
            tokio::time::sleep(LOCK_POLL).await;
            // The owner of the lock may be slow. It caches an interim result, which is enough here.
            results.extend(self.read_cached(&mut rest, &currency).await.0);
            if rest.is_empty() {
                return results;
            }
        }
    }

    /// Moves the assets with a fresh cache entry from `rest` to the results. Returns the prices of the other entries as
    /// well.
    async fn read_cached(
        &self,
        rest: &mut Vec<AssetId>,
        currency: &Currency,
    ) -> (QuoteResults, HashMap<AssetId, Quote>) {
        let (mut results, mut old) = (QuoteResults::new(), HashMap::new());
        let entries = self.cache.get(&keys(rest, currency)).await.entries;
        for (asset, entry) in rest.iter().zip(&entries) {
            let Some(entry) = entry.as_ref().filter(|entry| self.is_usable(entry)) else { continue };
            if let Some(fresh) = self.fresh_spot(entry) {
                results.insert(asset.clone(), Ok(fresh));
            } else if let Value::Spot(quote) = &entry.value {
                old.insert(asset.clone(), Quote { stale: true, ..quote.clone() });
            }
        }
        rest.retain(|asset| !results.contains_key(asset));
        (results, old)
    }
}

pub(super) fn keys(assets: &[AssetId], currency: &Currency) -> Vec<String> {
    assets.iter().map(|asset| spot_key(asset.as_str(), currency.as_str())).collect()
}

/// Reads a cache entry of a present price.
fn read_entry(entry: &Entry, now: OffsetDateTime) -> Option<Read<Quote>> {
    Read::of(entry, now, |value| if let Value::Spot(quote) = value { Some(quote.clone()) } else { None })
}
