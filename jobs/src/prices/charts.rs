//! Charts: a series as it is stored, after one caller for all has had what is missing fetched.

use std::{fmt::Write, sync::Arc};

use serde_json::value::RawValue;
use time::{Duration, OffsetDateTime};

use super::{
    ages::{missing, newest_due, next_due, reach},
    cache::{Asked, Entry, Value, chart_key, generation_key},
    model::{Interval, Point, Series},
    read::{Chart, Days, Read, Reader},
    refill::Span,
    store,
};
use crate::{boot::db::answered, error::Error};

impl Reader {
    /// The prices of the last days, or of all.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is needed and cannot be asked now.
    pub(super) async fn chart(self: &Arc<Self>, series: &Series, days: Days) -> Result<Read<Chart>, Error> {
        let keys = [chart_key(series, &days.to_string()), generation_key(series)];
        let looked = self.cache.get(&keys).await;
        let hit = looked.as_ref().ok().and_then(|found| self.fresh(series, found));
        self.count(match (&hit, &looked) {
            (Some(_), _) => "hit",
            (None, Ok(_)) => "miss",
            (None, Err(_)) => "error",
        });
        if let Some(hit) = hit {
            return Ok(hit);
        }
        let (this, series) = (self.clone(), series.clone());
        let loaded = self.charts.join(keys[0].clone(), move || async move { this.load(series, days, &keys).await });
        loaded.await.unwrap_or_else(|| Err(Error::Internal("a load of a chart ended in a panic".into())))
    }

    /// What a fresh entry of the present generation says.
    fn fresh(&self, series: &Series, found: &[Option<Arc<Entry>>]) -> Option<Read<Chart>> {
        let [Some(entry), mark] = found else { return None };
        let now = self.now();
        if now >= entry.fresh_until || entry.generation != self.generation_of(mark.as_ref()) {
            return None;
        }
        read(entry, series.interval, now)
    }

    async fn load(self: Arc<Self>, series: Series, days: Days, keys: &[String; 2]) -> Result<Read<Chart>, Error> {
        // Another process may have filled it since.
        let found = self.cache.get(keys).await.unwrap_or_default();
        if let Some(hit) = self.fresh(&series, &found) {
            return Ok(hit);
        }
        self.count_load();
        match self.build(&series, days).await {
            Ok(entry) => {
                let entry = Arc::new(entry);
                self.keep(&keys[0], entry.clone()).await;
                read(&entry, series.interval, self.now())
                    .ok_or_else(|| Error::Internal("an entry of a chart has another form".into()))
            }
            Err(Error::Unavailable(error)) => {
                let old = found.first().and_then(Option::as_ref);
                match old.and_then(|entry| read(entry, series.interval, self.now())) {
                    Some(Read::Found(chart)) => {
                        tracing::warn!(error, "an old chart is shown");
                        Ok(Read::Found(Chart { stale: true, ..chart }))
                    }
                    _ => Err(Error::Unavailable(error)),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// The entry of a chart, after asking the providers for what is missing, if need be.
    async fn build(self: &Arc<Self>, series: &Series, days: Days) -> Result<Entry, Error> {
        let now = self.now();
        let window = Window::new(series, days, now);
        let (mut generation, mut points) = (self.generation(series).await, self.points(series, &window).await?);
        let mut asked = self.asked(series).await.map(|(asked, _)| asked);
        let mut timed_out = false;
        let gap = window.gap(series, now, &points, asked);
        if gap.is_some_and(|(from, _)| !asked.is_some_and(|asked| asked.is_paused(from, now))) {
            let filled = self.wait_for_fill(series, &window, points.is_empty()).await?;
            timed_out = filled.is_none();
            asked = filled.or(asked);
            generation = self.generation(series).await;
            points = self.points(series, &window).await?;
        }
        let gap = window.gap(series, now, &points, asked);
        let failed = gap.is_some() && (timed_out || asked.is_some_and(|asked| asked.failed));
        let paused = asked.map_or(now, |asked| asked.pause_until).max(now + self.ages.failed.min(self.ages.local));
        let oldest = answered(store::oldest(&self.pool, series, &self.config.providers)).await?;
        let (value, mut fresh_until) = match points.last().map(|point| point.bucket) {
            None if failed => (Value::Nothing, paused),
            None if !asked.is_some_and(|asked| asked.offered) && oldest.is_none() => {
                (Value::Unknown, now + self.ages.unknown)
            }
            newest => {
                let due = newest_due(series.interval, now);
                let stale = failed && newest.is_none_or(|newest| newest < due);
                let missing = window.count_missing(series.interval, due, &points, oldest, asked);
                let until = next_due(series, now);
                let until = if gap.is_some() { until.min(paused) } else { until };
                (Value::Chart { prices: shown(&points)?, stale, missing, due }, until)
            }
        };
        if !self.cache.is_shared() {
            fresh_until = fresh_until.min(now + self.ages.local);
        }
        Ok(Entry { value, fresh_until, generation })
    }

    /// Waits until what is missing is fetched, but not for long: with something to show less long than with nothing.
    /// `None` when it was not waited for to its end; it goes on.
    async fn wait_for_fill(
        self: &Arc<Self>,
        series: &Series,
        window: &Window,
        is_empty: bool,
    ) -> Result<Option<Asked>, Error> {
        let (this, wanted, from) = (self.clone(), series.clone(), window.asked_from);
        let mut fill = std::pin::pin!(self.fills.join(series.clone(), move || this.fill(wanted, from)));
        if let Ok(filled) = tokio::time::timeout(self.ages.patience, &mut fill).await {
            return Ok(filled);
        }
        if !is_empty || !self.points(series, window).await?.is_empty() {
            return Ok(None);
        }
        let more = self.ages.patience_with_nothing.saturating_sub(self.ages.patience);
        Ok(tokio::time::timeout(more, fill).await.ok().flatten())
    }

    async fn points(&self, series: &Series, window: &Window) -> Result<Vec<Point>, Error> {
        let preferred = &self.config.providers;
        let mut points = answered(store::series(&self.pool, series, preferred, window.from, window.to)).await?;
        let from = window.start(series.interval, &points);
        points.retain(|point| point.bucket >= from);
        Ok(points)
    }
}

/// What a chart covers.
#[derive(Clone, Copy)]
struct Window {
    from: OffsetDateTime,
    to: OffsetDateTime,
    /// From where on providers are asked for what is missing.
    asked_from: OffsetDateTime,
    /// How long it is, when it is not everything.
    length: Option<Duration>,
}

impl Window {
    fn new(series: &Series, days: Days, now: OffsetDateTime) -> Self {
        let due = newest_due(series.interval, now) + series.interval.length();
        let (from, length) = match days {
            Days::Number(days) => {
                let length = Duration::DAY * i32::from(days);
                (due - length, Some(length))
            }
            Days::Max => (OffsetDateTime::UNIX_EPOCH, None),
        };
        Self { from, to: series.interval.bucket(now), asked_from: from.max(due - reach(series.interval)), length }
    }

    /// Where it starts: when the newest bucket is there before it is due, the oldest one leaves for it.
    fn start(&self, interval: Interval, points: &[Point]) -> OffsetDateTime {
        match (points.last(), self.length) {
            (Some(last), Some(length)) => self.from.max(last.bucket + interval.length() - length),
            _ => self.from,
        }
    }

    fn gap(&self, series: &Series, now: OffsetDateTime, points: &[Point], asked: Option<Asked>) -> Option<Span> {
        let from = self.asked_from.max(self.start(series.interval, points));
        let there = points.iter().map(|point| point.bucket);
        missing(series.interval, from, now, there, asked.map(|asked| (asked.from, asked.to)))
    }

    /// How many points should be there up to `due` and are not: those after the oldest price of the series, and those
    /// before it about which a provider could not be asked.
    fn count_missing(
        &self,
        interval: Interval,
        due: OffsetDateTime,
        points: &[Point],
        oldest: Option<OffsetDateTime>,
        asked: Option<Asked>,
    ) -> u32 {
        let known = |bucket| asked.is_some_and(|asked| asked.from <= bucket && bucket < asked.to);
        let first = oldest.map_or(self.asked_from, |oldest| oldest.min(self.asked_from));
        let mut bucket = interval.bucket(self.start(interval, points).max(first));
        let (mut there, mut count) = (points.iter().map(|point| point.bucket).peekable(), 0);
        while bucket <= due {
            while there.next_if(|held| *held < bucket).is_some() {}
            let expected =
                oldest.is_some_and(|oldest| oldest <= bucket) || (bucket >= self.asked_from && !known(bucket));
            count += u32::from(expected && there.peek() != Some(&bucket));
            bucket += interval.length();
        }
        count
    }
}

/// What an entry shows, if it is one of a chart. One that is shown later than it was made lacks what has become due.
fn read(entry: &Entry, interval: Interval, now: OffsetDateTime) -> Option<Read<Chart>> {
    match &entry.value {
        Value::Chart { prices, stale, missing, due } => {
            let since = (newest_due(interval, now) - *due).whole_seconds() / interval.length().whole_seconds();
            let missing = missing.saturating_add(u32::try_from(since).unwrap_or(0));
            Some(Read::Found(Chart { prices: prices.clone(), stale: *stale, missing }))
        }
        Value::Unknown => Some(Read::Unknown),
        Value::Nothing => Some(Read::Nothing { retry_after: (entry.fresh_until - now).unsigned_abs() }),
        Value::Spot(_) | Value::Asked(_) | Value::Mark => None,
    }
}

/// `[[unix_ms,"price"],…]`; digits need no escapes.
fn shown(points: &[Point]) -> Result<Box<RawValue>, Error> {
    let mut text = String::with_capacity(2 + points.len() * 32);
    for point in points {
        let separator = if text.is_empty() { '[' } else { ',' };
        let millis = point.bucket.unix_timestamp() * 1000;
        // Writing to a string does not fail.
        let _ = write!(text, "{separator}[{millis},\"{}\"]", point.price.to_plain_string());
    }
    text.push_str(if text.is_empty() { "[]" } else { "]" });
    RawValue::from_string(text).map_err(|error| Error::Internal(error.to_string()))
}
