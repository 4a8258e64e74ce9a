//! Present prices: each asset is fetched by one for all, and those that are wanted together in one call.

mod load;

use std::{
    collections::HashMap,
    future::poll_fn,
    sync::{Arc, Mutex, PoisonError},
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
    model::{AssetId, Currency},
    read::{LOOK_AGAIN, Quote, Read, Reader, TURN, TURN_PATIENCE},
};
use crate::error::Error;

/// What was found of some assets.
type Answers = HashMap<AssetId, Result<Read<Quote>, Error>>;

/// Assets that one caller is the first to want, and what becomes of them.
#[derive(Default)]
struct Batch {
    assets: Mutex<Vec<AssetId>>,
    /// No more will be added.
    complete: CancellationToken,
    answers: OnceCell<Answers>,
}

impl Reader {
    /// The present prices of these assets, in their order.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is needed and cannot be asked now.
    pub(super) async fn spots(
        self: &Arc<Self>,
        assets: &[AssetId],
        currency: &Currency,
    ) -> Result<Vec<(AssetId, Read<Quote>)>, Error> {
        let keys = keys(assets, currency);
        let looked = self.cache.get(&keys).await;
        let missed = if looked.is_ok() { "miss" } else { "error" };
        let found = looked.unwrap_or_else(|_| vec![None; keys.len()]);
        let batch = Arc::new(Batch::default());
        let mut reads = Vec::with_capacity(assets.len());
        for ((asset, key), entry) in assets.iter().zip(keys).zip(found) {
            let hit = entry.as_deref().and_then(|entry| self.fresh_spot(entry));
            self.count(if hit.is_some() { "hit" } else { missed });
            let (this, batch) = (self.clone(), batch.clone());
            reads.push(Box::pin(maybe_done(async move {
                match hit {
                    Some(hit) => Ok(hit),
                    None => this.join(asset, currency, key, &batch).await,
                }
            })));
        }
        // The first look at each begins what nobody else has begun; then it is known what goes into one call.
        poll_fn(|context| {
            for read in &mut reads {
                let _ = read.as_mut().poll(context);
            }
            Poll::Ready(())
        })
        .await;
        batch.complete.cancel();
        join_all(reads.iter_mut().map(|read| read.as_mut())).await;
        let lost = || Err(Error::Internal("a price was not waited for".into()));
        let answers = reads.iter_mut().map(|read| read.as_mut().take_output().unwrap_or_else(lost));
        assets.iter().cloned().zip(answers).map(|(asset, answer)| Ok((asset, answer?))).collect()
    }

    async fn join(
        self: Arc<Self>,
        asset: &AssetId,
        currency: &Currency,
        key: String,
        batch: &Arc<Batch>,
    ) -> Result<Read<Quote>, Error> {
        let lost = || Err(Error::Internal("a load of a price ended in a panic".into()));
        let loaded = self.spots.join(key, || {
            batch.assets.lock().unwrap_or_else(PoisonError::into_inner).push(asset.clone());
            let (this, batch, asset, currency) = (self.clone(), batch.clone(), asset.clone(), currency.clone());
            async move {
                batch.complete.cancelled().await;
                let answers = batch.answers.get_or_init(|| {
                    let assets = batch.assets.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    async move { this.load_spots(assets, currency).await }
                });
                answers.await.get(&asset).cloned().unwrap_or_else(lost)
            }
        });
        loaded.await.unwrap_or_else(lost)
    }

    pub(super) fn fresh_spot(&self, entry: &Entry) -> Option<Read<Quote>> {
        let now = self.now();
        if now < entry.fresh_until && self.counts(entry) { read(entry, now) } else { None }
    }

    /// Whether an entry is of a provider that is configured; others may share the cache.
    fn counts(&self, entry: &Entry) -> bool {
        match &entry.value {
            Value::Spot(quote) => self.config.providers.contains(&quote.source),
            _ => entry.generation == self.salt,
        }
    }

    /// Loads these, taking turns with other processes.
    async fn load_spots(self: Arc<Self>, assets: Vec<AssetId>, currency: Currency) -> Answers {
        self.count_load();
        let (token, begun) = (Uuid::new_v4().as_u128(), Instant::now());
        let (mut answers, mut rest) = (Answers::new(), assets);
        loop {
            let keys = keys(&rest, &currency);
            let taken = match self.cache.take(&keys, token, TURN).await {
                Ok(taken) if begun.elapsed() < TURN_PATIENCE => taken,
                // Nobody is held back by a cache, or for ever by a process that has died.
                Ok(_) | Err(_) => vec![true; keys.len()],
            };
            let (mut mine, mut others) = (Vec::new(), Vec::new());
            for (asset, taken) in rest.into_iter().zip(taken) {
                if taken { mine.push(asset) } else { others.push(asset) }
            }
            if !mine.is_empty() {
                answers.extend(self.clone().load_mine(mine, &currency, token).await);
            }
            rest = others;
            if rest.is_empty() {
                return answers;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
            // Whose turn it is may be slow, and have said meanwhile what there is until then.
            answers.extend(self.look(&mut rest, &currency).await.0);
            if rest.is_empty() {
                return answers;
            }
        }
    }

    /// What the cache says of these by now, which leaves the rest; and its entries that are not fresh.
    async fn look(&self, rest: &mut Vec<AssetId>, currency: &Currency) -> (Answers, HashMap<AssetId, Quote>) {
        let (mut answers, mut old) = (Answers::new(), HashMap::new());
        let entries = self.cache.get(&keys(rest, currency)).await.unwrap_or_default();
        for (asset, entry) in rest.iter().zip(&entries) {
            let Some(entry) = entry.as_ref().filter(|entry| self.counts(entry)) else { continue };
            if let Some(fresh) = self.fresh_spot(entry) {
                answers.insert(asset.clone(), Ok(fresh));
            } else if let Value::Spot(quote) = &entry.value {
                old.insert(asset.clone(), Quote { stale: true, ..quote.clone() });
            }
        }
        rest.retain(|asset| !answers.contains_key(asset));
        (answers, old)
    }
}

pub(super) fn keys(assets: &[AssetId], currency: &Currency) -> Vec<String> {
    assets.iter().map(|asset| spot_key(asset.as_str(), currency.as_str())).collect()
}

/// What an entry shows, if it is one of a present price.
fn read(entry: &Entry, now: OffsetDateTime) -> Option<Read<Quote>> {
    match &entry.value {
        Value::Spot(quote) => Some(Read::Found(quote.clone())),
        Value::Unknown => Some(Read::Unknown),
        Value::Nothing => Some(Read::Nothing { retry_after: (entry.fresh_until - now).unsigned_abs() }),
        Value::Chart { .. } | Value::Asked(_) | Value::Mark => None,
    }
}
