//! From the rows of a source to candles: exact decimals, buckets in UTC, and no row that breaks an invariant.

use std::{collections::BTreeMap, fmt, str::FromStr};

use bigdecimal::{BigDecimal, Zero};
use time::{Duration, OffsetDateTime};

use super::model::{Candle, Interval, Volume};

/// Longer texts are refused unread: no price needs them, and exponents would cost memory.
const MAX_TEXT: usize = 64;
/// At most this many digits before the point.
const WHOLE_DIGITS: u64 = 24;
/// At most this many digits after the point; the cheapest coins need 15.
const DECIMAL_PLACES: i64 = 40;
/// Nothing was traded before 2009, nor after 2100: what says so is in another unit.
const PLAUSIBLE: std::ops::Range<i64> = 1_230_768_000..4_102_444_800;
/// So far the clocks of sources may be ahead of ours.
const SKEW: Duration = Duration::minutes(5);
/// A point closes the hour that ended at most this long before it.
pub const NEAR: Duration = Duration::minutes(10);
/// A present price that is older is one of the past: its source has lost it.
const FRESH: Duration = Duration::hours(1);

/// Why a row is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It has other fields than its source's rows have.
    Shape,
    /// A price or a volume that is no decimal number of a sensible length; infinities and NaN are none.
    Decimal,
    /// A time that is none, or in another unit.
    Time,
    /// It does not start where buckets start.
    Misaligned,
    /// A price of zero or less.
    NotPositive,
    /// The highest price is below the lowest, or open or close are not between them.
    HighLow,
    /// Less than nothing was traded.
    Volume,
    /// Its bucket came twice, with something else in it.
    Contradicting,
    /// It is of a time to come.
    Future,
}

impl Reason {
    /// All there are.
    pub const ALL: [Self; 9] = [
        Self::Shape,
        Self::Decimal,
        Self::Time,
        Self::Misaligned,
        Self::NotPositive,
        Self::HighLow,
        Self::Volume,
        Self::Contradicting,
        Self::Future,
    ];

    /// As metrics and logs have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shape => "shape",
            Self::Decimal => "decimal",
            Self::Time => "time",
            Self::Misaligned => "misaligned",
            Self::NotPositive => "not_positive",
            Self::HighLow => "high_low",
            Self::Volume => "volume",
            Self::Contradicting => "contradicting",
            Self::Future => "future",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// In what a source counts time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Seconds,
    Millis,
}

/// A row as its source wrote it: every number as text, so that none passes through a float.
#[derive(Debug, Clone, Copy)]
pub struct Raw<'a> {
    pub time: &'a str,
    pub unit: Unit,
    pub open: &'a str,
    pub high: &'a str,
    pub low: &'a str,
    pub close: &'a str,
    /// In units of the asset.
    pub volume: &'a str,
}

/// What was asked for, and when.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub interval: Interval,
    /// The first bucket starts here or later.
    pub from: OffsetDateTime,
    /// All buckets start before this.
    pub to: OffsetDateTime,
    pub now: OffsetDateTime,
}

/// Gathers the rows of a page.
#[derive(Debug)]
pub struct Sheet {
    window: Window,
    /// What each bucket is said to be; more than one is a contradiction.
    buckets: BTreeMap<OffsetDateTime, Vec<Candle>>,
    rejected: Vec<(Reason, String)>,
}

impl Sheet {
    /// Nothing yet.
    pub fn new(window: Window) -> Self {
        Self { window, buckets: BTreeMap::new(), rejected: Vec::new() }
    }

    /// A row of an exchange.
    pub fn row(&mut self, row: Raw<'_>) {
        let candle = time(row.time, row.unit).and_then(|time| {
            let wanted = self.placed(time)?;
            wanted.then(|| candle(time, row)).transpose()
        });
        match candle {
            Ok(candle) => candle.into_iter().for_each(|candle| self.keep(candle)),
            Err(reason) => self.reject(reason, row.time),
        }
    }

    /// Points of a provider that reports the price of a moment. A bucket closes with the price at its end: a day with the
    /// point at midnight, an hour with the first point after it, at most [`NEAR`] late. Other points of a denser series
    /// close nothing, and neither does the latest of all, which is the present price, unless it is right on time.
    pub fn points<'a>(&mut self, points: impl IntoIterator<Item = (&'a str, &'a str)>) {
        let mut times: BTreeMap<OffsetDateTime, Vec<&str>> = BTreeMap::new();
        for (text, price) in points {
            match time(text, Unit::Millis) {
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
            if time > now + SKEW {
                self.reject(Reason::Future, &at);
            } else if interval == Interval::Daily && !late.is_zero() {
                self.reject(Reason::Misaligned, &at);
            } else if late <= NEAR && closed != Some(end) {
                closed = Some(end);
                self.close(end - interval.length(), &prices, &at);
            }
        }
    }

    /// Closes a bucket with each of the prices that are reported for its end.
    fn close(&mut self, bucket: OffsetDateTime, prices: &[&str], at: &str) {
        match self.placed(bucket) {
            Ok(true) => {
                for price in prices {
                    match positive(price) {
                        Ok(close) => {
                            self.keep(Candle { bucket, open: None, high: None, low: None, close, volume: None })
                        }
                        Err(reason) => self.reject(reason, at),
                    }
                }
            }
            Ok(false) => {}
            Err(reason) => self.reject(reason, at),
        }
    }

    /// Counts a row that cannot even be taken apart.
    pub fn reject(&mut self, reason: Reason, row: &str) {
        // What a source sent may be long, and may be anything.
        let row: String = row.chars().filter(|c| c.is_ascii_graphic()).take(24).collect();
        self.rejected.push((reason, row));
    }

    /// Whether a bucket is finished and was asked for.
    fn placed(&self, start: OffsetDateTime) -> Result<bool, Reason> {
        let Window { interval, from, to, now } = self.window;
        if start > now + SKEW {
            return Err(Reason::Future);
        }
        if interval.bucket(start) != start {
            return Err(Reason::Misaligned);
        }
        Ok(start >= from && start < to && start + interval.length() <= now)
    }

    fn keep(&mut self, candle: Candle) {
        let said = self.buckets.entry(candle.bucket).or_default();
        // Some answers have a row twice.
        if !said.contains(&candle) {
            said.push(candle);
        }
    }

    /// The candles, in the order of time and each once; and what was rejected, with its row's time.
    pub fn finish(mut self) -> (Vec<Candle>, Vec<(Reason, String)>) {
        let mut candles = Vec::with_capacity(self.buckets.len());
        for (bucket, mut said) in std::mem::take(&mut self.buckets) {
            match (said.len(), said.pop()) {
                (1, Some(candle)) => candles.push(candle),
                // Which of them is right nobody knows.
                (times, _) => {
                    (0..times).for_each(|_| self.reject(Reason::Contradicting, &bucket.unix_timestamp().to_string()))
                }
            }
        }
        (candles, self.rejected)
    }
}

fn candle(bucket: OffsetDateTime, row: Raw<'_>) -> Result<Candle, Reason> {
    let [open, high, low, close] = [row.open, row.high, row.low, row.close].map(positive);
    let (open, high, low, close) = (open?, high?, low?, close?);
    let volume = decimal(row.volume)?;
    if volume < BigDecimal::zero() {
        return Err(Reason::Volume);
    }
    if low > open || low > close || high < open || high < close {
        return Err(Reason::HighLow);
    }
    let volume = Some(Volume::Base(volume));
    Ok(Candle { bucket, open: Some(open), high: Some(high), low: Some(low), close, volume })
}

/// A price: an exact decimal above zero.
///
/// # Errors
/// Why it is none.
pub fn positive(text: &str) -> Result<BigDecimal, Reason> {
    let price = decimal(text)?;
    if price > BigDecimal::zero() { Ok(price) } else { Err(Reason::NotPositive) }
}

/// Whether a present price may be of this time.
///
/// # Errors
/// It is of a time to come.
pub fn present(as_of: OffsetDateTime, now: OffsetDateTime) -> Result<(), Reason> {
    if as_of > now + SKEW { Err(Reason::Future) } else { Ok(()) }
}

/// Whether a present price of this time is one of the past by now.
pub fn is_stale(as_of: OffsetDateTime, now: OffsetDateTime) -> bool {
    as_of < now - FRESH
}

fn decimal(text: &str) -> Result<BigDecimal, Reason> {
    let decimal_chars = text.chars().all(|c| matches!(c, '0'..='9' | '.' | '+' | '-' | 'e' | 'E'));
    if text.len() > MAX_TEXT || !decimal_chars {
        return Err(Reason::Decimal);
    }
    let value = BigDecimal::from_str(text).map_err(|_| Reason::Decimal)?;
    // Digits and scale alone decide, so that `1e999999999` is refused without being written out.
    let normal = value.normalized();
    let places = normal.fractional_digit_count();
    if places > DECIMAL_PLACES || normal.digits().saturating_add_signed(places.saturating_neg()) > WHOLE_DIGITS {
        return Err(Reason::Decimal);
    }
    Ok(if places < 0 { normal.with_scale(0) } else { normal })
}

/// A time as a whole number of its unit.
///
/// # Errors
/// It is none, or in another unit.
pub fn time(text: &str, unit: Unit) -> Result<OffsetDateTime, Reason> {
    // `+5` is a number to Rust, and to none of the sources.
    let digits = text.len() <= MAX_TEXT && text.bytes().all(|byte| byte.is_ascii_digit());
    let number: i64 = text.parse().ok().filter(|_| digits).ok_or(Reason::Time)?;
    let (seconds, millis) = match unit {
        Unit::Seconds => (number, 0),
        Unit::Millis => (number / 1000, number % 1000),
    };
    if !PLAUSIBLE.contains(&seconds) {
        return Err(Reason::Time);
    }
    let time = OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| Reason::Time)?;
    Ok(time + Duration::milliseconds(millis))
}

#[cfg(test)]
mod tests;
