//! A range in pages: each is asked for by itself, so that one that fails costs its own buckets only.

use futures_util::{StreamExt, future::BoxFuture, stream};
use time::{OffsetDateTime, macros::datetime};

use super::{Fetched, Pages, Trouble, caller::Caller};
use crate::prices::{
    model::Series,
    normalise::{Sheet, Window},
};

/// No source has anything older.
const BEGINNING: OffsetDateTime = datetime!(2009-01-01 0:00 UTC);

/// What is asked of a source now: nothing from before there were prices, and nothing that is still to come.
pub fn window(caller: &Caller, series: &Series, from: OffsetDateTime, to: OffsetDateTime) -> Window {
    let now = caller.clock.now();
    Window { interval: series.interval, from: from.max(BEGINNING), to: to.min(now), now }
}

/// A window as one page, when there is anything in it.
pub fn whole(window: Window) -> Vec<Window> {
    if window.from < window.to { vec![window] } else { Vec::new() }
}

/// Cuts a window into pages of at most so many buckets, the newest first.
pub fn cut(window: Window, buckets: i32) -> Vec<Window> {
    let length = window.interval.length();
    let first = window.interval.bucket(window.from);
    // The bucket that the window ends in belongs to it.
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

/// Loads these pages one after the other.
pub fn load<'a>(
    caller: &'a Caller,
    series: &'a Series,
    pages: Vec<Window>,
    page: impl Fn(Window) -> BoxFuture<'a, Result<Sheet, Trouble>> + Send + Sync + 'a,
) -> Pages<'a> {
    stream::unfold((pages.into_iter(), page), move |(mut rest, page)| async move {
        let loaded = page(rest.next()?).await.map(|sheet| fetched(caller, series, sheet));
        if matches!(loaded, Err(Trouble::NotOffered(_) | Trouble::Later { .. })) {
            rest = Vec::new().into_iter();
        }
        Some((loaded, (rest, page)))
    })
    .boxed()
}

/// What the rows of a page come to.
fn fetched(caller: &Caller, series: &Series, sheet: Sheet) -> Fetched {
    let (candles, rejected) = sheet.finish();
    rejected.iter().for_each(|(reason, _)| caller.series.rejected(*reason));
    if let Some((reason, row)) = rejected.first() {
        let Series { asset, currency, interval } = series;
        tracing::warn!(
            provider = %caller.source, %asset, %currency, interval = interval.as_str(),
            rows = rejected.len(), first = %reason, row, "rows rejected"
        );
    }
    Fetched { candles, rejected: rejected.into_iter().map(|(reason, row)| format!("{reason}: {row}")).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prices::model::Interval;

    #[test]
    fn pages_cover_a_window_without_a_gap_the_newest_first() {
        let (from, to) = (datetime!(2024-03-01 0:00 UTC), datetime!(2024-03-10 12:00 UTC));
        let window = |from, to| Window { interval: Interval::Daily, from, to, now: to };
        let cut = |from, to, buckets| -> Vec<_> {
            cut(window(from, to), buckets).iter().map(|page| (page.from, page.to)).collect()
        };
        let day = |day: i64| datetime!(2024-03-01 0:00 UTC) + time::Duration::days(day - 1);
        assert_eq!(cut(from, to, 4), [(day(7), to), (day(3), day(7)), (day(1), day(3))]);
        assert_eq!(cut(from, day(10), 9), [(day(1), day(10))]);
        let noon = from + time::Duration::hours(12);
        assert_eq!(cut(noon, day(3), 1), [(day(2), day(3)), (noon, day(2))]);
        assert_eq!(cut(to, from, 4), []);
        assert_eq!(whole(window(to, from)).len(), 0);
    }
}
