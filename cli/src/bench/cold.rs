//! Cold benchmark: what the first minute of a new database reads. Its tables have no statistics yet, so a plan that depends on
//! them may scan whole tables.

use std::time::Duration;

use anyhow::Result;
use jobs::bench;

use super::{
    BenchContext,
    pickup::lateness,
    report::{Measurement, Target},
};

/// Webhooks per second.
const RATE: f64 = 400.0;

/// Sends webhooks to empty tables without statistics, and counts the rows that scans have read until all are processed.
pub(super) async fn measure(context: &BenchContext<'_>) -> Result<Vec<Measurement>> {
    let bench = context.bench();
    let (mut scanned, mut p99) = (Vec::new(), Vec::new());
    for _ in 0..context.runs {
        bench::empty(bench).await?;
        let before = bench::scanned_rows(bench).await?;
        let mut worker = context.environment.worker("worker").await?;
        let (mut api, address) = context.environment.api(0).await?;
        let late = lateness(context, address, RATE, Duration::ZERO).await?;
        // The sessions report what they have read when they end.
        worker.stop().await?;
        api.stop().await?;
        scanned.push((bench::scanned_rows(bench).await? - before) as f64 / late.settled as f64);
        p99.push(late.p99 * 1e3);
        context.print_progress(format_args!("{scanned:.1?} rows read by scans a webhook, delay p99 {p99:.1?} ms"));
    }
    Ok(vec![
        Measurement::new("cold", format!("rows read by scans a webhook, {RATE}/s in empty tables"), scanned, "")
            .target(Target::AtMost(10.0)),
        Measurement::new("cold", "due to PROCESSED in these, p99", p99, "ms"),
    ])
}
