//! The configuration of prices.

use url::Url;

use super::model::{AssetId, Currency, ProviderId};
use queue::schedule::{CatchUp, Cron};
use runtime::{config::EnvReader, secret::Secret};

/// Which prices are fetched, and from which providers.
#[derive(Debug, Clone)]
pub struct Config {
    /// `CRYPTO_ASSETS`: the assets of the daily fetch.
    pub assets: Vec<AssetId>,
    /// `CRYPTO_CURRENCIES`: the currencies of the daily fetch, and the only ones that may be requested.
    pub currencies: Vec<Currency>,
    /// `CRYPTO_PROVIDERS`: the providers, in the order of preference.
    pub providers: Vec<ProviderId>,
    /// `COINGECKO_URL`, `KRAKEN_URL`, `COINBASE_URL`, `BINANCE_URL`, in the order of [`ProviderId`].
    pub urls: [String; 4],
    /// `COINGECKO_API_KEY`.
    pub coingecko_key: Option<Secret<String>>,
    /// `CRYPTO_FETCH_CRON`: when the daily fetch runs. `None` only if the variable is invalid, which stops the start.
    pub fetch_cron: Option<Cron>,
    /// `CRYPTO_FETCH_CATCH_UP`: whether a missed daily fetch is made up.
    pub fetch_catch_up: CatchUp,
}

const PROVIDERS: &str = "coingecko,kraken,coinbase,binance";
/// The rule of each entry of `CRYPTO_PROVIDERS`.
const PROVIDER_RULE: &str = "coingecko, kraken, coinbase or binance";
/// Providers have the previous day from 00:10 UTC on.
const FETCH_CRON: &str = "0 15 0 * * *";

impl Config {
    /// Reads the variables that are named at the fields.
    pub fn read(vars: &mut EnvReader) -> Self {
        Self {
            assets: list(vars, "CRYPTO_ASSETS", "bitcoin,ethereum,solana", AssetId::RULE, AssetId::parse),
            currencies: list(vars, "CRYPTO_CURRENCIES", "usd,eur", Currency::RULE, Currency::parse),
            providers: list(vars, "CRYPTO_PROVIDERS", PROVIDERS, PROVIDER_RULE, ProviderId::parse),
            urls: [
                url(vars, "COINGECKO_URL", "https://api.coingecko.com/api/v3"),
                url(vars, "KRAKEN_URL", "https://api.kraken.com"),
                url(vars, "COINBASE_URL", "https://api.exchange.coinbase.com"),
                url(vars, "BINANCE_URL", "https://data-api.binance.vision"),
            ],
            fetch_cron: cron(vars),
            fetch_catch_up: vars.read("CRYPTO_FETCH_CATCH_UP", CatchUp::default(), CatchUp::parse),
            coingecko_key: vars.read("COINGECKO_API_KEY", None, key),
        }
    }

    /// The base URL of a provider, without a slash at the end.
    pub fn url(&self, provider: ProviderId) -> &str {
        let [coingecko, kraken, coinbase, binance] = &self.urls;
        match provider {
            ProviderId::CoinGecko => coingecko,
            ProviderId::Kraken => kraken,
            ProviderId::Coinbase => coinbase,
            ProviderId::Binance => binance,
        }
    }
}

fn cron(vars: &mut EnvReader) -> Option<Cron> {
    let text = vars.text("CRYPTO_FETCH_CRON").unwrap_or_else(|| FETCH_CRON.to_owned());
    Cron::parse(&text).map_err(|expected| vars.add_error("CRYPTO_FETCH_CRON", &expected)).ok()
}

/// Reads a comma-separated list, of which every entry must follow `rule`. Repeated entries count once.
fn list<T: PartialEq>(
    vars: &mut EnvReader,
    name: &str,
    default: &str,
    rule: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Vec<T> {
    let all = |text: &str| {
        let mut entries = Vec::new();
        for (index, entry) in text.split(',').enumerate() {
            // By its place, because errors contain no values.
            let entry = read(entry.trim())
                .ok_or_else(|| format!("entry {} of the list must be {rule}, such as {name}={default}", index + 1))?;
            if !entries.contains(&entry) {
                entries.push(entry);
            }
        }
        Ok(entries)
    };
    let given = vars.read(name, None, |text| all(text).map(Some));
    given.or_else(|| all(default).ok()).unwrap_or_default()
}

/// Reads a key, which must be sendable in a header.
fn key(text: &str) -> Result<Option<Secret<String>>, String> {
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    visible
        .then(|| Some(Secret::new(text)))
        .ok_or_else(|| "must be visible ASCII, such as COINGECKO_API_KEY=CG-your-key".into())
}

fn url(vars: &mut EnvReader, name: &str, default: &str) -> String {
    vars.read(name, default.to_owned(), |text| match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(text.trim_end_matches('/').into()),
        _ => Err(format!("must be an http or https URL, such as {name}={default}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, String> {
        let mut vars = EnvReader::from_pairs(pairs);
        let config = Config::read(&mut vars);
        vars.finish(config).map_err(|problems| problems.to_string())
    }

    #[test]
    fn lists_and_urls_are_read() {
        let config = read(&[]).expect("the defaults");
        assert_eq!(config.assets.len(), 3);
        assert_eq!(config.providers, ProviderId::ALL);
        assert_eq!(config.fetch_cron.as_ref().map(Cron::as_str), Some("0 15 0 * * *"));
        assert_eq!(config.fetch_catch_up, CatchUp::Latest);
        for provider in ProviderId::ALL {
            assert!(config.url(provider).contains(provider.as_str()) && !config.url(provider).ends_with('/'));
        }
        let config = read(&[("CRYPTO_PROVIDERS", " kraken , kraken,binance"), ("CRYPTO_CURRENCIES", "USD,Eur,usd")]);
        let config = config.expect("a configuration");
        assert_eq!(config.providers, [ProviderId::Kraken, ProviderId::Binance]);
        assert_eq!(config.currencies.iter().map(Currency::as_str).collect::<Vec<_>>(), ["usd", "eur"]);
    }

    #[test]
    fn wrong_values_are_named_and_keys_are_never_printed() {
        for (name, value) in [
            ("KRAKEN_URL", "ftp://x"),
            ("BINANCE_URL", "binance"),
            ("CRYPTO_FETCH_CRON", "15 0 * * *"),
            ("CRYPTO_FETCH_CRON", "0 0 0 30 2 *"),
            ("CRYPTO_FETCH_CATCH_UP", "some"),
            ("COINGECKO_API_KEY", "a key with blanks"),
        ] {
            let problem = read(&[(name, value)]).expect_err(value);
            assert!(problem.starts_with(name) && problem.contains("such as"), "{problem}");
        }
        for (name, value, named) in [
            ("CRYPTO_ASSETS", "bitcoin,,solana", "entry 2 of the list must be 1 to 64 letters, digits, hyphens"),
            ("CRYPTO_ASSETS", "Bit Coin", "entry 1 of the list must be 1 to 64 letters"),
            ("CRYPTO_CURRENCIES", "usd,e,u", "entry 2 of the list must be 2 to 10 letters and digits"),
            (
                "CRYPTO_PROVIDERS",
                "kraken, coingecko,mtgox",
                "entry 3 of the list must be coingecko, kraken, coinbase or",
            ),
        ] {
            let problem = read(&[(name, value)]).expect_err(value);
            assert!(problem.starts_with(&format!("{name}: {named}")) && problem.contains("such as"), "{problem}");
        }
        let config = read(&[("COINGECKO_API_KEY", "secret")]).expect("a key");
        assert!(!format!("{config:?}").contains("secret"));
    }
}
