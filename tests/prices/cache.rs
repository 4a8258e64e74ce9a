//! What the caches change: how often the sources are asked, and never for long what is shown.

use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use jobs::prices::{
    cache::KEPT,
    model::{AssetId, Currency, Interval, Series},
};
use time::macros::datetime;

use super::{
    market::{FakeMode, NOON},
    stand::{Node, Stand},
};
use crate::harness::redis::Redis;

const PRICE: &str = "/simple_price?assets=bitcoin&currency=usd";
const CHART: &str = "asset=bitcoin&currency=usd&days=3";

fn series() -> Series {
    Series {
        asset: AssetId::parse("bitcoin").expect("an id"),
        currency: Currency::parse("usd").expect("a currency"),
        interval: Interval::Daily,
    }
}

async fn stocked() -> Stand {
    let stand = Stand::new().await;
    stand.market.coingecko.quote("bitcoin", "1");
    stand.market.coingecko.fill("bitcoin", Interval::Daily, 3);
    stand
}

#[tokio::test]
async fn many_who_want_the_same_in_two_processes_cost_one_call() {
    let Some(redis) = Redis::start().await else { return };
    let stand = stocked().await;
    let (a, b) = join(stand.node(Some(&redis.url)), stand.node(Some(&redis.url))).await;
    let chart = format!("/market_chart?{CHART}");
    for path in [PRICE, &chart] {
        let calls = (0..50).flat_map(|_| [a.get(path), b.get(path)]);
        let answers = join_all(calls).await;
        assert!(answers.iter().all(|answer| answer.status == 200 && answer.text == answers[0].text), "{answers:?}");
    }
    // Other lengths of the same series find what was fetched for the first, however many ask.
    stand.market.set(NOON + Duration::from_secs(24 * 3600));
    stand.market.coingecko.fill("bitcoin", Interval::Daily, 1);
    let days: Vec<_> = (1..=3).map(|days| format!("/market_chart?asset=bitcoin&currency=usd&days={days}")).collect();
    join_all(days.iter().cycle().take(60).flat_map(|path| [a.get(path), b.get(path)])).await;
    assert_eq!((stand.market.coingecko.charts(), stand.market.coingecko.spots().len()), (2, 1));
    assert_eq!((stand.market.kraken.charts(), stand.market.kraken.spots().len()), (0, 0));
}

#[tokio::test]
async fn many_who_want_the_same_in_one_process_cost_one_call() {
    let stand = stocked().await;
    let node = stand.node(None).await;
    let chart = format!("/market_chart?{CHART}");
    for path in [PRICE, &chart] {
        assert!(join_all((0..50).map(|_| node.get(path))).await.iter().all(|answer| answer.status == 200));
    }
    assert_eq!((stand.market.coingecko.charts(), stand.market.coingecko.spots().len()), (1, 1));
}

#[tokio::test]
async fn requests_that_overlap_ask_for_each_asset_once() {
    let redis = Redis::start().await;
    for url in [None, redis.as_ref().map(|redis| redis.url.as_str())] {
        let stand = stocked().await;
        let (a, b) = join(stand.node(url), stand.node(url)).await;
        let assets: Vec<_> = (0..12).map(|number| format!("coin-{number}")).collect();
        assets.iter().for_each(|asset| stand.market.coingecko.quote(asset, "1"));
        let paths: Vec<_> = (1..=40_usize)
            .map(|round| {
                let wanted: Vec<_> = assets.iter().skip(round % 7).step_by(round % 3 + 1).cloned().collect();
                format!("/simple_price?assets={}&currency=usd", wanted.join(","))
            })
            .collect();
        let node = |at: usize| if url.is_some() && at % 2 == 1 { &b } else { &a };
        let answers = join_all(paths.iter().enumerate().map(|(at, path)| node(at).get(path))).await;
        assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
        let mut asked: Vec<_> = stand.market.coingecko.spots().concat();
        asked.sort();
        asked.dedup();
        assert_eq!(asked.len(), stand.market.coingecko.spots().concat().len(), "{:?}", stand.market.coingecko.spots());
    }
}

#[tokio::test]
async fn the_keys_in_redis_are_the_contracts_and_live_a_day() {
    let Some(redis) = Redis::start().await else { return };
    let stand = stocked().await;
    let node = stand.node(Some(&redis.url)).await;
    node.chart(CHART).await;
    let text = redis.command("GET millrace:2:price:bitcoin:usd:daily:3").await.expect("an answer");
    assert!(text.contains("[[1794") && text.contains(".50"), "{text}");
    let text = redis.command("PTTL millrace:2:price:bitcoin:usd:daily:3").await.expect("an answer");
    let millis: Vec<u128> = text.lines().filter_map(|line| line.strip_prefix(':')?.parse().ok()).collect();
    assert!(millis.len() == 1 && (1..=KEPT.as_millis()).contains(&millis[0]), "{text}");
}

#[tokio::test]
async fn what_the_daily_fetch_stores_is_shown_everywhere() {
    let redis = Redis::start().await;
    for url in [None, redis.as_ref().map(|redis| redis.url.as_str())] {
        let stand = stocked().await;
        let (a, b) = join(stand.node(url), stand.node(url)).await;
        let (before, _) = a.chart(CHART).await;
        assert_eq!(b.chart(CHART).await.0, before);
        // A source revises its latest bucket; another process has fetched that.
        let revised = "UPDATE prices SET close = 42 WHERE bucket = (SELECT max(bucket) FROM prices)";
        sqlx::query(revised).execute(&a.pool).await.expect("a revised price");
        a.prices.stored(&series()).await.expect("told");
        let newest = async |node: &Node| node.chart(CHART).await.0.pop().expect("a price").1;
        assert_eq!(newest(&a).await, "42");
        if url.is_none() {
            assert_eq!(newest(&b).await, before[2].1, "nobody could tell it");
            stand.market.pass(Duration::from_secs(61));
        }
        assert_eq!(newest(&b).await, "42");
        assert_eq!(stand.market.coingecko.charts(), 1);
    }
}

#[tokio::test]
async fn a_chart_does_not_outlive_the_next_bucket() {
    let redis = Redis::start().await;
    for url in [None, redis.as_ref().map(|redis| redis.url.as_str())] {
        let stand = stocked().await;
        let node = stand.node(url).await;
        let newest = async || node.chart(CHART).await.0.pop().expect("a price").0;
        let yesterday = (Interval::Daily.bucket(NOON).unix_timestamp() - 86_400) * 1000;
        assert_eq!(newest().await, yesterday);
        stand.market.coingecko.fill("bitcoin", Interval::Daily, 3);
        // Midnight alone makes no new bucket to be had.
        stand.market.set(datetime!(2026-11-22 00:10 UTC));
        assert_eq!((newest().await, stand.market.coingecko.charts()), (yesterday, 1));
        stand.market.set(datetime!(2026-11-22 00:17:01 UTC));
        assert_eq!((newest().await, stand.market.coingecko.charts()), (yesterday + 86_400_000, 2));
        assert_eq!(node.chart(CHART).await.0.len(), 3);
    }
}

#[tokio::test]
async fn a_redis_that_is_emptied_frozen_or_killed_fails_no_request() {
    let Some(mut redis) = Redis::start().await else { return };
    let stand = Stand { patience: Duration::from_millis(100), ..stocked().await };
    let node = stand.node(Some(&redis.url)).await;
    let (before, _) = node.chart(CHART).await;
    redis.flush().await;
    assert_eq!(node.chart(CHART).await, (before.clone(), false));
    assert_eq!(node.shown(PRICE).await.0["bitcoin"]["usd"], "1");
    redis.freeze();
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(node.chart(CHART).await, (before.clone(), false));
        assert!(!node.shown(PRICE).await.1);
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    redis.thaw();
    redis.kill().await;
    stand.market.set(NOON + Duration::from_secs(24 * 3600));
    stand.market.coingecko.fill("bitcoin", Interval::Daily, 1);
    for _ in 0..20 {
        assert_eq!(node.chart(CHART).await.0.len(), 3);
        assert!(!node.shown(PRICE).await.1);
    }
    assert_eq!(stand.market.coingecko.charts(), 2, "PostgreSQL has what Redis has lost");
}

#[tokio::test]
async fn without_the_database_what_is_cached_is_shown_and_else_503() {
    let redis = Redis::start().await;
    for url in [None, redis.as_ref().map(|redis| redis.url.as_str())] {
        let stand = stocked().await;
        let node = stand.node(url).await;
        let (before, _) = node.chart(CHART).await;
        node.shown(PRICE).await;
        node.pool.close().await;
        assert_eq!(node.chart(CHART).await, (before.clone(), false), "fresh");
        assert!(!node.shown(PRICE).await.1);
        for path in
            ["/market_chart?asset=bitcoin&currency=usd&days=2", "/simple_price?assets=bitcoin,solana&currency=usd"]
        {
            let refused = node.get(path).await;
            refused.assert_problem(503, path);
            assert!(!refused.header("retry-after").is_empty());
        }
        stand.market.set(NOON + Duration::from_secs(24 * 3600));
        assert_eq!(node.chart_with_missing(CHART).await, (before, true, 1), "old");
        assert!(node.shown(PRICE).await.1);
    }
}

/// A process that dies in its turn holds the others up for a while, and not for ever.
#[tokio::test]
async fn a_turn_that_is_never_given_back_ends() {
    let Some(redis) = Redis::start().await else { return };
    let stand = stocked().await;
    let node = stand.node(Some(&redis.url)).await;
    for key in ["bitcoin:usd:daily:asked", "bitcoin:usd:spot:0"] {
        assert!(
            redis.command(&format!("SET millrace:2:price-turn:{key} 1")).await.is_some_and(|text| text.contains("OK"))
        );
    }
    let begun = Instant::now();
    let ((shown, stale), (_, price_stale)) = join(node.chart(CHART), node.shown(PRICE)).await;
    assert_eq!((shown.len(), stale, price_stale), (3, false, false));
    assert!(
        begun.elapsed() >= Duration::from_secs(9) && begun.elapsed() < Duration::from_secs(18),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(stand.market.coingecko.charts(), 1);
    // It was not ours to give back.
    assert!(
        redis
            .command("GET millrace:2:price-turn:bitcoin:usd:spot:0")
            .await
            .is_some_and(|text| text.contains("\r\n1\r\n"))
    );
    stand.market.coingecko.is(FakeMode::Down);
    assert!(!node.chart(CHART).await.1, "fresh");
}
