//! What caches change: the number of calls to providers, and for a limited time the result.

use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use jobs::prices::{
    cache::{Cache, RETENTION},
    model::{AssetId, Currency, Interval, Series},
};
use runtime::{
    clients::redis::{self, RedisUrl},
    config::EnvReader,
};
use time::macros::datetime;

use super::{
    in_memory::{NOON, ProviderMode},
    price_harness::{Node, PriceHarness},
};
use crate::harness::{eventually, redis::Redis};

const PRICE: &str = "/simple_price?assets=bitcoin&currency=usd";
const SOON: Duration = Duration::from_secs(30);
const CHART: &str = "asset=bitcoin&currency=usd&days=3";

fn series() -> Series {
    Series {
        asset: AssetId::parse("bitcoin").expect("an id"),
        currency: Currency::parse("usd").expect("a currency"),
        interval: Interval::Daily,
    }
}

async fn filled_harness() -> PriceHarness {
    let harness = PriceHarness::new().await;
    harness.providers.coingecko.quote("bitcoin", "1");
    harness.providers.coingecko.fill("bitcoin", Interval::Daily, 3);
    harness
}

#[tokio::test]
async fn concurrent_reads_in_two_processes_cost_one_call() {
    let Some(redis) = Redis::start().await else { return };
    let harness = filled_harness().await;
    let (a, b) = join(harness.node(Some(&redis.url)), harness.node(Some(&redis.url))).await;
    let chart = format!("/market_chart?{CHART}");
    for path in [PRICE, &chart] {
        let calls = (0..50).flat_map(|_| [a.get(path), b.get(path)]);
        let responses = join_all(calls).await;
        assert!(
            responses.iter().all(|response| response.status == 200 && response.text == responses[0].text),
            "{responses:?}"
        );
    }
    // Other lengths of the same series use what was fetched for the first, however many callers there are.
    harness.providers.set(NOON + Duration::from_secs(24 * 3600));
    harness.providers.coingecko.fill("bitcoin", Interval::Daily, 1);
    let days: Vec<_> = (1..=3).map(|days| format!("/market_chart?asset=bitcoin&currency=usd&days={days}")).collect();
    join_all(days.iter().cycle().take(60).flat_map(|path| [a.get(path), b.get(path)])).await;
    assert_eq!((harness.providers.coingecko.charts(), harness.providers.coingecko.spots().len()), (2, 1));
    assert_eq!((harness.providers.kraken.charts(), harness.providers.kraken.spots().len()), (0, 0));
}

#[tokio::test]
async fn concurrent_reads_in_one_process_cost_one_call() {
    let harness = filled_harness().await;
    let node = harness.node(None).await;
    let chart = format!("/market_chart?{CHART}");
    for path in [PRICE, &chart] {
        assert!(join_all((0..50).map(|_| node.get(path))).await.iter().all(|response| response.status == 200));
    }
    assert_eq!((harness.providers.coingecko.charts(), harness.providers.coingecko.spots().len()), (1, 1));
}

/// A long chart that joins the fetch of a short one also needs the older prices.
#[tokio::test]
async fn concurrent_charts_of_different_lengths_are_complete() {
    let harness = PriceHarness::new().await;
    let node = harness.node(None).await;
    harness.providers.coingecko.fill("bitcoin", Interval::Daily, 40);
    let charts = [3, 10, 40].map(|days| {
        let node = &node;
        async move { (days, node.chart(&format!("asset=bitcoin&currency=usd&days={days}")).await) }
    });
    for (days, (prices, stale)) in join_all(charts).await {
        assert_eq!((prices.len(), stale), (days, false));
    }
    assert!(harness.providers.coingecko.charts() <= 3, "{}", harness.providers.coingecko.charts());
    assert_eq!(harness.providers.kraken.charts(), 0);
}

#[tokio::test]
async fn overlapping_requests_fetch_each_asset_once() {
    let redis = Redis::start().await;
    for url in [None, redis.as_ref().map(|redis| redis.url.as_str())] {
        let harness = filled_harness().await;
        let (a, b) = join(harness.node(url), harness.node(url)).await;
        let assets: Vec<_> = (0..12).map(|number| format!("coin-{number}")).collect();
        assets.iter().for_each(|asset| harness.providers.coingecko.quote(asset, "1"));
        let paths: Vec<_> = (1..=40_usize)
            .map(|round| {
                let wanted: Vec<_> = assets.iter().skip(round % 7).step_by(round % 3 + 1).cloned().collect();
                format!("/simple_price?assets={}&currency=usd", wanted.join(","))
            })
            .collect();
        let node = |at: usize| if url.is_some() && at % 2 == 1 { &b } else { &a };
        let responses = join_all(paths.iter().enumerate().map(|(at, path)| node(at).get(path))).await;
        assert!(responses.iter().all(|response| response.status == 200), "{responses:?}");
        let mut asked: Vec<_> = harness.providers.coingecko.spots().concat();
        asked.sort();
        asked.dedup();
        assert_eq!(
            asked.len(),
            harness.providers.coingecko.spots().concat().len(),
            "{:?}",
            harness.providers.coingecko.spots()
        );
    }
}

#[tokio::test]
async fn keys_in_redis_are_those_of_the_contract_and_expire_after_a_day() {
    let Some(redis) = Redis::start().await else { return };
    let harness = filled_harness().await;
    let node = harness.node(Some(&redis.url)).await;
    node.chart(CHART).await;
    let text = redis.command("GET millrace:2:price:bitcoin:usd:daily:3").await.expect("a response");
    assert!(text.contains("[[1794") && text.contains(".50"), "{text}");
    let text = redis.command("PTTL millrace:2:price:bitcoin:usd:daily:3").await.expect("a response");
    let millis: Vec<u128> = text.lines().filter_map(|line| line.strip_prefix(':')?.parse().ok()).collect();
    assert!(millis.len() == 1 && (1..=RETENTION.as_millis()).contains(&millis[0]), "{text}");
}

#[tokio::test]
async fn prices_of_the_daily_fetch_are_read_by_every_process() {
    let redis = Redis::start().await;
    for url in [None, redis.as_ref().map(|redis| redis.url.as_str())] {
        let harness = filled_harness().await;
        let (a, b) = join(harness.node(url), harness.node(url)).await;
        let (before, _) = a.chart(CHART).await;
        assert_eq!(b.chart(CHART).await.0, before);
        // The provider revises its latest bucket, and another process has fetched that.
        let revised = "UPDATE prices SET close = 42 WHERE bucket = (SELECT max(bucket) FROM prices)";
        sqlx::query(revised).execute(&a.pool).await.expect("a revised price");
        a.prices.invalidate(&series()).await.expect("an invalidated chart");
        let newest = async |node: &Node| node.chart(CHART).await.0.pop().expect("a price").1;
        assert_eq!(newest(&a).await, "42");
        if url.is_none() {
            assert_eq!(newest(&b).await, before[2].1, "its cache cannot be invalidated");
            harness.providers.advance(Duration::from_secs(61));
        }
        assert_eq!(newest(&b).await, "42");
        assert_eq!(harness.providers.coingecko.charts(), 1);
    }
}

#[tokio::test]
async fn a_cached_chart_expires_when_the_next_bucket_is_due() {
    let redis = Redis::start().await;
    for url in [None, redis.as_ref().map(|redis| redis.url.as_str())] {
        let harness = filled_harness().await;
        let node = harness.node(url).await;
        let newest = async || node.chart(CHART).await.0.pop().expect("a price").0;
        let yesterday = (Interval::Daily.bucket(NOON).unix_timestamp() - 86_400) * 1000;
        assert_eq!(newest().await, yesterday);
        harness.providers.coingecko.fill("bitcoin", Interval::Daily, 3);
        // At midnight the next bucket is not due yet.
        harness.providers.set(datetime!(2026-11-22 00:10 UTC));
        assert_eq!((newest().await, harness.providers.coingecko.charts()), (yesterday, 1));
        harness.providers.set(datetime!(2026-11-22 00:17:01 UTC));
        assert_eq!((newest().await, harness.providers.coingecko.charts()), (yesterday + 86_400_000, 2));
        assert_eq!(node.chart(CHART).await.0.len(), 3);
    }
}

/// The time at which a bucket is due is spread by the series.
#[tokio::test]
async fn a_cached_chart_never_lacks_a_bucket_that_is_due() {
    let redis = Redis::start().await;
    for url in [None, redis.as_ref().map(|redis| redis.url.as_str())] {
        let harness = PriceHarness::new().await;
        let node = harness.node(url).await;
        let assets: Vec<_> = (0..5).map(|number| format!("coin-{number}")).collect();
        harness.providers.set(datetime!(2026-11-22 00:12 UTC));
        assets.iter().for_each(|asset| harness.providers.coingecko.fill(asset, Interval::Daily, 4));
        let today = datetime!(2026-11-22 00:00 UTC).unix_timestamp() * 1000;
        for seconds in (0..6 * 60).step_by(10) {
            for asset in &assets {
                let (prices, stale) = node.chart(&format!("asset={asset}&currency=usd&days=3")).await;
                assert_eq!((prices.len(), stale), (3, false), "{asset} {seconds} s after 00:12");
                let has_yesterday = prices[2].0 == today - 86_400_000;
                assert!(has_yesterday || seconds < 180, "{asset} {seconds} s after 00:12");
                assert!(!has_yesterday || seconds >= 60, "{asset} {seconds} s after 00:12");
            }
            harness.providers.advance(Duration::from_secs(10));
        }
        assert_eq!(harness.providers.coingecko.charts(), 2 * assets.len(), "each time once");
    }
}

#[tokio::test]
async fn an_emptied_frozen_or_killed_redis_fails_no_request() {
    let Some(mut redis) = Redis::start().await else { return };
    let harness = PriceHarness { redis_timeout: Duration::from_millis(500), ..filled_harness().await };
    let node = harness.node(Some(&redis.url)).await;
    let (before, _) = node.chart(CHART).await;
    redis.flush().await;
    assert_eq!(node.chart(CHART).await, (before.clone(), false));
    assert_eq!(node.read(PRICE).await.0["bitcoin"]["usd"], "1");
    redis.freeze();
    let started_at = Instant::now();
    for _ in 0..20 {
        assert_eq!(node.chart(CHART).await, (before.clone(), false));
        assert!(!node.read(PRICE).await.1);
    }
    // Each of the 40 reads asks Redis at least four times. If it waited each time, this would take 80 s.
    assert!(started_at.elapsed() < Duration::from_secs(30), "{:?}", started_at.elapsed());
    redis.thaw();
    redis.kill().await;
    harness.providers.set(NOON + Duration::from_secs(24 * 3600));
    harness.providers.coingecko.fill("bitcoin", Interval::Daily, 1);
    for _ in 0..20 {
        assert_eq!(node.chart(CHART).await.0.len(), 3);
        assert!(!node.read(PRICE).await.1);
    }
    assert_eq!(harness.providers.coingecko.charts(), 2, "PostgreSQL has what Redis has lost");
}

/// Which buckets no provider has, and which assets none knows, is only in the cache.
#[tokio::test]
async fn without_redis_providers_are_not_called_by_every_read() {
    let Some(mut redis) = Redis::start().await else { return };
    let harness = PriceHarness { redis_timeout: Duration::from_millis(500), ..filled_harness().await };
    let node = harness.node(Some(&redis.url)).await;
    redis.kill().await;
    let unknown = ["/market_chart?asset=dogelon&currency=usd&days=3", "/simple_price?assets=dogelon&currency=usd"];
    for _ in 0..10 {
        // The asset is three days old.
        let (prices, stale) = node.chart("asset=bitcoin&currency=usd&days=30").await;
        assert_eq!((prices.len(), stale), (3, false));
        for path in unknown {
            node.get(path).await.assert_problem(404, path);
        }
    }
    let calls = || {
        [&harness.providers.coingecko, &harness.providers.kraken]
            .map(|provider| (provider.charts(), provider.spots().len()))
    };
    assert_eq!(calls(), [(2, 1), (2, 1)], "once for each asset");
    // The fallback also has that a price is stale, and for how long no provider is called.
    harness.providers.coingecko.set_mode(ProviderMode::Down);
    for _ in 0..10 {
        assert!(node.read(PRICE).await.1);
    }
    assert_eq!(calls(), [(2, 2), (2, 2)]);
    harness.providers.coingecko.set_mode(ProviderMode::Well);
    harness.providers.advance(Duration::from_secs(61));
    assert_eq!(node.read(PRICE).await, (node.read(PRICE).await.0, false));
    assert_eq!(calls(), [(2, 3), (2, 2)], "a fresh price is read from PostgreSQL");
}

/// A gap that was found before Redis failed is not requested again.
#[tokio::test]
async fn a_process_remembers_what_no_provider_has_when_redis_fails() {
    let Some(mut redis) = Redis::start().await else { return };
    let harness = PriceHarness { redis_timeout: Duration::from_millis(500), ..filled_harness().await };
    let node = harness.node(Some(&redis.url)).await;
    let query = "asset=bitcoin&currency=usd&days=30";
    let before = node.chart(query).await;
    redis.kill().await;
    for _ in 0..10 {
        assert_eq!(node.chart(query).await, before);
    }
    assert_eq!((harness.providers.coingecko.charts(), harness.providers.kraken.charts()), (1, 1));
}

#[tokio::test]
async fn without_the_database_cached_prices_are_returned_and_others_are_503() {
    let redis = Redis::start().await;
    for url in [None, redis.as_ref().map(|redis| redis.url.as_str())] {
        let harness = filled_harness().await;
        let node = harness.node(url).await;
        let (before, _) = node.chart(CHART).await;
        node.read(PRICE).await;
        node.pool.close().await;
        assert_eq!(node.chart(CHART).await, (before.clone(), false), "fresh");
        assert!(!node.read(PRICE).await.1);
        for path in
            ["/market_chart?asset=bitcoin&currency=usd&days=2", "/simple_price?assets=bitcoin,solana&currency=usd"]
        {
            let refused = node.get(path).await;
            refused.assert_problem(503, path);
            assert!(!refused.header("retry-after").is_empty());
        }
        harness.providers.set(NOON + Duration::from_secs(24 * 3600));
        assert_eq!(node.chart_with_missing(CHART).await, (before, true, 1), "old");
        assert!(node.read(PRICE).await.1);
    }
}

/// Redis takes a lock after the process has given up waiting for it.
#[tokio::test]
async fn a_lock_that_redis_takes_too_late_is_released() {
    let Some(server) = Redis::start().await else { return };
    let [ours, theirs] = [500, 20_000].map(|timeout| {
        let url = RedisUrl::read(&mut EnvReader::from_pairs(&[("REDIS_URL", &server.url)])).expect("a URL");
        Cache::start(Some(redis::Redis::with_timeout(&url, Duration::from_millis(timeout)).expect("a client")))
    });
    // Longer than this test waits, so that no lock expires.
    let (keys, ttl) = (["bitcoin:usd:spot:0".to_owned()], Duration::from_secs(600));
    eventually("the connection is open", SOON, async || !ours.get(&keys).await.is_fallback).await;
    server.freeze();
    ours.lock(&keys, 1, ttl).await.expect_err("no response in time");
    // Refused by the circuit breaker.
    ours.unlock(&keys, 1, ttl).await;
    server.thaw();
    eventually("another process takes the lock", SOON, async || {
        theirs.lock(&keys, 2, ttl).await.is_ok_and(|locked| locked == [true])
    })
    .await;
}

/// A process that dies while it holds a lock delays others only until the lock expires.
#[tokio::test]
async fn an_abandoned_lock_expires() {
    let Some(redis) = Redis::start().await else { return };
    let harness = filled_harness().await;
    let node = harness.node(Some(&redis.url)).await;
    for key in ["bitcoin:usd:daily:asked", "bitcoin:usd:spot:0"] {
        assert!(
            redis.command(&format!("SET millrace:2:price-turn:{key} 1")).await.is_some_and(|text| text.contains("OK"))
        );
    }
    let started_at = Instant::now();
    let ((shown, stale), (_, price_stale)) = join(node.chart(CHART), node.read(PRICE)).await;
    assert_eq!((shown.len(), stale, price_stale), (3, false, false));
    assert!(
        started_at.elapsed() >= Duration::from_secs(9) && started_at.elapsed() < Duration::from_secs(18),
        "{:?}",
        started_at.elapsed()
    );
    assert_eq!(harness.providers.coingecko.charts(), 1);
    // The lock of the other process must not be released.
    assert!(
        redis
            .command("GET millrace:2:price-turn:bitcoin:usd:spot:0")
            .await
            .is_some_and(|text| text.contains("\r\n1\r\n"))
    );
    harness.providers.coingecko.set_mode(ProviderMode::Down);
    assert!(!node.chart(CHART).await.1, "fresh");
}
