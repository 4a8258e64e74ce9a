//! Loading present prices: from PostgreSQL, else from the sources, else older ones.

use std::{collections::HashMap, sync::Arc};

use time::OffsetDateTime;

use super::{
    super::{
        cache::{Entry, Value, spot_key},
        model::{AssetId, Currency, Spot},
        normalise::is_stale,
        read::{Quote, Read, Reader},
        store,
    },
    Answers, keys, read,
};
use crate::{boot::db::answered, error::Error};

/// What is stored of an asset.
pub(super) struct Stored {
    quote: Quote,
    fetched_at: Option<OffsetDateTime>,
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
        // Whoever had the turn before may have left an answer.
        let (mut answers, mut old) = self.look(&mut rest, currency).await;
        let stored = match self.stored_spots(&rest, currency).await {
            Ok(stored) => stored,
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
        for (asset, Stored { quote, fetched_at }) in &stored {
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
        let all_stored = rest.iter().all(|asset| stored.contains_key(asset));
        let patience = if all_stored { self.ages.patience } else { self.ages.patience_with_nothing };
        let stored = Arc::new(stored);
        // A task of its own: it goes on when nobody waits any more.
        let asking = tokio::spawn({
            let (this, rest, currency, stored) = (self.clone(), rest.clone(), currency.clone(), stored.clone());
            async move {
                let answers = this.ask_spots(rest, &currency, &stored).await;
                let _ = this.cache.give_back(&keys, token).await;
                answers
            }
        });
        match tokio::time::timeout(patience, asking).await {
            Ok(Ok(asked)) => answers.extend(asked),
            Ok(Err(_)) | Err(_) => {
                for asset in rest {
                    let value = old_or_nothing(stored.get(&asset));
                    let answer = self.settle(&asset, currency, value, self.now() + self.ages.failed).await;
                    answers.insert(asset, answer);
                }
            }
        }
        answers
    }

    /// The latest prices that are stored: those of a moment, else those of a day.
    async fn stored_spots(&self, assets: &[AssetId], currency: &Currency) -> Result<HashMap<AssetId, Stored>, Error> {
        if assets.is_empty() {
            return Ok(HashMap::new());
        }
        let spots = answered(store::spots(&self.pool, assets, currency)).await?;
        let now = self.now();
        let mut stored: HashMap<_, _> = spots
            .into_iter()
            .map(|(asset, spot, at)| {
                (asset, Stored { quote: quote(&spot, is_stale(spot.as_of, now)), fetched_at: Some(at) })
            })
            .collect();
        let rest: Vec<_> = assets.iter().filter(|asset| !stored.contains_key(asset)).cloned().collect();
        if !rest.is_empty() {
            let daily = answered(store::latest(&self.pool, &rest, currency, &self.config.providers)).await?;
            stored.extend(
                daily.into_iter().map(|(asset, spot)| (asset, Stored { quote: quote(&spot, true), fetched_at: None })),
            );
        }
        Ok(stored)
    }

    /// Asks the sources, the preferred first, each for what is still missing; stores and keeps what they say.
    async fn ask_spots(&self, assets: Vec<AssetId>, currency: &Currency, stored: &HashMap<AssetId, Stored>) -> Answers {
        let (mut answers, mut rest, mut troubles) = (Answers::new(), assets, Vec::new());
        let mut past: HashMap<AssetId, Spot> = HashMap::new();
        for provider in self.providers.0.iter() {
            if rest.is_empty() {
                break;
            }
            let mut found = match self.fetched(provider.source(), provider.spots(&rest, currency)).await {
                Ok(found) => found,
                Err(trouble) => {
                    troubles.extend(trouble);
                    continue;
                }
            };
            found.retain(|(asset, _)| rest.contains(asset));
            if found.is_empty() {
                continue;
            }
            if let Err(error) = answered(store::put_spots(&self.pool, currency, &found, self.now())).await {
                // They are good all the same: the next who asks stores them.
                tracing::warn!(%error, "present prices are not stored");
            }
            for (asset, spot) in found {
                if is_stale(spot.as_of, self.now()) {
                    // Another source may have a present one.
                    if past.get(&asset).is_none_or(|other| other.as_of < spot.as_of) {
                        past.insert(asset, spot);
                    }
                    continue;
                }
                rest.retain(|other| *other != asset);
                let until = self.now() + self.ages.spot;
                let answer = self.settle(&asset, currency, Value::Spot(quote(&spot, false)), until).await;
                answers.insert(asset, answer);
            }
        }
        for asset in rest {
            let newest =
                past.get(&asset).filter(|spot| stored.get(&asset).is_none_or(|old| old.quote.as_of < spot.as_of));
            let (value, life) = match stored.get(&asset) {
                _ if newest.is_some() => {
                    (newest.map_or(Value::Nothing, |spot| Value::Spot(quote(spot, true))), self.ages.spot)
                }
                None if troubles.is_empty() => (Value::Unknown, self.ages.unknown),
                stored if troubles.is_empty() => (old_or_nothing(stored), self.ages.unknown),
                stored => (old_or_nothing(stored), self.pause(&troubles)),
            };
            let answer = self.settle(&asset, currency, value, self.now() + life).await;
            answers.insert(asset, answer);
        }
        answers
    }

    /// Keeps what became of an asset, and says it.
    async fn settle(
        &self,
        asset: &AssetId,
        currency: &Currency,
        value: Value,
        fresh_until: OffsetDateTime,
    ) -> Result<Read<Quote>, Error> {
        let entry = Arc::new(Entry { value, fresh_until, generation: 0 });
        self.keep(&spot_key(asset.as_str(), currency.as_str()), entry.clone()).await;
        read(&entry, self.now()).ok_or_else(|| Error::Internal("a price is none".into()))
    }
}

fn quote(spot: &Spot, stale: bool) -> Quote {
    Quote { price: spot.price.to_plain_string(), as_of: spot.as_of, source: spot.source, stale }
}

fn old_or_nothing(stored: Option<&Stored>) -> Value {
    stored.map_or(Value::Nothing, |stored| Value::Spot(Quote { stale: true, ..stored.quote.clone() }))
}
