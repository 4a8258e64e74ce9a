//! Pinned-snapshot benchmark: how a forgotten transaction slows the queue. While it is open, PostgreSQL cannot remove the
//! index entries of claimed jobs.

use std::time::Duration;

use anyhow::Result;
use jobs::bench::{self, Lateness};

use super::{
    BenchContext,
    pickup::lateness,
    report::{Measurement, Target},
};

/// Webhooks per second.
const RATE: f64 = 800.0;
/// The parts of the time that a snapshot is held; the last one is compared with the first.
const PARTS: usize = 5;

/// Holds a snapshot while transactions flow, and compares the last part of the time with the first one.
pub(super) async fn measure(context: &BenchContext<'_>) -> Result<Vec<Measurement>> {
    let bench = context.bench();
    let (mut first_rates, mut last_rates, mut p50, mut p99) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..context.runs {
        bench::clear(bench).await?;
        let mut worker = context.environment.worker("worker").await?;
        let (mut api, address) = context.environment.api(1).await?;
        let snapshot = bench::hold_snapshot(bench).await?;
        let mut parts: Vec<Lateness> = Vec::new();
        for number in 1..=PARTS {
            let part = lateness(context, address, RATE, Duration::from_secs(1)).await?;
            context.print_progress(format_args!(
                "part {number} of {PARTS}: {:.0} settled/s, p50 {:.1} ms, p99 {:.1} ms",
                part.rate,
                part.p50 * 1e3,
                part.p99 * 1e3
            ));
            parts.push(part);
        }
        drop(snapshot);
        if let (Some(first), Some(last)) = (parts.first(), parts.last()) {
            first_rates.push(first.rate);
            last_rates.push(last.rate);
            p50.push(last.p50 * 1e3);
            p99.push(last.p99 * 1e3);
        }
        worker.stop().await?;
        api.stop().await?;
    }
    let held = context.time * u32::try_from(PARTS).unwrap_or(u32::MAX);
    let line =
        |what: &str, figures| Measurement::new("pinned", format!("{what}, snapshot held for {held:?}"), figures, "ms");
    Ok(vec![
        Measurement::new("pinned", format!("settled at {RATE}/s, last part"), last_rates, "/s")
            .compared_with("first part", first_rates)
            .target(Target::AtLeast(0.95)),
        line("due to PROCESSED, p50", p50),
        line("due to PROCESSED, p99", p99).target(Target::AtMost(20.0)),
    ])
}
