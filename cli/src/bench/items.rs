//! Items: read through the cache, found by their words, indexed after each write.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use jobs::{
    boot::process::text,
    items::{Contents, index::IndexItem},
    queue::{Job, Origin},
    users::UserId,
};

use super::{
    Run, drain,
    load::{self, Load, Speed},
    report::{Figure, Line, Target, median, percentile},
};

/// Searches a second: what a machine does beside its other work.
const SEARCHES: f64 = 50.0;
/// Words that are searched for, in turn.
const WORDS: i64 = 200;
/// Writes under way at once.
const WRITERS: usize = 64;

/// Cached reads beside a constant route, searches among many items, and how fast writes are followed by the index.
pub async fn measure(run: &Run<'_>) -> Result<Vec<Line>, String> {
    let bench = &run.stand.bench;
    bench.clear().await.map_err(text)?;
    let owner = UserId(bench.add_owner().await.map_err(text)?);
    // As many writes as jobs elsewhere would take most of the time to make one by one.
    let written = run.jobs / 10;
    let mut indexed = Vec::new();
    for _ in 0..run.runs {
        let worker = run.stand.worker("worker")?;
        let add = async || {
            let create = |number: i64| async move {
                let title = format!("Item number {number}");
                let contents = Contents { title, description: Some("as good as new".into()), price_cents: Some(100) };
                run.stand.app.items.create(owner, &contents, Origin::default()).await.map_err(text).map(drop)
            };
            stream::iter(0..written).map(create).buffer_unordered(WRITERS).try_collect::<()>().await
        };
        indexed.push(drain::drain(run, IndexItem::NAME, written, add).await?);
        worker.stop()?;
        run.say(format_args!("{indexed:.0?} items indexed/s"));
    }

    bench.add_items(owner.0, run.jobs).await.map_err(text)?;
    run.say(format_args!("indexing {} items", run.jobs));
    run.stand.app.search.reindex(|_| {}).await.map_err(text)?;
    bench.settle().await.map_err(text)?;
    let words = bench.words(WORDS).await.map_err(text)?;
    let (api, address) = run.stand.api(30)?;
    let id = bench.any_item().await.map_err(text)?;
    let load = Load {
        address,
        connections: run.connections,
        speed: Speed::Full,
        time: run.time,
        request: load::get(move |_| format!("/api/v1/items/{id}")),
        expected: 200,
    };
    let (mut cached, mut constant, mut found) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..run.runs {
        let words = words.clone();
        let search = load::get(move |number| {
            let word = usize::try_from(number).ok().and_then(|number| words.get(number % words.len()));
            format!("/api/v1/search/items?q={}", word.map_or("item", String::as_str))
        });
        cached.push(load.clone().run().await?.rate());
        constant.push(Load { request: load::get(|_| "/api/v1/health".into()), ..load.clone() }.run().await?.rate());
        let search = Load { request: search, connections: 8, speed: Speed::PerSecond(SEARCHES), ..load.clone() };
        // The first ones read what no search has read before.
        Load { time: Duration::from_millis(500), ..search.clone() }.run().await?;
        found.push(percentile(&search.run().await?.latencies, 0.99));
        run.say(format_args!(
            "{cached:.0?} cached reads/s, {constant:.0?} constant answers/s, p99 {found:.1?} ms a search"
        ));
    }
    api.stop()?;
    Ok(vec![
        Line::beside(
            "items",
            Figure::new("cached reads of an item", median(cached), "/s"),
            Figure::new("a constant JSON route", median(constant), "/s"),
            Some(Target::AtLeast(0.6)),
        ),
        Line::alone(
            "items",
            Figure::new(format!("p99 of searches among {} items", run.jobs), median(found), "ms"),
            Some(Target::AtMost(20.0)),
        ),
        Line::alone(
            "items",
            Figure::new("items indexed, one worker", median(indexed), "/s"),
            Some(Target::AtLeast(1000.0)),
        ),
    ])
}
