//! Prices benchmark: cached reads of a chart of 30 days.

use runtime::process::error_text;

use super::{
    BenchContext,
    load::{self, Load, Speed},
    report::{Figure, Measurement, Target, median, percentile},
};

const ASSET: &str = "bitcoin";
const CURRENCY: &str = "usd";
const DAYS: i32 = 30;

/// Compares cached reads of a chart with a constant route, over the same number of connections.
pub async fn measure(context: &BenchContext<'_>) -> Result<Vec<Measurement>, String> {
    let bench = &context.environment.bench;
    bench.clear().await.map_err(error_text)?;
    // More days than the chart shows, so that no provider is called at any time of day.
    bench.add_prices(ASSET, CURRENCY, DAYS + 10).await.map_err(error_text)?;
    let (api, address) = context.environment.api(30)?;
    let path = format!("/market_chart?asset={ASSET}&currency={CURRENCY}&days={DAYS}");
    let load = Load {
        address,
        connections: context.connections,
        speed: Speed::Full,
        time: context.time,
        request: load::get_with_key(path, super::environment::API_KEY),
        expected: 200,
    };
    let (mut cached, mut constant, mut late, mut constant_late) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..context.runs {
        let result = load.clone().run().await?;
        let others = Load { request: load::get(|_| "/api/v1/health".into()), ..load.clone() }.run().await?;
        cached.push(result.rate());
        constant.push(others.rate());
        late.push(percentile(&result.latencies, 0.99));
        constant_late.push(percentile(&others.latencies, 0.99));
        context.print_progress(format_args!(
            "{cached:.0?} cached charts/s, p99 {late:.1?} ms; {constant:.0?} constant responses/s"
        ));
    }
    api.stop()?;
    Ok(vec![
        Measurement::with_baseline(
            "prices",
            Figure::new("cached charts of 30 days", median(cached), "/s"),
            Figure::new("a constant JSON route", median(constant), "/s"),
            Some(Target::AtLeast(0.5)),
        ),
        Measurement::with_baseline(
            "prices",
            Figure::new("p99 of cached charts of 30 days", median(late), "ms"),
            Figure::new("p99 of a constant JSON route", median(constant_late), "ms"),
            Some(Target::AtMost(2.0)),
        ),
    ])
}
