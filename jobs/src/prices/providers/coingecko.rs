//! CoinGecko: one price at a time instead of candles, unknown ids left out in silence, and limits told under HTTP 200.
//!
//! Its times are milliseconds, of present prices seconds. How dense a series is follows from the range that is asked
//! for, and the last point is the present price. Without a paid key it reaches a year back.

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
    error::Error,
    prices::{
        config::ApiKey,
        model::{AssetId, Currency, Interval, Series, Source, Spot},
        normalise::{Reason, Sheet, Unit, Window, positive, time},
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
    pub fn new(client: Client, url: &str, key: Option<&ApiKey>) -> Result<Self, Error> {
        let pro = Url::parse(url).is_ok_and(|url| url.host_str() == Some(PRO_HOST));
        let name = HeaderName::from_static(if pro { "x-cg-pro-api-key" } else { "x-cg-demo-api-key" });
        let header = |key: &ApiKey| -> Result<_, Error> {
            let wrong = |_| Error::Internal("COINGECKO_API_KEY: cannot be sent in a header".into());
            let mut value = HeaderValue::from_str(key.expose()).map_err(wrong)?;
            value.set_sensitive(true);
            Ok((name, value))
        };
        let key = key.map(header).transpose()?;
        let (allowance, reach) = if pro { (PRO, EVER) } else { (DEMO, YEAR) };
        Ok(Self { caller: Caller::new(Source::CoinGecko, client, url, Manner { allowance, rest: REST, key }), reach })
    }

    async fn points(&self, series: &Series, from: OffsetDateTime, to: OffsetDateTime) -> Result<Fetched, Trouble> {
        let offered = symbol(Source::CoinGecko, &series.asset, &series.currency);
        let id = offered.ok_or(Trouble::NotOffered(Source::CoinGecko))?.asked;
        let chart = format!("coins/{id}/market_chart");
        let window = window(series, from, to);
        let Window { now, to, .. } = window;
        let today = Interval::Daily.bucket(now);
        let from = window.from.max(now - time::Duration::days(self.reach) + time::Duration::HOUR);
        let mut sheet = Sheet::new(window);
        if from >= to {
            return Ok(fetched(&self.caller, series, sheet));
        }
        let currency = &series.currency;
        match series.interval {
            Interval::Daily => {
                let days = ((today - from).whole_days() + 1).clamp(1, self.reach);
                let path = format!("{chart}?vs_currency={currency}&days={days}&interval=daily");
                sheet.merge(self.caller.get(&path, |status, body| points(status, body, window)).await?);
            }
            Interval::Hourly => {
                let mut start = from;
                while start < to {
                    let end = (start + HOURLY_RANGE).min(to);
                    // A shorter range would be denser. It ends later than the page, because its last point is left out.
                    let last = (end + time::Duration::hours(2)).min(now);
                    let first = start.min(last - SHORTEST_RANGE);
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
