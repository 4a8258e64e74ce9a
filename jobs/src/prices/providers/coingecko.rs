//! CoinGecko: one price at a time instead of candles, unknown ids left out in silence, and limits told under HTTP 200.
//!
//! Its times are milliseconds, of present prices seconds. How dense a series is follows from the range that is asked
//! for, and the last point is the present price. A point closes the bucket that ends then. Without a paid key it reaches
//! a year back.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::BoxFuture;
use reqwest::{
    Client, StatusCode,
    header::{HeaderName, HeaderValue},
};
use serde::Deserialize;
use time::OffsetDateTime;
use url::Url;

use super::{
    Fetched, Provider, Told, Trouble, answer,
    budget::Allowance,
    caller::{Caller, Manner, Verdict},
    fetched, spots, window,
};
use crate::{
    clock::Clock,
    error::Error,
    prices::{
        config::ApiKey,
        model::{AssetId, Currency, Interval, Series, Source, Spot},
        normalise::{NEAR, Reason, Sheet, Unit, Window, positive, time},
        symbols::symbol,
    },
};

/// 30 calls in any minute: ten at once, and twenty more.
const DEMO: Allowance = Allowance { every: Duration::from_secs(3), burst: 10 };
/// Half of what the smallest paid plan has.
const PRO: Allowance = Allowance { every: Duration::from_millis(250), burst: 10 };
/// Its limits are counted by the minute.
const REST: Duration = Duration::from_secs(60);
const PRO_HOST: &str = "pro-api.coingecko.com";
/// So many ids in one question.
const IDS: usize = 100;
/// How far back it reaches.
const YEAR: i64 = 365;
const EVER: i64 = 20 * 365;
/// Ranges of 2 to 90 days come by the hour; a margin keeps them there.
const HOURLY_RANGE: time::Duration = time::Duration::days(88);
const SHORTEST_RANGE: time::Duration = time::Duration::days(2);

const TOO_MANY_REQUESTS: i64 = 429;
const BEYOND_ITS_REACH: i64 = 10012;

/// The source.
pub struct CoinGecko {
    caller: Caller,
    /// Days that it reaches back.
    reach: i64,
}

#[derive(Deserialize)]
struct Chart<'a> {
    #[serde(borrow)]
    prices: Vec<answer::Field<'a>>,
}

#[derive(Deserialize)]
struct Status {
    error_code: i64,
}

/// Its three ways to refuse.
#[derive(Deserialize)]
#[serde(untagged)]
enum Refusal {
    Status { status: Status },
    Nested { error: Nested },
    Text { error: String },
}

#[derive(Deserialize)]
struct Nested {
    status: Status,
}

impl CoinGecko {
    pub fn new(client: Client, url: &str, key: Option<&ApiKey>, clock: Clock) -> Result<Self, Error> {
        let (name, allowance, reach) = plan(url);
        let header = |key: &ApiKey| -> Result<_, Error> {
            let wrong = |_| Error::Internal("COINGECKO_API_KEY: cannot be sent in a header".into());
            let mut value = HeaderValue::from_str(key.expose()).map_err(wrong)?;
            value.set_sensitive(true);
            Ok((HeaderName::from_static(name), value))
        };
        let key = key.map(header).transpose()?;
        Ok(Self {
            caller: Caller::new(Source::CoinGecko, client, url, clock, Manner { allowance, rest: REST, key }),
            reach,
        })
    }

    async fn points(&self, series: &Series, from: OffsetDateTime, to: OffsetDateTime) -> Result<Fetched, Trouble> {
        let offered = symbol(Source::CoinGecko, &series.asset, &series.currency);
        let id = offered.ok_or(Trouble::NotOffered(Source::CoinGecko))?.asked;
        let chart = format!("coins/{id}/market_chart");
        let window = window(&self.caller, series, from, to);
        let Window { now, to, .. } = window;
        let today = Interval::Daily.bucket(now);
        // Buckets close with the points at their ends.
        let length = series.interval.length();
        let oldest = now - time::Duration::days(self.reach) + time::Duration::HOUR;
        let from = window.from.max(oldest - length);
        let mut sheet = Sheet::new(window);
        if from >= to {
            return Ok(fetched(&self.caller, series, sheet));
        }
        let currency = &series.currency;
        match series.interval {
            Interval::Daily => {
                let days = (today - Interval::Daily.bucket(from + length)).whole_days().clamp(1, self.reach);
                let path = format!("{chart}?vs_currency={currency}&days={days}&interval=daily");
                sheet.merge(self.caller.get(&path, |status, body| points(status, body, window)).await?);
            }
            Interval::Hourly => {
                let mut start = from;
                while start < to {
                    let end = (start + HOURLY_RANGE).min(to);
                    // A shorter range would be denser. It ends later than the page, because its last point is left out.
                    let last = (end + time::Duration::hours(2) + NEAR).min(now);
                    let first = (start + length).min(last - SHORTEST_RANGE);
                    let (first, last) = (first.unix_timestamp(), last.unix_timestamp());
                    let path = format!("{chart}/range?vs_currency={currency}&from={first}&to={last}");
                    let page = Window { from: start.max(window.from), to: end, ..window };
                    sheet.merge(self.caller.get(&path, |status, body| points(status, body, page)).await?);
                    start = end;
                }
            }
        }
        Ok(fetched(&self.caller, series, sheet))
    }

    async fn present(&self, assets: &[AssetId], currency: &Currency) -> Result<Vec<(AssetId, Spot)>, Trouble> {
        let offered = |asset: &&AssetId| symbol(Source::CoinGecko, asset, currency).is_some();
        let assets: Vec<&AssetId> = assets.iter().filter(offered).collect();
        let mut told = Vec::new();
        for assets in assets.chunks(IDS) {
            let ids: Vec<&str> = assets.iter().map(|asset| asset.as_str()).collect();
            let path = format!(
                "simple/price?ids={}&vs_currencies={currency}&include_last_updated_at=true&precision=full",
                ids.join(",")
            );
            told.extend(self.caller.get(&path, |status, body| prices(status, body, assets, currency)).await?);
        }
        spots(&self.caller, told)
    }
}

/// The header of the key, what is granted, and how many days back: the paid plans have a host of their own.
fn plan(url: &str) -> (&'static str, Allowance, i64) {
    let paid = Url::parse(url).is_ok_and(|url| url.host_str() == Some(PRO_HOST));
    if paid { ("x-cg-pro-api-key", PRO, EVER) } else { ("x-cg-demo-api-key", DEMO, YEAR) }
}

/// What an error means, under whatever status it came.
fn refusal<T>(status: StatusCode, body: &str) -> Option<Verdict<T>> {
    let refused = |code: i64| match code {
        TOO_MANY_REQUESTS => Verdict::Limited("rate limit exceeded".into()),
        BEYOND_ITS_REACH => Verdict::NotOffered,
        code => Verdict::Refused(format!("it answered {}, error {code}", status.as_u16())),
    };
    match serde_json::from_str(body) {
        Ok(Refusal::Status { status } | Refusal::Nested { error: Nested { status } }) => {
            Some(refused(status.error_code))
        }
        Ok(Refusal::Text { error }) if matches!(&*error, "coin not found" | "invalid vs_currency") => {
            Some(Verdict::NotOffered)
        }
        Err(_) if status.is_success() => None,
        _ => Some(match status {
            StatusCode::NOT_FOUND => Verdict::NotOffered,
            status => Verdict::Refused(format!("it answered {}", status.as_u16())),
        }),
    }
}

fn points(status: StatusCode, body: &str, window: Window) -> Verdict<Sheet> {
    if let Some(verdict) = refusal(status, body) {
        return verdict;
    }
    let chart: Chart<'_> = match answer::read(body) {
        Ok(chart) => chart,
        Err(verdict) => return verdict,
    };
    let mut sheet = Sheet::new(window);
    let mut points = Vec::with_capacity(chart.prices.len());
    for row in chart.prices {
        match answer::fields(row) {
            Some([time, price]) => points.push((time, price)),
            None => sheet.reject(Reason::Shape, row.get()),
        }
    }
    sheet.points(points);
    Verdict::Answer(sheet)
}

fn prices(status: StatusCode, body: &str, assets: &[&AssetId], currency: &Currency) -> Verdict<Vec<Told>> {
    if let Some(verdict) = refusal(status, body) {
        return verdict;
    }
    let found: BTreeMap<String, BTreeMap<String, answer::Field<'_>>> = match answer::read(body) {
        Ok(found) => found,
        Err(verdict) => return verdict,
    };
    // An id that it does not know is not there, and a currency that it does not have for one neither.
    let told = assets.iter().filter_map(|asset| {
        let fields = found.get(asset.as_str())?;
        let price = positive(answer::text(fields.get(currency.as_str())?));
        let as_of = fields.get("last_updated_at").map(|at| time(answer::text(at), Unit::Seconds)).transpose();
        Some(((*asset).clone(), price.and_then(|price| as_of.map(|as_of| (price, as_of)))))
    });
    Verdict::Answer(told.collect())
}

impl Provider for CoinGecko {
    fn source(&self) -> Source {
        Source::CoinGecko
    }

    fn candles<'a>(
        &'a self,
        series: &'a Series,
        from: OffsetDateTime,
        to: OffsetDateTime,
    ) -> BoxFuture<'a, Result<Fetched, Trouble>> {
        Box::pin(self.points(series, from, to))
    }

    fn spots<'a>(
        &'a self,
        assets: &'a [AssetId],
        currency: &'a Currency,
    ) -> BoxFuture<'a, Result<Vec<(AssetId, Spot)>, Trouble>> {
        Box::pin(self.present(assets, currency))
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const WINDOW: Window = Window {
        interval: Interval::Daily,
        from: datetime!(2024-03-29 0:00 UTC),
        to: datetime!(2024-04-01 15:00 UTC),
        now: datetime!(2024-04-01 15:00 UTC),
    };

    #[test]
    fn reads_days_and_leaves_the_present_price_out() {
        let body = r#"{"prices":[[1711756800000,69893.4485],[1711843200000,69702.3087473573],
            [1711929600000,71246.9514],[1711983682000,68887.749515]],
            "market_caps":[[1711843200000,1370247487960.09]],"total_volumes":[[1711843200000,16408802301.83]]}"#;
        let Verdict::Answer(sheet) = points(StatusCode::OK, body, WINDOW) else { panic!("no points") };
        let (candles, rejected) = sheet.finish();
        let prices: Vec<String> = candles.iter().map(|candle| candle.close.to_string()).collect();
        let expected = ["69893.4485", "69702.3087473573", "71246.9514"].map(str::to_owned);
        assert_eq!((prices, rejected), (expected.to_vec(), vec![]));
        // The price at 2024-04-01 00:00 closes the day before.
        assert_eq!(candles[2].bucket, datetime!(2024-03-31 0:00 UTC));
        assert!(candles.iter().all(|candle| candle.open.is_none() && candle.volume.is_none()));
    }

    #[test]
    fn reads_its_errors_in_every_form() {
        let read = |status, body| points(status, body, WINDOW).map(|_| ());
        let limited = r#"{"status":{"error_code":429,"error_message":"You've exceeded the Rate Limit."}}"#;
        assert!(matches!(read(StatusCode::OK, limited), Verdict::Limited(_)));
        let reach = r#"{"error":{"status":{"timestamp":"2024-04-01","error_code":10012,"error_message":"allowed time range"}}}"#;
        assert_eq!(read(StatusCode::UNAUTHORIZED, reach), Verdict::NotOffered);
        assert_eq!(read(StatusCode::NOT_FOUND, r#"{"error":"coin not found"}"#), Verdict::NotOffered);
        assert_eq!(read(StatusCode::UNPROCESSABLE_ENTITY, r#"{"error":"invalid vs_currency"}"#), Verdict::NotOffered);
        let key = r#"{"status":{"error_code":10002,"error_message":"API Key Missing"}}"#;
        assert!(matches!(read(StatusCode::UNAUTHORIZED, key), Verdict::Refused(_)));
        assert!(matches!(read(StatusCode::OK, "{}"), Verdict::Broken(_)));
    }

    #[test]
    fn present_prices_are_exact_and_unknown_ids_absent() {
        let ids = ["bitcoin", "shiba-inu", "nothing", "no-currency"].map(|id| AssetId::parse(id).expect("an id"));
        let body = r#"{"bitcoin":{"usd":103663,"last_updated_at":1747407859},
            "shiba-inu":{"usd":1.2350000000000001e-05,"last_updated_at":1747407859},"no-currency":{}}"#;
        let asked: Vec<&AssetId> = ids.iter().collect();
        let read = prices(StatusCode::OK, body, &asked, &Currency::parse("usd").expect("a code"));
        let Verdict::Answer(told) = read else { panic!("no prices") };
        let told: Vec<String> = told
            .into_iter()
            .map(|(asset, told)| {
                told.map(|(price, _)| format!("{asset} {}", price.to_plain_string())).expect("a price")
            })
            .collect();
        assert_eq!(told, ["bitcoin 103663", "shiba-inu 0.000012350000000000001"]);
    }

    #[test]
    fn a_paid_plan_is_known_by_its_host() {
        assert_eq!(plan("https://api.coingecko.com/api/v3"), ("x-cg-demo-api-key", DEMO, YEAR));
        assert_eq!(plan("https://pro-api.coingecko.com/api/v3"), ("x-cg-pro-api-key", PRO, EVER));
        assert_eq!(plan("http://127.0.0.1:8080/pro-api.coingecko.com"), ("x-cg-demo-api-key", DEMO, YEAR));
    }
}
