//! The newest price that is known is shown, whichever table it is in, and never that of a provider which is not asked.

use std::time::Duration;

use jobs::prices::model::{Interval, Source};
use serde_json::Value;

use super::{
    market::{FakeMode, NOON},
    real::RealProviders,
    stand::{Node, Stand},
};
use crate::harness::{fake_providers::Fault, redis::Redis};

const PATH: &str = "/simple_price?assets=bitcoin&currency=usd";

async fn price(node: &Node) -> (Value, bool) {
    let (shown, stale) = node.shown(PATH).await;
    (shown["bitcoin"]["usd"].clone(), stale)
}

async fn execute(node: &Node, sql: &'static str) {
    sqlx::query(sql).execute(&node.pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

#[tokio::test]
async fn the_newest_known_price_wins_whichever_table_it_is_in() {
    let stand = Stand::new().await;
    let node = stand.node(None).await;
    [&stand.market.coingecko, &stand.market.kraken].iter().for_each(|source| source.is(FakeMode::Down));
    // A present price of long ago, then yesterday's close, this morning's, and a present one of an hour later.
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
            stand.market.pass(Duration::from_secs(20));
        }
        stand.market.pass(Duration::from_secs(61));
    }
}

#[tokio::test]
async fn a_price_never_goes_back_in_time() {
    let stand = Stand::new().await;
    let node = stand.node(None).await;
    stand.market.coingecko.is(FakeMode::Down);
    stand.market.kraken.quote("bitcoin", "8");
    assert_eq!(price(&node).await, ("8".into(), false));
    // The preferred one is back, with a price of five minutes ago.
    stand.market.coingecko.is(FakeMode::Well);
    stand.market.coingecko.quote("bitcoin", "7");
    stand.market.coingecko.lag(Duration::from_secs(300));
    stand.market.pass(Duration::from_secs(61));
    assert_eq!(price(&node).await, ("8".into(), false));
    stand.market.pass(Duration::from_secs(300));
    assert_eq!(price(&node).await, ("7".into(), false));
}

#[tokio::test]
async fn what_is_known_of_a_provider_that_is_not_configured_is_not_shown() {
    let redis = Redis::start().await;
    for url in [None, redis.as_ref().map(|redis| redis.url.as_str())] {
        let stand = Stand::new().await;
        let both = stand.node(url).await;
        stand.market.kraken.quote("bitcoin", "8");
        stand.market.kraken.fill("bitcoin", Interval::Daily, 3);
        stand.market.coingecko.is(FakeMode::Down);
        let chart = "/market_chart?asset=bitcoin&currency=usd&days=3";
        assert!(!both.shown(PATH).await.1 && !both.shown(chart).await.1);
        let one = stand.node_with_only(Source::CoinGecko, url).await;
        for path in [PATH, chart] {
            one.get(path).await.assert_problem(503, path);
        }
        stand.market.coingecko.is(FakeMode::Well);
        stand.market.pass(Duration::from_secs(61));
        for path in [PATH, chart] {
            one.get(path).await.assert_problem(404, path);
        }
        // The process with both goes on.
        assert!(both.shown(chart).await.0["prices"].as_array().is_some_and(|prices| prices.len() == 3));
    }
}

/// A pair that Binance has given up goes on with its last price; its time is the exchange's.
#[tokio::test(flavor = "multi_thread")]
async fn a_price_of_yesterday_is_not_of_now() {
    let world = RealProviders::new().await;
    for source in [Source::CoinGecko, Source::Coinbase, Source::Binance] {
        let node = world.node(source.as_str()).await;
        execute(&node, "TRUNCATE spot_prices").await;
        world.exchange.fail(source, Fault::Stale);
        let (shown, stale) = node.shown("/simple_price?assets=bitcoin&currency=eur").await;
        assert_eq!(shown["bitcoin"]["as_of"].as_str(), Some("2026-11-20T12:00:00.000000Z"), "{source}: {shown}");
        assert!(stale, "{source}");
        world.exchange.heal(source);
        world.stand.market.pass(Duration::from_secs(61));
        let (shown, stale) = node.shown("/simple_price?assets=bitcoin&currency=eur").await;
        assert_eq!(
            (shown["bitcoin"]["as_of"].as_str(), stale),
            (Some("2026-11-21T12:00:41.000000Z"), false),
            "{source}"
        );
        world.stand.market.set(NOON);
        node.stop().await;
    }
}
