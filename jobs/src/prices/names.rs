//! Checks the configured names against what the providers offer. Otherwise a misspelt name would be fetched in vain
//! every day, without an error.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use tokio::sync::OnceCell;

use super::{
    Prices,
    model::{AssetId, Currency, ProviderId},
    providers::Names,
    symbols::{id_of, nearest},
};
use runtime::mutex::lock;

const ASSETS: &str = "CRYPTO_ASSETS";
pub(super) const CURRENCIES: &str = "CRYPTO_CURRENCIES";

/// A configured name that no provider offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnknownName {
    pub(super) variable: &'static str,
    pub(super) name: String,
    /// A similar name that is offered.
    pub(super) suggestion: Option<String>,
    /// The providers that could not be asked. One of them may offer the name.
    pub(super) not_asked: Vec<ProviderId>,
}

/// What the check has found so far. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct NameCheck {
    /// The result, once every provider has responded.
    complete: Arc<OnceCell<Vec<UnknownName>>>,
    logged: Arc<Mutex<HashSet<String>>>,
}

impl UnknownName {
    /// A sentence for logs and notes.
    pub(super) fn message(&self) -> String {
        let Self { variable, name, suggestion, not_asked } = self;
        // A provider that could not be asked may know the name, and prices of it may be stored.
        let asked = if not_asked.is_empty() { "" } else { " that could be asked" };
        let mut message = format!("{variable}: no provider{asked} knows {name}");
        if let Some(suggestion) = suggestion {
            message += &format!("; did you mean {suggestion}?");
        }
        if !not_asked.is_empty() {
            let ids: Vec<_> = not_asked.iter().map(|provider| provider.as_str()).collect();
            message += &format!(" (could not ask {})", ids.join(", "));
        }
        message
    }
}

impl Prices {
    /// The configured names that no provider offers. Each is logged once per process. Providers that cannot be asked now
    /// are left out, and asked again at the next call. The list is empty while none can be asked.
    pub(super) async fn unknown_names(&self) -> Vec<UnknownName> {
        let unknown = match self.names.complete.get_or_try_init(|| self.find_unknown_names()).await {
            Ok(unknown) => unknown.clone(),
            Err(preliminary) => preliminary,
        };
        let mut logged = lock(&self.names.logged);
        for UnknownName { variable, name, suggestion, not_asked } in &unknown {
            if logged.insert(name.clone()) {
                tracing::warn!(
                    variable,
                    name,
                    suggestion,
                    ?not_asked,
                    "no provider that could be asked knows a configured name"
                );
            }
        }
        drop(logged);
        unknown
    }

    /// Asks every provider. Returns a preliminary result as an error when one could not be asked.
    async fn find_unknown_names(&self) -> Result<Vec<UnknownName>, Vec<UnknownName>> {
        let (mut known, mut not_asked) = (Names::default(), Vec::new());
        for provider in self.reader.providers.0.iter() {
            match provider.names().await {
                Ok(names) => {
                    known.assets.extend(names.assets);
                    known.currencies.extend(names.currencies);
                }
                Err(error) => {
                    tracing::debug!(%error, "could not check the configured names with this provider");
                    not_asked.push(provider.id());
                }
            }
        }
        if not_asked.len() == self.reader.providers.0.len() {
            return Err(Vec::new());
        }
        let assets =
            self.reader.config.assets.iter().map(AssetId::as_str).filter(|asset| !known.assets.contains(*asset));
        let currencies = self.reader.config.currencies.iter().map(Currency::as_str);
        let currencies = currencies.filter(|currency| !known.currencies.contains(*currency));
        let similar =
            |name, known: &HashSet<String>| nearest(name, known.iter().map(String::as_str)).map(str::to_owned);
        let mut unknown = Vec::new();
        for name in assets {
            let suggestion = id_of(name).map(str::to_owned).or_else(|| similar(name, &known.assets));
            let not_asked = not_asked.clone();
            unknown.push(UnknownName { variable: ASSETS, name: name.to_owned(), suggestion, not_asked });
        }
        for name in currencies {
            let suggestion = similar(name, &known.currencies);
            let not_asked = not_asked.clone();
            unknown.push(UnknownName { variable: CURRENCIES, name: name.to_owned(), suggestion, not_asked });
        }
        if not_asked.is_empty() { Ok(unknown) } else { Err(unknown) }
    }
}
