//! CoinGecko: one price at a time instead of candles, unknown ids left out in silence, limits reported under HTTP 200.
//!
//! Its times are milliseconds, of present prices seconds. How dense a series is follows from the range that is asked
//! for, and the last point is the present price. A point closes the bucket that ends then. Without a paid key it reaches
//! a year back.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use reqwest::{
    Client, StatusCode,
    header::{HeaderName, HeaderValue},
};
use serde::Deserialize;
use time::OffsetDateTime;
use url::Url;

use super::{
    Names, Pages, Provider, Spots, Trouble, answer,
    budget::Allowance,
    caller::{Caller, Manner, Verdict},
    listing::Listing,
    pages::{cut, load, whole, window},
    spots::{ReportedPrice, add},
};
use crate::{
    clock::Clock,
    error::Error,
    prices::{
        config::ApiKey,
        model::{AssetId, Currency, Interval, Series, Source},
        normalise::{NEAR, Reason, Sheet, Unit, Window, positive, time},
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
/// Hours in one question: ranges of 2 to 90 days come by the hour; a margin keeps them there.
const HOURS: i32 = 88 * 24;
const SHORTEST_RANGE: time::Duration = time::Duration::days(2);

const TOO_MANY_REQUESTS: i64 = 429;
const BEYOND_ITS_REACH: i64 = 10012;

/// The source.
pub struct CoinGecko {
    caller: Caller,
    /// Days that it reaches back.
    reach: i64,
    /// What it quotes in.
    currencies: Listing<HashSet<String>>,
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

#[derive(Deserialize)]
struct Coin {
    id: String,
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
            currencies: Listing::default(),
        })
    }

    async fn currencies(&self) -> Result<Arc<HashSet<String>>, Trouble> {
        self.currencies.get(self.caller.get("simple/supported_vs_currencies", listed)).await
    }

    /// Whether it quotes in this currency. While its list cannot be loaded any may be asked for: it refuses others.
    async fn quotes_in(&self, currency: &Currency) -> bool {
        self.currencies().await.map_or(true, |currencies| currencies.contains(currency.as_str()))
    }

    /// The points at the ends of these buckets. An id is the asset's own, so any may be asked for.
    async fn page(&self, series: &Series, page: Window) -> Result<Sheet, Trouble> {
        let Series { asset, currency, interval } = series;
        if !self.quotes_in(currency).await {
            return Err(Trouble::NotOffered(Source::CoinGecko));
        }
        let (now, oldest) = (page.now, page.now - time::Duration::days(self.reach) + time::Duration::HOUR);
        let first = (page.from + interval.length()).max(oldest);
        if first >= page.to + interval.length() {
            return Ok(Sheet::new(page));
        }
        let chart = format!("coins/{asset}/market_chart");
        let path = match interval {
            Interval::Daily => {
                let today = Interval::Daily.bucket(now);
                let days = (today - Interval::Daily.bucket(first)).whole_days().clamp(1, self.reach);
                format!("{chart}?vs_currency={currency}&days={days}&interval=daily")
            }
            Interval::Hourly => {
                // A shorter range would be denser. It ends later than the page, because its last point is left out.
                let last = (page.to + time::Duration::hours(2) + NEAR).min(now);
                let first = first.min(last - SHORTEST_RANGE);
                let (first, last) = (first.unix_timestamp(), last.unix_timestamp());
                format!("{chart}/range?vs_currency={currency}&from={first}&to={last}")
            }
        };
        self.caller.get(&path, |status, body| points(status, body, page)).await
    }

    async fn present(&self, assets: &[AssetId], currency: &Currency) -> Spots {
        if !self.quotes_in(currency).await {
            return Spots::default();
        }
        let mut spots = Spots::default();
        for assets in assets.chunks(IDS) {
            let ids: Vec<&str> = assets.iter().map(AssetId::as_str).collect();
            let path = format!(
                "simple/price?ids={}&vs_currencies={currency}&include_last_updated_at=true&precision=full",
                ids.join(",")
            );
            match self.caller.get(&path, |status, body| prices(status, body, assets, currency)).await {
                Ok(reported) => add(&self.caller, &mut spots, reported),
                Err(trouble) => spots.failed.extend(Spots::failed(assets, &trouble).failed),
            }
        }
        spots
    }

    async fn known(&self) -> Result<Names, Trouble> {
        let currencies = (*self.currencies().await?).clone();
        Ok(Names { assets: self.caller.get("coins/list", coins).await?, currencies })
    }
}

fn listed(status: StatusCode, body: &str) -> Verdict<HashSet<String>> {
    if let Some(verdict) = refusal(status, body) {
        return verdict;
    }
    let currencies: Vec<String> = match answer::read(body) {
        Ok(currencies) => currencies,
        Err(verdict) => return verdict,
    };
    Verdict::Answer(currencies.into_iter().map(|currency| currency.to_ascii_lowercase()).collect())
}

fn coins(status: StatusCode, body: &str) -> Verdict<HashSet<String>> {
    if let Some(verdict) = refusal(status, body) {
        return verdict;
    }
    let coins: Vec<Coin> = match answer::read(body) {
        Ok(coins) => coins,
        Err(verdict) => return verdict,
    };
    Verdict::Answer(coins.into_iter().map(|coin| coin.id).collect())
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

fn prices(
    status: StatusCode,
    body: &str,
    assets: &[AssetId],
    currency: &Currency,
) -> Verdict<Vec<(AssetId, ReportedPrice)>> {
    if let Some(verdict) = refusal(status, body) {
        return verdict;
    }
    let found: BTreeMap<String, BTreeMap<String, Option<answer::Field<'_>>>> = match answer::read(body) {
        Ok(found) => found,
        Err(verdict) => return verdict,
    };
    // An id that it does not know is missing, and so is a currency that it does not have for one; a coin without a
    // market has null. A price without its time is left out.
    let reported = assets.iter().filter_map(|asset| {
        let fields = found.get(asset.as_str())?;
        let (price, at) = ((*fields.get(currency.as_str())?)?, (*fields.get("last_updated_at")?)?);
        let price = positive(answer::text(price));
        Some((asset.clone(), price.and_then(|price| Ok(Some((price, time(answer::text(at), Unit::Seconds)?))))))
    });
    Verdict::Answer(reported.collect())
}

impl Provider for CoinGecko {
    fn source(&self) -> Source {
        Source::CoinGecko
    }

    fn candles<'a>(&'a self, series: &'a Series, from: OffsetDateTime, to: OffsetDateTime) -> Pages<'a> {
        let window = window(&self.caller, series, from, to);
        let oldest = window.now - time::Duration::days(self.reach) - series.interval.length();
        let pages = match series.interval {
            Interval::Daily => whole(window),
            Interval::Hourly => cut(Window { from: window.from.max(oldest), ..window }, HOURS),
        };
        load(&self.caller, series, pages, |page| Box::pin(self.page(series, page)))
    }

    fn spots<'a>(&'a self, assets: &'a [AssetId], currency: &'a Currency) -> BoxFuture<'a, Spots> {
        Box::pin(self.present(assets, currency))
    }

    fn names(&self) -> BoxFuture<'_, Result<Names, Trouble>> {
        Box::pin(self.known())
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
    fn present_prices_are_exact_and_what_has_none_is_absent() {
        let ids = ["bitcoin", "shiba-inu", "nothing", "no-currency", "no-market", "no-time", "broken"];
        let assets = ids.map(|id| AssetId::parse(id).expect("an id"));
        let body = r#"{"bitcoin":{"usd":103663,"last_updated_at":1747407859},
            "shiba-inu":{"usd":1.2350000000000001e-05,"last_updated_at":1747407859},"no-currency":{},
            "no-market":{"usd":null,"last_updated_at":null},"no-time":{"usd":5,"last_updated_at":null},
            "broken":{"usd":-5,"last_updated_at":1747407859}}"#;
        let read = prices(StatusCode::OK, body, &assets, &Currency::parse("usd").expect("a code"));
        let Verdict::Answer(reported) = read else { panic!("no prices") };
        let reported: Vec<String> = reported
            .into_iter()
            .map(|(asset, price)| match price {
                Ok(price) => format!("{asset} {}", price.expect("a price").0.to_plain_string()),
                Err(reason) => format!("{asset} {reason}"),
            })
            .collect();
        assert_eq!(reported, ["bitcoin 103663", "shiba-inu 0.000012350000000000001", "broken not_positive"]);
    }

    #[test]
    fn reads_what_it_lists() {
        let Verdict::Answer(currencies) = listed(StatusCode::OK, r#"["usd","EUR","bits"]"#) else { panic!("no list") };
        assert!(currencies.len() == 3 && currencies.contains("eur"));
        let coin = r#"[{"id":"bitcoin","symbol":"btc","name":"Bitcoin"},{"id":"other","symbol":"btc","name":"Other"}]"#;
        let Verdict::Answer(ids) = coins(StatusCode::OK, coin) else { panic!("no coins") };
        assert!(ids.contains("bitcoin") && !ids.contains("btc"));
    }

    #[test]
    fn a_paid_plan_is_known_by_its_host() {
        assert_eq!(plan("https://api.coingecko.com/api/v3"), ("x-cg-demo-api-key", DEMO, YEAR));
        assert_eq!(plan("https://pro-api.coingecko.com/api/v3"), ("x-cg-pro-api-key", PRO, EVER));
        assert_eq!(plan("http://127.0.0.1:8080/pro-api.coingecko.com"), ("x-cg-demo-api-key", DEMO, YEAR));
    }
}
