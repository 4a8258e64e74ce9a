//! The newest known price is returned, from any table, but only of configured providers.

use std::time::Duration;

use jobs::prices::model::{Interval, ProviderId};
use serde_json::Value;

use super::{
    in_memory::{NOON, ProviderMode},
    price_harness::{Node, PriceHarness},
    real::RealProviders,
};
use crate::harness::{fake_providers::Fault, redis::Redis};

const PATH: &str = "/simple_price?assets=bitcoin&currency=usd";

async fn price(node: &Node) -> (Value, bool) {
    let (shown, stale) = node.read(PATH).await;
    (shown["bitcoin"]["usd"].clone(), stale)
}

async fn execute(node: &Node, sql: &'static str) {
    sqlx::query(sql).execute(&node.pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

#[tokio::test]
async fn the_newest_known_price_wins_from_any_table() {
    let harness = PriceHarness::new().await;
    let node = harness.node(None).await;
    [&harness.providers.coingecko, &harness.providers.kraken]
        .iter()
        .for_each(|provider| provider.set_mode(ProviderMode::Down));
    // An old present price, then the close of yesterday, of this morning, and a present price of an hour later.
    for (insert, expected) in [
        (
            "INSERT INTO spot_prices VALUES ('bitcoin', 'usd', 'kraken', 99.5, '2026-10-12 12:00Z', '2026-10-12 12:00Z')",
            "99.5",
        ),
        (
            "INSERT INTO prices (asset, currency, interval, bucket, source, close)
             VALUES ('bitcoin', 'usd', 'daily', '2026-11-20 00:00Z', 'coingecko', 30784)",
            "30784",
        ),
        (
            "INSERT INTO prices (asset, currency, interval, bucket, source, close)
             VALUES ('bitcoin', 'usd', 'hourly', '2026-11-21 08:00Z', 'kraken', 30785)",
            "30785",
        ),
        (
            "INSERT INTO spot_prices VALUES ('bitcoin', 'usd', 'coingecko', 30786, '2026-11-21 10:00Z', '2026-11-21 10:00Z')",
            "30786",
        ),
    ] {
        execute(&node, insert).await;
        for _ in 0..3 {
            assert_eq!(price(&node).await, (expected.into(), true), "{insert}");
            harness.providers.advance(Duration::from_secs(20));
        }
        harness.providers.advance(Duration::from_secs(61));
    }
}

#[tokio::test]
async fn a_price_never_goes_back_in_time() {
    let harness = PriceHarness::new().await;
    let node = harness.node(None).await;
    harness.providers.coingecko.set_mode(ProviderMode::Down);
    harness.providers.kraken.quote("bitcoin", "8");
    assert_eq!(price(&node).await, ("8".into(), false));
    // The preferred provider is back, with a price that is five minutes old.
    harness.providers.coingecko.set_mode(ProviderMode::Well);
    harness.providers.coingecko.quote("bitcoin", "7");
    harness.providers.coingecko.lag(Duration::from_secs(300));
    harness.providers.advance(Duration::from_secs(61));
    assert_eq!(price(&node).await, ("8".into(), false));
    harness.providers.advance(Duration::from_secs(300));
    assert_eq!(price(&node).await, ("7".into(), false));
}

#[tokio::test]
async fn prices_of_an_unconfigured_provider_are_not_returned() {
    let redis = Redis::start().await;
    for url in [None, redis.as_ref().map(|redis| redis.url.as_str())] {
        let harness = PriceHarness::new().await;
        let both = harness.node(url).await;
        harness.providers.kraken.quote("bitcoin", "8");
        harness.providers.kraken.fill("bitcoin", Interval::Daily, 3);
        harness.providers.coingecko.set_mode(ProviderMode::Down);
        let chart = "/market_chart?asset=bitcoin&currency=usd&days=3";
        assert!(!both.read(PATH).await.1 && !both.read(chart).await.1);
        let one = harness.node_with_only(ProviderId::CoinGecko, url).await;
        for path in [PATH, chart] {
            one.get(path).await.assert_problem(503, path);
        }
        harness.providers.coingecko.set_mode(ProviderMode::Well);
        harness.providers.advance(Duration::from_secs(61));
        for path in [PATH, chart] {
            one.get(path).await.assert_problem(404, path);
        }
        // The node with both providers is not affected.
        assert!(both.read(chart).await.0["prices"].as_array().is_some_and(|prices| prices.len() == 3));
    }
}

/// A delisted pair of Binance keeps its last price; its time is that of the exchange.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_present_price_is_stale() {
    let real = RealProviders::new().await;
    for id in [ProviderId::CoinGecko, ProviderId::Coinbase, ProviderId::Binance] {
        let node = real.node(id.as_str()).await;
        execute(&node, "TRUNCATE spot_prices").await;
        real.exchange.fail(id, Fault::Stale);
        let (shown, stale) = node.read("/simple_price?assets=bitcoin&currency=eur").await;
        assert_eq!(shown["bitcoin"]["as_of"].as_str(), Some("2026-11-20T12:00:00.000000Z"), "{id}: {shown}");
        assert!(stale, "{id}");
        real.exchange.heal(id);
        real.harness.providers.advance(Duration::from_secs(61));
        let (shown, stale) = node.read("/simple_price?assets=bitcoin&currency=eur").await;
        assert_eq!((shown["bitcoin"]["as_of"].as_str(), stale), (Some("2026-11-21T12:00:41.000000Z"), false), "{id}");
        real.harness.providers.set(NOON);
        node.stop().await;
    }
}
