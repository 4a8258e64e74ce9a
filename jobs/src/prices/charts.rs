//! Charts: a series as it is stored, with what is missing fetched by one for all.

use std::{fmt::Write, sync::Arc, time::Instant};

use serde_json::value::RawValue;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{
    ages::{missing, newest_due, next_due, reach},
    cache::{Asked, Entry, Value, asked_key, chart_key, generation_key},
    model::{Point, Series},
    read::{Chart, Days, LOOK_AGAIN, Read, Reader, TURN, TURN_PATIENCE, generation_of},
    store,
};
use crate::{boot::db::answered, error::Error};

/// From a bucket up to the end of another.
type Span = (OffsetDateTime, OffsetDateTime);

impl Reader {
    /// The prices of the last days, or of all.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is needed and cannot be asked now.
    pub(super) async fn chart(self: &Arc<Self>, series: &Series, days: Days) -> Result<Read<Chart>, Error> {
        let keys = [chart_key(series, &days.to_string()), generation_key(series)];
        let looked = self.cache.get(&keys).await;
        let hit = looked.as_ref().ok().and_then(|found| self.fresh(found));
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
    fn fresh(&self, found: &[Option<Arc<Entry>>]) -> Option<Read<Chart>> {
        let [Some(entry), mark] = found else { return None };
        let now = self.now();
        if now >= entry.fresh_until || entry.generation != generation_of(mark.as_ref()) {
            return None;
        }
        read(entry, now)
    }

    async fn load(self: Arc<Self>, series: Series, days: Days, keys: &[String; 2]) -> Result<Read<Chart>, Error> {
        // Another process may have filled it since.
        let found = self.cache.get(keys).await.unwrap_or_default();
        if let Some(hit) = self.fresh(&found) {
            return Ok(hit);
        }
        self.count_load();
        match self.build(&series, days).await {
            Ok(entry) => {
                let entry = Arc::new(entry);
                self.keep(&keys[0], entry.clone()).await;
                read(&entry, self.now()).ok_or_else(|| Error::Internal("a chart is none".into()))
            }
            Err(Error::Unavailable(error)) => match found.first().and_then(Option::as_ref).map(|entry| &entry.value) {
                Some(Value::Chart { prices, .. }) => {
                    tracing::warn!(error, "an old chart is shown");
                    Ok(Read::Found(Chart { prices: prices.clone(), stale: true }))
                }
                _ => Err(Error::Unavailable(error)),
            },
            Err(error) => Err(error),
        }
    }

    /// The entry of a chart, after asking the sources for what is missing, if need be.
    async fn build(self: &Arc<Self>, series: &Series, days: Days) -> Result<Entry, Error> {
        let now = self.now();
        let window = Window::new(series, days, now);
        let (mut generation, mut points) = (self.generation(series).await, self.points(series, &window).await?);
        let mut asked = self.asked(series).await.map(|(asked, _)| asked);
        let mut timed_out = false;
        let gap = window.gap(series, now, &points, asked);
        if gap.is_some_and(|(from, _)| !asked.is_some_and(|asked| asked.is_paused(from, now))) {
            let (this, wanted) = (self.clone(), series.clone());
            let fill = self.fills.join(series.clone(), move || this.fill(wanted, window.asked_from));
            let patience = if points.is_empty() { self.ages.patience_with_nothing } else { self.ages.patience };
            match tokio::time::timeout(patience, fill).await {
                Ok(Some(filled)) => asked = Some(filled),
                // It goes on without us.
                Ok(None) | Err(_) => timed_out = true,
            }
            generation = self.generation(series).await;
            points = self.points(series, &window).await?;
        }
        let gap = window.gap(series, now, &points, asked);
        let failed = gap.is_some() && (timed_out || asked.is_some_and(|asked| asked.failed));
        let paused = asked.map_or(now, |asked| asked.pause_until).max(now + self.ages.failed.min(self.ages.local));
        let newest = points.last().map(|point| point.bucket);
        let (value, mut fresh_until) = match newest {
            None if failed => (Value::Nothing, paused),
            None if !asked.is_some_and(|asked| asked.offered)
                && !answered(store::is_known(&self.pool, series)).await? =>
            {
                (Value::Unknown, now + self.ages.unknown)
            }
            newest => {
                let stale = failed && newest.is_none_or(|newest| newest < newest_due(series.interval, now));
                let until = next_due(series, now);
                (Value::Chart { prices: shown(&points)?, stale }, if gap.is_some() { until.min(paused) } else { until })
            }
        };
        if !self.cache.is_shared() {
            fresh_until = fresh_until.min(now + self.ages.local);
        }
        Ok(Entry { value, fresh_until, generation })
    }

    async fn points(&self, series: &Series, window: &Window) -> Result<Vec<Point>, Error> {
        let preferred = &self.config.providers;
        let mut points = answered(store::series(&self.pool, series, preferred, window.from, window.to)).await?;
        if let (Some(last), Some(length)) = (points.last(), window.length) {
            // When the newest bucket is there before it is due, the oldest one leaves for it.
            let from = last.bucket + series.interval.length() - length;
            points.retain(|point| point.bucket >= from);
        }
        Ok(points)
    }

    /// Asks the sources for what is missing, when it is this process's turn, and nobody has done it meanwhile.
    async fn fill(self: Arc<Self>, series: Series, from: OffsetDateTime) -> Asked {
        let (turn, token, begun) = ([asked_key(&series)], Uuid::new_v4().as_u128(), Instant::now());
        // A cache that cannot be asked holds nobody back.
        while self.cache.take(&turn, token, TURN).await.is_ok_and(|taken| taken != [true])
            && begun.elapsed() < TURN_PATIENCE
        {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let asked = self.ask(&series, from).await;
        // If that fails, it ends by itself.
        let _ = self.cache.give_back(&turn, token).await;
        asked
    }

    async fn ask(&self, series: &Series, from: OffsetDateTime) -> Asked {
        let now = self.now();
        let (before, counts_until) = match self.asked(series).await {
            Some((asked, until)) => (Some(asked), until),
            None => (None, now + self.ages.absent),
        };
        let gap = async || self.gap(series, from, now, before).await;
        let whole = match gap().await {
            Ok(Some(whole)) if !before.is_some_and(|before| before.is_paused(whole.0, now)) => whole,
            Ok(_) => return before.unwrap_or(Asked::nothing(now)),
            Err(error) => {
                tracing::warn!(%error, "prices are not fetched");
                return Asked { failed: true, ..before.unwrap_or(Asked::nothing(now)) };
            }
        };
        let (mut rest, mut troubles, mut offered) = (Some(whole), Vec::new(), false);
        for provider in self.providers.0.iter() {
            let Some((from, to)) = rest else { break };
            let fetched = match self.fetched(provider.source(), provider.candles(series, from, to)).await {
                Ok(fetched) => fetched,
                Err(trouble) => {
                    troubles.extend(trouble);
                    continue;
                }
            };
            offered = true;
            let stored = async {
                if !fetched.candles.is_empty() {
                    answered(store::put(&self.pool, series, provider.source(), &fetched.candles, self.now())).await?;
                }
                gap().await
            };
            match stored.await {
                Ok(left) => rest = left,
                Err(error) => {
                    tracing::warn!(%error, "prices could not be stored");
                    troubles.push(self.ages.failed);
                }
            }
        }
        let asked = self.conclude(before, series, now, (whole, rest), &troubles, offered);
        let entry = Entry { value: Value::Asked(asked), fresh_until: counts_until, generation: 0 };
        self.keep(&asked_key(series), Arc::new(entry)).await;
        if offered && let Err(error) = self.renew(series).await {
            tracing::debug!(%error, "others may show an older chart until it is due");
        }
        asked
    }

    async fn gap(
        &self,
        series: &Series,
        from: OffsetDateTime,
        now: OffsetDateTime,
        asked: Option<Asked>,
    ) -> Result<Option<Span>, Error> {
        let to = series.interval.bucket(now);
        let points = answered(store::series(&self.pool, series, &self.config.providers, from, to)).await?;
        let there = points.iter().map(|point| point.bucket);
        Ok(missing(series.interval, from, now, there, asked.map(|asked| (asked.from, asked.to))))
    }

    /// What is known after asking for `whole` when `rest` is still missing.
    fn conclude(
        &self,
        before: Option<Asked>,
        series: &Series,
        now: OffsetDateTime,
        (whole, rest): (Span, Option<Span>),
        troubles: &[std::time::Duration],
        offered: bool,
    ) -> Asked {
        let before = before.unwrap_or(Asked::nothing(now));
        let known = Asked { failed: false, offered: offered || before.offered, tried_from: whole.0, ..before };
        let Some((_, end)) = rest else { return known.widened(whole).paused(now) };
        if !troubles.is_empty() {
            return Asked { failed: true, ..known.paused(now + self.pause(troubles)) };
        }
        if !known.offered {
            return known.paused(now + self.ages.unknown);
        }
        let newest = newest_due(series.interval, now);
        // The newest one will come; what is older and was not there will not.
        if end > newest {
            known.widened((whole.0, newest)).paused(now + self.ages.late)
        } else {
            known.widened(whole).paused(now)
        }
    }
}

/// What a chart covers.
#[derive(Clone, Copy)]
struct Window {
    from: OffsetDateTime,
    to: OffsetDateTime,
    /// From where on sources are asked for what is missing.
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

    fn gap(&self, series: &Series, now: OffsetDateTime, points: &[Point], asked: Option<Asked>) -> Option<Span> {
        // The oldest bucket may have left for one that was not due yet.
        let from = match (points.last(), self.length) {
            (Some(last), Some(length)) => self.asked_from.max(last.bucket + series.interval.length() - length),
            _ => self.asked_from,
        };
        let there = points.iter().map(|point| point.bucket);
        missing(series.interval, from, now, there, asked.map(|asked| (asked.from, asked.to)))
    }
}

/// What an entry shows, if it is one of a chart.
fn read(entry: &Entry, now: OffsetDateTime) -> Option<Read<Chart>> {
    match &entry.value {
        Value::Chart { prices, stale } => Some(Read::Found(Chart { prices: prices.clone(), stale: *stale })),
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
