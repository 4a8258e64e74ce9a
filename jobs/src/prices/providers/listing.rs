//! The list of what a provider offers, fetched when it is first needed and kept for a day.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::Mutex, time::Instant};

use super::provider::{Names, ProviderError};
use crate::prices::{
    model::{AssetId, Currency},
    symbols::{code, ids},
};

/// How long a list is kept; new pairs are seen within this time.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How long no list is fetched after a failure.
const PAUSE: Duration = Duration::from_secs(600);

/// A list that one caller fetches for all.
pub(super) struct Listing<T>(Mutex<Option<CachedList<T>>>);

struct CachedList<T> {
    list: Result<Arc<T>, ProviderError>,
    until: Instant,
}

impl<T> Default for Listing<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Listing<T> {
    /// Returns the list. It is fetched when it is missing or a day old. While a new one cannot be fetched, the old one
    /// is used.
    ///
    /// # Errors
    /// The error of the last attempt, when no list was ever fetched.
    pub(super) async fn get(
        &self,
        load: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<Arc<T>, ProviderError> {
        let mut cached = self.0.lock().await;
        if let Some(cached) = cached.as_ref().filter(|cached| Instant::now() < cached.until) {
            return cached.list.clone();
        }
        let (list, lifetime) = match load.await {
            Ok(list) => (Ok(Arc::new(list)), LIFETIME),
            Err(error) => {
                tracing::warn!(%error, "could not fetch the list of what a provider offers");
                let old = cached.as_ref().and_then(|cached| cached.list.as_ref().ok());
                (old.cloned().ok_or(error), PAUSE)
            }
        };
        *cached = Some(CachedList { list: list.clone(), until: Instant::now() + lifetime });
        list
    }
}

/// Derives the name of a pair from the codes of an asset and a currency, both in upper case.
pub(super) type Convention = fn(&str, &str) -> Option<String>;

/// The pairs of these assets, as far as the exchange lists them. While its list is unavailable, the names are derived by
/// its convention; the exchange then rejects unknown pairs.
pub(super) fn name_pairs(
    list: Option<&Pairs>,
    convention: Convention,
    assets: &[AssetId],
    currency: &Currency,
) -> Vec<(AssetId, String)> {
    let pair = |asset: &AssetId| {
        let code = code(asset.as_str())?;
        let name = match list {
            Some(pairs) => pairs.name(code, currency).map(str::to_owned),
            None => convention(code, &currency.as_str().to_ascii_uppercase()),
        };
        Some((asset.clone(), name?))
    };
    assets.iter().filter_map(pair).collect()
}

/// The pairs of an exchange: the name of each by the code of the asset and the currency, both in lower case.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pairs(HashMap<(String, String), String>);

impl FromIterator<(String, String, String)> for Pairs {
    /// Collects codes of assets, codes of currencies, and names.
    fn from_iter<I: IntoIterator<Item = (String, String, String)>>(listed: I) -> Self {
        let mut pairs = Self::default();
        listed.into_iter().for_each(|(base, quote, name)| pairs.add(&base, &quote, &name));
        pairs
    }
}

impl Pairs {
    /// Adds a pair. Of several pairs with the same asset and currency the first is used. A name that is not safe in a
    /// URL path is ignored.
    pub(super) fn add(&mut self, base: &str, quote: &str, name: &str) {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if !name.is_empty() && name.bytes().all(plain) {
            let key = (base.to_ascii_lowercase(), quote.to_ascii_lowercase());
            self.0.entry(key).or_insert_with(|| name.to_owned());
        }
    }

    /// The name of the pair of this code and currency.
    pub(super) fn name(&self, code: &str, currency: &Currency) -> Option<&str> {
        let key = (code.to_ascii_lowercase(), currency.as_str().to_owned());
        self.0.get(&key).map(String::as_str)
    }

    /// The assets and currencies of all pairs.
    pub(super) fn names(&self) -> Names {
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
    use crate::prices::model::ProviderId;

    #[tokio::test(start_paused = true)]
    async fn a_list_is_fetched_once_a_day_and_survives_a_failure() {
        let listing = Listing::default();
        let failed = || async { Err(ProviderError::Failed(ProviderId::Kraken, "down".into())) };
        assert!(listing.get(failed()).await.is_err(), "no list was ever fetched");
        assert!(listing.get(async { Ok(0) }).await.is_err(), "not fetched again at once");
        tokio::time::advance(PAUSE).await;
        assert_eq!(listing.get(async { Ok(1) }).await.as_deref(), Ok(&1));
        assert_eq!(listing.get(async { Ok(2) }).await.as_deref(), Ok(&1));
        tokio::time::advance(LIFETIME).await;
        assert_eq!(listing.get(failed()).await.as_deref(), Ok(&1), "the old list is used");
        tokio::time::advance(PAUSE).await;
        assert_eq!(listing.get(async { Ok(3) }).await.as_deref(), Ok(&3));
    }

    #[test]
    fn pairs_are_named_by_the_list_or_else_by_convention() {
        let (assets, usd) = (["bitcoin", "btc"].map(|id| AssetId::parse(id).expect("an id")), Currency::parse("usd"));
        let usd = usd.expect("a code");
        let convention: Convention = |base, quote| Some(format!("{base}{quote}"));
        let listed = [("BTC", "USD", "BTC-USD"), ("BTC", "USD", "BTC-USD-2"), ("ETH", "USD", "a/b")];
        let pairs: Pairs =
            listed.map(|(base, quote, name)| (base.into(), quote.into(), name.into())).into_iter().collect();
        for (list, expected) in [(Some(&pairs), "BTC-USD"), (None, "BTCUSD")] {
            assert_eq!(name_pairs(list, convention, &assets, &usd), [(assets[0].clone(), expected.to_owned())]);
            assert_eq!(name_pairs(list, convention, &assets[1..], &usd), [], "an unknown id is not guessed");
        }
        let known = pairs.names();
        assert_eq!((known.assets.len(), known.currencies.len()), (1, 1), "a name that is unsafe in a path is ignored");
    }
}
