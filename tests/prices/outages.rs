//! Providers that fail partly: fetched prices are returned, missing ones are named, and a provider that hangs delays no
//! reader.

use std::time::{Duration, Instant};

use jobs::prices::{
    ages::Ages,
    model::{Interval, ProviderId},
};

use super::{
    in_memory::{NOON, ProviderMode},
    price_harness::PriceHarness,
    real::RealProviders,
};
use crate::harness::{eventually, fake_providers::Fault};

/// A provider that hangs times out after 10 s. Readers must not wait for that, even on a busy machine.
const HANGS: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_secs(9);
const STORED: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn two_providers_that_hang_do_not_delay_the_third() {
    let real = RealProviders::new().await;
    real.exchange.fail(ProviderId::CoinGecko, Fault::Slow(HANGS));
    real.exchange.fail(ProviderId::Kraken, Fault::Slow(HANGS));
    // The fourth hangs as well: a busy machine calls it before the third has responded.
    real.exchange.fail(ProviderId::Binance, Fault::Slow(HANGS));
    for (path, interval) in [
        ("/simple_price?assets=bitcoin,ethereum&currency=eur", None),
        ("/market_chart?asset=bitcoin&currency=eur&days=30", Some(30)),
        ("/market_chart?asset=bitcoin&currency=eur&days=2&interval=hourly", Some(48)),
    ] {
        let node = real.empty_node_with(Ages::DEFAULT).await;
        let begun = Instant::now();
        let (shown, stale) = node.read(path).await;
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
async fn a_page_that_fails_or_hangs_loses_only_its_own_points() {
    let real = RealProviders::new().await;
    let query = "asset=bitcoin&currency=eur&days=1500";
    // The third of five pages of 300 days fails, with all its attempts.
    for (fault, calls) in [(Fault::Status(500), 3), (Fault::Slow(HANGS), 1)] {
        let node = real.empty_node().await;
        node.stop().await;
        let node = real.node("coinbase").await;
        real.exchange.fail_after(ProviderId::Coinbase, 2, calls, fault.clone());
        node.chart_with_missing(query).await;
        eventually("all other pages are stored", STORED, async || {
            let count: i64 =
                sqlx::query_scalar("SELECT count(*) FROM prices").fetch_one(&node.pool).await.expect("a count");
            count == 1200
        })
        .await;
        node.stop().await;
        real.exchange.fail(ProviderId::Coinbase, Fault::Forbidden);
        let node = real.node("coinbase").await;
        let (prices, _, missing) = node.chart_with_missing(query).await;
        assert_eq!((prices.len(), missing), (1200, 300), "{fault:?}");
        node.stop().await;
        real.exchange.heal(ProviderId::Coinbase);
        let node = real.node("coinbase").await;
        let (prices, _, missing) = node.chart_with_missing(query).await;
        assert_eq!((prices.len(), missing), (1500, 0), "{fault:?}");
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_product_that_fails_loses_no_other_asset() {
    let real = RealProviders::new().await;
    let path = "/simple_price?assets=bitcoin,ethereum,solana&currency=eur";
    real.exchange.fail_matching(ProviderId::Coinbase, "BTC-EUR", Fault::Status(500));
    let node = real.node("coinbase,kraken").await;
    let (shown, stale) = node.read(path).await;
    let sources = ["bitcoin", "ethereum", "solana"].map(|asset| shown[asset]["source"].as_str().expect("a source"));
    assert_eq!((sources, stale), (["kraken", "coinbase", "coinbase"], false));
    node.stop().await;
    // Without another provider, the failed asset is named and the others are returned.
    let node = real.node("coinbase").await;
    sqlx::query("TRUNCATE spot_prices").execute(&node.pool).await.expect("an empty table");
    let before = real.exchange.calls(ProviderId::Coinbase);
    let problem = node.get(path).await.assert_problem(503, path);
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(detail.contains("bitcoin") && !detail.contains("solana"), "{detail}");
    assert!(!node.read("/simple_price?assets=ethereum,solana&currency=eur").await.1);
    assert_eq!(real.exchange.calls(ProviderId::Coinbase) - before, 5, "three attempts, and one for each other asset");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coin_without_a_price_is_unknown_alone_and_with_others() {
    let real = RealProviders::new().await;
    for (price, status) in [("null", 404), ("-1", 503)] {
        real.exchange.edit_table(|table| table.set_spot("pepecoin", "usd", price));
        for assets in ["pepecoin", "bitcoin,pepecoin", "pepecoin,bitcoin"] {
            let node = real.empty_node().await;
            let path = format!("/simple_price?assets={assets}&currency=usd");
            let problem = node.get(&path).await.assert_problem(status, &path);
            let detail = problem["detail"].as_str().expect("a detail");
            assert!(detail.contains("pepecoin") && !detail.contains("bitcoin"), "{path}: {detail}");
            node.stop().await;
        }
    }
}

#[tokio::test]
async fn a_chart_names_the_number_of_missing_points() {
    let harness = PriceHarness::new().await;
    let node = harness.node(None).await;
    let providers = [&harness.providers.coingecko, &harness.providers.kraken];
    let insert = "INSERT INTO prices (asset, currency, interval, bucket, source, close)
                  SELECT 'bitcoin', 'usd', 'daily', timestamptz '2026-11-20 00:00Z' - n * interval '24 hours', 'kraken', 7
                  FROM unnest(ARRAY[0, 1, 2, 5, 6]) AS n";
    sqlx::query(insert).execute(&node.pool).await.expect("five days");
    providers.iter().for_each(|provider| provider.set_mode(ProviderMode::Down));
    for (days, there, missing) in [("30", 5, 25), ("7", 5, 2), ("3", 3, 0), ("max", 5, 3645)] {
        let (prices, stale, lacks) = node.chart_with_missing(&format!("asset=bitcoin&currency=usd&days={days}")).await;
        assert_eq!((prices.len(), stale, lacks), (there, false, missing), "{days}");
    }
    // A day later one more point is missing, also in the cached chart while the database is unavailable.
    harness.providers.set(NOON + Duration::from_secs(24 * 3600));
    let (prices, stale, lacks) = node.chart_with_missing("asset=bitcoin&currency=usd&days=7").await;
    assert_eq!((prices.len(), stale, lacks), (4, true, 3));
    node.pool.close().await;
    harness.providers.set(NOON + Duration::from_secs(2 * 24 * 3600));
    let (_, stale, lacks) = node.chart_with_missing("asset=bitcoin&currency=usd&days=7").await;
    assert_eq!((stale, lacks), (true, 4));
    // Buckets that no provider has count as missing between two points, but not before the first.
    let node = harness.node(None).await;
    sqlx::query("TRUNCATE prices").execute(&node.pool).await.expect("an empty table");
    providers.iter().for_each(|provider| provider.set_mode(ProviderMode::Well));
    let bucket = |back: i32| Interval::Daily.bucket(harness.providers.now()) - time::Duration::DAY * back;
    [1, 2, 4]
        .into_iter()
        .for_each(|back| harness.providers.coingecko.put("bitcoin", Interval::Daily, bucket(back), "7"));
    let (prices, stale, lacks) = node.chart_with_missing("asset=bitcoin&currency=usd&days=30").await;
    assert_eq!((prices.len(), stale, lacks), (3, false, 1));
}
