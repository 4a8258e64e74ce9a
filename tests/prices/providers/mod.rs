//! Tests of every provider client over its fake server: the same prices from all, page by page, and only what is
//! offered.

mod faults;

use std::sync::Arc;

use futures_util::StreamExt;
use jobs::prices::{
    Config,
    model::{AssetId, Currency, Interval, ProviderId, Series, Spot},
    providers::{CandlePage, Provider, ProviderError, Providers, Spots},
};
use runtime::{clock::Clock, config::EnvReader};
use sqlx::types::BigDecimal;
use time::{Duration, OffsetDateTime, macros::datetime};

use crate::harness::{database, fake_providers::FakeProviders, http::send, process};

/// The time of every test here.
const NOW: OffsetDateTime = datetime!(2026-11-21 12:34:56 UTC);

/// Fake servers at that time.
async fn exchange() -> FakeProviders {
    FakeProviders::with_clock(Clock::new(|| NOW)).await
}

/// Freshly started providers over these fake servers.
fn start(exchange: &FakeProviders, more: &[(&str, &str)]) -> Providers {
    // Installs the TLS provider, as our processes do at start.
    drop(process::http_client());
    let variables = exchange.variables();
    let mut pairs: Vec<(&str, &str)> = variables.iter().map(|(name, url)| (*name, url.as_str())).collect();
    pairs.extend(more);
    let mut vars = EnvReader::from_pairs(&pairs);
    let config = Config::read(&mut vars);
    Providers::start(&vars.finish(config).expect("a configuration"), &Clock::new(|| NOW)).expect("sources")
}

fn one(providers: &Providers, source: ProviderId) -> Arc<dyn Provider> {
    providers.0.iter().find(|provider| provider.id() == source).expect("a source").clone()
}

fn asset(id: &str) -> AssetId {
    AssetId::parse(id).expect("an id")
}

fn currency(code: &str) -> Currency {
    Currency::parse(code).expect("a code")
}

fn decimal(text: &str) -> BigDecimal {
    text.parse().expect("a decimal")
}

/// A series in a currency.
fn series(id: &str, code: &str, interval: Interval) -> Series {
    Series { asset: asset(id), currency: currency(code), interval }
}

fn today() -> OffsetDateTime {
    Interval::Daily.bucket(NOW)
}

async fn days(provider: &dyn Provider, days: i64) -> Result<CandlePage, ProviderError> {
    let series = series("bitcoin", "eur", Interval::Daily);
    candles(provider, &series, today() - Duration::days(days), NOW).await
}

/// All pages, in the order of time, or the first error.
async fn candles(
    provider: &dyn Provider,
    series: &Series,
    from: OffsetDateTime,
    to: OffsetDateTime,
) -> Result<CandlePage, ProviderError> {
    let mut all = CandlePage::default();
    let mut pages = provider.candles(series, from, to);
    while let Some(page) = pages.next().await {
        let page = page?;
        all.rejected.extend(page.rejected);
        all.candles.splice(0..0, page.candles);
    }
    Ok(all)
}

/// The present prices that the provider offers, or the first error.
async fn spots(
    provider: &dyn Provider,
    assets: &[AssetId],
    currency: &Currency,
) -> Result<Vec<(AssetId, Spot)>, ProviderError> {
    let Spots { found, failed } = provider.spots(assets, currency).await;
    match failed.into_iter().next() {
        Some((_, error)) => Err(error),
        None if found.is_empty() => Err(ProviderError::NotOffered(provider.id())),
        None => Ok(found),
    }
}

/// Checks that these are all buckets from `from` on, with the prices of the table.
fn assert_right(exchange: &FakeProviders, fetched: &CandlePage, series: &Series, from: OffsetDateTime, case: &str) {
    let (mut bucket, length) = (from, series.interval.length());
    assert_eq!(fetched.rejected, [""; 0], "{case}");
    for candle in &fetched.candles {
        assert_eq!(candle.bucket, bucket, "{case}");
        let end = (bucket + length).unix_timestamp();
        let price = exchange.price(series.asset.as_str(), series.currency.as_str(), end);
        assert_eq!(candle.close, decimal(&price), "{case} {bucket}");
        bucket += length;
    }
    let left = NOW - bucket;
    assert!(left >= Duration::ZERO && left < length * 2, "{case}: all finished buckets, up to {bucket}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_providers_have_the_same_finished_buckets() {
    let exchange = exchange().await;
    let providers = start(&exchange, &[]);
    assert_eq!(providers.0.iter().map(|provider| provider.id()).collect::<Vec<_>>(), ProviderId::ALL);
    for provider in providers.0.iter() {
        let source = provider.id();
        for (interval, back) in [(Interval::Daily, 30), (Interval::Hourly, 5), (Interval::Hourly, 1)] {
            for asset in ["bitcoin", "solana"] {
                let series = series(asset, "eur", interval);
                let from = today() - Duration::days(back);
                let fetched = candles(&**provider, &series, from, NOW).await.expect("candles");
                assert_right(&exchange, &fetched, &series, from, &format!("{source} {interval:?}"));
                let whole = fetched.candles.iter().all(|candle| {
                    let whole = candle.open.is_some() && candle.high.is_some() && candle.low.is_some();
                    whole && candle.volume.as_ref().is_some_and(|volume| volume.to_string() == "12.5")
                });
                assert_eq!(whole, source != ProviderId::CoinGecko, "{source}: CoinGecko has prices only");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_past_range_is_exactly_that_range() {
    let exchange = exchange().await;
    let (from, to) = (today() - Duration::days(20), today() - Duration::days(10));
    for provider in start(&exchange, &[]).0.iter() {
        for (interval, buckets) in [(Interval::Daily, 10), (Interval::Hourly, 240)] {
            let fetched = candles(&**provider, &series("ethereum", "eur", interval), from, to).await.expect("candles");
            let buckets_of = (fetched.candles.first(), fetched.candles.last(), fetched.candles.len());
            let (Some(first), Some(last), found) = buckets_of else { panic!("{}: nothing", provider.id()) };
            assert_eq!((first.bucket, last.bucket + interval.length(), found), (from, to, buckets));
        }
        let nothing = candles(&**provider, &series("bitcoin", "eur", Interval::Daily), to, from).await;
        assert_eq!(nothing, Ok(CandlePage::default()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_ranges_come_in_pages_without_a_gap() {
    let exchange = exchange().await;
    let providers = start(&exchange, &[]);
    for (source, asked, pages, found) in [
        (ProviderId::Binance, 1500, 2, 1500),
        (ProviderId::Coinbase, 1500, 6, 1500),
        // These providers do not go back further.
        (ProviderId::Kraken, 1500, 1, 719),
        (ProviderId::CoinGecko, 1500, 1, 365),
    ] {
        let provider = one(&providers, source);
        let fetched = days(&*provider, asked).await.expect("candles");
        assert_eq!((exchange.calls(source), fetched.candles.len()), (pages, found), "{source}");
        let from = today() - Duration::days(i64::try_from(found).expect("a number"));
        assert_right(&exchange, &fetched, &series("bitcoin", "eur", Interval::Daily), from, source.as_str());
    }
    let hours = series("bitcoin", "eur", Interval::Hourly);
    let from = today() - Duration::days(200);
    let fetched = candles(&*one(&providers, ProviderId::CoinGecko), &hours, from, NOW).await;
    assert_right(&exchange, &fetched.expect("candles"), &hours, from, "CoinGecko by the hour");
    assert_eq!(exchange.calls(ProviderId::CoinGecko), 4, "three ranges that still come by the hour");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_of_the_provider_stays_a_gap() {
    let exchange = exchange().await;
    let lost = today() - Duration::days(4);
    let end = (lost + Duration::DAY).unix_timestamp();
    exchange.edit_table(|table| table.remove_price(None, end));
    let providers = start(&exchange, &[]);
    for provider in providers.0.iter() {
        let fetched = days(&**provider, 9).await.expect("candles");
        assert_eq!((fetched.candles.len(), fetched.rejected.len()), (8, 0), "{}", provider.id());
        assert!(fetched.candles.iter().all(|candle| candle.bucket != lost));
    }
    // The bucket appears later, with another price.
    exchange.edit_table(|table| {
        table.restore_prices();
        table.set_price("bitcoin", "eur", end, "91234.56789");
    });
    for provider in providers.0.iter() {
        let fetched = days(&**provider, 9).await.expect("candles");
        let found = fetched.candles.iter().find(|candle| candle.bucket == lost).expect("the bucket");
        assert_eq!((fetched.candles.len(), found.close.to_string()), (9, "91234.56789".into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn present_prices_come_for_offered_assets() {
    let exchange = exchange().await;
    let assets = ["bitcoin", "pepecoin", "no-such-coin", "ethereum"].map(asset);
    exchange.edit_table(|table| table.set_spot("bitcoin", "eur", "0.00001234"));
    for provider in start(&exchange, &[]).0.iter() {
        let source = provider.id();
        let mut spots = spots(&**provider, &assets, &currency("eur")).await.expect("prices");
        spots.sort_by(|(a, _), (b, _)| a.cmp(b));
        let found: Vec<&str> = spots.iter().map(|(asset, _)| asset.as_str()).collect();
        match source {
            ProviderId::CoinGecko => assert_eq!(found, ["bitcoin", "ethereum", "pepecoin"]),
            _ => assert_eq!(found, ["bitcoin", "ethereum"]),
        }
        for (asset, spot) in spots {
            assert_eq!(spot.price, decimal(&exchange.spot(asset.as_str(), "eur")), "{source}");
            assert_eq!(spot.provider, source);
            // By the clock of the provider; Kraken reports only the minute.
            let age = if source == ProviderId::Kraken { 56 } else { 20 };
            assert_eq!(NOW - spot.as_of, Duration::seconds(age), "{source}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_assets_and_currencies_are_not_offered() {
    let exchange = exchange().await;
    for provider in start(&exchange, &[]).0.iter() {
        let source = provider.id();
        let not_offered = ProviderError::NotOffered(source);
        let asked = |id, code, calls| {
            let (exchange, provider, not_offered) = (&exchange, provider, &not_offered);
            async move {
                let now = NOW;
                let series = series(id, code, Interval::Daily);
                let candles = candles(&**provider, &series, now - Duration::days(3), now).await;
                assert_eq!(candles.as_ref(), Err(not_offered), "{id} {code}");
                let spots = spots(&**provider, &[asset(id)], &currency(code)).await;
                assert_eq!(spots.as_ref(), Err(not_offered), "{id} {code}");
                assert_eq!(exchange.calls(source), calls, "{source} {id} {code}");
            }
        };
        // CoinGecko takes any id; the exchanges list theirs.
        asked("no-such-coin", "usd", if source == ProviderId::CoinGecko { 2 } else { 0 }).await;
        let calls = exchange.calls(source);
        asked("bitcoin", "xyz", calls).await;
        match source {
            // Dollar coins and dollars are different currencies.
            ProviderId::CoinGecko => {
                asked("bitcoin", "usdt", calls).await;
                // A listed currency is requested.
                asked("bitcoin", "chf", calls + 2).await;
            }
            ProviderId::Binance => asked("bitcoin", "usd", calls).await,
            // It has a code, but the exchange does not list it.
            ProviderId::Kraken | ProviderId::Coinbase => asked("litecoin", "usd", calls).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_fetched_once_and_no_price_depends_on_them() {
    let exchange = exchange().await;
    for (fails, calls) in [(true, 3), (false, 1)] {
        for provider in start(&exchange, &[]).0.iter() {
            let (source, before) = (provider.id(), exchange.list_calls(provider.id()));
            exchange.fail_lists(source, fails);
            for _ in 0..3 {
                spots(&**provider, &[asset("bitcoin")], &currency("eur")).await.expect("a price");
                days(&**provider, 3).await.expect("candles");
            }
            assert_eq!(exchange.list_calls(source) - before, calls, "{source}: a failed call has three attempts");
            let names = provider.names().await;
            assert_eq!(names.is_err(), fails, "{source}");
            let Ok(names) = names else { continue };
            assert!(names.assets.contains("bitcoin") && names.currencies.contains("eur"), "{source}");
            assert!(!names.assets.contains("btc") && !names.currencies.contains("euro"), "{source}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delisted_pair_loses_no_other_price() {
    let exchange = exchange().await;
    let assets = ["bitcoin", "litecoin", "ethereum"].map(asset);
    // It is still listed, as it may be for a day, but no longer known.
    exchange.edit_table(|table| table.delisted.push("LTC"));
    for provider in start(&exchange, &[]).0.iter() {
        let spots = spots(&**provider, &assets, &currency("eur")).await.expect("prices");
        let mut found: Vec<&str> = spots.iter().map(|(asset, _)| asset.as_str()).collect();
        found.sort_unstable();
        assert_eq!(found, ["bitcoin", "ethereum"], "{}", provider.id());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_coingecko_gets_the_key_and_all_get_the_user_agent() {
    let exchange = exchange().await;
    let providers = start(&exchange, &[("COINGECKO_API_KEY", "a-key-of-the-tests")]);
    for provider in providers.0.iter() {
        drop(spots(&**provider, &[asset("bitcoin")], &currency("eur")).await.expect("a price"));
        let headers = exchange.last_headers(provider.id());
        let expected = (provider.id() == ProviderId::CoinGecko).then_some("a-key-of-the-tests");
        assert_eq!(headers.get("x-cg-demo-api-key").map(|key| key.to_str().expect("ASCII")), expected);
        let agent = headers.get("user-agent").and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        assert!(agent.starts_with("millrace/"), "{agent}");
        assert!(!exchange.requests(provider.id()).concat().contains("a-key-of-the-tests"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_exist_from_the_start() {
    let database = database::fresh().await;
    let exchange = FakeProviders::start().await;
    let variables = exchange.variables();
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, url)| (*name, url.as_str())).collect();
    let api = process::Api::start(&database.url, &variables).await;
    let text = send(process::http_client().get(format!("{}/metrics", api.url))).await.text;
    for source in ProviderId::ALL {
        for series in [
            format!("millrace_provider_requests_total{{provider=\"{source}\",outcome=\"limited\"}} 0"),
            format!("millrace_provider_request_duration_seconds_count{{provider=\"{source}\"}} 0"),
            format!("millrace_provider_breaker_open{{provider=\"{source}\"}} 0"),
            format!("millrace_prices_rejected_total{{provider=\"{source}\",reason=\"not_positive\"}} 0"),
            format!("millrace_price_reads_total{{provider=\"{source}\"}} 0"),
            format!("millrace_daily_price_fetches_total{{provider=\"{source}\",outcome=\"dead\"}} 0"),
        ] {
            assert!(text.lines().any(|line| line == series), "{series}:\n{text}");
        }
    }
    let asked = |source| exchange.calls(source) + exchange.list_calls(source);
    assert!(ProviderId::ALL.into_iter().all(|source| asked(source) == 0), "a start makes no call");
}
