//! Reads of prices: exactly what the providers have finished, old prices with a warning, or an error.

use std::time::{Duration, Instant};

use jobs::{
    prices::{
        ages::Ages,
        model::{Interval, ProviderId},
    },
    users::Role,
};
use serde_json::json;

use super::{
    in_memory::{NOON, ProviderMode},
    price_harness::{ADMIN_KEY, KEY, PriceHarness, STALE, token},
};
use crate::harness::{eventually, http::send};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn present_prices_come_in_the_order_of_the_request_from_any_provider() {
    let harness = PriceHarness::new().await;
    let node = harness.node(None).await;
    harness.providers.coingecko.quote("bitcoin", "103663.12");
    harness.providers.coingecko.quote("ethereum", "0.00000000000000000123");
    harness.providers.kraken.quote("bitcoin", "1");
    harness.providers.kraken.quote("solana", "5000000000000000000000.10");
    let response = node.get("/simple_price?assets=solana,%20bitcoin%20,ethereum,solana&currency=USD").await;
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.header("warning"), "");
    let places: Vec<_> =
        ["solana", "bitcoin", "ethereum"].map(|asset| response.text.find(&format!("\"{asset}\":"))).into();
    assert!(places.is_sorted() && places[0] == Some(1), "{}", response.text);
    let shown = response.json();
    assert_eq!(shown.as_object().map(|assets| assets.len()), Some(3));
    for (asset, price, source) in [
        ("solana", "5000000000000000000000.10", "kraken"),
        ("bitcoin", "103663.12", "coingecko"),
        ("ethereum", "0.00000000000000000123", "coingecko"),
    ] {
        assert_eq!(shown[asset]["usd"], price);
        assert_eq!(shown[asset]["source"], source);
        let as_of = shown[asset]["as_of"].as_str().expect("a time");
        assert!(as_of.ends_with('Z') && as_of.starts_with(&harness.providers.now().date().to_string()), "{as_of}");
    }
    assert_eq!(harness.providers.coingecko.spots(), [["solana", "bitcoin", "ethereum"]], "one call");
    assert_eq!(harness.providers.kraken.spots(), [["solana"]], "for the remaining asset");
    harness.providers.advance(Duration::from_secs(50));
    assert_eq!(node.get("/simple_price?assets=bitcoin&currency=usd").await.json()["bitcoin"], shown["bitcoin"]);
    harness.providers.coingecko.quote("bitcoin", "7");
    harness.providers.advance(Duration::from_secs(11));
    assert_eq!(node.read("/simple_price?assets=bitcoin&currency=usd").await.0["bitcoin"]["usd"], "7");
}

#[tokio::test]
async fn charts_contain_exactly_the_finished_buckets() {
    let harness = PriceHarness::new().await;
    let node = harness.node(None).await;
    harness.providers.coingecko.fill("bitcoin", Interval::Daily, 400);
    harness.providers.coingecko.fill("bitcoin", Interval::Hourly, 100);
    for (days, count) in [("1", 1), ("30", 30), ("365", 365), ("max", 400)] {
        let path = format!("/market_chart?asset=bitcoin&currency=usd&days={days}");
        let (shown, stale) = node.read(&path).await;
        assert!(!stale);
        let number: serde_json::Value = days.parse::<u16>().map_or(json!("max"), |days| json!(days));
        assert_eq!((&shown["days"], &shown["interval"]), (&number, &json!("daily")));
        assert_eq!((&shown["asset"], &shown["currency"]), (&json!("bitcoin"), &json!("usd")));
        let from = Interval::Daily.bucket(NOON) - Duration::from_secs(86_400) * count;
        let (prices, _) = node.chart(&path["/market_chart?".len()..]).await;
        assert_eq!(prices, harness.providers.coingecko.finished("bitcoin", Interval::Daily, from), "{days}");
        assert_eq!(prices.len(), usize::try_from(count).unwrap());
    }
    let (hours, stale) = node.chart("asset=bitcoin&currency=usd&days=2&interval=hourly").await;
    let from = NOON - Duration::from_secs(49 * 3600);
    assert_eq!((hours.len(), stale), (48, false));
    let finished = harness.providers.coingecko.finished("bitcoin", Interval::Hourly, from);
    assert_eq!((finished.len(), &hours[..]), (49, &finished[..48]), "the hour that ended this moment is not due");
}

/// Charts of two providers with random gaps: each bucket has the price of the preferred provider that has it, once, in
/// order.
#[tokio::test]
async fn charts_merge_the_buckets_of_all_providers() {
    let harness = PriceHarness::new().await;
    let mut random = 7_u64;
    for round in 0..12 {
        let node = harness.node(None).await;
        let asset = format!("coin-{round}");
        let mut expected = Vec::new();
        for back in 0..40_i32 {
            let bucket = Interval::Daily.bucket(NOON) - time::Duration::DAY * back;
            let mut prices = Vec::new();
            for provider in [&harness.providers.coingecko, &harness.providers.kraken] {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                if random >> 62 != 0 {
                    let price = format!("{}.{:03}", (random >> 20) % 100_000 + 1, (random >> 40) % 1000);
                    provider.put(&asset, Interval::Daily, bucket, &price);
                    prices.push(price);
                }
            }
            if back > 0
                && let Some(price) = prices.into_iter().next()
            {
                expected.push((bucket.unix_timestamp() * 1000, price));
            }
        }
        expected.reverse();
        // The narrow chart first, then the wide one, and the other way round: the order of requests must not lose a
        // bucket.
        let days = if round % 2 == 0 { ["5", "max"] } else { ["max", "5"] };
        for days in days {
            let (prices, stale, missing) =
                node.chart_with_missing(&format!("asset={asset}&currency=usd&days={days}")).await;
            assert!(!stale);
            let from = (Interval::Daily.bucket(NOON).unix_timestamp() - 5 * 86_400) * 1000;
            let wanted: Vec<_> = expected.iter().filter(|(at, _)| days == "max" || *at >= from).cloned().collect();
            // A bucket of the preferred provider is not requested from the other one; a bucket of the other one only
            // is.
            assert_eq!(
                prices.iter().map(|(at, _)| at).collect::<Vec<_>>(),
                wanted.iter().map(|(at, _)| at).collect::<Vec<_>>()
            );
            assert_eq!(prices, wanted, "{asset} {days}");
            // Days without a price after the oldest stored day are missing.
            let oldest = if round % 2 == 0 { wanted[0].0 } else { expected[0].0 };
            let first = if days == "max" { oldest } else { from.max(oldest) };
            let today = Interval::Daily.bucket(NOON).unix_timestamp() * 1000;
            assert_eq!(missing as i64, (today - first) / 86_400_000 - prices.len() as i64, "{asset} {days}");
        }
        node.stop().await;
    }
}

#[tokio::test]
async fn buckets_that_no_provider_has_are_requested_once() {
    let harness = PriceHarness::new().await;
    let node = harness.node(None).await;
    harness.providers.coingecko.fill("young", Interval::Daily, 40);
    harness.providers.kraken.fill("young", Interval::Daily, 10);
    for query in ["days=max", "days=365", "days=100", "days=max", "days=5"] {
        let (prices, stale) = node.chart(&format!("asset=young&currency=usd&{query}")).await;
        assert_eq!((prices.len(), stale), (if query == "days=5" { 5 } else { 40 }, false), "{query}");
    }
    harness.providers.advance(Duration::from_secs(3600));
    assert_eq!(node.chart("asset=young&currency=usd&days=max").await.0.len(), 40);
    assert_eq!((harness.providers.coingecko.charts(), harness.providers.kraken.charts()), (1, 1));
    // Only the new day is requested; the rest is requested once a day.
    harness.providers.set(NOON + Duration::from_secs(12 * 3600 + 20 * 60));
    harness.providers.coingecko.fill("young", Interval::Daily, 1);
    assert_eq!(node.chart("asset=young&currency=usd&days=max").await.0.len(), 41);
    assert_eq!((harness.providers.coingecko.charts(), harness.providers.kraken.charts()), (2, 1));
}

#[tokio::test]
async fn an_unknown_asset_is_404_and_cached_for_a_minute() {
    let harness = PriceHarness::new().await;
    let node = harness.node(None).await;
    harness.providers.coingecko.quote("bitcoin", "1");
    harness.providers.coingecko.fill("bitcoin", Interval::Daily, 3);
    for (path, named) in [
        ("/simple_price?assets=bitcoin,dogelon,nothing&currency=usd", "dogelon"),
        ("/simple_price?assets=bitcoin&currency=eur", "bitcoin in eur"),
        ("/market_chart?asset=dogelon&currency=usd&days=3", "dogelon"),
    ] {
        for _ in 0..3 {
            let problem = node.get(path).await.assert_problem(404, path);
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(named)), "{problem}");
        }
    }
    let asked = (harness.providers.kraken.spots().len(), harness.providers.kraken.charts());
    assert_eq!(asked, (2, 1), "each once");
    harness.providers.coingecko.quote("dogelon", "0.5");
    harness.providers.coingecko.quote("nothing", "0.1");
    harness.providers.coingecko.fill("dogelon", Interval::Daily, 3);
    harness.providers.advance(Duration::from_secs(61));
    assert_eq!(node.read("/simple_price?assets=bitcoin,dogelon,nothing&currency=usd").await.0["dogelon"]["usd"], "0.5");
    assert_eq!(node.chart("asset=dogelon&currency=usd&days=3").await.0.len(), 3);
}

#[tokio::test]
async fn with_nothing_stored_an_outage_is_503_until_it_ends() {
    let harness = PriceHarness::new().await;
    let node = harness.node(None).await;
    harness.providers.coingecko.set_mode(ProviderMode::Down);
    harness.providers.kraken.set_mode(ProviderMode::Banned(40));
    let paths = ["/simple_price?assets=bitcoin&currency=usd", "/market_chart?asset=bitcoin&currency=usd&days=3"];
    for path in paths {
        for _ in 0..3 {
            let refused = node.get(path).await;
            refused.assert_problem(503, path);
            let retry_after_s: u64 = refused.header("retry-after").parse().expect("seconds");
            assert!((1..=15).contains(&retry_after_s), "{refused:?}");
        }
    }
    assert_eq!(
        (harness.providers.coingecko.charts(), harness.providers.coingecko.spots().len()),
        (1, 1),
        "not again at once"
    );
    harness.providers.coingecko.set_mode(ProviderMode::Well);
    harness.providers.coingecko.quote("bitcoin", "1");
    harness.providers.coingecko.fill("bitcoin", Interval::Daily, 3);
    harness.providers.advance(Duration::from_secs(16));
    for path in paths {
        assert!(!node.read(path).await.1);
    }
}

#[tokio::test]
async fn during_an_outage_old_prices_have_a_warning() {
    let harness = PriceHarness::new().await;
    let node = harness.node(None).await;
    let providers = [&harness.providers.coingecko, &harness.providers.kraken];
    harness.providers.coingecko.quote("bitcoin", "1");
    harness.providers.coingecko.fill("bitcoin", Interval::Daily, 3);
    let (price, chart) = ("/simple_price?assets=bitcoin&currency=usd", "asset=bitcoin&currency=usd&days=3");
    assert_eq!(node.read(price).await.0["bitcoin"]["usd"], "1");
    let (before, _) = node.chart(chart).await;
    providers.iter().for_each(|provider| provider.set_mode(ProviderMode::Down));
    harness.providers.set(NOON + Duration::from_secs(24 * 3600));
    for _ in 0..3 {
        let (shown, stale) = node.read(price).await;
        assert_eq!((&shown["bitcoin"]["usd"], stale), (&json!("1"), true));
        let (shown, stale, missing) = node.chart_with_missing(chart).await;
        assert_eq!((&shown[..], stale, missing), (&before[1..], true, 1));
    }
    assert_eq!(
        (harness.providers.kraken.charts(), harness.providers.kraken.spots().len()),
        (1, 1),
        "called once per pause"
    );
    // A node with an empty cache uses the stored prices. The close of a day replaces a present price.
    let other = harness.node(None).await;
    harness.providers.coingecko.fill("solana", Interval::Daily, 3);
    assert!(other.read(price).await.1 && other.chart_with_missing(chart).await.1);
    providers.iter().for_each(|provider| provider.set_mode(ProviderMode::Well));
    harness.providers.coingecko.quote("bitcoin", "2");
    harness.providers.coingecko.fill("bitcoin", Interval::Daily, 3);
    harness.providers.advance(Duration::from_secs(61));
    let (shown, stale) = node.read(price).await;
    assert_eq!((&shown["bitcoin"]["usd"], stale), (&json!("2"), false));
    let (shown, stale) = node.chart(chart).await;
    assert_eq!((shown.len(), stale), (3, false));
    assert_ne!(shown, before);
}

#[tokio::test]
async fn an_old_price_is_returned_with_its_time_when_no_provider_has_a_current_one() {
    let harness = PriceHarness::new().await;
    let node = harness.node(None).await;
    harness.providers.coingecko.quote("bitcoin", "7");
    harness.providers.coingecko.lag(Duration::from_secs(2 * 86_400));
    let (shown, stale) = node.read("/simple_price?assets=bitcoin&currency=usd").await;
    assert_eq!((&shown["bitcoin"]["usd"], stale), (&"7".into(), true));
    let as_of = shown["bitcoin"]["as_of"].as_str().expect("a time");
    let then = harness.providers.now() - Duration::from_secs(2 * 86_400);
    assert!(as_of.starts_with(&then.date().to_string()), "{as_of}");
    // It is also stale when read from the database. A provider with a current price is preferred.
    harness.providers.advance(Duration::from_secs(61));
    assert!(node.read("/simple_price?assets=bitcoin&currency=usd").await.1);
    harness.providers.kraken.quote("bitcoin", "8");
    harness.providers.advance(Duration::from_secs(61));
    let (shown, stale) = node.read("/simple_price?assets=bitcoin&currency=usd").await;
    assert_eq!((&shown["bitcoin"]["usd"], &shown["bitcoin"]["source"], stale), (&"8".into(), &"kraken".into(), false));
}

#[tokio::test]
async fn the_last_close_replaces_a_present_price_with_a_warning() {
    let harness = PriceHarness::new().await;
    let node = harness.node(None).await;
    harness.providers.kraken.fill("bitcoin", Interval::Daily, 3);
    node.chart("asset=bitcoin&currency=usd&days=3").await;
    harness.providers.coingecko.set_mode(ProviderMode::Down);
    let (shown, stale) = node.read("/simple_price?assets=bitcoin&currency=usd").await;
    let yesterday = Interval::Daily.bucket(NOON).unix_timestamp() / 86_400 - 1;
    assert_eq!(shown["bitcoin"]["usd"], format!("{yesterday}.50"));
    assert_eq!((shown["bitcoin"]["as_of"].as_str(), stale), (Some("2026-11-21T00:00:00.000000Z"), true));
    assert_eq!(shown["bitcoin"]["source"], ProviderId::Kraken.as_str());
}

#[tokio::test]
async fn a_slow_provider_is_waited_for_briefly_when_prices_are_stored() {
    let harness = PriceHarness::new().await;
    let max_wait = Duration::from_millis(200);
    let node = harness.node_with(None, Ages { max_wait, ..Ages::DEFAULT }).await;
    let coingecko = &harness.providers.coingecko;
    coingecko.quote("bitcoin", "1");
    coingecko.fill("bitcoin", Interval::Daily, 3);
    let (price, chart) = ("/simple_price?assets=bitcoin&currency=usd", "asset=bitcoin&currency=usd&days=3");
    assert!(!node.read(price).await.1 && !node.chart(chart).await.1);
    coingecko.set_mode(ProviderMode::Slow);
    harness.providers.set(NOON + Duration::from_secs(24 * 3600));
    coingecko.quote("bitcoin", "2");
    coingecko.fill("bitcoin", Interval::Daily, 3);
    let started_at = Instant::now();
    assert!(node.read(price).await.1 && node.chart_with_missing(chart).await.1);
    assert!(started_at.elapsed() >= 2 * max_wait && started_at.elapsed() < SOON, "{:?}", started_at.elapsed());
    // No reader waited for the late response, but it is stored. Until then the clock must not allow another call.
    coingecko.gate.add_permits(2);
    let rows = "SELECT (SELECT count(*) FROM spot_prices WHERE price = 2) + (SELECT count(*) FROM prices)";
    let count = async || sqlx::query_scalar::<_, i64>(rows).fetch_one(&node.pool).await.expect("a number");
    eventually("the price and the fourth day are stored", SOON, async || count().await == 5).await;
    eventually("the late prices are returned", SOON, async || {
        harness.providers.advance(Duration::from_secs(1));
        let (shown, stale) = node.read(price).await;
        shown["bitcoin"]["usd"] == "2" && !stale && !node.chart_with_missing(chart).await.1
    })
    .await;
    assert_eq!((coingecko.charts(), coingecko.spots().len()), (2, 2));
}

#[tokio::test]
async fn all_wrong_parameters_are_named_at_once() {
    let harness = PriceHarness::new().await;
    let node = harness.node(None).await;
    let rule = "Value error, an asset's id has 1 to 64 letters, digits, hyphens, underscores and dots, such as bitcoin";
    let whole = "Input should be a valid integer or 'max', unable to parse string as an integer";
    let missing = |name| ("missing", name, "Field required");
    let many = (0..51).map(|number| format!("a{number}")).collect::<Vec<_>>().join(",");
    let many = format!("/simple_price?currency=usd&assets={many}");
    for (path, failures) in [
        ("/simple_price", vec![missing("assets"), missing("currency")]),
        (
            "/simple_price?assets=&currency=usd",
            vec![("string_too_short", "assets", "String should have at least 1 character")],
        ),
        (
            "/simple_price?assets=Bit%20coin&currency=",
            vec![("value_error", "assets", rule), ("enum", "currency", "Input should be 'usd' or 'eur'")],
        ),
        (
            "/simple_price?assets=bitcoin,&currency=gbp",
            vec![("value_error", "assets", rule), ("enum", "currency", "Input should be 'usd' or 'eur'")],
        ),
        ("/simple_price?assets=bitcoin&currency=usdt", vec![("enum", "currency", "Input should be 'usd' or 'eur'")]),
        (&many, vec![("too_long", "assets", "List should have at most 50 items after validation, not 51")]),
        ("/market_chart", vec![missing("asset"), missing("currency"), missing("days")]),
        (
            "/market_chart?asset=%00&currency=x&days=0&interval=weekly",
            vec![
                ("value_error", "asset", "Value error, text must not contain NUL"),
                ("enum", "currency", "Input should be 'usd' or 'eur'"),
                ("greater_than_equal", "days", "Input should be greater than or equal to 1"),
                ("enum", "interval", "Input should be 'daily' or 'hourly'"),
            ],
        ),
        (
            "/market_chart?asset=bitcoin&currency=usd&days=3651",
            vec![("less_than_equal", "days", "Input should be less than or equal to 3650")],
        ),
        ("/market_chart?asset=bitcoin&currency=usd&days=1.5", vec![("int_parsing", "days", whole)]),
        (
            "/market_chart?asset=bitcoin&currency=usd&days=&interval=",
            vec![("int_parsing", "days", whole), ("enum", "interval", "Input should be 'daily' or 'hourly'")],
        ),
    ] {
        let response = node.get(path).await;
        response.assert_problem(422, path);
        let expected: Vec<_> = failures
            .into_iter()
            .map(|(kind, name, msg)| (kind.to_owned(), format!("[\"query\",\"{name}\"]"), msg.to_owned()))
            .collect();
        assert_eq!(response.validation_errors(), expected, "{path}");
    }
    assert_eq!(
        (harness.providers.coingecko.charts(), harness.providers.coingecko.spots().len()),
        (0, 0),
        "no provider was called"
    );
}

#[tokio::test]
async fn a_key_or_a_token_gives_access() {
    let harness = PriceHarness::new().await;
    let node = harness.node(None).await;
    harness.providers.coingecko.quote("bitcoin", "1");
    harness.providers.coingecko.fill("bitcoin", Interval::Daily, 3);
    for path in ["/simple_price?assets=bitcoin&currency=usd", "/market_chart?asset=bitcoin&currency=usd&days=3"] {
        let call = || node.client.get(format!("{}{path}", node.url));
        for (request, status) in [
            (call().header("x-api-key", KEY), 200),
            (call().header("x-api-key", ADMIN_KEY), 200),
            (call().bearer_auth(token(Role::User)), 200),
            (call(), 403),
            (call().header("x-api-key", "wrong"), 403),
            (call().header("api_key", KEY), 403),
            (call().bearer_auth("x"), 401),
            (call().bearer_auth("x").header("x-api-key", KEY), 401),
        ] {
            let response = send(request).await;
            assert_eq!(response.status, status, "{response:?}");
            assert!(!response.text.contains(KEY) && response.header("warning") != STALE);
        }
    }
    // A caller without access learns nothing about its parameters.
    send(node.client.get(format!("{}/market_chart", node.url))).await.assert_problem(403, "no key, no parameters");
}
