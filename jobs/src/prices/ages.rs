//! How long answers are good, and which buckets can be had: rules on times, without a clock of their own.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use time::OffsetDateTime;

use super::model::{Interval, Series};

/// How long answers are good; other values than the shipped ones are for tests.
#[derive(Debug, Clone, Copy)]
pub struct Ages {
    /// A present price, from the moment it was fetched.
    pub spot: Duration,
    /// That there is no such thing.
    pub unknown: Duration,
    /// That nobody could be asked: so long nobody is asked again.
    pub failed: Duration,
    /// That all were asked and the newest bucket is not there yet.
    pub late: Duration,
    /// What sources were asked for and do not have.
    pub absent: Duration,
    /// Whatever is kept where other processes cannot drop it.
    pub local: Duration,
    /// A provider that is silent for so long is not waited for alone: the next one is asked as well.
    pub hedge: Duration,
    /// A caller waits so long for the sources when there is something stored to show,
    pub patience: Duration,
    /// and so long when there is nothing.
    pub patience_with_nothing: Duration,
}

impl Ages {
    /// The shipped ones.
    pub const SHIPPED: Self = Self {
        spot: Duration::from_secs(60),
        unknown: Duration::from_secs(60),
        failed: Duration::from_secs(15),
        late: Duration::from_secs(300),
        absent: Duration::from_secs(24 * 3600),
        local: Duration::from_secs(60),
        hedge: Duration::from_secs(1),
        patience: Duration::from_secs(3),
        patience_with_nothing: Duration::from_secs(20),
    };
}

/// How long after its end a bucket can be had: CoinGecko finishes a day at 00:10 UTC, others at once.
fn settles(interval: Interval) -> Duration {
    match interval {
        Interval::Daily => Duration::from_secs(15 * 60),
        Interval::Hourly => Duration::from_secs(2 * 60),
    }
}

/// How far back sources are asked because somebody reads; what is older is shown where it is stored. Hours beyond 90
/// days no source has in less than dozens of pages.
pub fn reach(interval: Interval) -> Duration {
    const DAY: u64 = 24 * 3600;
    match interval {
        Interval::Daily => Duration::from_secs(3650 * DAY),
        Interval::Hourly => Duration::from_secs(90 * DAY),
    }
}

/// The newest bucket that must be there by now.
pub fn newest_due(interval: Interval, now: OffsetDateTime) -> OffsetDateTime {
    let running = interval.bucket(now);
    let back = if now >= running + settles(interval) { 1 } else { 2 };
    running - interval.length() * back
}

/// When the next bucket can be had. Spread by the series, so that not all are asked for in the same moment.
pub fn next_due(series: &Series, now: OffsetDateTime) -> OffsetDateTime {
    const SPREAD_SECONDS: u64 = 120;
    let mut hasher = DefaultHasher::new();
    series.hash(&mut hasher);
    let interval = series.interval;
    let wait = settles(interval) + Duration::from_secs(hasher.finish() % SPREAD_SECONDS);
    let this = interval.bucket(now) + wait;
    if now < this { this } else { this + interval.length() }
}

/// From the first to the end of the last of the buckets that must be there from `from` on, are not among `there`, and
/// are not within `known`, the buckets that nobody has.
pub fn missing(
    interval: Interval,
    from: OffsetDateTime,
    now: OffsetDateTime,
    there: impl IntoIterator<Item = OffsetDateTime>,
    known: Option<(OffsetDateTime, OffsetDateTime)>,
) -> Option<(OffsetDateTime, OffsetDateTime)> {
    let mut there = there.into_iter().peekable();
    let (mut bucket, newest) = (interval.bucket(from), newest_due(interval, now));
    let mut span = None;
    while bucket <= newest {
        while there.next_if(|held| *held < bucket).is_some() {}
        let wanted = there.peek() != Some(&bucket) && !known.is_some_and(|(from, to)| from <= bucket && bucket < to);
        if wanted {
            let end = bucket + interval.length();
            span = span.map_or(Some((bucket, end)), |(first, _)| Some((first, end)));
        }
        bucket += interval.length();
    }
    span
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::prices::model::{AssetId, Currency};

    #[test]
    fn a_bucket_is_due_when_sources_have_settled_it() {
        for (interval, now, newest) in [
            (Interval::Daily, datetime!(2026-11-21 00:14:59 UTC), datetime!(2026-11-19 0:00 UTC)),
            (Interval::Daily, datetime!(2026-11-21 00:15 UTC), datetime!(2026-11-20 0:00 UTC)),
            (Interval::Daily, datetime!(2026-11-21 23:59 UTC), datetime!(2026-11-20 0:00 UTC)),
            (Interval::Hourly, datetime!(2026-11-21 05:01:59 UTC), datetime!(2026-11-21 03:00 UTC)),
            (Interval::Hourly, datetime!(2026-11-21 05:02 UTC), datetime!(2026-11-21 04:00 UTC)),
        ] {
            assert_eq!(newest_due(interval, now), newest, "{now}");
        }
    }

    #[test]
    fn nothing_is_fresh_beyond_the_next_bucket() {
        for interval in [Interval::Daily, Interval::Hourly] {
            for asset in ["bitcoin", "ethereum", "solana"] {
                let currency = Currency::parse("usd").expect("a currency");
                let series = Series { asset: AssetId::parse(asset).expect("an id"), currency, interval };
                let mut now = datetime!(2026-11-20 23:50 UTC);
                while now < datetime!(2026-11-22 01:00 UTC) {
                    let next = next_due(&series, now);
                    assert!(next > now && next <= now + interval.length(), "{now}: {next}");
                    assert!(newest_due(interval, next) > newest_due(interval, now - Duration::from_secs(121)), "{now}");
                    now += Duration::from_secs(61);
                }
            }
        }
    }

    #[test]
    fn missing_is_one_span_without_what_nobody_has() {
        let day = |number: u8| datetime!(2026-11-01 0:00 UTC) + Duration::from_secs(u64::from(number) * 86_400);
        let now = day(10) + Duration::from_secs(3600);
        let span = |from, there: &[u8], known| {
            missing(Interval::Daily, day(from), now, there.iter().map(|number| day(*number)), known)
        };
        assert_eq!(span(7, &[7, 8, 9], None), None);
        assert_eq!(span(7, &[7, 8], None), Some((day(9), day(10))));
        assert_eq!(span(5, &[4, 5, 7, 9], None), Some((day(6), day(9))));
        assert_eq!(span(5, &[], None), Some((day(5), day(10))));
        assert_eq!(span(1, &[5, 6, 7, 8], Some((day(1), day(5)))), Some((day(9), day(10))), "nobody reaches back");
        assert_eq!(span(1, &[5, 6, 7, 8], Some((day(1), day(10)))), None);
        assert_eq!(span(12, &[], None), None, "of the future nothing is missing");
    }
}
