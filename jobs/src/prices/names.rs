//! Checks the configured names against what the providers offer. Otherwise a misspelt name would be fetched in vain
//! every day, without an error.

use super::{
    Prices,
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
        for provider in self.providers.0.iter() {
            let names = provider.names().await?;
            known.assets.extend(names.assets);
            known.currencies.extend(names.currencies);
        }
        let assets = self.config.assets.iter().map(|asset| asset.as_str());
        let assets = assets.filter(|asset| !known.assets.contains(*asset)).map(|name| UnknownName {
            variable: ASSETS,
            name: name.to_owned(),
            suggestion: id_of(name)
                .or_else(|| nearest(name, known.assets.iter().map(String::as_str)))
                .map(str::to_owned),
        });
        let currencies = self.config.currencies.iter().map(|currency| currency.as_str());
        let currencies = currencies.filter(|currency| !known.currencies.contains(*currency)).map(|name| UnknownName {
            variable: CURRENCIES,
            name: name.to_owned(),
            suggestion: nearest(name, known.currencies.iter().map(String::as_str)).map(str::to_owned),
        });
        let unknown: Vec<_> = assets.chain(currencies).collect();
        for name in &unknown {
            let UnknownName { variable, name, suggestion } = name;
            tracing::warn!(variable, name, suggestion, "PRICE_NAME_UNKNOWN");
        }
        Ok(unknown)
    }
}
