//! The lists of each provider: CoinGecko's coins and currencies, and the pairs of the exchanges.

use jobs::prices::model::ProviderId;

use super::{
    response::{CODES, kraken_key},
    table::Table,
};

/// Formats one pair: an asset with its codes, and a currency.
type Line<'l> = dyn Fn(&(&str, &str, &str), &str) -> String + 'l;

/// Returns the list at a path, or `None` if the path is not that of a list.
pub(super) fn listing(table: &Table, provider: ProviderId, path: &str) -> Option<String> {
    let pairs = |currencies: &[&str], line: &Line<'_>| {
        let delisted = table.delisted.iter().map(|code| ("", *code, *code));
        let assets = CODES.into_iter().chain(delisted);
        let lines = assets.flat_map(|asset| currencies.iter().map(move |currency| line(&asset, currency)));
        lines.collect::<Vec<_>>().join(",")
    };
    let list = match (provider, path) {
        (ProviderId::CoinGecko, "simple/supported_vs_currencies") => r#"["btc","eth","usd","eur","chf","xau"]"#.into(),
        (ProviderId::CoinGecko, "coins/list") => {
            let coin = |id: &str| format!(r#"{{"id":"{id}","symbol":"x","name":"A coin"}}"#);
            let coins: Vec<_> = ["bitcoin", "ethereum", "solana", "pepecoin"].map(coin).into();
            format!("[{}]", coins.join(","))
        }
        (ProviderId::Kraken, "0/public/AssetPairs") => {
            let line = |(_, _, code): &(&str, &str, &str), currency: &str| {
                let (name, quote) = (format!("{code}{currency}"), currency);
                let key = kraken_key(&name);
                format!(r#""{key}":{{"altname":"{name}","wsname":"{code}\/{quote}","status":"online"}}"#)
            };
            format!(r#"{{"error":[],"result":{{{}}}}}"#, pairs(&["USD", "EUR", "USDT"], &line))
        }
        (ProviderId::Coinbase, "products") => {
            let line = |(_, code, _): &(&str, &str, &str), currency: &str| {
                format!(
                    r#"{{"id":"{code}-{currency}","base_currency":"{code}","quote_currency":"{currency}","status":"online"}}"#
                )
            };
            format!("[{}]", pairs(&["USD", "EUR", "USDT"], &line))
        }
        (ProviderId::Binance, "api/v3/exchangeInfo") => {
            let line = |(_, code, _): &(&str, &str, &str), currency: &str| {
                format!(
                    r#"{{"symbol":"{code}{currency}","status":"TRADING","baseAsset":"{code}","quoteAsset":"{currency}"}}"#
                )
            };
            format!(r#"{{"timezone":"UTC","symbols":[{}]}}"#, pairs(&["EUR", "USDT"], &line))
        }
        _ => return None,
    };
    Some(list)
}
