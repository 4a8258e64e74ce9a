//! Every source through every fault: a right answer or an honest trouble, and no bad row.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use jobs::prices::{
    model::{Interval, Source},
    providers::{Fetched, Provider, Trouble},
};

use sqlx::types::BigDecimal;

use super::{NOW, assert_right, asset, currency, days, decimal, exchange, one, series, spots, start, today};
use crate::harness::fake_providers::{FakeProviders, Fault};

const DAYS: i64 = 30;

/// How a call ends while a fault lasts.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// As if there were none.
    Right,
    /// Told to come back, not before so many seconds, after so many requests.
    Later(u64, usize),
    /// After so many requests.
    Failed(usize),
    /// These rows are rejected for this reason, and one bucket is missing.
    Rejected(usize, &'static str),
    /// So many days are missing.
    Older(usize),
}

/// What must come of a fault at a source.
fn end(source: Source, fault: &Fault) -> End {
    use End::{Failed, Later, Rejected, Right};
    // Sources that write prices as numbers cannot write NaN: their whole answer is no JSON.
    let numbers = matches!(source, Source::CoinGecko | Source::Coinbase);
    let candles = source != Source::CoinGecko;
    match fault {
        Fault::RateLimited(Some("1")) => Later(1, 3),
        Fault::RateLimited(Some(_)) | Fault::Unavailable(_) => Later(7, 1),
        // Coinbase's bucket is full again so soon that it is waited for.
        Fault::RateLimited(None) | Fault::LimitedWith200 if source == Source::Coinbase => Later(2, 3),
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
        // A candle that began ten days ago is there, and so is a price that closes the day before it.
        Fault::Stale => End::Older(if candles { 9 } else { 10 }),
    }
}

/// Makes sure that these candles are the table's, but for one bucket.
fn assert_sound(exchange: &FakeProviders, fetched: &Fetched, missing: usize, case: &str) {
    assert_eq!(fetched.candles.len() + missing, usize::try_from(DAYS).expect("days"), "{case}");
    assert!(fetched.candles.is_sorted_by(|a, b| a.bucket < b.bucket), "{case}");
    for candle in &fetched.candles {
        let price = exchange.price("bitcoin", "eur", (candle.bucket + time::Duration::DAY).unix_timestamp());
        assert_eq!(candle.close, decimal(&price), "{case}");
    }
}

async fn assert_ends(exchange: &FakeProviders, source: Source, fault: Fault) {
    let case = format!("{source} {fault:?}");
    let providers = start(exchange, &[]);
    let provider = one(&providers, source);
    let before = exchange.calls(source);
    exchange.fail(source, fault.clone());
    let answer = days(&*provider, DAYS).await;
    let calls = exchange.calls(source) - before;
    match (end(source, &fault), answer) {
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
        (End::Later(least, expected), Err(Trouble::Later { source_name, after, why })) => {
            assert_eq!((source_name, calls), (source, expected), "{case}");
            assert!(after >= Duration::from_secs(least) && !why.is_empty(), "{case}: {after:?} {why}");
            // Nobody of this process asks before then, be it for something else.
            exchange.heal(source);
            let again = spots(&*provider, &[asset("ethereum")], &currency("eur")).await;
            assert!(matches!(again, Err(Trouble::Later { .. })), "{case}: {again:?}");
            assert_eq!(exchange.calls(source) - before, expected, "{case}");
        }
        (End::Failed(expected), Err(Trouble::Failed(failed, why))) => {
            assert_eq!((failed, calls), (source, expected), "{case}: {why}");
            let tells =
                ["<", "Just a moment", "upstream", "http://", "127.0.0.1"].iter().any(|word| why.contains(word));
            assert!(!why.is_empty() && why.lines().count() == 1 && !tells, "{case}: {why}");
        }
        (expected, got) => panic!("{case}: {expected:?} expected, got {got:?}"),
    }
    exchange.heal(source);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_ends_in_a_right_answer_or_an_honest_trouble() {
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
    // A stand-in for each, a few at a time: some take their seconds.
    let all = faults.iter().flat_map(|fault| Source::ALL.into_iter().map(move |source| (source, fault.clone())));
    let checks = futures_util::stream::iter(
        all.map(|(source, fault)| tokio::spawn(async move { assert_ends(&exchange().await, source, fault).await })),
    );
    let ended = checks.buffer_unordered(8).map(|ended| ended.expect("as it should end")).count().await;
    assert_eq!(ended, 4 * faults.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_tried_again_within_the_call() {
    let exchange = exchange().await;
    for source in Source::ALL {
        let providers = start(&exchange, &[]);
        let provider = one(&providers, source);
        let mut expected = exchange.calls(source);
        for fault in [Fault::Status(502), Fault::Truncated, Fault::Html, Fault::Closed] {
            exchange.fail_next(source, 1, fault.clone());
            let fetched = days(&*provider, DAYS).await.unwrap_or_else(|trouble| panic!("{fault:?}: {trouble}"));
            assert_sound(&exchange, &fetched, 0, &format!("{source} {fault:?}"));
            expected += 2;
            assert_eq!(exchange.calls(source), expected, "{source} {fault:?}");
        }
        exchange.fail_next(source, 1, Fault::RateLimited(Some("1")));
        let begun = Instant::now();
        let fetched = days(&*provider, DAYS).await.expect("after a second");
        assert!(begun.elapsed() >= Duration::from_secs(1), "{source}: it wanted a second");
        assert_sound(&exchange, &fetched, 0, source.as_str());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ban_is_as_long_as_it_says_and_never_short() {
    let exchange = exchange().await;
    for (says, least) in [(300, 300), (1, 120)] {
        let providers = start(&exchange, &[]);
        exchange.fail_next(Source::Binance, 1, Fault::Banned(says));
        let answer = days(&*one(&providers, Source::Binance), 3).await;
        let Err(Trouble::Later { after, .. }) = answer else { panic!("{answer:?}") };
        assert_eq!(after.as_secs(), least);
        // The others are not banned.
        days(&*one(&providers, Source::Kraken), 3).await.expect("candles");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_keeps_failing_is_left_alone() {
    let exchange = exchange().await;
    let providers = start(&exchange, &[]);
    for source in Source::ALL {
        let provider = one(&providers, source);
        exchange.fail(source, Fault::Status(500));
        for _ in 0..3 {
            assert!(matches!(days(&*provider, 3).await, Err(Trouble::Failed(..))), "{source}");
        }
        let calls = exchange.calls(source);
        assert_eq!(calls, 9, "{source}: three calls of three tries");
        exchange.heal(source);
        for _ in 0..20 {
            let answer = days(&*provider, 3).await;
            let Err(Trouble::Later { after, .. }) = answer else { panic!("{source}: {answer:?}") };
            assert!(after <= Duration::from_secs(30), "{after:?}");
        }
        assert_eq!(exchange.calls(source), calls, "{source}: nobody asked");
    }
}

/// How a call for a present price ends: with it, or not.
async fn spot(provider: &dyn Provider) -> Result<BigDecimal, Trouble> {
    let spots = spots(provider, &[asset("bitcoin")], &currency("eur")).await?;
    Ok(spots[0].1.price.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_present_price_is_right_or_none() {
    let exchange = exchange().await;
    let right = decimal(&exchange.spot("bitcoin", "eur"));
    for source in Source::ALL {
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
            let answer = spot(&*one(&providers, source)).await;
            match (&fault, source) {
                // Its rows always have a price; a null price of the others says that nothing was traded.
                (Fault::Null, Source::CoinGecko | Source::Coinbase | Source::Binance) => {
                    assert_eq!(answer, Err(Trouble::NotOffered(source)));
                }
                _ => assert!(matches!(answer, Err(Trouble::Failed(..))), "{source} {fault:?}: {answer:?}"),
            }
            exchange.heal(source);
        }
        // A price of the past is what the source has: it comes with its time, and readers judge. Kraken shows that
        // nothing was traded.
        let providers = start(&exchange, &[]);
        exchange.fail(source, Fault::Stale);
        let found = one(&providers, source).spots(&[asset("bitcoin")], &currency("eur")).await.found;
        let found: Vec<_> = found.into_iter().map(|(_, spot)| (spot.price, NOW - spot.as_of)).collect();
        let day = (right.clone(), time::Duration::DAY);
        assert_eq!(found, if source == Source::Kraken { vec![] } else { vec![day] }, "{source}");
        exchange.heal(source);
    }
}
