//! Providers that fail in part: what came is shown, what did not come is named, and one that hangs delays no reader.

use std::time::{Duration, Instant};

use jobs::prices::model::{Interval, Source};

use super::{
    market::{FakeMode, NOON},
    real::RealProviders,
    stand::Stand,
};
use crate::harness::{eventually, fake_providers::Fault};

/// A provider that hangs is given up after ten seconds; readers must not notice that, on a busy machine either.
const HANGS: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_secs(9);
const STORED: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn two_providers_that_hang_do_not_delay_the_third() {
    let world = RealProviders::new().await;
    world.exchange.fail(Source::CoinGecko, Fault::Slow(HANGS));
    world.exchange.fail(Source::Kraken, Fault::Slow(HANGS));
    for (path, interval) in [
        ("/simple_price?assets=bitcoin,ethereum&currency=eur", None),
        ("/market_chart?asset=bitcoin&currency=eur&days=30", Some(30)),
        ("/market_chart?asset=bitcoin&currency=eur&days=2&interval=hourly", Some(48)),
    ] {
        let node = world.empty_node().await;
        let begun = Instant::now();
        let (shown, stale) = node.shown(path).await;
        assert!(begun.elapsed() < SOON, "{path}: {:?}", begun.elapsed());
        assert!(!stale, "{path}");
        match interval {
            Some(count) => assert_eq!(shown["prices"].as_array().map(Vec::len), Some(count), "{path}"),
            None => assert_eq!(
                (&shown["bitcoin"]["source"], &shown["ethereum"]["source"]),
                (&"coinbase".into(), &"coinbase".into())
            ),
        }
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_fails_or_hangs_costs_its_own_points_only() {
    let world = RealProviders::new().await;
    let query = "asset=bitcoin&currency=eur&days=1500";
    // Of five pages of 300 days the third, with all its tries.
    for (fault, calls) in [(Fault::Status(500), 3), (Fault::Slow(HANGS), 1)] {
        let node = world.empty_node().await;
        node.stop().await;
        let node = world.node("coinbase").await;
        world.exchange.fail_after(Source::Coinbase, 2, calls, fault.clone());
        node.chart_with_missing(query).await;
        eventually("all other pages are stored", STORED, async || {
            let count: i64 =
                sqlx::query_scalar("SELECT count(*) FROM prices").fetch_one(&node.pool).await.expect("a count");
            count == 1200
        })
        .await;
        node.stop().await;
        world.exchange.fail(Source::Coinbase, Fault::Forbidden);
        let node = world.node("coinbase").await;
        let (prices, _, missing) = node.chart_with_missing(query).await;
        assert_eq!((prices.len(), missing), (1200, 300), "{fault:?}");
        node.stop().await;
        world.exchange.heal(Source::Coinbase);
        let node = world.node("coinbase").await;
        let (prices, _, missing) = node.chart_with_missing(query).await;
        assert_eq!((prices.len(), missing), (1500, 0), "{fault:?}");
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_product_that_fails_loses_no_other_asset() {
    let world = RealProviders::new().await;
    let path = "/simple_price?assets=bitcoin,ethereum,solana&currency=eur";
    world.exchange.fail_matching(Source::Coinbase, "BTC-EUR", Fault::Status(500));
    let node = world.node("coinbase,kraken").await;
    let (shown, stale) = node.shown(path).await;
    let sources = ["bitcoin", "ethereum", "solana"].map(|asset| shown[asset]["source"].as_str().expect("a source"));
    assert_eq!((sources, stale), (["kraken", "coinbase", "coinbase"], false));
    node.stop().await;
    // Without another provider, the asset is named, and the others are known.
    let node = world.node("coinbase").await;
    sqlx::query("TRUNCATE spot_prices").execute(&node.pool).await.expect("an empty table");
    let before = world.exchange.calls(Source::Coinbase);
    let problem = node.get(path).await.assert_problem(503, path);
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(detail.contains("bitcoin") && !detail.contains("solana"), "{detail}");
    assert!(!node.shown("/simple_price?assets=ethereum,solana&currency=eur").await.1);
    assert_eq!(world.exchange.calls(Source::Coinbase) - before, 5, "three tries, and each of the others once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coin_without_a_price_is_unknown_alone_and_in_company() {
    let world = RealProviders::new().await;
    for (price, status) in [("null", 404), ("-1", 503)] {
        world.exchange.edit_table(|table| table.set_spot("pepecoin", "usd", price));
        for assets in ["pepecoin", "bitcoin,pepecoin", "pepecoin,bitcoin"] {
            let node = world.empty_node().await;
            let path = format!("/simple_price?assets={assets}&currency=usd");
            let problem = node.get(&path).await.assert_problem(status, &path);
            let detail = problem["detail"].as_str().expect("a detail");
            assert!(detail.contains("pepecoin") && !detail.contains("bitcoin"), "{path}: {detail}");
            node.stop().await;
        }
    }
}

#[tokio::test]
async fn a_chart_says_how_many_points_it_lacks() {
    let stand = Stand::new().await;
    let node = stand.node(None).await;
    let sources = [&stand.market.coingecko, &stand.market.kraken];
    let insert = "INSERT INTO prices (asset, currency, interval, bucket, source, close)
                  SELECT 'bitcoin', 'usd', 'daily', timestamptz '2026-11-20 00:00Z' - n * interval '24 hours', 'kraken', 7
                  FROM unnest(ARRAY[0, 1, 2, 5, 6]) AS n";
    sqlx::query(insert).execute(&node.pool).await.expect("five days");
    sources.iter().for_each(|source| source.is(FakeMode::Down));
    for (days, there, missing) in [("30", 5, 25), ("7", 5, 2), ("3", 3, 0), ("max", 5, 3645)] {
        let (prices, stale, lacks) = node.chart_with_missing(&format!("asset=bitcoin&currency=usd&days={days}")).await;
        assert_eq!((prices.len(), stale, lacks), (there, false, missing), "{days}");
    }
    // A day later one more is missing, also from what is cached while the database is away.
    stand.market.set(NOON + Duration::from_secs(24 * 3600));
    let (prices, stale, lacks) = node.chart_with_missing("asset=bitcoin&currency=usd&days=7").await;
    assert_eq!((prices.len(), stale, lacks), (4, true, 3));
    node.pool.close().await;
    stand.market.set(NOON + Duration::from_secs(2 * 24 * 3600));
    let (_, stale, lacks) = node.chart_with_missing("asset=bitcoin&currency=usd&days=7").await;
    assert_eq!((stale, lacks), (true, 4));
    // What no provider has is a hole between two points, but not missing before the first.
    let node = stand.node(None).await;
    sqlx::query("TRUNCATE prices").execute(&node.pool).await.expect("an empty table");
    sources.iter().for_each(|source| source.is(FakeMode::Well));
    let bucket = |back: i32| Interval::Daily.bucket(stand.market.now()) - time::Duration::DAY * back;
    [1, 2, 4].into_iter().for_each(|back| stand.market.coingecko.put("bitcoin", Interval::Daily, bucket(back), "7"));
    let (prices, stale, lacks) = node.chart_with_missing("asset=bitcoin&currency=usd&days=30").await;
    assert_eq!((prices.len(), stale, lacks), (3, false, 1));
}
