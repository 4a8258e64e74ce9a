//! The stand-in answers in the form of each source, and fails when told to.

use jobs::{clock::Clock, prices::model::Source};
use serde_json::Value;
use time::macros::datetime;

use crate::harness::{
    fake_providers::{FakeProviders, Fault},
    http::{HttpResponse, send},
    process,
};

async fn get(exchange: &FakeProviders, source: Source, path: &str) -> HttpResponse {
    send(process::http_client().get(format!("{}/{path}", exchange.url(source)))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stand_in_has_each_sources_form() {
    let exchange = FakeProviders::with_clock(Clock::new(|| datetime!(2026-11-28 12:34:56 UTC))).await;
    let chart = "coins/bitcoin/market_chart?vs_currency=usd&days=3&interval=daily";
    let chart = get(&exchange, Source::CoinGecko, chart).await.json();
    let points = chart["prices"].as_array().expect("points");
    assert_eq!(points.len(), 5, "three days, today, and now: {chart}");
    let first = points[0][0].as_i64().expect("milliseconds") / 1000;
    // As numbers: JSON does not keep the zeros at the end.
    let price: f64 = exchange.price("bitcoin", "usd", first).parse().expect("a number");
    assert_eq!(points[0][1].as_f64(), Some(price));

    let ohlc = get(&exchange, Source::Kraken, "0/public/OHLC?pair=XBTUSD&interval=1440").await.json();
    assert_eq!(ohlc["result"]["XXBTZUSD"].as_array().map(Vec::len), Some(720));
    let candles = "products/BTC-USD/candles?granularity=86400&start=2026-01-01T00:00:00Z&end=2026-01-03T00:00:00Z";
    let candles = get(&exchange, Source::Coinbase, candles).await.json();
    assert!(candles[0][0].as_i64() > candles[1][0].as_i64(), "the newest first: {candles}");
    let klines = get(&exchange, Source::Binance, "api/v3/klines?symbol=BTCUSDT&interval=1d&limit=2000").await.json();
    assert_eq!(klines.as_array().map(Vec::len), Some(1000));

    exchange.edit_table(|table| table.set_spot("bitcoin", "usd", "7.50"));
    let ticker = get(&exchange, Source::Coinbase, "products/BTC-USD/ticker").await.json();
    assert_eq!((ticker["price"].as_str(), exchange.spot("bitcoin", "usd")), (Some("7.50"), "7.50".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stand_in_fails_as_it_is_told() {
    let exchange = FakeProviders::with_clock(Clock::new(|| datetime!(2026-11-28 12:34:56 UTC))).await;
    let path = "api/v3/ticker/24hr?symbols=%5B%22BTCUSDT%22%5D";
    exchange.fail_next(Source::Binance, 1, Fault::Banned(120));
    let answer = get(&exchange, Source::Binance, path).await;
    assert_eq!((answer.status, answer.header("retry-after")), (418, "120"));
    assert_eq!(get(&exchange, Source::Binance, path).await.status, 200);
    exchange.fail(Source::Binance, Fault::Truncated);
    for _ in 0..2 {
        assert_eq!(get(&exchange, Source::Binance, path).await.json(), Value::Null);
    }
    exchange.heal(Source::Binance);
    assert_eq!(get(&exchange, Source::Binance, path).await.json()[0]["symbol"], "BTCUSDT");
    assert_eq!((exchange.calls(Source::Binance), exchange.calls(Source::Kraken)), (5, 0));
}
