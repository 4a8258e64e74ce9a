//! One true curve at all providers: a point is the price at the end of its bucket, whichever provider it comes from.

use jobs::prices::model::Source;
use time::Time;

use super::{
    market::NOON,
    real::{ALL, RealProviders},
};

/// Providers that are down, for each of which the others fill in.
const DOWN: [&[Source]; 9] = [
    &[],
    &[Source::CoinGecko],
    &[Source::Kraken],
    &[Source::Coinbase],
    &[Source::Binance],
    &[Source::Kraken, Source::Coinbase, Source::Binance],
    &[Source::CoinGecko, Source::Coinbase, Source::Binance],
    &[Source::CoinGecko, Source::Kraken, Source::Binance],
    &[Source::CoinGecko, Source::Kraken, Source::Coinbase],
];

/// The name of an interval, its length in seconds, and how many days are asked for.
const INTERVALS: [(&str, i64, i64); 2] = [("daily", 86_400, 400), ("hourly", 3600, 4)];

impl RealProviders {
    /// Every provider lacks other moments, the preferred ones more than the others.
    fn lose_some(&self, length: i64) {
        self.exchange.edit_table(|table| {
            for back in 0..600 {
                let moment = (NOON.unix_timestamp() / length - back) * length;
                for (place, source) in Source::ALL.into_iter().enumerate() {
                    let pattern = (back + place as i64 * 3) % [2, 3, 5, 7][place];
                    if pattern == 0 {
                        table.remove_price(Some(source), moment);
                    }
                }
            }
        });
    }

    /// The moments at which buckets end and that some provider has which is not down, as far as it reaches back.
    fn expected(&self, down: &[Source], length: i64, days: i64) -> Vec<(i64, String)> {
        let mut points = Vec::new();
        let now = NOON.unix_timestamp();
        // The hour that ends at noon is not due yet; of days the last one is.
        let last = if length == 3600 { now - length } else { now / length * length };
        let count = days * 86_400 / length;
        self.exchange.edit_table(|table| {
            for back in (0..count).rev() {
                let end = last - back * length;
                let reaches = |source: &Source| *source != Source::CoinGecko || end > now - 366 * 86_400;
                let up = Source::ALL.into_iter().filter(|source| !down.contains(source));
                if up.filter(reaches).any(|source| table.has_price(source, end)) {
                    let price = table.price("bitcoin", "eur", end).expect("a price");
                    points.push(((end - length) * 1000, price.parse::<f64>().expect("a number").to_string()));
                }
            }
        });
        points
    }
}

/// Every point of every mix: one that is a bucket off would repeat or skip a price of the curve.
#[tokio::test(flavor = "multi_thread")]
async fn every_point_is_the_price_at_the_end_of_its_bucket() {
    let market = RealProviders::new().await;
    for patchy in [false, true] {
        for (interval, length, days) in INTERVALS {
            market.exchange.edit_table(|table| table.restore_prices());
            if patchy {
                market.lose_some(length);
            }
            for down in DOWN {
                let case = format!("{interval} without {down:?}, patchy: {patchy}");
                let node = market.empty_node().await;
                market.fail(down.iter().copied());
                let query = format!("asset=bitcoin&currency=eur&days={days}&interval={interval}");
                let (points, _, missing) = node.chart_with_missing(&query).await;
                let points: Vec<_> = points
                    .into_iter()
                    .map(|(bucket, price)| (bucket, price.parse::<f64>().expect("a number").to_string()))
                    .collect();
                let expected = market.expected(down, length, days);
                assert!(expected.len() > 40, "{case}: too little to compare");
                assert_eq!(points, expected, "{case}");
                let count = usize::try_from(days * 86_400 / length).expect("a number");
                // What a provider that is down may have counts as missing.
                if !patchy || !down.is_empty() {
                    assert_eq!(missing + points.len(), count, "{case}");
                }
                node.stop().await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_of_a_stored_day_is_of_the_end_of_the_day() {
    let market = RealProviders::new().await;
    for only in Source::ALL {
        let node = market.empty_node().await;
        market.fail(Source::ALL.into_iter().filter(|source| *source != only));
        node.chart_with_missing("asset=bitcoin&currency=eur&days=3").await;
        node.stop().await;
        market.fail(Source::ALL);
        let node = market.node(ALL).await;
        let (shown, stale) = node.shown("/simple_price?assets=bitcoin&currency=eur").await;
        let shown = &shown["bitcoin"];
        let as_of = shown["as_of"].as_str().expect("a time");
        assert_eq!((as_of, stale), ("2026-11-21T00:00:00.000000Z", true), "{only}: {shown}");
        let price = market.exchange.price("bitcoin", "eur", NOON.replace_time(Time::MIDNIGHT).unix_timestamp());
        assert_eq!(shown["eur"].as_str().map(str::parse::<f64>), Some(price.parse()), "{only}");
        node.stop().await;
    }
}
