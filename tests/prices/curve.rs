//! One price curve at all providers. Every point must be the price at the end of its bucket, from every provider.

use jobs::prices::model::ProviderId;
use time::Time;

use super::{
    in_memory::NOON,
    real::{ALL, RealProviders},
};

/// The providers that are down in each case; the others fill in.
const DOWN: [&[ProviderId]; 9] = [
    &[],
    &[ProviderId::CoinGecko],
    &[ProviderId::Kraken],
    &[ProviderId::Coinbase],
    &[ProviderId::Binance],
    &[ProviderId::Kraken, ProviderId::Coinbase, ProviderId::Binance],
    &[ProviderId::CoinGecko, ProviderId::Coinbase, ProviderId::Binance],
    &[ProviderId::CoinGecko, ProviderId::Kraken, ProviderId::Binance],
    &[ProviderId::CoinGecko, ProviderId::Kraken, ProviderId::Coinbase],
];

/// Name of the interval, its length in seconds, and the requested days.
const INTERVALS: [(&str, i64, i64); 2] = [("daily", 86_400, 400), ("hourly", 3600, 4)];

impl RealProviders {
    /// Removes different moments from each provider, most from the preferred ones.
    fn remove_some(&self, length: i64) {
        self.exchange.edit_table(|table| {
            for back in 0..600 {
                let moment = (NOON.unix_timestamp() / length - back) * length;
                for (index, id) in ProviderId::ALL.into_iter().enumerate() {
                    let pattern = (back + index as i64 * 3) % [2, 3, 5, 7][index];
                    if pattern == 0 {
                        table.remove_price(Some(id), moment);
                    }
                }
            }
        });
    }

    /// The expected points: every bucket whose end is known to a provider that is up and goes back that far.
    fn expected(&self, down: &[ProviderId], length: i64, days: i64) -> Vec<(i64, String)> {
        let mut points = Vec::new();
        let now = NOON.unix_timestamp();
        // The hour that ends at noon is not due yet; the last day is.
        let last = if length == 3600 { now - length } else { now / length * length };
        let count = days * 86_400 / length;
        self.exchange.edit_table(|table| {
            for back in (0..count).rev() {
                let end = last - back * length;
                let reaches = |id: &ProviderId| *id != ProviderId::CoinGecko || end > now - 365 * 86_400;
                let up = ProviderId::ALL.into_iter().filter(|id| !down.contains(id));
                if up.filter(reaches).any(|id| table.has_price(id, end)) {
                    let price = table.price("bitcoin", "eur", end).expect("a price");
                    points.push(((end - length) * 1000, price.parse::<f64>().expect("a number").to_string()));
                }
            }
        });
        points
    }
}

/// Compares every point of every mix. A point that is one bucket off would repeat or skip a price.
#[tokio::test(flavor = "multi_thread")]
async fn every_point_is_the_price_at_the_end_of_its_bucket() {
    let real = RealProviders::new().await;
    for patchy in [false, true] {
        for (interval, length, days) in INTERVALS {
            real.exchange.edit_table(|table| table.restore_prices());
            if patchy {
                real.remove_some(length);
            }
            for down in DOWN {
                let case = format!("{interval} without {down:?}, patchy: {patchy}");
                let node = real.empty_node().await;
                real.fail(down.iter().copied());
                let query = format!("asset=bitcoin&currency=eur&days={days}&interval={interval}");
                let (points, _, missing) = node.chart_with_missing(&query).await;
                let points: Vec<_> = points
                    .into_iter()
                    .map(|(bucket, price)| (bucket, price.parse::<f64>().expect("a number").to_string()))
                    .collect();
                let expected = real.expected(down, length, days);
                assert!(expected.len() > 40, "{case}: too few points to compare");
                assert_eq!(points, expected, "{case}");
                let count = usize::try_from(days * 86_400 / length).expect("a number");
                // Points that a provider which is down may have count as missing.
                if !patchy || !down.is_empty() {
                    assert_eq!(missing + points.len(), count, "{case}");
                }
                node.stop().await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_price_of_a_stored_day_is_of_its_end() {
    let real = RealProviders::new().await;
    for only in ProviderId::ALL {
        let node = real.empty_node().await;
        real.fail(ProviderId::ALL.into_iter().filter(|id| *id != only));
        node.chart_with_missing("asset=bitcoin&currency=eur&days=3").await;
        node.stop().await;
        real.fail(ProviderId::ALL);
        let node = real.node(ALL).await;
        let (shown, stale) = node.read("/simple_price?assets=bitcoin&currency=eur").await;
        let shown = &shown["bitcoin"];
        let as_of = shown["as_of"].as_str().expect("a time");
        assert_eq!((as_of, stale), ("2026-11-21T00:00:00.000000Z", true), "{only}: {shown}");
        let price = real.exchange.price("bitcoin", "eur", NOON.replace_time(Time::MIDNIGHT).unix_timestamp());
        assert_eq!(shown["eur"].as_str().map(str::parse::<f64>), Some(price.parse()), "{only}");
        node.stop().await;
    }
}
