//! What readers are shown: exactly what the sources have finished, what is old with a warning, and else an honest error.

use std::time::{Duration, Instant};

use jobs::{
    prices::{
        ages::Ages,
        model::{Interval, Source},
    },
    users::Role,
};
use serde_json::json;

use super::{
    market::{FakeMode, NOON},
    stand::{ADMIN_KEY, KEY, STALE, Stand, token},
};
use crate::harness::{eventually, http::send};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn present_prices_come_in_the_order_of_the_request_and_from_whoever_has_them() {
    let stand = Stand::new().await;
    let node = stand.node(None).await;
    stand.market.coingecko.quote("bitcoin", "103663.12");
    stand.market.coingecko.quote("ethereum", "0.00000000000000000123");
    stand.market.kraken.quote("bitcoin", "1");
    stand.market.kraken.quote("solana", "5000000000000000000000.10");
    let answer = node.get("/simple_price?assets=solana,%20bitcoin%20,ethereum,solana&currency=USD").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("warning"), "");
    let places: Vec<_> =
        ["solana", "bitcoin", "ethereum"].map(|asset| answer.text.find(&format!("\"{asset}\":"))).into();
    assert!(places.is_sorted() && places[0] == Some(1), "{}", answer.text);
    let shown = answer.json();
    assert_eq!(shown.as_object().map(|assets| assets.len()), Some(3));
    for (asset, price, source) in [
        ("solana", "5000000000000000000000.10", "kraken"),
        ("bitcoin", "103663.12", "coingecko"),
        ("ethereum", "0.00000000000000000123", "coingecko"),
    ] {
        assert_eq!(shown[asset]["usd"], price);
        assert_eq!(shown[asset]["source"], source);
        let as_of = shown[asset]["as_of"].as_str().expect("a time");
        assert!(as_of.ends_with('Z') && as_of.starts_with(&stand.market.now().date().to_string()), "{as_of}");
    }
    assert_eq!(stand.market.coingecko.spots(), [["solana", "bitcoin", "ethereum"]], "one call");
    assert_eq!(stand.market.kraken.spots(), [["solana"]], "for what is left");
    stand.market.pass(Duration::from_secs(50));
    assert_eq!(node.get("/simple_price?assets=bitcoin&currency=usd").await.json()["bitcoin"], shown["bitcoin"]);
    stand.market.coingecko.quote("bitcoin", "7");
    stand.market.pass(Duration::from_secs(11));
    assert_eq!(node.shown("/simple_price?assets=bitcoin&currency=usd").await.0["bitcoin"]["usd"], "7");
}

#[tokio::test]
async fn charts_show_what_the_sources_have_finished_and_nothing_else() {
    let stand = Stand::new().await;
    let node = stand.node(None).await;
    stand.market.coingecko.fill("bitcoin", Interval::Daily, 400);
    stand.market.coingecko.fill("bitcoin", Interval::Hourly, 100);
    for (days, count) in [("1", 1), ("30", 30), ("365", 365), ("max", 400)] {
        let path = format!("/market_chart?asset=bitcoin&currency=usd&days={days}");
        let (shown, stale) = node.shown(&path).await;
        assert!(!stale);
        let number: serde_json::Value = days.parse::<u16>().map_or(json!("max"), |days| json!(days));
        assert_eq!((&shown["days"], &shown["interval"]), (&number, &json!("daily")));
        assert_eq!((&shown["asset"], &shown["currency"]), (&json!("bitcoin"), &json!("usd")));
        let from = Interval::Daily.bucket(NOON) - Duration::from_secs(86_400) * count;
        let (prices, _) = node.chart(&path["/market_chart?".len()..]).await;
        assert_eq!(prices, stand.market.coingecko.finished("bitcoin", Interval::Daily, from), "{days}");
        assert_eq!(prices.len(), usize::try_from(count).unwrap());
    }
    let (hours, stale) = node.chart("asset=bitcoin&currency=usd&days=2&interval=hourly").await;
    let from = NOON - Duration::from_secs(49 * 3600);
    assert_eq!((hours.len(), stale), (48, false));
    let finished = stand.market.coingecko.finished("bitcoin", Interval::Hourly, from);
    assert_eq!((finished.len(), &hours[..]), (49, &finished[..48]), "the hour that ended this moment is not due");
}

/// Whatever is missing where: of each bucket the preferred source that has it, once, in the order of time.
#[tokio::test]
async fn charts_are_made_of_all_that_some_source_has() {
    let stand = Stand::new().await;
    let mut random = 7_u64;
    for round in 0..12 {
        let node = stand.node(None).await;
        let asset = format!("coin-{round}");
        let mut expected = Vec::new();
        for back in 0..40_i32 {
            let bucket = Interval::Daily.bucket(NOON) - time::Duration::DAY * back;
            let mut prices = Vec::new();
            for stall in [&stand.market.coingecko, &stand.market.kraken] {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                if random >> 62 != 0 {
                    let price = format!("{}.{:03}", (random >> 20) % 100_000 + 1, (random >> 40) % 1000);
                    stall.put(&asset, Interval::Daily, bucket, &price);
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
        // In a narrow chart first, then in a wide one, and the other way round: no order of asking loses a bucket.
        let days = if round % 2 == 0 { ["5", "max"] } else { ["max", "5"] };
        for days in days {
            let (prices, stale, missing) =
                node.chart_with_missing(&format!("asset={asset}&currency=usd&days={days}")).await;
            assert!(!stale);
            let from = (Interval::Daily.bucket(NOON).unix_timestamp() - 5 * 86_400) * 1000;
            let wanted: Vec<_> = expected.iter().filter(|(at, _)| days == "max" || *at >= from).cloned().collect();
            // What the preferred one has is asked of nobody else; what only the other has is.
            assert_eq!(
                prices.iter().map(|(at, _)| at).collect::<Vec<_>>(),
                wanted.iter().map(|(at, _)| at).collect::<Vec<_>>()
            );
            assert_eq!(prices, wanted, "{asset} {days}");
            // Days without a price after the oldest that is stored are holes.
            let oldest = if round % 2 == 0 { wanted[0].0 } else { expected[0].0 };
            let first = if days == "max" { oldest } else { from.max(oldest) };
            let today = Interval::Daily.bucket(NOON).unix_timestamp() * 1000;
            assert_eq!(missing as i64, (today - first) / 86_400_000 - prices.len() as i64, "{asset} {days}");
        }
        node.stop().await;
    }
}

#[tokio::test]
async fn what_nobody_has_is_not_asked_for_again_and_again() {
    let stand = Stand::new().await;
    let node = stand.node(None).await;
    stand.market.coingecko.fill("young", Interval::Daily, 40);
    stand.market.kraken.fill("young", Interval::Daily, 10);
    for query in ["days=max", "days=365", "days=100", "days=max", "days=5"] {
        let (prices, stale) = node.chart(&format!("asset=young&currency=usd&{query}")).await;
        assert_eq!((prices.len(), stale), (if query == "days=5" { 5 } else { 40 }, false), "{query}");
    }
    stand.market.pass(Duration::from_secs(3600));
    assert_eq!(node.chart("asset=young&currency=usd&days=max").await.0.len(), 40);
    assert_eq!((stand.market.coingecko.charts(), stand.market.kraken.charts()), (1, 1));
    // A new day is asked for alone; the rest once a day.
    stand.market.set(NOON + Duration::from_secs(12 * 3600 + 20 * 60));
    stand.market.coingecko.fill("young", Interval::Daily, 1);
    assert_eq!(node.chart("asset=young&currency=usd&days=max").await.0.len(), 41);
    assert_eq!((stand.market.coingecko.charts(), stand.market.kraken.charts()), (2, 1));
}

#[tokio::test]
async fn what_does_not_exist_is_404_and_remembered_for_a_minute() {
    let stand = Stand::new().await;
    let node = stand.node(None).await;
    stand.market.coingecko.quote("bitcoin", "1");
    stand.market.coingecko.fill("bitcoin", Interval::Daily, 3);
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
    let asked = (stand.market.kraken.spots().len(), stand.market.kraken.charts());
    assert_eq!(asked, (2, 1), "each once");
    stand.market.coingecko.quote("dogelon", "0.5");
    stand.market.coingecko.quote("nothing", "0.1");
    stand.market.coingecko.fill("dogelon", Interval::Daily, 3);
    stand.market.pass(Duration::from_secs(61));
    assert_eq!(
        node.shown("/simple_price?assets=bitcoin,dogelon,nothing&currency=usd").await.0["dogelon"]["usd"],
        "0.5"
    );
    assert_eq!(node.chart("asset=dogelon&currency=usd&days=3").await.0.len(), 3);
}

#[tokio::test]
async fn with_nothing_stored_a_source_that_is_down_is_503_until_it_is_back() {
    let stand = Stand::new().await;
    let node = stand.node(None).await;
    stand.market.coingecko.is(FakeMode::Down);
    stand.market.kraken.is(FakeMode::Banned(40));
    let paths = ["/simple_price?assets=bitcoin&currency=usd", "/market_chart?asset=bitcoin&currency=usd&days=3"];
    for path in paths {
        for _ in 0..3 {
            let refused = node.get(path).await;
            refused.assert_problem(503, path);
            let after: u64 = refused.header("retry-after").parse().expect("seconds");
            assert!((1..=15).contains(&after), "{refused:?}");
        }
    }
    assert_eq!((stand.market.coingecko.charts(), stand.market.coingecko.spots().len()), (1, 1), "not again at once");
    stand.market.coingecko.is(FakeMode::Well);
    stand.market.coingecko.quote("bitcoin", "1");
    stand.market.coingecko.fill("bitcoin", Interval::Daily, 3);
    stand.market.pass(Duration::from_secs(16));
    for path in paths {
        assert!(!node.shown(path).await.1);
    }
}

#[tokio::test]
async fn while_sources_are_down_what_is_old_comes_with_a_warning() {
    let stand = Stand::new().await;
    let node = stand.node(None).await;
    let sources = [&stand.market.coingecko, &stand.market.kraken];
    stand.market.coingecko.quote("bitcoin", "1");
    stand.market.coingecko.fill("bitcoin", Interval::Daily, 3);
    let (price, chart) = ("/simple_price?assets=bitcoin&currency=usd", "asset=bitcoin&currency=usd&days=3");
    assert_eq!(node.shown(price).await.0["bitcoin"]["usd"], "1");
    let (before, _) = node.chart(chart).await;
    sources.iter().for_each(|source| source.is(FakeMode::Down));
    stand.market.set(NOON + Duration::from_secs(24 * 3600));
    for _ in 0..3 {
        let (shown, stale) = node.shown(price).await;
        assert_eq!((&shown["bitcoin"]["usd"], stale), (&json!("1"), true));
        let (shown, stale, missing) = node.chart_with_missing(chart).await;
        assert_eq!((&shown[..], stale, missing), (&before[1..], true, 1));
    }
    assert_eq!((stand.market.kraken.charts(), stand.market.kraken.spots().len()), (1, 1), "asked once in a while");
    // Another process, whose cache is empty: what is stored is enough. A day's price stands in for a present one.
    let other = stand.node(None).await;
    stand.market.coingecko.fill("solana", Interval::Daily, 3);
    assert!(other.shown(price).await.1 && other.chart_with_missing(chart).await.1);
    sources.iter().for_each(|source| source.is(FakeMode::Well));
    stand.market.coingecko.quote("bitcoin", "2");
    stand.market.coingecko.fill("bitcoin", Interval::Daily, 3);
    stand.market.pass(Duration::from_secs(61));
    let (shown, stale) = node.shown(price).await;
    assert_eq!((&shown["bitcoin"]["usd"], stale), (&json!("2"), false));
    let (shown, stale) = node.chart(chart).await;
    assert_eq!((shown.len(), stale), (3, false));
    assert_ne!(shown, before);
}

#[tokio::test]
async fn a_price_of_the_past_is_shown_with_its_time_when_nobody_has_a_present_one() {
    let stand = Stand::new().await;
    let node = stand.node(None).await;
    stand.market.coingecko.quote("bitcoin", "7");
    stand.market.coingecko.lag(Duration::from_secs(2 * 86_400));
    let (shown, stale) = node.shown("/simple_price?assets=bitcoin&currency=usd").await;
    assert_eq!((&shown["bitcoin"]["usd"], stale), (&"7".into(), true));
    let as_of = shown["bitcoin"]["as_of"].as_str().expect("a time");
    let then = stand.market.now() - Duration::from_secs(2 * 86_400);
    assert!(as_of.starts_with(&then.date().to_string()), "{as_of}");
    // Stored it is of the past as well, and one who has a present price is preferred to it.
    stand.market.pass(Duration::from_secs(61));
    assert!(node.shown("/simple_price?assets=bitcoin&currency=usd").await.1);
    stand.market.kraken.quote("bitcoin", "8");
    stand.market.pass(Duration::from_secs(61));
    let (shown, stale) = node.shown("/simple_price?assets=bitcoin&currency=usd").await;
    assert_eq!((&shown["bitcoin"]["usd"], &shown["bitcoin"]["source"], stale), (&"8".into(), &"kraken".into(), false));
}

#[tokio::test]
async fn the_last_day_stands_in_for_a_present_price_with_a_warning() {
    let stand = Stand::new().await;
    let node = stand.node(None).await;
    stand.market.kraken.fill("bitcoin", Interval::Daily, 3);
    node.chart("asset=bitcoin&currency=usd&days=3").await;
    stand.market.coingecko.is(FakeMode::Down);
    let (shown, stale) = node.shown("/simple_price?assets=bitcoin&currency=usd").await;
    let yesterday = Interval::Daily.bucket(NOON).unix_timestamp() / 86_400 - 1;
    assert_eq!(shown["bitcoin"]["usd"], format!("{yesterday}.50"));
    assert_eq!((shown["bitcoin"]["as_of"].as_str(), stale), (Some("2026-11-21T00:00:00.000000Z"), true));
    assert_eq!(shown["bitcoin"]["source"], Source::Kraken.as_str());
}

#[tokio::test]
async fn a_slow_source_is_waited_for_only_as_long_as_there_is_nothing_to_show() {
    let stand = Stand::new().await;
    let patience = Duration::from_millis(200);
    let node = stand.node_with(None, Ages { patience, ..Ages::SHIPPED }).await;
    let coingecko = &stand.market.coingecko;
    coingecko.quote("bitcoin", "1");
    coingecko.fill("bitcoin", Interval::Daily, 3);
    let (price, chart) = ("/simple_price?assets=bitcoin&currency=usd", "asset=bitcoin&currency=usd&days=3");
    assert!(!node.shown(price).await.1 && !node.chart(chart).await.1);
    coingecko.is(FakeMode::Slow);
    stand.market.set(NOON + Duration::from_secs(24 * 3600));
    coingecko.quote("bitcoin", "2");
    coingecko.fill("bitcoin", Interval::Daily, 3);
    let begun = Instant::now();
    assert!(node.shown(price).await.1 && node.chart_with_missing(chart).await.1);
    assert!(begun.elapsed() >= 2 * patience && begun.elapsed() < SOON, "{:?}", begun.elapsed());
    // Nobody has waited for it, and it was not asked in vain.
    coingecko.gate.add_permits(2);
    eventually("the late answers are shown", SOON, async || {
        stand.market.pass(Duration::from_secs(1));
        let (shown, stale) = node.shown(price).await;
        shown["bitcoin"]["usd"] == "2" && !stale && !node.chart_with_missing(chart).await.1
    })
    .await;
    assert_eq!((coingecko.charts(), coingecko.spots().len()), (2, 2));
}

#[tokio::test]
async fn every_wrong_parameter_is_named_at_once() {
    let stand = Stand::new().await;
    let node = stand.node(None).await;
    let rule = "Value error, an asset's id has 1 to 64 lower-case letters, digits and hyphens, such as bitcoin";
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
        let answer = node.get(path).await;
        answer.assert_problem(422, path);
        let expected: Vec<_> = failures
            .into_iter()
            .map(|(kind, name, msg)| (kind.to_owned(), format!("[\"query\",\"{name}\"]"), msg.to_owned()))
            .collect();
        assert_eq!(answer.validation_errors(), expected, "{path}");
    }
    assert_eq!((stand.market.coingecko.charts(), stand.market.coingecko.spots().len()), (0, 0), "nobody was asked");
}

#[tokio::test]
async fn a_key_or_a_token_opens_prices() {
    let stand = Stand::new().await;
    let node = stand.node(None).await;
    stand.market.coingecko.quote("bitcoin", "1");
    stand.market.coingecko.fill("bitcoin", Interval::Daily, 3);
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
            let answer = send(request).await;
            assert_eq!(answer.status, status, "{answer:?}");
            assert!(!answer.text.contains(KEY) && answer.header("warning") != STALE);
        }
    }
    // Who may not read learns nothing of what would be wrong.
    send(node.client.get(format!("{}/market_chart", node.url))).await.assert_problem(403, "no key, no parameters");
}
