//! Callbacks benchmark: from settlements to receipts at many receivers, while all respond and while some hang.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use jobs::{
    bench,
    transactions::{Sender, Transactions},
};
use tokio::{task::JoinSet, time::Instant};
use uuid::Uuid;

use super::{
    BenchContext,
    environment::{ingest, transaction},
    receivers::{HANGS, Receivers},
    report::{Measurement, Target, percentile},
};

/// Settlements per second.
const RATE: f64 = 1000.0;
/// Receivers, each of one sender.
const RECEIVERS: usize = 100;
/// Receivers that hang in the second run.
const HANGING: usize = 1;
/// A callback that arrives within this time is in time.
const IN_TIME: Duration = Duration::from_secs(2);
/// Load before the measurement: connections are opened, and statements are prepared.
const WARM_UP: Duration = Duration::from_secs(2);
/// Signs all callbacks.
const SECRET: &str = "whsec_dGhlIHNlY3JldCBvZiB0aGUgYmVuY2htYXJr";

/// What the receivers that respond have seen.
struct Seen {
    /// Per cent.
    in_time: f64,
    /// Milliseconds.
    p50: f64,
    p99: f64,
}

/// Measures delays while all receivers respond, then while one of them hangs.
pub(super) async fn measure(context: &BenchContext<'_>) -> Result<Vec<Measurement>> {
    let (mut healthy, mut hanging) = (Vec::new(), Vec::new());
    for _ in 0..context.runs {
        healthy.push(run(context, 0).await?);
        hanging.push(run(context, HANGING).await?);
    }
    bench::clear(context.bench()).await?;
    let figures = |seen: &[Seen], figure: fn(&Seen) -> f64| -> Vec<f64> { seen.iter().map(figure).collect() };
    let hangs = format!("while {HANGING} of {RECEIVERS} hangs for {} s", HANGS.as_secs());
    let line = |what: String, figures, unit| Measurement::new("callbacks", what, figures, unit);
    let in_time = |what, seen: &[Seen]| line(what, figures(seen, |one| one.in_time), "%").target(Target::AtLeast(99.9));
    let compared = |share: &str, figure: fn(&Seen) -> f64| {
        line(format!("settlement to receipt {hangs}, {share}"), figures(&hanging, figure), "ms")
            .compared_with("while all respond", figures(&healthy, figure))
    };
    Ok(vec![
        in_time(format!("callbacks within 2 s, {RATE}/s to {RECEIVERS} receivers"), &healthy),
        in_time(format!("those to the others {hangs}"), &hanging),
        compared("p50", |one| one.p50),
        compared("p99", |one| one.p99).target(Target::AtMost(1.1)),
    ])
}

/// Settles transactions at [`RATE`] by a real worker, whose callbacks go to receivers of which `hanging` hang. Returns when every
/// callback to one of the others has arrived.
async fn run(context: &BenchContext<'_>, hanging: usize) -> Result<Seen> {
    bench::clear(context.bench()).await?;
    let receivers = Receivers::start(RECEIVERS, hanging)?;
    let urls = receivers.urls.iter().enumerate().map(|(number, url)| format!("{}:{url}", sender(number)));
    let urls = urls.collect::<Vec<_>>().join(",");
    let variables = [("CALLBACK_URL", &*urls), ("CALLBACK_SECRET", SECRET), ("CALLBACK_ALLOW_PRIVATE", "true")];
    let mut worker = context.environment.worker_with(&["worker"], &variables).await?;
    let transactions = &context.environment.app.transactions;
    add(transactions, "warm-up", WARM_UP).await?;
    let series = Uuid::now_v7().to_string();
    let count = add(transactions, &series, context.time).await?;
    let expected = (0..count).filter(|number| number % RECEIVERS >= hanging).count();
    let arrived = async || Ok(receivers.count(&series) >= expected);
    context.environment.wait_until("every callback to a receiver that responds has arrived", arrived).await?;
    let delays = receivers.delays(&series);
    // The calls of those that hang end, so that the worker stops at once.
    drop(receivers);
    worker.stop().await?;
    let in_time = delays.iter().filter(|delay| **delay <= IN_TIME).count() as f64 / expected as f64 * 100.0;
    let seen = Seen { in_time, p50: percentile(&delays, 0.5), p99: percentile(&delays, 0.99) };
    context.print_progress(format_args!(
        "{hanging} of {RECEIVERS} hang: {in_time:.2} % of {expected} in time, p50 {:.1} ms, p99 {:.1} ms",
        seen.p50, seen.p99
    ));
    Ok(seen)
}

/// The name of the sender whose settlements a receiver gets.
fn sender(number: usize) -> String {
    format!("sender-{number}")
}

/// Records transactions that are due at once, at [`RATE`] for this time, in turn for each sender. Returns their number. They are
/// recorded at fixed times, so that a slow database cannot hide delays.
async fn add(transactions: &Transactions, series: &str, time: Duration) -> Result<usize> {
    let senders: Vec<Arc<str>> = (0..RECEIVERS).map(|number| sender(number).into()).collect();
    let (begun, mut ingests) = (Instant::now(), JoinSet::new());
    // The time is short enough for a whole number.
    let count = (time.as_secs_f64() * RATE).round() as usize;
    for (number, sender) in (0..count).zip(senders.iter().cycle()) {
        tokio::time::sleep_until(begun + Duration::from_secs_f64(number as f64 / RATE)).await;
        let new = transaction(format!("{series}-{number}"))?;
        let (transactions, sender) = (transactions.clone(), sender.clone());
        ingests.spawn(async move { ingest(&transactions, new, Sender::Named(sender)).await });
    }
    while let Some(ingested) = ingests.join_next().await {
        ingested??;
    }
    Ok(count)
}
