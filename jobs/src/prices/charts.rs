//! Reads of charts: missing buckets are fetched by one caller for all, then the stored series is returned.

use std::{fmt::Write, sync::Arc};

use serde_json::value::RawValue;
use time::{Duration, OffsetDateTime};

use super::{
    ages::{missing_buckets, missing_span, newest_due, next_due, reach},
    cache::{Coverage, Entry, Value, chart_key, generation_key},
    model::{Interval, Point, Series},
    read::{Chart, Days, Read, Reader},
    refill::Span,
    store,
};
use runtime::error::{Error, causes};

/// How many fetches a read waits for. The first may have been started for a shorter chart, and the second as well.
const MAX_FILLS: usize = 3;

impl Reader {
    /// Reads the prices of the last days, or of all.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is needed and unavailable.
    pub(super) async fn chart(self: &Arc<Self>, series: &Series, days: Days) -> Result<Read<Chart>, Error> {
        let keys = [chart_key(series, &days.to_string()), generation_key(series)];
        let cached = self.cache.get(&keys).await;
        let hit = self.fresh_chart(series, &cached.entries);
        self.count(match (&hit, cached.is_fallback) {
            (Some(_), _) => "hit",
            (None, false) => "miss",
            (None, true) => "error",
        });
        if let Some(hit) = hit {
            return Ok(hit);
        }
        let (this, series) = (self.clone(), series.clone());
        let loaded = self.charts.join(keys[0].clone(), move || async move { this.load(series, days, &keys).await });
        loaded.await.unwrap_or_else(|| Err(Error::Internal("loading a chart panicked".into())))
    }

    /// The chart of a cache entry that is fresh, of the current generation, and made since the newest bucket is due.
    /// Another release may have spread the due times differently.
    fn fresh_chart(&self, series: &Series, found: &[Option<Arc<Entry>>]) -> Option<Read<Chart>> {
        let [Some(entry), mark] = found else { return None };
        let now = self.now();
        if now >= entry.fresh_until || entry.generation != self.generation_of(mark.as_ref()) {
            return None;
        }
        if matches!(&entry.value, Value::Chart { due, .. } if *due < newest_due(series, now)) {
            return None;
        }
        read_entry(entry, series, now)
    }

    async fn load(self: Arc<Self>, series: Series, days: Days, keys: &[String; 2]) -> Result<Read<Chart>, Error> {
        // Another process may have cached it meanwhile.
        let found = self.cache.get(keys).await.entries;
        if let Some(hit) = self.fresh_chart(&series, &found) {
            return Ok(hit);
        }
        self.count_load();
        match self.build_entry(&series, days).await {
            Ok(entry) => {
                let entry = Arc::new(entry);
                self.cache_entry(&keys[0], entry.clone()).await;
                read_entry(&entry, &series, self.now())
                    .ok_or_else(|| Error::Internal("cache entry is not a chart".into()))
            }
            Err(Error::Unavailable(error)) => {
                let old = found.first().and_then(Option::as_ref);
                match old.and_then(|entry| read_entry(entry, &series, self.now())) {
                    Some(Read::Found(chart)) => {
                        tracing::warn!(error, "database unavailable; returning the cached chart");
                        Ok(Read::Found(Chart { stale: true, ..chart }))
                    }
                    _ => Err(Error::Unavailable(error)),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Builds the cache entry of a chart. Fetches missing buckets from the providers first, if necessary.
    async fn build_entry(self: &Arc<Self>, series: &Series, days: Days) -> Result<Entry, Error> {
        let now = self.now();
        let window = Window::new(series, days, now);
        let (mut generation, mut points) = (self.generation(series).await, self.points(series, &window).await?);
        let (mut coverage, _) = self.coverage(series).await;
        let mut timed_out = false;
        for _ in 0..MAX_FILLS {
            let gap = window.gap(series, now, &points, coverage);
            if gap.is_none_or(|(from, _)| coverage.is_paused(from, now)) {
                break;
            }
            let filled = self.wait_for_fill(series, &window, points.is_empty()).await?;
            timed_out = filled.is_none();
            coverage = filled.unwrap_or(coverage);
            generation = self.generation(series).await;
            points = self.points(series, &window).await?;
            if timed_out || coverage.failed {
                break;
            }
        }
        let gap = window.gap(series, now, &points, coverage);
        let failed = gap.is_some() && (timed_out || coverage.failed);
        let paused = coverage.pause_until.max(now + self.ages.failed.min(self.ages.local));
        let oldest = store::oldest(&self.pool, series, &self.config.providers).await?;
        let (value, mut fresh_until) = match points.last().map(|point| point.bucket) {
            None if failed => (Value::Nothing, paused),
            None if !coverage.offered && oldest.is_none() => (Value::Unknown, now + self.ages.unknown),
            newest => {
                let due = newest_due(series, now);
                let stale = failed && newest.is_none_or(|newest| newest < due);
                let missing = window.count_missing(series.interval, due, &points, oldest, coverage);
                let until = next_due(series, now);
                let until = if gap.is_some() { until.min(paused) } else { until };
                (Value::Chart { prices: to_json(&points)?, stale, missing, due }, until)
            }
        };
        if !self.cache.is_shared() {
            fresh_until = fresh_until.min(now + self.ages.local);
        }
        Ok(Entry { value, fresh_until, generation })
    }

    /// Waits for the fetch of missing buckets, at most [`Ages::max_wait`], or [`Ages::max_wait_with_nothing`] when
    /// nothing is stored. Returns `None` after the time-out; the fetch continues.
    async fn wait_for_fill(
        self: &Arc<Self>,
        series: &Series,
        window: &Window,
        is_empty: bool,
    ) -> Result<Option<Coverage>, Error> {
        let (this, wanted, from) = (self.clone(), series.clone(), window.fetch_from);
        let mut fill = std::pin::pin!(self.fills.join(series.clone(), move || this.fill(wanted, from)));
        if let Ok(filled) = tokio::time::timeout(self.ages.max_wait, &mut fill).await {
            return Ok(filled);
        }
        if !is_empty || !self.points(series, window).await?.is_empty() {
            return Ok(None);
        }
        let more = self.ages.max_wait_with_nothing.saturating_sub(self.ages.max_wait);
        Ok(tokio::time::timeout(more, fill).await.ok().flatten())
    }

    async fn points(&self, series: &Series, window: &Window) -> Result<Vec<Point>, Error> {
        let preferred = &self.config.providers;
        let mut points = store::series(&self.pool, series, preferred, window.from, window.to).await?;
        let from = window.start(series.interval, &points);
        points.retain(|point| point.bucket >= from);
        Ok(points)
    }
}

/// The time span of a chart.
#[derive(Clone, Copy)]
struct Window {
    from: OffsetDateTime,
    to: OffsetDateTime,
    /// Missing buckets are fetched from here on.
    fetch_from: OffsetDateTime,
    /// The length, unless the chart contains everything.
    length: Option<Duration>,
}

impl Window {
    fn new(series: &Series, days: Days, now: OffsetDateTime) -> Self {
        let due = newest_due(series, now) + series.interval.length();
        let (from, length) = match days {
            Days::Number(days) => {
                let length = Duration::DAY * i32::from(days);
                (due - length, Some(length))
            }
            Days::Max => (OffsetDateTime::UNIX_EPOCH, None),
        };
        Self { from, to: series.interval.bucket(now), fetch_from: from.max(due - reach(series.interval)), length }
    }

    /// The start of the chart. When the newest bucket is stored before it is due, the oldest one drops out.
    fn start(&self, interval: Interval, points: &[Point]) -> OffsetDateTime {
        match (points.last(), self.length) {
            (Some(last), Some(length)) => self.from.max(last.bucket + interval.length() - length),
            _ => self.from,
        }
    }

    fn gap(&self, series: &Series, now: OffsetDateTime, points: &[Point], coverage: Coverage) -> Option<Span> {
        let from = self.fetch_from.max(self.start(series.interval, points));
        let stored = points.iter().map(|point| point.bucket);
        missing_span(series, from, now, stored, coverage.known())
    }

    /// Counts the points up to `due` that should exist and are missing. Points after the oldest price of the series
    /// count. Points before it count when a provider could not be asked for them.
    fn count_missing(
        &self,
        interval: Interval,
        due: OffsetDateTime,
        points: &[Point],
        oldest: Option<OffsetDateTime>,
        coverage: Coverage,
    ) -> u32 {
        let first = oldest.map_or(self.fetch_from, |oldest| oldest.min(self.fetch_from));
        let from = self.start(interval, points).max(first);
        let is_expected = |bucket: &OffsetDateTime| {
            oldest.is_some_and(|oldest| oldest <= *bucket)
                || (*bucket >= self.fetch_from && !coverage.known().contains(bucket))
        };
        let stored = points.iter().map(|point| point.bucket);
        let count = missing_buckets(interval, from, due, stored).filter(is_expected).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

/// Reads a cache entry of a chart. An entry that is read later than it was made also lacks the buckets that became due
/// since.
fn read_entry(entry: &Entry, series: &Series, now: OffsetDateTime) -> Option<Read<Chart>> {
    Read::of(entry, now, |value| {
        let Value::Chart { prices, stale, missing, due } = value else { return None };
        let since = (newest_due(series, now) - *due).whole_seconds() / series.interval.length().whole_seconds();
        let missing = missing.saturating_add(u32::try_from(since).unwrap_or(0));
        Some(Chart { prices: prices.clone(), stale: *stale, missing })
    })
}

/// Writes `[[unix_ms,"price"],…]`; digits need no escaping.
fn to_json(points: &[Point]) -> Result<Box<RawValue>, Error> {
    let mut text = String::with_capacity(2 + points.len() * 32);
    for point in points {
        let separator = if text.is_empty() { '[' } else { ',' };
        let millis = point.bucket.unix_timestamp() * 1000;
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{separator}[{millis},\"{}\"]", point.price.to_plain_string());
    }
    text.push_str(if text.is_empty() { "[]" } else { "]" });
    RawValue::from_string(text).map_err(|error| Error::Internal(causes(&error)))
}
