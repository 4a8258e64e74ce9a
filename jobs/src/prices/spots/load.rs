//! Loading present prices: from PostgreSQL, else from the providers. Of all that are known the newest is shown.

use std::{collections::HashMap, sync::Arc, time::Duration};

use time::OffsetDateTime;

use super::{
    super::{
        cache::{Entry, Value, spot_key},
        hedge::{HedgedCalls, Step},
        model::{AssetId, Currency, Spot},
        normalise::is_stale,
        providers::{Provider, Spots, Trouble},
        read::{Quote, Read, Reader},
        store,
    },
    Answers, keys, read,
};
use crate::{boot::db::answered, error::Error};

/// The newest known price of an asset.
pub(super) struct Known {
    quote: Quote,
    /// When it was fetched, if it is a present price that we stored.
    fetched_at: Option<OffsetDateTime>,
}

/// What a provider reported, and when each asset that it failed for can be asked for again.
struct News {
    found: Vec<(AssetId, Spot)>,
    failed: Vec<(AssetId, Duration)>,
}

impl Reader {
    /// Loads what is this process's turn, and gives the turn back when it is kept.
    pub(super) async fn load_mine(
        self: Arc<Self>,
        mut rest: Vec<AssetId>,
        currency: &Currency,
        token: u128,
    ) -> Answers {
        let keys = keys(&rest, currency);
        // The process that had the turn before may have left an answer.
        let (mut answers, mut old) = self.look(&mut rest, currency).await;
        let known = match self.known_spots(&rest, currency, &old).await {
            Ok(known) => known,
            Err(error) => {
                let _ = self.cache.give_back(&keys, token).await;
                answers.extend(rest.into_iter().map(|asset| match (old.remove(&asset), &error) {
                    (Some(quote), Error::Unavailable(_)) => (asset, Ok(Read::Found(quote))),
                    _ => (asset, Err(error.clone())),
                }));
                return answers;
            }
        };
        let now = self.now();
        for (asset, Known { quote, fetched_at }) in &known {
            let fresh_until = fetched_at.map_or(now, |at| at.min(now) + self.ages.spot);
            if now < fresh_until {
                let answer = self.settle(asset, currency, Value::Spot(quote.clone()), fresh_until).await;
                answers.insert(asset.clone(), answer);
            }
        }
        rest.retain(|asset| !answers.contains_key(asset));
        if rest.is_empty() {
            let _ = self.cache.give_back(&keys, token).await;
            return answers;
        }
        let all_known = rest.iter().all(|asset| known.contains_key(asset));
        let patience = if all_known { self.ages.patience } else { self.ages.patience_with_nothing };
        let known = Arc::new(known);
        // A task of its own: it goes on when its callers have gone.
        let asking = tokio::spawn({
            let (this, rest, currency, known) = (self.clone(), rest.clone(), currency.clone(), known.clone());
            async move {
                let answers = this.ask_spots(rest, &currency, &known).await;
                let _ = this.cache.give_back(&keys, token).await;
                answers
            }
        });
        match tokio::time::timeout(patience, asking).await {
            Ok(Ok(asked)) => answers.extend(asked),
            Ok(Err(_)) | Err(_) => {
                for asset in rest {
                    let value = old_or_nothing(known.get(&asset).map(|known| &known.quote));
                    let answer = self.settle(&asset, currency, value, self.now() + self.ages.failed).await;
                    answers.insert(asset, answer);
                }
            }
        }
        answers
    }

    /// The newest prices that are stored or cached: of a moment, or of the end of a day or an hour.
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
        let spots = answered(store::spots(&self.pool, assets, currency, providers)).await?;
        let closes = answered(store::latest(&self.pool, assets, currency, providers)).await?;
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

    /// Asks the providers, each for what is still missing, and keeps what they say.
    async fn ask_spots(
        self: &Arc<Self>,
        assets: Vec<AssetId>,
        currency: &Currency,
        known: &HashMap<AssetId, Known>,
    ) -> Answers {
        let (mut answers, mut rest) = (Answers::new(), assets);
        let mut newest: HashMap<AssetId, Quote> =
            known.iter().map(|(asset, known)| (asset.clone(), known.quote.clone())).collect();
        let mut troubles = HashMap::<AssetId, Vec<Duration>>::new();
        let mut calls = HedgedCalls::new(&self.providers, self.ages.hedge);
        while !rest.is_empty() {
            let news = match calls.next().await {
                Step::Call(provider) => {
                    let (this, rest, currency) = (self.clone(), rest.clone(), currency.clone());
                    calls.spawn(|reporter| async move {
                        let news = this.store_spots(&*provider, &rest, &currency).await;
                        // When all is found, nothing waits for it; but it is stored.
                        let _ = reporter.report(news);
                    });
                    continue;
                }
                Step::News(news) => news,
                Step::Finished => break,
            };
            for (asset, after) in news.failed {
                troubles.entry(asset).or_default().push(after);
            }
            for (asset, spot) in news.found {
                let is_newer = newest.get(&asset).is_none_or(|known| known.as_of <= spot.as_of);
                if is_newer {
                    newest.insert(asset.clone(), quote(&spot, true));
                }
                // Another provider may have a present one.
                if is_stale(spot.as_of, self.now()) || !rest.contains(&asset) {
                    continue;
                }
                rest.retain(|other| *other != asset);
                let shown = newest
                    .get(&asset)
                    .map_or_else(|| quote(&spot, false), |newest| Quote { stale: false, ..newest.clone() });
                let until = self.now() + self.ages.spot;
                let answer = self.settle(&asset, currency, Value::Spot(shown), until).await;
                answers.insert(asset, answer);
            }
        }
        for asset in rest {
            let (value, life) = match (newest.get(&asset), troubles.get(&asset)) {
                (known, Some(troubles)) => (old_or_nothing(known), self.pause(troubles)),
                (None, None) => (Value::Unknown, self.ages.unknown),
                (known, None) => (old_or_nothing(known), self.ages.unknown),
            };
            let answer = self.settle(&asset, currency, value, self.now() + life).await;
            answers.insert(asset, answer);
        }
        answers
    }

    /// Asks one provider, and stores what it has.
    async fn store_spots(&self, provider: &dyn Provider, assets: &[AssetId], currency: &Currency) -> News {
        let Spots { found, failed } = provider.spots(assets, currency).await;
        let result = match (found.is_empty(), failed.first()) {
            (true, Some((_, trouble))) => Err(trouble.clone()),
            (true, None) => Err(Trouble::NotOffered(provider.source())),
            (false, _) => Ok(()),
        };
        let _ = self.counted(provider.source(), result);
        if !found.is_empty()
            && let Err(error) = answered(store::put_spots(&self.pool, currency, &found, self.now())).await
        {
            // They are good all the same, and the next call stores them.
            tracing::warn!(%error, "present prices are not stored");
        }
        let failed = failed.into_iter().filter_map(|(asset, trouble)| Some((asset, self.wait_after(&trouble)?)));
        News { found, failed: failed.collect() }
    }

    /// Keeps what became of an asset, and says it.
    async fn settle(
        &self,
        asset: &AssetId,
        currency: &Currency,
        value: Value,
        fresh_until: OffsetDateTime,
    ) -> Result<Read<Quote>, Error> {
        let entry = Arc::new(Entry { value, fresh_until, generation: self.salt });
        self.keep(&spot_key(asset.as_str(), currency.as_str()), entry.clone()).await;
        read(&entry, self.now()).ok_or_else(|| Error::Internal("an entry of a price has another form".into()))
    }
}

fn quote(spot: &Spot, stale: bool) -> Quote {
    Quote { price: spot.price.to_plain_string(), as_of: spot.as_of, source: spot.source, stale }
}

fn old_or_nothing(known: Option<&Quote>) -> Value {
    known.map_or(Value::Nothing, |quote| Value::Spot(Quote { stale: true, ..quote.clone() }))
}
