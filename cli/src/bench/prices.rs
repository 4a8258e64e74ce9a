//! Prices benchmark: cached reads of a chart of 30 days.

use anyhow::Result;
use jobs::bench;

use super::{
    BenchContext, environment, load,
    report::{Measurement, Target, percentile},
};

const ASSET: &str = "bitcoin";
const CURRENCY: &str = "usd";
const DAYS: i32 = 30;

/// Compares cached reads of a chart with a constant route, over the same number of connections.
pub(super) async fn measure(context: &BenchContext<'_>) -> Result<Vec<Measurement>> {
    let bench = context.bench();
    bench::clear(bench).await?;
    // More days than the chart shows, so that no provider is called at any time of day.
    bench::prices::add(bench, ASSET, CURRENCY, DAYS + 10).await?;
    let (mut api, address) = context.environment.api(30).await?;
    let path = format!("/market_chart?asset={ASSET}&currency={CURRENCY}&days={DAYS}");
    let load = context.load(address, load::get_with_key(path, environment::API_KEY), 200);
    let (mut cached, mut constant, mut late, mut constant_late) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..context.runs {
        let result = load.clone().run().await?;
        let others = load.of_constant_route().run().await?;
        cached.push(result.rate());
        constant.push(others.rate());
        late.push(percentile(&result.latencies, 0.99));
        constant_late.push(percentile(&others.latencies, 0.99));
        context.print_progress(format_args!(
            "{cached:.0?} cached charts/s, p99 {late:.1?} ms; {constant:.0?} constant responses/s"
        ));
    }
    api.stop().await?;
    Ok(vec![
        Measurement::new("prices", "cached charts of 30 days", cached, "/s")
            .compared_with("a constant JSON route", constant)
            .target(Target::AtLeast(0.5)),
        Measurement::new("prices", "p99 of cached charts of 30 days", late, "ms")
            .compared_with("p99 of a constant JSON route", constant_late)
            .target(Target::AtMost(2.0)),
    ])
}
