//! Every provider with every fault: a right result or a clear error, and no invalid row.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use jobs::prices::{
    model::{Interval, ProviderId},
    providers::{CandlePage, Provider, ProviderError},
};

use sqlx::types::BigDecimal;

use super::{NOW, assert_right, asset, currency, days, decimal, exchange, one, series, spots, start, today};
use crate::harness::fake_providers::{FakeProviders, Fault};

const DAYS: i64 = 30;

/// How a call ends during a fault.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// As without the fault.
    Right,
    /// Retry later: the least seconds, and the number of requests.
    Later(u64, usize),
    /// Failed, after this many requests.
    Failed(usize),
    /// This many rows are rejected for this reason, and one bucket is missing.
    Rejected(usize, &'static str),
    /// This many days are missing.
    Older(usize),
}

/// The expected end of a call during a fault.
fn expected_end(source: ProviderId, fault: &Fault) -> End {
    use End::{Failed, Later, Rejected, Right};
    // Providers that write prices as numbers cannot write NaN: their whole response is not JSON.
    let numbers = matches!(source, ProviderId::CoinGecko | ProviderId::Coinbase);
    let candles = source != ProviderId::CoinGecko;
    match fault {
        Fault::RateLimited(Some("1")) => Later(1, 3),
        Fault::RateLimited(Some(_)) | Fault::Unavailable(_) => Later(7, 1),
        // The rate limit of Coinbase refills so soon that the call waits.
        Fault::RateLimited(None) | Fault::LimitedWith200 if source == ProviderId::Coinbase => Later(2, 3),
        Fault::RateLimited(None) | Fault::LimitedWith200 => Later(15, 1),
        Fault::Banned(_) | Fault::Forbidden => Later(120, 1),
        Fault::Status(_) | Fault::Html | Fault::Truncated | Fault::Closed | Fault::Huge => Failed(3),
        Fault::Redirect | Fault::Slow(_) => Failed(1),
        Fault::NotANumber if numbers => Failed(3),
        Fault::NotANumber | Fault::Null | Fault::Enormous => Rejected(1, "decimal"),
        Fault::Negative => Rejected(1, "not_positive"),
        Fault::Inverted if candles => Rejected(1, "high_low"),
        Fault::Microseconds => Rejected(1, "time"),
        Fault::Misaligned => Rejected(1, "misaligned"),
        Fault::Contradicting => Rejected(2, "contradicting"),
        Fault::Inverted | Fault::Reordered | Fault::Duplicated => Right,
        // A candle that started ten days ago is there, and so is a price that closes the day before it.
        Fault::Stale => End::Older(if candles { 9 } else { 10 }),
    }
}

/// Checks the prices of these candles, and how many are missing.
fn assert_sound(exchange: &FakeProviders, fetched: &CandlePage, missing: usize, case: &str) {
    assert_eq!(fetched.candles.len() + missing, usize::try_from(DAYS).expect("days"), "{case}");
    assert!(fetched.candles.is_sorted_by(|a, b| a.bucket < b.bucket), "{case}");
    for candle in &fetched.candles {
        let price = exchange.price("bitcoin", "eur", (candle.bucket + time::Duration::DAY).unix_timestamp());
        assert_eq!(candle.close, decimal(&price), "{case}");
    }
}

async fn assert_ends(exchange: &FakeProviders, source: ProviderId, fault: Fault) {
    let case = format!("{source} {fault:?}");
    let providers = start(exchange, &[]);
    let provider = one(&providers, source);
    let before = exchange.calls(source);
    exchange.fail(source, fault.clone());
    let response = days(&*provider, DAYS).await;
    let responded_at = Instant::now();
    let calls = exchange.calls(source) - before;
    match (expected_end(source, &fault), response) {
        (End::Right, Ok(fetched)) => {
            assert_right(
                exchange,
                &fetched,
                &series("bitcoin", "eur", Interval::Daily),
                today() - time::Duration::days(DAYS),
                &case,
            );
        }
        (End::Rejected(rows, reason), Ok(fetched)) => {
            assert_sound(exchange, &fetched, 1, &case);
            assert_eq!(fetched.rejected.len(), rows, "{case}: {:?}", fetched.rejected);
            assert!(fetched.rejected.iter().all(|row| row.starts_with(reason)), "{case}: {:?}", fetched.rejected);
        }
        (End::Older(days), Ok(fetched)) => assert_sound(exchange, &fetched, days, &case),
        (End::Later(least, expected), Err(ProviderError::RetryLater { provider: paused, after, reason })) => {
            assert_eq!((paused, calls), (source, expected), "{case}");
            assert!(after >= Duration::from_secs(least) && !reason.is_empty(), "{case}: {after:?} {reason}");
            // No call of this process is made before then.
            exchange.heal(source);
            let again = spots(&*provider, &[asset("ethereum")], &currency("eur")).await;
            // A pause of 1 s may have ended on a busy machine.
            if responded_at.elapsed() < after {
                assert!(matches!(again, Err(ProviderError::RetryLater { .. })), "{case}: {again:?}");
                assert_eq!(exchange.calls(source) - before, expected, "{case}");
            }
        }
        (End::Failed(expected), Err(ProviderError::Failed(failed, why))) => {
            assert_eq!((failed, calls), (source, expected), "{case}: {why}");
            let leaks =
                ["<", "Just a moment", "upstream", "http://", "127.0.0.1"].iter().any(|word| why.contains(word));
            assert!(!why.is_empty() && why.lines().count() == 1 && !leaks, "{case}: {why}");
        }
        (expected, got) => panic!("{case}: {expected:?} expected, got {got:?}"),
    }
    exchange.heal(source);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_ends_in_a_right_result_or_a_clear_error() {
    let faults = [
        Fault::RateLimited(Some("7")),
        Fault::RateLimited(Some("1")),
        Fault::RateLimited(None),
        Fault::Banned(3),
        Fault::Forbidden,
        Fault::Status(500),
        Fault::Status(520),
        Fault::Unavailable("7"),
        Fault::Redirect,
        Fault::Html,
        Fault::Truncated,
        Fault::Closed,
        Fault::Slow(Duration::from_secs(11)),
        Fault::LimitedWith200,
        Fault::Huge,
        Fault::NotANumber,
        Fault::Negative,
        Fault::Null,
        Fault::Enormous,
        Fault::Inverted,
        Fault::Microseconds,
        Fault::Misaligned,
        Fault::Reordered,
        Fault::Duplicated,
        Fault::Contradicting,
        Fault::Stale,
    ];
    // Each case has its own fake server, a few run at a time: some take seconds.
    let all = faults.iter().flat_map(|fault| ProviderId::ALL.into_iter().map(move |source| (source, fault.clone())));
    let checks = futures_util::stream::iter(
        all.map(|(source, fault)| tokio::spawn(async move { assert_ends(&exchange().await, source, fault).await })),
    );
    let ended = checks.buffer_unordered(8).map(|ended| ended.expect("the expected end")).count().await;
    assert_eq!(ended, 4 * faults.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn transient_faults_are_retried_within_the_call() {
    let exchange = exchange().await;
    for source in ProviderId::ALL {
        let providers = start(&exchange, &[]);
        let provider = one(&providers, source);
        let mut expected = exchange.calls(source);
        for fault in [Fault::Status(502), Fault::Truncated, Fault::Html, Fault::Closed] {
            exchange.fail_next(source, 1, fault.clone());
            let fetched = days(&*provider, DAYS).await.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
            assert_sound(&exchange, &fetched, 0, &format!("{source} {fault:?}"));
            expected += 2;
            assert_eq!(exchange.calls(source), expected, "{source} {fault:?}");
        }
        exchange.fail_next(source, 1, Fault::RateLimited(Some("1")));
        let started_at = Instant::now();
        let fetched = days(&*provider, DAYS).await.expect("candles after a second");
        assert!(started_at.elapsed() >= Duration::from_secs(1), "{source}: Retry-After is one second");
        assert_sound(&exchange, &fetched, 0, source.as_str());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ban_lasts_as_long_as_it_says_and_at_least_two_minutes() {
    let exchange = exchange().await;
    for (says, least) in [(300, 300), (1, 120)] {
        let providers = start(&exchange, &[]);
        exchange.fail_next(ProviderId::Binance, 1, Fault::Banned(says));
        let response = days(&*one(&providers, ProviderId::Binance), 3).await;
        let Err(ProviderError::RetryLater { after, .. }) = response else { panic!("{response:?}") };
        assert_eq!(after.as_secs(), least);
        // The other providers are not banned.
        days(&*one(&providers, ProviderId::Kraken), 3).await.expect("candles");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_keeps_failing_is_paused() {
    let exchange = exchange().await;
    let providers = start(&exchange, &[]);
    for source in ProviderId::ALL {
        let provider = one(&providers, source);
        exchange.fail(source, Fault::Status(500));
        for _ in 0..3 {
            assert!(matches!(days(&*provider, 3).await, Err(ProviderError::Failed(..))), "{source}");
        }
        let calls = exchange.calls(source);
        assert_eq!(calls, 9, "{source}: three calls of three attempts");
        exchange.heal(source);
        for _ in 0..20 {
            let response = days(&*provider, 3).await;
            let Err(ProviderError::RetryLater { after, .. }) = response else { panic!("{source}: {response:?}") };
            assert!(after <= Duration::from_secs(30), "{after:?}");
        }
        assert_eq!(exchange.calls(source), calls, "{source}: no call was made");
    }
}

/// The present price, or the error of the call.
async fn spot(provider: &dyn Provider) -> Result<BigDecimal, ProviderError> {
    let spots = spots(provider, &[asset("bitcoin")], &currency("eur")).await?;
    Ok(spots[0].1.price.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_present_price_is_right_or_an_error() {
    let exchange = exchange().await;
    let right = decimal(&exchange.spot("bitcoin", "eur"));
    for source in ProviderId::ALL {
        for fault in [
            Fault::NotANumber,
            Fault::Negative,
            Fault::Enormous,
            Fault::Html,
            Fault::Truncated,
            Fault::Microseconds,
            Fault::Null,
        ] {
            let providers = start(&exchange, &[]);
            exchange.fail(source, fault.clone());
            let response = spot(&*one(&providers, source)).await;
            match (&fault, source) {
                // Rows of Kraken always have a price. A null price of the others means that nothing was traded.
                (Fault::Null, ProviderId::CoinGecko | ProviderId::Coinbase | ProviderId::Binance) => {
                    assert_eq!(response, Err(ProviderError::NotOffered(source)));
                }
                _ => assert!(matches!(response, Err(ProviderError::Failed(..))), "{source} {fault:?}: {response:?}"),
            }
            exchange.heal(source);
        }
        // An old price comes with its time, and readers decide. Kraken shows that nothing was traded.
        let providers = start(&exchange, &[]);
        exchange.fail(source, Fault::Stale);
        let found = one(&providers, source).spots(&[asset("bitcoin")], &currency("eur")).await.found;
        let found: Vec<_> = found.into_iter().map(|(_, spot)| (spot.price, NOW - spot.as_of)).collect();
        let day = (right.clone(), time::Duration::DAY);
        assert_eq!(found, if source == ProviderId::Kraken { vec![] } else { vec![day] }, "{source}");
        exchange.heal(source);
    }
}
