//! What a provider offers, by its own list: asked for when it is first needed, and kept for a day.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::Mutex, time::Instant};

use super::{Names, Trouble};
use crate::prices::{
    model::{AssetId, Currency},
    symbols::{code, ids},
};

/// A new pair is seen within this time.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// After a failure the provider is not asked for its list again for this time.
const PAUSE: Duration = Duration::from_secs(600);

/// A list that one caller loads for all.
pub struct Listing<T>(Mutex<Option<Kept<T>>>);

struct Kept<T> {
    list: Result<Arc<T>, Trouble>,
    until: Instant,
}

impl<T> Default for Listing<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Listing<T> {
    /// The list. It is loaded when it is missing or a day old; the last one counts while a new one cannot be loaded.
    ///
    /// # Errors
    /// Why there has never been one.
    pub async fn get(&self, load: impl Future<Output = Result<T, Trouble>>) -> Result<Arc<T>, Trouble> {
        let mut kept = self.0.lock().await;
        if let Some(kept) = kept.as_ref().filter(|kept| Instant::now() < kept.until) {
            return kept.list.clone();
        }
        let (list, life) = match load.await {
            Ok(list) => (Ok(Arc::new(list)), LIFE),
            Err(trouble) => {
                tracing::warn!(%trouble, "its list of what it offers cannot be loaded");
                let old = kept.as_ref().and_then(|kept| kept.list.as_ref().ok());
                (old.cloned().ok_or(trouble), PAUSE)
            }
        };
        *kept = Some(Kept { list: list.clone(), until: Instant::now() + life });
        list
    }
}

/// What an exchange calls its pairs: by its list, or while that cannot be loaded by its usual way to name them. It has an
/// error of its own for a pair that it does not know.
pub struct PairNames {
    list: Listing<Pairs>,
    usual: fn(&str, &str) -> Option<String>,
}

impl PairNames {
    /// `usual` makes a name of the codes of an asset and a currency, both in upper case.
    pub fn new(usual: fn(&str, &str) -> Option<String>) -> Self {
        Self { list: Listing::default(), usual }
    }

    /// The name of a pair, if the exchange has it; `load` loads the list.
    pub async fn name(
        &self,
        load: impl Future<Output = Result<Pairs, Trouble>>,
        asset: &AssetId,
        currency: &Currency,
    ) -> Option<String> {
        let code = code(asset.as_str())?;
        match self.list.get(load).await {
            Ok(pairs) => pairs.name(code, currency).map(str::to_owned),
            Err(_) => (self.usual)(code, &currency.as_str().to_ascii_uppercase()),
        }
    }

    /// The names of the pairs of those of these assets that the exchange has; `load` loads the list.
    pub async fn of(
        &self,
        load: impl Future<Output = Result<Pairs, Trouble>>,
        assets: &[AssetId],
        currency: &Currency,
    ) -> Vec<(AssetId, String)> {
        let coded: Vec<_> = assets.iter().filter_map(|asset| Some((asset, code(asset.as_str())?))).collect();
        if coded.is_empty() {
            return Vec::new();
        }
        let list = self.list.get(load).await;
        let quote = currency.as_str().to_ascii_uppercase();
        let named = coded.into_iter().filter_map(|(asset, code)| {
            let name = match &list {
                Ok(pairs) => pairs.name(code, currency).map(str::to_owned),
                Err(_) => (self.usual)(code, &quote),
            };
            Some((asset.clone(), name?))
        });
        named.collect()
    }

    /// The assets and currencies of all pairs.
    ///
    /// # Errors
    /// Why the list has never been loaded.
    pub async fn names(&self, load: impl Future<Output = Result<Pairs, Trouble>>) -> Result<Names, Trouble> {
        Ok(self.list.get(load).await?.names())
    }
}

/// The pairs of an exchange: its name of each, by the asset's code and the currency, both in lower case.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pairs(HashMap<(String, String), String>);

impl Pairs {
    /// Adds a pair; of several with the same asset and currency the first counts. A name that does not fit into a path
    /// is left out.
    pub fn add(&mut self, base: &str, quote: &str, name: &str) {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if !name.is_empty() && name.bytes().all(plain) {
            let key = (base.to_ascii_lowercase(), quote.to_ascii_lowercase());
            self.0.entry(key).or_insert_with(|| name.to_owned());
        }
    }

    /// What the exchange calls the pair of this code and currency.
    pub fn name(&self, code: &str, currency: &Currency) -> Option<&str> {
        let key = (code.to_ascii_lowercase(), currency.as_str().to_owned());
        self.0.get(&key).map(String::as_str)
    }

    fn names(&self) -> Names {
        let codes: HashSet<&str> = self.0.keys().map(|(base, _)| base.as_str()).collect();
        let listed = |id: &&str| code(id).is_some_and(|code| codes.contains(&*code.to_ascii_lowercase()));
        Names {
            assets: ids().filter(listed).map(str::to_owned).collect(),
            currencies: self.0.keys().map(|(_, quote)| quote.clone()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prices::model::Source;

    #[tokio::test(start_paused = true)]
    async fn a_list_is_loaded_once_a_day_and_outlives_a_failure() {
        let listing = Listing::default();
        let failed = || async { Err(Trouble::Failed(Source::Kraken, "down".into())) };
        assert!(listing.get(failed()).await.is_err(), "there is no list yet");
        assert!(listing.get(async { Ok(0) }).await.is_err(), "not asked again at once");
        tokio::time::advance(PAUSE).await;
        assert_eq!(listing.get(async { Ok(1) }).await.as_deref(), Ok(&1));
        assert_eq!(listing.get(async { Ok(2) }).await.as_deref(), Ok(&1));
        tokio::time::advance(LIFE).await;
        assert_eq!(listing.get(failed()).await.as_deref(), Ok(&1), "the old one counts");
        tokio::time::advance(PAUSE).await;
        assert_eq!(listing.get(async { Ok(3) }).await.as_deref(), Ok(&3));
    }

    #[tokio::test]
    async fn pairs_are_named_by_the_list_and_else_in_the_usual_way() {
        let (assets, usd) = (["bitcoin", "btc"].map(|id| AssetId::parse(id).expect("an id")), Currency::parse("usd"));
        let usd = usd.expect("a code");
        let usual = |base: &str, quote: &str| Some(format!("{base}{quote}"));
        for (listed, expected) in [(true, "BTC-USD"), (false, "BTCUSD")] {
            let names = PairNames::new(usual);
            let load = || async move {
                let mut pairs = Pairs::default();
                pairs.add("BTC", "USD", "BTC-USD");
                pairs.add("BTC", "USD", "BTC-USD-2");
                pairs.add("ETH", "USD", "a/b");
                if listed { Ok(pairs) } else { Err(Trouble::Failed(Source::Coinbase, "down".into())) }
            };
            assert_eq!(names.name(load(), &assets[0], &usd).await.as_deref(), Some(expected));
            assert_eq!(names.name(load(), &assets[1], &usd).await, None, "another coin may have this id");
            assert_eq!(names.of(load(), &assets, &usd).await, [(assets[0].clone(), expected.to_owned())]);
            let known = names.names(load()).await.map(|names| (names.assets.len(), names.currencies.len()));
            assert_eq!(known.ok(), listed.then_some((1, 1)), "a name that is no part of a path is left out");
        }
    }
}
