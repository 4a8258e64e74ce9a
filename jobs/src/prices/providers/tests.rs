//! Any response body of a provider gives an error, or prices that satisfy all invariants.

use bigdecimal::{BigDecimal, Zero};
use hostile::proptest::{collection::vec, prelude::*, sample::select};
use reqwest::StatusCode;
use time::macros::datetime;

use super::{exchange::ExchangeSpec, spots::ReportedPrice, *};
use crate::prices::{
    model::{AssetId, Currency, Interval},
    normalise::{CandleSet, Window},
};

const CORPUS: &str = include_str!("../../../../tests/corpora/provider_body.txt");

const EXCHANGES: [&ExchangeSpec; 3] = [&BINANCE, &COINBASE, &KRAKEN];

/// The days or hours around most times of the corpus and of the grammar.
fn windows() -> [Window; 2] {
    let (from, to) = (datetime!(2024-03-01 0:00 UTC), datetime!(2024-03-14 12:00 UTC));
    [Interval::Daily, Interval::Hourly].map(|interval| Window { interval, from, to, now: to })
}

fn times() -> impl Strategy<Value = String> {
    let near = (1_709_000_000..1_711_000_000_i64).prop_map(|seconds| seconds / 3600 * 3600);
    let texts = ["null", "-1", "1e9", "\"\"", "99999999999999999999", "1710288000.5", "\"2024-03-13T12:00:00Z\""];
    prop_oneof![
        4 => near.clone().prop_map(|seconds| seconds.to_string()),
        4 => near.prop_map(|seconds| format!("{seconds}000")),
        1 => select(texts.to_vec()).prop_map(str::to_owned),
    ]
}

fn numbers() -> impl Strategy<Value = String> {
    let texts =
        ["0", "-1", "NaN", "\"NaN\"", "null", "true", "1e999999999", "\"1e-999999999\"", "[]", "{}", "\"\\u0031\""];
    prop_oneof![
        6 => "[1-9]{1,2}(\\.[0-9]{1,3})?",
        4 => "\"[1-9]{1,2}(\\.[0-9]{1,3})?\"",
        1 => "-?[0-9]{1,40}(\\.[0-9]{1,50})?(e-?[0-9]{1,2})?",
        1 => select(texts.to_vec()).prop_map(str::to_owned),
    ]
}

/// A page of rows in one of the forms of the providers.
fn bodies() -> impl Strategy<Value = String> {
    let row = (times(), vec(numbers(), 0..12)).prop_map(|(time, numbers)| {
        let fields: Vec<String> = std::iter::once(time).chain(numbers).collect();
        format!("[{}]", fields.join(","))
    });
    let rows = vec(row, 0..6).prop_map(|rows| format!("[{}]", rows.join(",")));
    let one = (numbers(), times(), select(vec!["binance", "coinbase", "coingecko"]));
    let spot = one.prop_map(|(price, at, provider)| match provider {
        "binance" => format!(r#"[{{"symbol":"BTCEUR","lastPrice":{price},"closeTime":{at},"count":3}}]"#),
        "coinbase" => format!(r#"{{"price":{price},"time":{at}}}"#),
        _ => format!(r#"{{"bitcoin":{{"usd":{price},"last_updated_at":{at}}}}}"#),
    });
    let form = select(vec!["{}", r#"{"prices":{}}"#, r#"{"error":[],"result":{"XXBTZUSD":{},"last":1710324000}}"#]);
    prop_oneof![3 => (rows, form).prop_map(|(rows, form)| form.replacen("{}", &rows, 1)), 1 => spot]
}

/// At most 24 digits before the point and 40 after it, and above zero.
fn assert_price(price: &BigDecimal) -> hostile::Property {
    let text = price.to_plain_string();
    let (whole, places) = text.split_once('.').unwrap_or((&text, ""));
    prop_assert!(*price > BigDecimal::zero() && whole.len() <= 24 && places.len() <= 40, "price {}", text);
    Ok(())
}

fn assert_candles(set: CandleSet, window: Window) -> hostile::Property {
    let (candles, rejected) = set.finish();
    prop_assert!(candles.windows(2).all(|pair| pair[0].bucket < pair[1].bucket), "ordered, and each once");
    for candle in &candles {
        let (start, end) = (candle.bucket, candle.bucket + window.interval.length());
        prop_assert!(start >= window.from && start < window.to && end <= window.now, "{}", start);
        prop_assert_eq!(window.interval.bucket(start), start);
        assert_price(&candle.close)?;
        for price in [&candle.open, &candle.high, &candle.low].into_iter().flatten() {
            assert_price(price)?;
        }
        let inside = |price: &BigDecimal| {
            candle.low.as_ref().is_none_or(|low| low <= price) && candle.high.as_ref().is_none_or(|high| price <= high)
        };
        prop_assert!(inside(&candle.close) && candle.open.as_ref().is_none_or(inside), "{:?}", candle);
        prop_assert!(candle.volume.as_ref().is_none_or(|volume| *volume >= BigDecimal::zero()));
    }
    // What is logged of a rejected row.
    prop_assert!(rejected.iter().all(|(_, row)| row.len() <= 24 && row.bytes().all(|byte| byte.is_ascii_graphic())));
    Ok(())
}

fn assert_spot(body: &str, spot: ReportedPrice) -> hostile::Property {
    if let Ok(Some((price, at))) = spot {
        assert_price(&price)?;
        prop_assert!((2009..2100).contains(&at.year()), "{}", at);
        let list = body.trim_start();
        let first = list.strip_prefix('[').unwrap_or(list).trim_start();
        prop_assert!(first.starts_with('{') || list.starts_with('{'), "an array is no ticker");
    }
    Ok(())
}

#[test]
fn hostile_bodies_of_exchanges_give_errors_or_valid_prices() -> Result<(), hostile::Failure> {
    hostile::check_text(CORPUS, bodies(), |body| {
        for exchange in EXCHANGES {
            for window in windows() {
                if let Ok(set) = (exchange.parse_candles)(StatusCode::OK, body, window) {
                    assert_candles(set, window)?;
                }
            }
            if let Ok(spot) = (exchange.parse_spot)(StatusCode::OK, body, "BTCEUR") {
                assert_spot(body, spot)?;
            }
        }
        Ok(())
    })
}

#[test]
fn hostile_bodies_of_coingecko_give_errors_or_valid_prices() -> Result<(), hostile::Failure> {
    let (assets, usd) = (["bitcoin", "ethereum"].map(AssetId::parse).map(Option::unwrap), Currency::parse("usd"));
    let usd = usd.expect("a code");
    hostile::check_text(CORPUS, bodies(), |body| {
        for window in windows() {
            if let Ok(set) = coingecko::parse_points(StatusCode::OK, body, window) {
                prop_assert!(body.trim_start().starts_with('{'), "an array is no chart");
                assert_candles(set, window)?;
            }
        }
        for (_, spot) in coingecko::parse_spots(StatusCode::OK, body, &assets, &usd).unwrap_or_default() {
            assert_spot(body, spot)?;
        }
        Ok(())
    })
}

#[test]
fn hostile_lists_give_errors_or_names_that_are_safe_in_a_path() -> Result<(), hostile::Failure> {
    let pair = "\\{\"symbol\":\"[A-Z/?]{0,6}\",\"status\":\"TRADING\",\"baseAsset\":\"BTC\",\"quoteAsset\":\"EUR\"\\}";
    let grammar = format!("\\{{\"symbols\":\\[{pair}(,{pair})?\\]\\}}");
    let grammar = hostile::proptest::string::string_regex(&grammar).expect("a pattern");
    let (btc, eur) = ("BTC", Currency::parse("eur").expect("a code"));
    hostile::check_text(CORPUS, grammar, |body| {
        for exchange in EXCHANGES {
            let Ok(pairs) = (exchange.parse_pairs)(StatusCode::OK, body) else { continue };
            if let Some(name) = pairs.name(btc, &eur) {
                let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
                prop_assert!(!name.is_empty() && name.bytes().all(safe), "{}", name);
            }
            prop_assert!(pairs.names().assets.iter().all(|id| AssetId::parse(id).is_some()));
        }
        Ok(())
    })
}
