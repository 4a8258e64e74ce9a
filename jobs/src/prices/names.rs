//! Checks the configured names against what the providers offer. Otherwise a misspelt name would be fetched in vain
//! every day, without an error.

use std::collections::HashSet;

use super::{
    Prices,
    model::{AssetId, Currency},
    providers::{Names, ProviderError},
    symbols::{id_of, nearest},
};

const ASSETS: &str = "CRYPTO_ASSETS";
pub(super) const CURRENCIES: &str = "CRYPTO_CURRENCIES";

/// A configured name that no provider offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnknownName {
    pub(super) variable: &'static str,
    pub(super) name: String,
    /// A similar name that is offered.
    pub(super) suggestion: Option<String>,
}

impl UnknownName {
    /// A sentence for logs and notes.
    pub(super) fn message(&self) -> String {
        let Self { variable, name, suggestion } = self;
        match suggestion {
            Some(suggestion) => format!("{variable}: no provider knows {name}; did you mean {suggestion}?"),
            None => format!("{variable}: no provider knows {name}"),
        }
    }
}

impl Prices {
    /// The configured names that no provider offers. They are looked up and logged once per process, when a provider
    /// first rejects a name. The list is empty while a provider is unavailable.
    pub(super) async fn unknown_names(&self) -> &[UnknownName] {
        match self.unknown_names.get_or_try_init(|| self.find_unknown_names()).await {
            Ok(unknown) => unknown,
            Err(error) => {
                tracing::debug!(%error, "could not check the configured names against the providers");
                &[]
            }
        }
    }

    async fn find_unknown_names(&self) -> Result<Vec<UnknownName>, ProviderError> {
        let mut known = Names::default();
        for provider in self.reader.providers.0.iter() {
            let names = provider.names().await?;
            known.assets.extend(names.assets);
            known.currencies.extend(names.currencies);
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
            unknown.push(UnknownName { variable: ASSETS, name: name.to_owned(), suggestion });
        }
        for name in currencies {
            let suggestion = similar(name, &known.currencies);
            unknown.push(UnknownName { variable: CURRENCIES, name: name.to_owned(), suggestion });
        }
        for name in &unknown {
            let UnknownName { variable, name, suggestion } = name;
            tracing::warn!(variable, name, suggestion, "PRICE_NAME_UNKNOWN");
        }
        Ok(unknown)
    }
}
