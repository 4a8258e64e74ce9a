//! Tests of the fake HTTP servers: they respond in the format of each provider, and fail on request.

use jobs::prices::model::ProviderId;
use runtime::clock::Clock;
use serde_json::Value;
use time::macros::datetime;

use crate::harness::{
    fake_providers::{FakeProviders, Fault},
    http::{HttpResponse, send},
    process,
};

async fn get(fake_providers: &FakeProviders, id: ProviderId, path: &str) -> HttpResponse {
    send(process::http_client().get(format!("{}/{path}", fake_providers.url(id)))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fake_has_the_format_of_its_provider() {
    let fake_providers = FakeProviders::with_clock(Clock::new(|| datetime!(2026-11-28 12:34:56 UTC))).await;
    let chart = "coins/bitcoin/market_chart?vs_currency=usd&days=3&interval=daily";
    let chart = get(&fake_providers, ProviderId::CoinGecko, chart).await.json();
    let points = chart["prices"].as_array().expect("points");
    assert_eq!(points.len(), 4, "three midnights, and now: {chart}");
    let first = points[0][0].as_i64().expect("milliseconds") / 1000;
    // Compared as numbers: JSON does not keep trailing zeros.
    let price: f64 = fake_providers.price("bitcoin", "usd", first).parse().expect("a number");
    assert_eq!(points[0][1].as_f64(), Some(price));

    let ohlc = get(&fake_providers, ProviderId::Kraken, "0/public/OHLC?pair=XBTUSD&interval=1440").await.json();
    assert_eq!(ohlc["result"]["XXBTZUSD"].as_array().map(Vec::len), Some(720));
    let candles = "products/BTC-USD/candles?granularity=86400&start=2026-01-01T00:00:00Z&end=2026-01-03T00:00:00Z";
    let candles = get(&fake_providers, ProviderId::Coinbase, candles).await.json();
    assert!(candles[0][0].as_i64() > candles[1][0].as_i64(), "the newest first: {candles}");
    let klines =
        get(&fake_providers, ProviderId::Binance, "api/v3/klines?symbol=BTCUSDT&interval=1d&limit=2000").await.json();
    assert_eq!(klines.as_array().map(Vec::len), Some(1000));

    fake_providers.edit_table(|table| table.set_spot("bitcoin", "usd", "7.50"));
    let ticker = get(&fake_providers, ProviderId::Coinbase, "products/BTC-USD/ticker").await.json();
    assert_eq!((ticker["price"].as_str(), fake_providers.spot("bitcoin", "usd")), (Some("7.50"), "7.50".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fake_fails_on_request() {
    let fake_providers = FakeProviders::with_clock(Clock::new(|| datetime!(2026-11-28 12:34:56 UTC))).await;
    let path = "api/v3/ticker/24hr?symbols=%5B%22BTCUSDT%22%5D";
    fake_providers.fail_next(ProviderId::Binance, 1, Fault::Banned(120));
    let response = get(&fake_providers, ProviderId::Binance, path).await;
    assert_eq!((response.status, response.header("retry-after")), (418, "120"));
    assert_eq!(get(&fake_providers, ProviderId::Binance, path).await.status, 200);
    fake_providers.fail(ProviderId::Binance, Fault::Truncated);
    for _ in 0..2 {
        assert_eq!(get(&fake_providers, ProviderId::Binance, path).await.json(), Value::Null);
    }
    fake_providers.heal(ProviderId::Binance);
    assert_eq!(get(&fake_providers, ProviderId::Binance, path).await.json()[0]["symbol"], "BTCUSDT");
    assert_eq!((fake_providers.calls(ProviderId::Binance), fake_providers.calls(ProviderId::Kraken)), (5, 0));
}
