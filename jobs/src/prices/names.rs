//! Names of the configuration, checked against what the providers offer: a misspelt one would be fetched in vain every
//! day, without an error.

use super::{
    Prices,
    providers::{Names, Trouble},
    symbols::{id_of, nearest},
};

const ASSETS: &str = "CRYPTO_ASSETS";
pub(super) const CURRENCIES: &str = "CRYPTO_CURRENCIES";

/// A name of the configuration that no provider knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnknownName {
    pub(super) variable: &'static str,
    pub(super) name: String,
    /// What may be meant.
    pub(super) suggestion: Option<String>,
}

impl UnknownName {
    /// A sentence about it.
    pub(super) fn message(&self) -> String {
        let Self { variable, name, suggestion } = self;
        match suggestion {
            Some(suggestion) => format!("{variable}: no provider knows {name}; did you mean {suggestion}?"),
            None => format!("{variable}: no provider knows {name}"),
        }
    }
}

impl Prices {
    /// The names of the configuration that no provider knows. They are looked up when a provider does not offer
    /// something for the first time in this process, and logged then; none while a provider cannot be asked.
    pub(super) async fn unknown_names(&self) -> &[UnknownName] {
        match self.unknown_names.get_or_try_init(|| self.find_unknown_names()).await {
            Ok(unknown) => unknown,
            Err(trouble) => {
                tracing::debug!(%trouble, "names are not checked");
                &[]
            }
        }
    }

    async fn find_unknown_names(&self) -> Result<Vec<UnknownName>, Trouble> {
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
