//! Any rows as input: the output is always valid.

use proptest::prelude::*;

use super::*;

/// 2026-11-20 00:00 UTC.
const MIDNIGHT: i64 = 1_795_132_800;
const DAY: i64 = 86400;

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).expect("a time")
}

/// The 30 days before midnight, requested at noon.
fn window(interval: Interval) -> Window {
    Window { interval, from: at(MIDNIGHT - 30 * DAY), to: at(MIDNIGHT + 9 * DAY), now: at(MIDNIGHT + DAY / 2) }
}

fn raw<'a>(time: &'a str, [open, high, low, close, volume]: [&'a str; 5]) -> RawCandle<'a> {
    RawCandle { time, unit: TimeUnit::Seconds, open, high, low, close, volume }
}

const FINE: [&str; 5] = ["10", "12.5", "9", "11", "0"];

fn rows(rows: &[(i64, [&str; 5])]) -> (Vec<Candle>, Vec<(RejectReason, String)>) {
    let mut candle_set = CandleSet::new(window(Interval::Daily));
    for (time, row) in rows {
        candle_set.add_row(raw(&time.to_string(), *row));
    }
    candle_set.finish()
}

fn reasons(rejected: &[(RejectReason, String)]) -> Vec<RejectReason> {
    rejected.iter().map(|(reason, _)| *reason).collect()
}

#[test]
fn each_invalid_row_is_rejected_with_its_reason() {
    let day = MIDNIGHT - DAY;
    for (time, row, reason) in [
        (day, ["NaN", "12.5", "9", "11", "0"], RejectReason::Decimal),
        (day, ["10", "inf", "9", "11", "0"], RejectReason::Decimal),
        (day, ["10", "12.5", "9", "1e999999999", "0"], RejectReason::Decimal),
        (day, ["10", "12.5", "9", "1e-999999999", "0"], RejectReason::Decimal),
        (day, ["10", "12.5", "9", "", "0"], RejectReason::Decimal),
        (day, ["10", "12.5", "9", "null", "0"], RejectReason::Decimal),
        (day, ["10", "12.5", "9", "1_1", "0"], RejectReason::Decimal),
        (day, ["10", "12.5", "0", "11", "0"], RejectReason::NotPositive),
        (day, ["10", "12.5", "-9", "11", "0"], RejectReason::NotPositive),
        (day, ["10", "9", "12.5", "11", "0"], RejectReason::HighLow),
        (day, ["10", "12.5", "9", "13", "0"], RejectReason::HighLow),
        (day, ["8", "12.5", "9", "11", "0"], RejectReason::HighLow),
        (day, ["10", "12.5", "9", "11", "-1"], RejectReason::Volume),
        (day + 1, FINE, RejectReason::Misaligned),
        (MIDNIGHT + DAY, FINE, RejectReason::Future),
        (day * 1000, FINE, RejectReason::Time),
        (day / 1000, FINE, RejectReason::Time),
        (-day, FINE, RejectReason::Time),
    ] {
        let (candles, rejected) = rows(&[(time, row), (day - DAY, FINE)]);
        assert_eq!(reasons(&rejected), [reason], "{time} {row:?}");
        assert_eq!(candles.len(), 1, "the valid row stays");
    }
}

#[test]
fn rows_are_sorted_and_deduplicated() {
    let fine = |days: i64| (MIDNIGHT - days * DAY, FINE);
    let (candles, rejected) = rows(&[fine(1), fine(3), fine(2), fine(3)]);
    let days: Vec<i64> = candles.iter().map(|candle| (MIDNIGHT - candle.bucket.unix_timestamp()) / DAY).collect();
    assert_eq!((days, rejected.len()), (vec![3, 2, 1], 0));
    let other = (MIDNIGHT - 2 * DAY, ["10", "12.5", "9", "11.5", "0"]);
    let (candles, rejected) = rows(&[fine(1), fine(2), other, fine(3)]);
    assert_eq!(reasons(&rejected), [RejectReason::Contradicting; 2]);
    assert_eq!(candles.len(), 2, "both rows of the contradiction are rejected");
}

#[test]
fn unfinished_and_unrequested_buckets_are_ignored() {
    assert_eq!(rows(&[(MIDNIGHT, FINE), (MIDNIGHT - 31 * DAY, FINE)]), (vec![], vec![]));
}

#[test]
fn digits_are_exact() {
    let close = |text: &str| parse_price(text).map(|price| price.to_plain_string());
    assert_eq!(close("69702.3087473573").as_deref(), Ok("69702.3087473573"));
    assert_eq!(close("1.234e-05").as_deref(), Ok("0.00001234"));
    assert_eq!(close("1E+3").as_deref(), Ok("1000"));
    assert_eq!(close("103663.10").as_deref(), Ok("103663.1"));
    assert_eq!(close(&"9".repeat(25)), Err(RejectReason::Decimal));
    assert_eq!(close(&format!("0.{}", "1".repeat(63))), Err(RejectReason::Decimal));
}

fn points(interval: Interval, points: &[(i64, &str)]) -> (Vec<(i64, String)>, Vec<RejectReason>) {
    let mut candle_set = CandleSet::new(window(interval));
    let points: Vec<(String, &str)> = points.iter().map(|(time, price)| (time.to_string(), *price)).collect();
    candle_set.add_points(points.iter().map(|(time, price)| (time.as_str(), *price)));
    let (candles, rejected) = candle_set.finish();
    let candles = candles.iter().map(|candle| (candle.bucket.unix_timestamp(), candle.close.to_plain_string()));
    (candles.collect(), reasons(&rejected))
}

#[test]
fn a_day_closes_with_the_price_at_the_midnight_after_it() {
    let midnight = MIDNIGHT * 1000;
    let now = (MIDNIGHT + DAY / 2) * 1000 - 12_345;
    let (candles, rejected) = points(Interval::Daily, &[(midnight - DAY * 1000, "7"), (midnight, "8"), (now, "9")]);
    let closes = |days: i64, price: &str| (MIDNIGHT - days * DAY, price.to_owned());
    assert_eq!((candles, rejected), (vec![closes(2, "7"), closes(1, "8")], vec![]));
    let (candles, rejected) = points(Interval::Daily, &[(midnight, "7"), (midnight + 1, "8"), (now, "9")]);
    assert_eq!((candles, rejected), (vec![closes(1, "7")], vec![RejectReason::Misaligned]));
    // Exactly at midnight, the present price is the price of midnight.
    let (candles, _) = points(Interval::Daily, &[(midnight - DAY * 1000, "7"), (midnight, "8")]);
    assert_eq!(candles, [closes(2, "7"), closes(1, "8")]);
}

#[test]
fn an_hour_closes_with_the_first_price_after_it() {
    let at = |minutes: i64, millis: i64| (MIDNIGHT + minutes * 60) * 1000 + millis;
    let reported = [
        (at(5, 1_000), "9"),
        (at(-60, 37_123), "7"),
        (at(-55, 37_123), "8"),
        (at(0, 42), "8.5"),
        // After ten minutes it is not the close of the hour.
        (at(70, 1), "10"),
        (at(129, 0), "11"),
        (at(120, 600_000), "12"),
        (at(12 * 60, -999), "13"),
    ];
    let (candles, rejected) = points(Interval::Hourly, &reported);
    let closes = |hours: i64, price: &str| (MIDNIGHT + hours * 3600, price.to_owned());
    assert_eq!(candles, [closes(-2, "7"), closes(-1, "8.5"), closes(1, "11")]);
    assert_eq!(rejected, []);
}

#[test]
fn a_present_price_may_be_old_but_not_of_the_future() {
    let now = at(MIDNIGHT);
    assert_eq!(check_spot_time(now - Duration::minutes(2), now), Ok(()));
    assert_eq!(check_spot_time(now + Duration::minutes(2), now), Ok(()));
    assert_eq!(check_spot_time(now - Duration::hours(2), now), Ok(()));
    assert!(is_stale(now - Duration::hours(2), now) && !is_stale(now - Duration::minutes(2), now));
    assert_eq!(check_spot_time(now + Duration::hours(2), now), Err(RejectReason::Future));
}

/// Numbers as providers write them, and invalid ones.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (1_i64..2_000).prop_map(|cents| format!("{}.{:02}", cents / 100, cents % 100)),
        1 => any::<f64>().prop_map(|number| number.to_string()),
        1 => any::<f64>().prop_map(|number| format!("{number:e}")),
        1 => "[-+0-9.eE]{0,70}",
        1 => "[0-9]{1,3}e-?[0-9]{1,20}",
        1 => ".{0,8}",
    ]
}

fn moment() -> impl Strategy<Value = String> {
    let near = (-40_i64..10).prop_map(|days| MIDNIGHT + days * DAY);
    prop_oneof![
        8 => near.prop_map(|time| time.to_string()),
        4 => (-300_i64..300).prop_map(|hours| (MIDNIGHT + hours * 3600).to_string()),
        2 => (MIDNIGHT - 90 * DAY..MIDNIGHT + 9 * DAY).prop_map(|time| time.to_string()),
        2 => (MIDNIGHT - 9 * DAY..MIDNIGHT + 9 * DAY).prop_map(|time| (time * 1000 + 7).to_string()),
        1 => any::<i64>().prop_map(|time| time.to_string()),
        1 => "[-+0-9.eE]{0,70}",
        1 => ".{0,8}",
    ]
}

fn assert_valid(interval: Interval, candles: &[Candle]) -> Result<(), TestCaseError> {
    let window = window(interval);
    prop_assert!(candles.is_sorted_by(|a, b| a.bucket < b.bucket), "sorted and unique");
    for candle in candles {
        prop_assert_eq!(interval.bucket(candle.bucket), candle.bucket);
        prop_assert!(candle.bucket >= window.from && candle.bucket < window.to);
        prop_assert!(candle.bucket + interval.length() <= window.now, "finished");
        let zero = BigDecimal::zero();
        prop_assert!(candle.close > zero);
        // PostgreSQL gets no exponent, and no long text.
        prop_assert!(candle.close.fractional_digit_count() >= 0);
        prop_assert!(candle.close.to_plain_string().len() <= 66);
        if let (Some(open), Some(high), Some(low)) = (&candle.open, &candle.high, &candle.low) {
            prop_assert!(*low > zero && low <= open && low <= &candle.close);
            prop_assert!(high >= open && high >= &candle.close);
        }
        if let Some(volume) = &candle.volume {
            prop_assert!(*volume >= zero);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn rows_become_valid_candles_or_are_rejected(
        rows in prop::collection::vec((moment(), prop::array::uniform5(number()), any::<bool>()), 0..40),
        daily in any::<bool>(),
    ) {
        let interval = if daily { Interval::Daily } else { Interval::Hourly };
        let mut candle_set = CandleSet::new(window(interval));
        for (time, [open, high, low, close, volume], seconds) in &rows {
            let unit = if *seconds { TimeUnit::Seconds } else { TimeUnit::Millis };
            candle_set.add_row(RawCandle { time, unit, open, high, low, close, volume });
        }
        let (candles, rejected) = candle_set.finish();
        prop_assert!(candles.len() + rejected.len() <= rows.len());
        assert_valid(interval, &candles)?;
    }

    #[test]
    fn points_become_valid_prices_or_are_rejected(
        points in prop::collection::vec((moment(), number()), 0..40),
        daily in any::<bool>(),
    ) {
        let interval = if daily { Interval::Daily } else { Interval::Hourly };
        let mut candle_set = CandleSet::new(window(interval));
        // Times as they are, and with the milliseconds that points have.
        let points: Vec<(String, String)> =
            points.into_iter().map(|(time, price)| (if time.len() == 10 { time + "000" } else { time }, price)).collect();
        candle_set.add_points(points.iter().map(|(time, price)| (time.as_str(), price.as_str())));
        let (candles, rejected) = candle_set.finish();
        prop_assert!(candles.len() + rejected.len() <= points.len());
        assert_valid(interval, &candles)?;
    }
}
