//! Refills: fetches the missing buckets of a series, once for all callers, and stores them page by page.

use std::{sync::Arc, time::Instant};

use futures_util::StreamExt;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    ages::{Ages, missing_span, newest_due},
    cache::{Coverage, Entry, Value, coverage_key},
    hedge::{HedgedCalls, Reporter, Step},
    model::Series,
    providers::Provider,
    read::{LOCK_POLL, LOCK_TTL, LOCK_WAIT, Reader},
    store,
};
use runtime::{error::Error, time_limit::with_time_limit};

/// The start of the first bucket, and the end of the last one.
pub(super) type Span = (OffsetDateTime, OffsetDateTime);

/// What a call to a provider reports.
enum CallReport {
    /// A page was stored, or was empty.
    PageStored,
    /// The provider may have missing buckets, but failed. It may be called again after this time.
    Failed(std::time::Duration),
}

/// The result of calling the providers.
struct Refill {
    /// The missing span before and after.
    span_before: Span,
    span_after: Option<Span>,
    /// After how long the failed providers may be called again.
    retry_delays: Vec<std::time::Duration>,
    /// At least one provider offers the series.
    offered: bool,
}

impl Reader {
    /// Fetches what is missing, under a lock shared by all processes, unless another process has fetched it meanwhile.
    pub(super) async fn fill(self: Arc<Self>, series: Series, from: OffsetDateTime) -> Coverage {
        let (lock, token, started_at) = ([coverage_key(&series)], Uuid::new_v4().as_u128(), Instant::now());
        // A cache that is unavailable delays no caller. The callers of this process share one fetch even so.
        while self.cache.lock(&lock, token, LOCK_TTL).await.is_ok_and(|locked| locked != [true])
            && started_at.elapsed() < LOCK_WAIT
        {
            tokio::time::sleep(LOCK_POLL).await;
        }
        let coverage = self.fill_locked(&series, from).await;
        self.cache.unlock(&lock, token, LOCK_TTL).await;
        coverage
    }

    async fn fill_locked(self: &Arc<Self>, series: &Series, from: OffsetDateTime) -> Coverage {
        let now = self.now();
        let (before, counts_until) = self.coverage(series).await;
        let span_before = match self.gap(series, from, now, before).await {
            Ok(Some(span_before)) if !before.is_paused(span_before.0, now) => span_before,
            Ok(_) => return before,
            Err(error) => {
                tracing::warn!(%error, "database unavailable; prices not fetched");
                return Coverage { failed: true, ..before };
            }
        };
        let refill = self.refill(series, span_before, from, now, before).await;
        let coverage = coverage_after(&refill, before, series, now, &self.ages);
        let entry = Entry { value: Value::Coverage(coverage), fresh_until: counts_until, generation: self.salt };
        self.cache_entry(&coverage_key(series), Arc::new(entry)).await;
        if refill.offered
            && let Err(error) = self.begin_generation(series).await
        {
            tracing::debug!(%error, "cached charts not invalidated; they stay until they expire");
        }
        coverage
    }

    /// Calls the providers, hedged, until nothing is missing.
    async fn refill(
        self: &Arc<Self>,
        series: &Series,
        span_before: Span,
        from: OffsetDateTime,
        now: OffsetDateTime,
        before: Coverage,
    ) -> Refill {
        let mut calls = HedgedCalls::new(self.providers.0.iter().cloned(), self.ages.hedge);
        let mut refill =
            Refill { span_before, span_after: Some(span_before), retry_delays: Vec::new(), offered: false };
        while let Some(span) = refill.span_after {
            match calls.next().await {
                Step::Call(provider) => {
                    let (this, series) = (self.clone(), series.clone());
                    calls.spawn(|reporter| async move { this.store_pages(&*provider, &series, span, &reporter).await });
                }
                Step::Report(CallReport::Failed(after)) => refill.retry_delays.push(after),
                Step::Report(CallReport::PageStored) => {
                    refill.offered = true;
                    match self.gap(series, from, now, before).await {
                        Ok(span_after) => refill.span_after = span_after,
                        Err(error) => {
                            tracing::warn!(%error, "could not read which prices are missing");
                            refill.retry_delays.push(self.ages.failed);
                        }
                    }
                }
                Step::Finished => break,
            }
        }
        refill
    }

    /// Stores the pages of one provider, until the receiver is gone.
    async fn store_pages(
        &self,
        provider: &dyn Provider,
        series: &Series,
        (from, to): Span,
        reporter: &Reporter<CallReport>,
    ) {
        let mut pages = provider.candles(series, from, to);
        while let Some(page) = pages.next().await {
            let report = match self.record_call(provider.id(), page) {
                Ok(page) if page.candles.is_empty() => CallReport::PageStored,
                Ok(page) => {
                    let upsert = store::upsert_candles(&self.pool, series, provider.id(), &page.candles, self.now());
                    match with_time_limit(upsert).await {
                        Ok(_) => CallReport::PageStored,
                        Err(error) => {
                            tracing::warn!(%error, "could not store prices");
                            CallReport::Failed(self.ages.failed)
                        }
                    }
                }
                Err(Some(after)) => CallReport::Failed(after),
                Err(None) => return,
            };
            if !reporter.report(report) {
                return;
            }
        }
    }

    async fn gap(
        &self,
        series: &Series,
        from: OffsetDateTime,
        now: OffsetDateTime,
        coverage: Coverage,
    ) -> Result<Option<Span>, Error> {
        let to = series.interval.bucket(now);
        let points = store::series(&self.pool, series, &self.config.providers, from, to).await?;
        let there = points.iter().map(|point| point.bucket);
        Ok(missing_span(series, from, now, there, coverage.known()))
    }
}

/// The coverage of a series after a refill at `now`. `before` is the coverage before it.
fn coverage_after(refill: &Refill, before: Coverage, series: &Series, now: OffsetDateTime, ages: &Ages) -> Coverage {
    let (span, offered) = (refill.span_before, refill.offered || before.offered);
    let coverage = Coverage { failed: false, offered, tried_from: span.0, ..before };
    let Some((_, end)) = refill.span_after else { return coverage.extended(span).with_pause(now) };
    if !refill.retry_delays.is_empty() {
        return Coverage { failed: true, ..coverage.with_pause(now + ages.pause_after(&refill.retry_delays)) };
    }
    if !coverage.offered {
        return coverage.with_pause(now + ages.unknown);
    }
    let newest = newest_due(series, now);
    // The newest bucket will come. Older buckets that no provider has now will not.
    if end > newest {
        coverage.extended((span.0, newest)).with_pause(now + ages.late)
    } else {
        coverage.extended(span).with_pause(now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::macros::datetime;

    use super::*;
    use crate::prices::model::{AssetId, Currency, Interval};

    const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);
    const AGES: Ages = Ages::DEFAULT;

    fn series() -> Series {
        let (asset, currency) = (AssetId::parse("bitcoin"), Currency::parse("usd"));
        Series { asset: asset.expect("an id"), currency: currency.expect("a currency"), interval: Interval::Daily }
    }

    /// The start of a day of November 2026.
    fn day(number: u8) -> OffsetDateTime {
        datetime!(2026-11-01 0:00 UTC) + Duration::from_secs((u64::from(number) - 1) * 86_400)
    }

    #[test]
    fn coverage_after_a_refill_says_what_is_asked_for_again_and_when() {
        // The day before, 20 November, is the newest that is due.
        let all = (day(10), day(21));
        for (case, span_after, retry_delays, offered, known_to, failed, pause) in [
            ("all found", None, vec![], true, Some(day(21)), false, Duration::ZERO),
            ("an old gap stays", Some((day(10), day(12))), vec![], true, Some(day(21)), false, Duration::ZERO),
            ("the newest is late", Some((day(20), day(21))), vec![], true, Some(day(20)), false, AGES.late),
            ("not offered", Some(all), vec![], false, None, false, AGES.unknown),
            ("all failed", Some(all), vec![AGES.failed], false, None, true, AGES.failed),
            ("one failed", Some(all), vec![Duration::from_secs(40)], true, None, true, Duration::from_secs(40)),
            ("a long ban", Some(all), vec![Duration::from_secs(7200)], true, None, true, AGES.unknown),
        ] {
            let refill = Refill { span_before: all, span_after, retry_delays, offered };
            let coverage = coverage_after(&refill, Coverage::none(NOW), &series(), NOW, &AGES);
            let known = known_to.map_or((NOW, NOW), |to| (day(10), to));
            assert_eq!((coverage.from, coverage.to), known, "{case}");
            assert_eq!((coverage.failed, coverage.offered, coverage.tried_from), (failed, offered, day(10)), "{case}");
            assert_eq!(coverage.pause_until, NOW + pause, "{case}");
        }
    }

    #[test]
    fn coverage_before_a_refill_is_kept() {
        let before = Coverage { from: day(1), to: day(10), offered: true, ..Coverage::none(NOW) };
        let refill = Refill { span_before: (day(10), day(21)), span_after: None, retry_delays: vec![], offered: false };
        let coverage = coverage_after(&refill, before, &series(), NOW, &AGES);
        assert_eq!((coverage.from, coverage.to, coverage.offered), (day(1), day(21), true));
    }
}
