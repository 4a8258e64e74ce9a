//! What each source calls an asset in a currency: data, never made by upper-casing.
//!
//! From the public lists of pairs of the exchanges (Kraken's `AssetPairs`, Coinbase's `products`, Binance's
//! `exchangeInfo`) and CoinGecko's `supported_vs_currencies`, as they were known in November 2026. A pair that is not
//! here is not asked for; one that an exchange gives up is answered by it with its own "unknown", which is ours too.
//! `usdt` is a currency of its own, and a pair with it never answers for `usd`.

use super::model::{AssetId, Currency, Source};

/// What a source calls a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// In its paths and queries.
    pub asked: &'a str,
    /// In its answers: Kraken's oldest pairs have an `X` and a `Z` there.
    pub answered: &'a str,
}

/// Canonical id, currency, and what Kraken, Coinbase and Binance call the pair; empty where they have none.
type Row = (&'static str, &'static str, Symbol<'static>, &'static str, &'static str);

const fn same(name: &'static str) -> Symbol<'static> {
    Symbol { asked: name, answered: name }
}

const fn old(asked: &'static str, answered: &'static str) -> Symbol<'static> {
    Symbol { asked, answered }
}

/// Ids are CoinGecko's. Binance has no dollar, only what is meant to be worth one.
const PAIRS: [Row; 24] = [
    ("bitcoin", "usd", old("XBTUSD", "XXBTZUSD"), "BTC-USD", ""),
    ("bitcoin", "eur", old("XBTEUR", "XXBTZEUR"), "BTC-EUR", "BTCEUR"),
    ("bitcoin", "usdt", same("XBTUSDT"), "BTC-USDT", "BTCUSDT"),
    ("ethereum", "usd", old("ETHUSD", "XETHZUSD"), "ETH-USD", ""),
    ("ethereum", "eur", old("ETHEUR", "XETHZEUR"), "ETH-EUR", "ETHEUR"),
    ("ethereum", "usdt", same("ETHUSDT"), "ETH-USDT", "ETHUSDT"),
    ("solana", "usd", same("SOLUSD"), "SOL-USD", ""),
    ("solana", "eur", same("SOLEUR"), "SOL-EUR", "SOLEUR"),
    ("solana", "usdt", same("SOLUSDT"), "SOL-USDT", "SOLUSDT"),
    ("dogecoin", "usd", same("XDGUSD"), "DOGE-USD", ""),
    ("dogecoin", "eur", same("XDGEUR"), "DOGE-EUR", "DOGEEUR"),
    ("dogecoin", "usdt", same("XDGUSDT"), "DOGE-USDT", "DOGEUSDT"),
    ("litecoin", "usd", old("LTCUSD", "XLTCZUSD"), "LTC-USD", ""),
    ("litecoin", "eur", old("LTCEUR", "XLTCZEUR"), "LTC-EUR", "LTCEUR"),
    ("litecoin", "usdt", same("LTCUSDT"), "", "LTCUSDT"),
    ("ripple", "usd", old("XRPUSD", "XXRPZUSD"), "XRP-USD", ""),
    ("ripple", "eur", old("XRPEUR", "XXRPZEUR"), "XRP-EUR", "XRPEUR"),
    ("ripple", "usdt", same("XRPUSDT"), "XRP-USDT", "XRPUSDT"),
    ("cardano", "usd", same("ADAUSD"), "ADA-USD", ""),
    ("cardano", "eur", same("ADAEUR"), "ADA-EUR", "ADAEUR"),
    ("cardano", "usdt", same("ADAUSDT"), "ADA-USDT", "ADAUSDT"),
    ("polkadot", "usd", same("DOTUSD"), "DOT-USD", ""),
    ("polkadot", "eur", same("DOTEUR"), "DOT-EUR", "DOTEUR"),
    ("polkadot", "usdt", same("DOTUSDT"), "DOT-USDT", "DOTUSDT"),
];

/// What CoinGecko quotes in; no coin that stands for a currency is among them.
const COINGECKO_CURRENCIES: [&str; 61] = [
    "aed", "ars", "aud", "bch", "bdt", "bhd", "bits", "bmd", "bnb", "brl", "btc", "cad", "chf", "clp", "cny", "czk",
    "dkk", "dot", "eos", "eth", "eur", "gbp", "gel", "hkd", "huf", "idr", "ils", "inr", "jpy", "krw", "kwd", "link",
    "lkr", "ltc", "mmk", "mxn", "myr", "ngn", "nok", "nzd", "php", "pkr", "pln", "rub", "sar", "sats", "sek", "sgd",
    "sol", "thb", "try", "twd", "uah", "usd", "vef", "vnd", "xag", "xau", "xlm", "xrp", "zar",
];

/// What a source calls this asset in this currency; `None` when it does not have it. CoinGecko's ids are ours, so it may
/// be asked for any.
pub fn symbol<'a>(source: Source, asset: &'a AssetId, currency: &Currency) -> Option<Symbol<'a>> {
    if source == Source::CoinGecko {
        let offered = COINGECKO_CURRENCIES.contains(&currency.as_str());
        return offered.then_some(Symbol { asked: asset.as_str(), answered: asset.as_str() });
    }
    let row = PAIRS.iter().find(|row| (row.0, row.1) == (asset.as_str(), currency.as_str()))?;
    let symbol = match source {
        Source::Kraken => row.2,
        Source::Coinbase => same(row.3),
        Source::Binance => same(row.4),
        Source::CoinGecko => return None,
    };
    (!symbol.asked.is_empty()).then_some(symbol)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(source: Source, asset: &str, currency: &str) -> Option<String> {
        let (asset, currency) = (AssetId::parse(asset).expect("an id"), Currency::parse(currency).expect("a code"));
        symbol(source, &asset, &currency).map(|symbol| symbol.asked.to_owned())
    }

    #[test]
    fn names_are_each_sources_own() {
        for (source, asset, currency, name) in [
            (Source::Kraken, "bitcoin", "usd", Some("XBTUSD")),
            (Source::Kraken, "dogecoin", "eur", Some("XDGEUR")),
            (Source::Coinbase, "ripple", "usd", Some("XRP-USD")),
            (Source::Coinbase, "litecoin", "usdt", None),
            (Source::Binance, "bitcoin", "eur", Some("BTCEUR")),
            (Source::CoinGecko, "bitcoin", "usd", Some("bitcoin")),
            (Source::CoinGecko, "a-coin-of-tomorrow", "chf", Some("a-coin-of-tomorrow")),
            (Source::Kraken, "a-coin-of-tomorrow", "usd", None),
            (Source::Kraken, "bitcoin", "chf", None),
        ] {
            assert_eq!(named(source, asset, currency).as_deref(), name, "{source} {asset} {currency}");
        }
    }

    #[test]
    fn a_dollar_coin_is_no_dollar() {
        assert_eq!(named(Source::CoinGecko, "bitcoin", "usdt"), None);
        for (id, ..) in PAIRS {
            assert_eq!(named(Source::Binance, id, "usd"), None, "{id}");
        }
        for (id, currency, kraken, coinbase, binance) in PAIRS {
            let suffix = currency.to_uppercase();
            for name in [kraken.asked, kraken.answered, coinbase, binance] {
                assert!(name.is_empty() || name.ends_with(&suffix), "{id} in {currency}: {name}");
            }
        }
    }

    #[test]
    fn every_pair_stands_once() {
        for (at, row) in PAIRS.iter().enumerate() {
            let again = |other: &Row| {
                (other.0, other.1) == (row.0, row.1)
                    || other.2.asked == row.2.asked
                    || (!row.3.is_empty() && other.3 == row.3)
                    || (!row.4.is_empty() && other.4 == row.4)
            };
            assert!(!PAIRS[..at].iter().any(again), "{row:?}");
        }
        assert!(COINGECKO_CURRENCIES.is_sorted());
    }
}
