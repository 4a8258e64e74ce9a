//! Items benchmark: cached reads, searches, and indexing after writes.

use std::time::Duration;

use anyhow::Result;
use futures_util::{StreamExt, TryStreamExt, stream};
use jobs::{
    bench,
    items::{Contents, index::IndexItem},
    users::UserId,
};
use queue::{Job, Origin};

use super::{
    BenchContext, drain,
    load::{self, Load, Speed},
    report::{Measurement, Target, percentile},
};

/// Searches per second: a moderate load next to other work.
const SEARCHES: f64 = 50.0;
/// How many different words are searched for, in turn.
const WORDS: i64 = 200;
/// Concurrent writes.
const WRITERS: usize = 64;

/// Compares cached reads with a constant route; measures searches among many items and the rate of indexing.
pub(super) async fn measure(context: &BenchContext<'_>) -> Result<Vec<Measurement>> {
    let (bench, items) = (context.bench(), &context.environment.app.items);
    bench::clear(bench).await?;
    let owner = UserId(bench::items::add_owner(bench).await?);
    // A tenth of the usual number: creating the items one by one would take most of the time.
    let written = context.jobs / 10;
    let mut indexed = Vec::new();
    for _ in 0..context.runs {
        let mut worker = context.environment.worker("worker").await?;
        let add = async || {
            let create = |number: i64| async move {
                let title = format!("Item number {number}");
                let contents = Contents { title, description: Some("as good as new".into()), price_cents: Some(100) };
                items.create(owner, &contents, Origin::default()).await.map(drop)
            };
            Ok(stream::iter(0..written).map(create).buffer_unordered(WRITERS).try_collect::<()>().await?)
        };
        indexed.push(drain::drain(context, IndexItem::NAME, written, add).await?);
        worker.stop().await?;
        context.print_progress(format_args!("{indexed:.0?} items indexed/s"));
    }

    bench::items::add_items(bench, owner.0, context.jobs).await?;
    context.print_progress(format_args!("indexing {} items", context.jobs));
    context.environment.app.search.reindex(|_| {}).await?;
    bench::analyze_and_checkpoint(bench).await?;
    let words = bench::items::sample_words(bench, WORDS).await?;
    let (mut api, address) = context.environment.api(30).await?;
    let id = bench::items::newest_item(bench).await?;
    let load = context.load(address, load::get(move |_| format!("/api/v1/items/{id}")), 200);
    let (mut cached, mut constant, mut found) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..context.runs {
        let words = words.clone();
        let search = load::get(move |number| {
            let word = usize::try_from(number).ok().and_then(|number| words.get(number % words.len()));
            format!("/api/v1/search/items?q={}", word.map_or("item", String::as_str))
        });
        cached.push(load.clone().run().await?.rate());
        constant.push(load.of_constant_route().run().await?.rate());
        let search = Load { request: search, connections: 8, speed: Speed::PerSecond(SEARCHES), ..load.clone() };
        // Warm-up: the first searches read pages that are not cached yet.
        Load { time: Duration::from_millis(500), ..search.clone() }.run().await?;
        found.push(percentile(&search.run().await?.latencies, 0.99));
        context.print_progress(format_args!(
            "{cached:.0?} cached reads/s, {constant:.0?} constant responses/s, searches p99 {found:.1?} ms"
        ));
    }
    api.stop().await?;
    Ok(vec![
        Measurement::new("items", "cached reads of an item", cached, "/s")
            .compared_with("a constant JSON route", constant)
            .target(Target::AtLeast(0.6)),
        Measurement::new("items", format!("p99 of searches among {} items", context.jobs), found, "ms")
            .target(Target::AtMost(20.0)),
        Measurement::new("items", "items indexed, one worker", indexed, "/s").target(Target::AtLeast(1000.0)),
    ])
}
