//! How long results stay fresh, and when buckets are due. All functions are pure: the time is a parameter.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    iter::successors,
    ops::Range,
    time::Duration,
};

use time::OffsetDateTime;

use super::model::{Interval, Series};

/// Lifetimes of results, and limits of waiting. Tests use other values than [`Ages::DEFAULT`].
#[derive(Debug, Clone, Copy)]
pub struct Ages {
    /// A present price, from when it was fetched.
    pub spot: Duration,
    /// The result that an asset or series does not exist.
    pub unknown: Duration,
    /// The result that no provider could be reached. No provider is called again before it expires.
    pub failed: Duration,
    /// The result that the newest bucket is due, but no provider has it yet.
    pub late: Duration,
    /// The knowledge that no provider has certain buckets.
    pub absent: Duration,
    /// The limit for everything in a cache that other processes cannot invalidate.
    pub local: Duration,
    /// When a provider has not responded for this long, the next one is called as well.
    pub hedge: Duration,
    /// How long a read waits for providers when something stored can be shown.
    pub max_wait: Duration,
    /// How long a read waits for providers when nothing is stored.
    pub max_wait_with_nothing: Duration,
}

impl Ages {
    /// The values of production.
    pub const DEFAULT: Self = Self {
        spot: Duration::from_secs(60),
        unknown: Duration::from_secs(60),
        failed: Duration::from_secs(15),
        late: Duration::from_secs(300),
        absent: Duration::from_secs(24 * 3600),
        local: Duration::from_secs(60),
        hedge: Duration::from_secs(1),
        max_wait: Duration::from_secs(3),
        max_wait_with_nothing: Duration::from_secs(20),
    };

    /// How long no provider is called after these errors: until the first may be called again, within limits.
    pub(super) fn pause_after(&self, delays: &[Duration]) -> Duration {
        let first = delays.iter().min().copied().unwrap_or(self.failed);
        first.clamp(self.failed, self.failed.max(self.unknown))
    }
}

/// How long after its end a bucket is due at the earliest. CoinGecko finishes a day at 00:10 UTC, and its point that
/// closes an hour comes some seconds late. The others finish at once.
fn settling_time(interval: Interval) -> Duration {
    match interval {
        Interval::Daily => Duration::from_secs(13 * 60),
        Interval::Hourly => Duration::from_secs(2 * 60),
    }
}

/// How long after its end a bucket of this series is due: a day within 15 minutes, an hour within four. The time is
/// spread by the series, so that not all series are fetched at once.
fn due_delay(series: &Series) -> Duration {
    const SPREAD_SECONDS: u64 = 120;
    let mut hasher = DefaultHasher::new();
    series.hash(&mut hasher);
    settling_time(series.interval) + Duration::from_secs(hasher.finish() % SPREAD_SECONDS)
}

/// How far back reads fetch from providers. Older prices are returned only where they are stored. Hours beyond 90 days
/// would take dozens of pages at every provider.
pub fn reach(interval: Interval) -> Duration {
    const DAY: u64 = 24 * 3600;
    match interval {
        Interval::Daily => Duration::from_secs(3650 * DAY),
        Interval::Hourly => Duration::from_secs(90 * DAY),
    }
}

/// The newest bucket that is due.
pub fn newest_due(series: &Series, now: OffsetDateTime) -> OffsetDateTime {
    let (interval, running) = (series.interval, series.interval.bucket(now));
    let back = if now >= running + due_delay(series) { 1 } else { 2 };
    running - interval.length() * back
}

/// When the next bucket is due.
pub fn next_due(series: &Series, now: OffsetDateTime) -> OffsetDateTime {
    let interval = series.interval;
    let this = interval.bucket(now) + due_delay(series);
    if now < this { this } else { this + interval.length() }
}

/// The buckets from the one that contains `from` up to `last` that are not in `there`, which is in the order of time.
pub fn missing_buckets(
    interval: Interval,
    from: OffsetDateTime,
    last: OffsetDateTime,
    there: impl IntoIterator<Item = OffsetDateTime>,
) -> impl Iterator<Item = OffsetDateTime> {
    let mut there = there.into_iter().peekable();
    let buckets = successors(Some(interval.bucket(from)), move |bucket| Some(*bucket + interval.length()));
    buckets.take_while(move |bucket| *bucket <= last).filter(move |bucket| {
        while there.next_if(|held| held < bucket).is_some() {}
        there.peek() != Some(bucket)
    })
}

/// The missing span: from the first missing bucket to the end of the last one. A bucket is missing when it is due,
/// starts at `from` or later, and is not in `there`. Buckets within `known` are not missing: no provider has them.
pub fn missing_span(
    series: &Series,
    from: OffsetDateTime,
    now: OffsetDateTime,
    there: impl IntoIterator<Item = OffsetDateTime>,
    known: Range<OffsetDateTime>,
) -> Option<(OffsetDateTime, OffsetDateTime)> {
    let buckets = missing_buckets(series.interval, from, newest_due(series, now), there);
    let mut missing = buckets.filter(|bucket| !known.contains(bucket));
    let first = missing.next()?;
    Some((first, missing.last().unwrap_or(first) + series.interval.length()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use time::macros::datetime;

    use super::*;
    use crate::prices::model::{AssetId, Currency};

    fn series(asset: &str, interval: Interval) -> Series {
        let currency = Currency::parse("usd").expect("a currency");
        Series { asset: AssetId::parse(asset).expect("an id"), currency, interval }
    }

    #[test]
    fn a_bucket_is_due_within_the_spread_after_its_settling_time() {
        for (interval, now, newest) in [
            (Interval::Daily, datetime!(2026-11-21 00:12:59 UTC), datetime!(2026-11-19 0:00 UTC)),
            (Interval::Daily, datetime!(2026-11-21 00:15 UTC), datetime!(2026-11-20 0:00 UTC)),
            (Interval::Daily, datetime!(2026-11-21 23:59 UTC), datetime!(2026-11-20 0:00 UTC)),
            (Interval::Hourly, datetime!(2026-11-21 05:01:59 UTC), datetime!(2026-11-21 03:00 UTC)),
            (Interval::Hourly, datetime!(2026-11-21 05:04 UTC), datetime!(2026-11-21 04:00 UTC)),
        ] {
            for number in 0..50 {
                let series = series(&format!("coin-{number}"), interval);
                assert_eq!(newest_due(&series, now), newest, "{series:?} at {now}");
            }
        }
        let delays = (0..50).map(|number| due_delay(&series(&format!("coin-{number}"), Interval::Daily)));
        assert!(delays.collect::<HashSet<_>>().len() > 10, "not all at once");
    }

    #[test]
    fn freshness_ends_exactly_when_the_next_bucket_is_due() {
        for interval in [Interval::Daily, Interval::Hourly] {
            for asset in ["bitcoin", "ethereum", "solana"] {
                let series = series(asset, interval);
                let mut now = datetime!(2026-11-20 23:50 UTC);
                while now < datetime!(2026-11-22 01:00 UTC) {
                    let (newest, next) = (newest_due(&series, now), next_due(&series, now));
                    assert!(next > now && next <= now + interval.length(), "{now}: {next}");
                    assert_eq!(newest_due(&series, next - Duration::from_secs(1)), newest, "{now}: {next}");
                    assert_eq!(newest_due(&series, next), newest + interval.length(), "{now}: {next}");
                    now += Duration::from_secs(61);
                }
            }
        }
    }

    #[test]
    fn the_missing_span_excludes_what_no_provider_has() {
        let day = |number: u8| datetime!(2026-11-01 0:00 UTC) + Duration::from_secs(u64::from(number) * 86_400);
        let now = day(10) + Duration::from_secs(3600);
        let bitcoin = series("bitcoin", Interval::Daily);
        let span = |from, there: &[u8], known: Option<(u8, u8)>| {
            let known = known.map_or(now..now, |(from, to)| day(from)..day(to));
            missing_span(&bitcoin, day(from), now, there.iter().map(|number| day(*number)), known)
        };
        assert_eq!(span(7, &[7, 8, 9], None), None);
        assert_eq!(span(7, &[7, 8], None), Some((day(9), day(10))));
        assert_eq!(span(5, &[4, 5, 7, 9], None), Some((day(6), day(9))));
        assert_eq!(span(5, &[], None), Some((day(5), day(10))));
        assert_eq!(span(1, &[5, 6, 7, 8], Some((1, 5))), Some((day(9), day(10))), "no provider reaches back");
        assert_eq!(span(1, &[5, 6, 7, 8], Some((1, 10))), None);
        assert_eq!(span(12, &[], None), None, "future buckets are not missing");
    }
}
