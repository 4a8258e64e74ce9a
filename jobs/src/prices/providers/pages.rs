//! Splits a range into pages. Each page is a separate call, so that a failed one loses only its own buckets.

use futures_util::{StreamExt, future::BoxFuture, stream};
use time::{OffsetDateTime, macros::datetime};

use super::{
    client::ProviderClient,
    provider::{CandlePage, Pages, ProviderError},
};
use crate::prices::{
    model::Series,
    normalise::{CandleSet, Window},
};

/// More buckets than any series has: the range is one page.
pub(super) const ONE_PAGE: i32 = 1_000_000;
/// No provider has older prices.
const BEGINNING: OffsetDateTime = datetime!(2009-01-01 0:00 UTC);

/// The window to request: nothing before there were prices, and nothing in the future.
pub(super) fn request_window(
    client: &ProviderClient,
    series: &Series,
    from: OffsetDateTime,
    to: OffsetDateTime,
) -> Window {
    let now = client.clock.now();
    Window { interval: series.interval, from: from.max(BEGINNING), to: to.min(now), now }
}

/// Splits a window into pages of at most `buckets` buckets, the newest first.
pub(super) fn split_pages(window: Window, buckets: i32) -> Vec<Window> {
    let length = window.interval.length();
    let first = window.interval.bucket(window.from);
    // The bucket that contains the end of the window belongs to it.
    let last = window.interval.bucket(window.to);
    let mut end = if last < window.to { last + length } else { last };
    let mut pages = Vec::new();
    while window.from < window.to && first < end {
        let start = (end - length * buckets).max(first);
        pages.push(Window { from: start.max(window.from), to: end.min(window.to), ..window });
        end = start;
    }
    pages
}

/// Fetches these pages one after the other.
pub(super) fn fetch_pages<'a>(
    client: &'a ProviderClient,
    series: &'a Series,
    pages: Vec<Window>,
    page: impl Fn(Window) -> BoxFuture<'a, Result<CandleSet, ProviderError>> + Send + Sync + 'a,
) -> Pages<'a> {
    stream::unfold((pages.into_iter(), page), move |(mut rest, page)| async move {
        let loaded = page(rest.next()?).await.map(|candle_set| finish_page(client, series, candle_set));
        if matches!(loaded, Err(ProviderError::NotOffered(_) | ProviderError::RetryLater { .. })) {
            rest = Vec::new().into_iter();
        }
        Some((loaded, (rest, page)))
    })
    .boxed()
}

/// Finishes a page: counts and logs its rejected rows.
fn finish_page(client: &ProviderClient, series: &Series, candle_set: CandleSet) -> CandlePage {
    let (candles, rejected) = candle_set.finish();
    rejected.iter().for_each(|(reason, _)| client.metrics.record_rejected_row(*reason));
    if let Some((reason, row)) = rejected.first() {
        let Series { asset, currency, interval } = series;
        tracing::warn!(
            provider = %client.provider, %asset, %currency, interval = interval.as_str(),
            rows = rejected.len(), first = %reason, row, "rejected rows of a provider"
        );
    }
    CandlePage { candles, rejected: rejected.into_iter().map(|(reason, row)| format!("{reason}: {row}")).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prices::model::Interval;

    #[test]
    fn pages_cover_the_window_newest_first() {
        let (from, to) = (datetime!(2024-03-01 0:00 UTC), datetime!(2024-03-10 12:00 UTC));
        let window = |from, to| Window { interval: Interval::Daily, from, to, now: to };
        let cut = |from, to, buckets| -> Vec<_> {
            split_pages(window(from, to), buckets).iter().map(|page| (page.from, page.to)).collect()
        };
        let day = |day: i64| datetime!(2024-03-01 0:00 UTC) + time::Duration::days(day - 1);
        assert_eq!(cut(from, to, 4), [(day(7), to), (day(3), day(7)), (day(1), day(3))]);
        assert_eq!(cut(from, day(10), 9), [(day(1), day(10))]);
        let noon = from + time::Duration::hours(12);
        assert_eq!(cut(noon, day(3), 1), [(day(2), day(3)), (noon, day(2))]);
        assert_eq!(cut(to, from, 4), []);
        assert_eq!(cut(noon, to, ONE_PAGE), [(noon, to)]);
        assert_eq!(split_pages(window(to, from), ONE_PAGE).len(), 0);
    }
}
