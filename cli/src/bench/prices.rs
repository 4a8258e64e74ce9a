//! Prices: a chart of a month, read through the cache.

use jobs::boot::process::text;

use super::{
    Run,
    load::{self, Load, Speed},
    report::{Figure, Line, Target, median, percentile},
};

const ASSET: &str = "bitcoin";
const CURRENCY: &str = "usd";
const DAYS: i32 = 30;

/// Cached reads of a chart beside a constant route, with as many connections.
pub async fn measure(run: &Run<'_>) -> Result<Vec<Line>, String> {
    let bench = &run.stand.bench;
    bench.clear().await.map_err(text)?;
    // As many as are shown and some more, so that no source is asked, whatever the time of day.
    bench.add_prices(ASSET, CURRENCY, DAYS + 10).await.map_err(text)?;
    let (api, address) = run.stand.api(30)?;
    let path = format!("/market_chart?asset={ASSET}&currency={CURRENCY}&days={DAYS}");
    let load = Load {
        address,
        connections: run.connections,
        speed: Speed::Full,
        time: run.time,
        request: load::get_with_key(path, super::stand::API_KEY),
        expected: 200,
    };
    let (mut cached, mut constant, mut late, mut constant_late) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..run.runs {
        let answers = load.clone().run().await?;
        let others = Load { request: load::get(|_| "/api/v1/health".into()), ..load.clone() }.run().await?;
        cached.push(answers.rate());
        constant.push(others.rate());
        late.push(percentile(&answers.latencies, 0.99));
        constant_late.push(percentile(&others.latencies, 0.99));
        run.say(format_args!("{cached:.0?} cached charts/s, p99 {late:.1?} ms; {constant:.0?} constant answers/s"));
    }
    api.stop()?;
    Ok(vec![
        Line::beside(
            "prices",
            Figure::new("cached charts of 30 days", median(cached), "/s"),
            Figure::new("a constant JSON route", median(constant), "/s"),
            Some(Target::AtLeast(0.5)),
        ),
        Line::beside(
            "prices",
            Figure::new("p99 of cached charts of 30 days", median(late), "ms"),
            Figure::new("p99 of a constant JSON route", median(constant_late), "ms"),
            Some(Target::AtMost(2.0)),
        ),
    ])
}
