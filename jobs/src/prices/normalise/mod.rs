//! Turns the rows of a provider into candles: exact decimals, buckets in UTC, and only rows that satisfy all
//! invariants.

use std::collections::BTreeMap;

use bigdecimal::{BigDecimal, Zero};
use strum::{IntoStaticStr, VariantArray};
use time::{Duration, OffsetDateTime};

use super::model::{BodyHash, Candle, Interval};
use crate::decimal::Decimal;

/// Longer texts are rejected unparsed: no price needs them, and large exponents would cost memory.
const MAX_TEXT_BYTES: usize = 64;
/// At most this many digits before the point.
const MAX_WHOLE_DIGITS: u64 = 24;
/// At most this many digits after the point; the cheapest coins need 15.
const MAX_DECIMAL_PLACES: u64 = 40;
/// Unix seconds from 2009 to 2100. A number outside is in another unit; no price has such a time.
const PLAUSIBLE_SECONDS: std::ops::Range<i64> = 1_230_768_000..4_102_444_800;
/// How far the clocks of providers may be ahead of ours.
const CLOCK_SKEW: Duration = Duration::minutes(5);
/// How long after the end of an hour a point still counts as its close.
pub const MAX_LATENESS: Duration = Duration::minutes(10);
/// A present price that is older counts as stale.
const MAX_SPOT_AGE: Duration = Duration::hours(1);

/// Why a row is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum RejectReason {
    /// It does not have the fields of its provider's rows.
    Shape,
    /// A price or volume is not a decimal number of a sensible length; infinities and NaN are not.
    Decimal,
    /// The time is invalid, or in another unit.
    Time,
    /// The bucket is not aligned.
    Misaligned,
    /// A price is zero or less.
    NotPositive,
    /// High is below low, or open or close is not between them.
    HighLow,
    /// The volume is negative.
    Volume,
    /// The bucket appears twice, with different values.
    Contradicting,
    /// The time is in the future.
    Future,
}

impl RejectReason {
    /// All reasons.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The name, as metrics and logs contain it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The unit of a provider's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    Seconds,
    Millis,
}

/// A row as the provider wrote it. Numbers are kept as text, so that none passes through a float.
#[derive(Debug, Clone, Copy)]
pub struct RawCandle<'a> {
    pub time: &'a str,
    pub unit: TimeUnit,
    pub open: &'a str,
    pub high: &'a str,
    pub low: &'a str,
    pub close: &'a str,
    /// In units of the asset.
    pub volume: &'a str,
}

/// The requested time span, and the time of the request.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub interval: Interval,
    /// The first bucket starts here or later.
    pub from: OffsetDateTime,
    /// All buckets start before this.
    pub to: OffsetDateTime,
    pub now: OffsetDateTime,
}

/// Collects the rows of a page.
#[derive(Debug)]
pub struct CandleSet {
    window: Window,
    /// The values reported for each bucket; several are a contradiction.
    buckets: BTreeMap<OffsetDateTime, Vec<Candle>>,
    rejected: Vec<(RejectReason, String)>,
    body_sha256: Option<BodyHash>,
}

impl CandleSet {
    /// Creates an empty set.
    pub fn new(window: Window) -> Self {
        Self { window, buckets: BTreeMap::new(), rejected: Vec::new(), body_sha256: None }
    }

    /// Sets the hash of the response that contained all rows of this set.
    #[must_use]
    pub fn with_body_hash(self, hash: BodyHash) -> Self {
        Self { body_sha256: Some(hash), ..self }
    }

    /// Adds a row of an exchange.
    pub fn add_row(&mut self, row: RawCandle<'_>) {
        let candle = parse_time(row.time, row.unit).and_then(|time| {
            let is_wanted = self.in_window(time)?;
            is_wanted.then(|| parse_candle(time, row)).transpose()
        });
        match candle {
            Ok(candle) => candle.into_iter().for_each(|candle| self.insert(candle)),
            Err(reason) => self.reject(reason, row.time),
        }
    }

    /// Adds points of a provider that reports the price of a moment. A bucket closes with the price at its end. A day
    /// closes with the point at midnight; an hour with the first point after its end, at most [`MAX_LATENESS`] late.
    /// Other points of a denser series are ignored. So is the last point, which is the present price, unless it is
    /// exactly at the end of a bucket.
    pub fn add_points<'a>(&mut self, points: impl IntoIterator<Item = (&'a str, &'a str)>) {
        let mut times: BTreeMap<OffsetDateTime, Vec<&str>> = BTreeMap::new();
        for (text, price) in points {
            match parse_time(text, TimeUnit::Millis) {
                Ok(time) => times.entry(time).or_default().push(price),
                Err(reason) => self.reject(reason, text),
            }
        }
        let Window { interval, now, .. } = self.window;
        if let Some(last) = times.last_entry().filter(|last| interval.bucket(*last.key()) != *last.key()) {
            last.remove();
        }
        let mut closed = None;
        for (time, prices) in times {
            let (end, at) = (interval.bucket(time), time.unix_timestamp().to_string());
            let late = time - end;
            if time > now + CLOCK_SKEW {
                self.reject(RejectReason::Future, &at);
            } else if interval == Interval::Daily && !late.is_zero() {
                self.reject(RejectReason::Misaligned, &at);
            } else if late <= MAX_LATENESS && closed != Some(end) {
                closed = Some(end);
                self.add_close(end - interval.length(), &prices, &at);
            }
        }
    }

    /// Adds each price that is reported for the end of a bucket.
    fn add_close(&mut self, bucket: OffsetDateTime, prices: &[&str], at: &str) {
        match self.in_window(bucket) {
            Ok(true) => {
                for price in prices {
                    match parse_price(price) {
                        Ok(close) => {
                            let (open, high, low, volume) = (None, None, None, None);
                            self.insert(Candle { bucket, open, high, low, close, volume, body_sha256: None })
                        }
                        Err(reason) => self.reject(reason, at),
                    }
                }
            }
            Ok(false) => {}
            Err(reason) => self.reject(reason, at),
        }
    }

    /// Rejects a row.
    pub fn reject(&mut self, reason: RejectReason, row: &str) {
        // A row may be long and may contain anything.
        let row: String = row.chars().filter(|c| c.is_ascii_graphic()).take(24).collect();
        self.rejected.push((reason, row));
    }

    /// Whether a bucket is finished and was requested.
    fn in_window(&self, start: OffsetDateTime) -> Result<bool, RejectReason> {
        let Window { interval, from, to, now } = self.window;
        if start > now + CLOCK_SKEW {
            return Err(RejectReason::Future);
        }
        if interval.bucket(start) != start {
            return Err(RejectReason::Misaligned);
        }
        Ok(start >= from && start < to && start + interval.length() <= now)
    }

    fn insert(&mut self, candle: Candle) {
        let reported = self.buckets.entry(candle.bucket).or_default();
        // Some responses contain a row twice.
        if !reported.contains(&candle) {
            reported.push(candle);
        }
    }

    /// Returns the candles, in the order of time and each once, and the rejected rows with their times.
    pub fn finish(mut self) -> (Vec<Candle>, Vec<(RejectReason, String)>) {
        let mut candles = Vec::with_capacity(self.buckets.len());
        for (bucket, mut reported) in std::mem::take(&mut self.buckets) {
            match (reported.len(), reported.pop()) {
                (1, Some(candle)) => candles.push(Candle { body_sha256: self.body_sha256, ..candle }),
                // No one knows which value is right.
                (times, _) => (0..times)
                    .for_each(|_| self.reject(RejectReason::Contradicting, &bucket.unix_timestamp().to_string())),
            }
        }
        (candles, self.rejected)
    }
}

fn parse_candle(bucket: OffsetDateTime, row: RawCandle<'_>) -> Result<Candle, RejectReason> {
    let [open, high, low, close] = [row.open, row.high, row.low, row.close].map(parse_price);
    let (open, high, low, close) = (open?, high?, low?, close?);
    let volume = parse_decimal(row.volume)?;
    if volume < BigDecimal::zero() {
        return Err(RejectReason::Volume);
    }
    if low > open || low > close || high < open || high < close {
        return Err(RejectReason::HighLow);
    }
    let (open, high, low, volume) = (Some(open), Some(high), Some(low), Some(volume));
    Ok(Candle { bucket, open, high, low, close, volume, body_sha256: None })
}

/// Parses a price: an exact decimal above zero.
///
/// # Errors
/// [`RejectReason::Decimal`] when it is not a decimal, [`RejectReason::NotPositive`] when it is zero or less.
pub fn parse_price(text: &str) -> Result<BigDecimal, RejectReason> {
    let price = parse_decimal(text)?;
    if price > BigDecimal::zero() { Ok(price) } else { Err(RejectReason::NotPositive) }
}

/// Checks the time of a present price.
///
/// # Errors
/// [`RejectReason::Future`] when it is in the future.
pub fn check_spot_time(as_of: OffsetDateTime, now: OffsetDateTime) -> Result<(), RejectReason> {
    if as_of > now + CLOCK_SKEW { Err(RejectReason::Future) } else { Ok(()) }
}

/// Whether a present price of this time is stale.
pub fn is_stale(as_of: OffsetDateTime, now: OffsetDateTime) -> bool {
    as_of < now - MAX_SPOT_AGE
}

fn parse_decimal(text: &str) -> Result<BigDecimal, RejectReason> {
    let is_bounded =
        |decimal: &Decimal| decimal.places() <= MAX_DECIMAL_PLACES && decimal.whole_digits() <= MAX_WHOLE_DIGITS;
    let decimal = if text.len() > MAX_TEXT_BYTES { None } else { text.parse().ok().filter(is_bounded) };
    let value = decimal.ok_or(RejectReason::Decimal)?.to_big_decimal();
    Ok(if value.fractional_digit_count() < 0 { value.with_scale(0) } else { value })
}

/// Parses a time as a whole number of its unit.
///
/// # Errors
/// [`RejectReason::Time`] when it is invalid, or in another unit.
pub fn parse_time(text: &str, unit: TimeUnit) -> Result<OffsetDateTime, RejectReason> {
    // Rust would parse `+5`; no provider sends it.
    let digits = text.len() <= MAX_TEXT_BYTES && text.bytes().all(|byte| byte.is_ascii_digit());
    let number: i64 = text.parse().ok().filter(|_| digits).ok_or(RejectReason::Time)?;
    let (seconds, millis) = match unit {
        TimeUnit::Seconds => (number, 0),
        TimeUnit::Millis => (number / 1000, number % 1000),
    };
    let time = OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| RejectReason::Time)?;
    Ok(check_plausible(time)? + Duration::milliseconds(millis))
}

/// Checks that a time is from 2009 to 2100.
///
/// # Errors
/// [`RejectReason::Time`] when it is not.
pub fn check_plausible(time: OffsetDateTime) -> Result<OffsetDateTime, RejectReason> {
    if PLAUSIBLE_SECONDS.contains(&time.unix_timestamp()) { Ok(time) } else { Err(RejectReason::Time) }
}

#[cfg(test)]
mod tests;
