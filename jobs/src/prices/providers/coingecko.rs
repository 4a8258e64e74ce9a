//! CoinGecko: prices instead of candles, unknown ids silently omitted, rate limits reported with HTTP 200.
//!
//! Times are milliseconds, those of present prices seconds. The density of a series follows from the length of the
//! requested range. The last point is the present price. A point is the close of the bucket that ends at its time.
//! Without a paid key the series go back one year.

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
    client::{AttemptError, Parsed, ProviderClient, ProviderLimits},
    json,
    listing::Listing,
    pages::{ONE_PAGE, fetch_pages, request_window, split_pages},
    provider::{Names, Pages, Provider, ProviderError, Spots},
    rate_limiter::RateLimit,
    spots::{ReportedPrice, add_reported, reported},
};
use crate::prices::{
    model::{AssetId, Currency, Interval, ProviderId, Series},
    normalise::{CandleSet, MAX_LATENESS, RejectReason, TimeUnit, Window, parse_time},
};
use runtime::{clients::object::Object, clock::Clock, error::Error, secret::Secret};

/// 30 calls per minute: ten at once, and 20 more.
const DEMO: RateLimit = RateLimit { every: Duration::from_secs(3), burst: 10 };
/// Half of the limit of the smallest paid plan.
const PRO: RateLimit = RateLimit { every: Duration::from_millis(250), burst: 10 };
/// Its limits are counted per minute.
const DEFAULT_PAUSE: Duration = Duration::from_secs(60);
const PRO_HOST: &str = "pro-api.coingecko.com";
/// Ids per call.
const IDS_PER_CALL: usize = 100;
/// How many days series go back, without and with a paid key.
const DAYS_WITHOUT_PAID_KEY: i64 = 365;
const DAYS_WITH_PAID_KEY: i64 = 20 * 365;
/// Hours per call. Ranges of 2 to 90 days have hourly points; the margin keeps ranges below that.
const HOURS_PER_CALL: i32 = 88 * 24;
const SHORTEST_RANGE: time::Duration = time::Duration::days(2);

const TOO_MANY_REQUESTS: i64 = 429;
const BEYOND_ITS_REACH: i64 = 10012;

/// The client of CoinGecko.
pub(super) struct CoinGecko {
    client: ProviderClient,
    /// How many days its series go back.
    reach: i64,
    /// The currencies that it quotes in.
    currencies: Listing<HashSet<String>>,
}

#[derive(Deserialize)]
struct Chart<'a> {
    #[serde(borrow)]
    prices: Vec<json::Field<'a>>,
}

#[derive(Deserialize)]
struct Status {
    error_code: i64,
}

/// The three forms of its errors.
#[derive(Deserialize)]
#[serde(untagged)]
enum Refusal {
    Status { status: Object<Status> },
    Nested { error: Object<Nested> },
    Text { error: String },
}

#[derive(Deserialize)]
struct Nested {
    status: Object<Status>,
}

#[derive(Deserialize)]
struct Coin {
    id: String,
}

impl CoinGecko {
    pub(super) fn new(http: Client, url: &str, key: Option<&Secret<String>>, clock: Clock) -> Result<Self, Error> {
        let (name, rate_limit, reach) = plan(url);
        let header = |key: &Secret<String>| -> Result<_, Error> {
            let wrong = |_| Error::Internal("COINGECKO_API_KEY: cannot be sent in a header".into());
            let mut value = HeaderValue::from_str(key.expose()).map_err(wrong)?;
            value.set_sensitive(true);
            Ok((HeaderName::from_static(name), value))
        };
        let limits = ProviderLimits { rate_limit, default_pause: DEFAULT_PAUSE, key: key.map(header).transpose()? };
        let client = ProviderClient::new(ProviderId::CoinGecko, http, url, clock, limits);
        Ok(Self { client, reach, currencies: Listing::default() })
    }

    async fn currencies(&self) -> Result<Arc<HashSet<String>>, ProviderError> {
        self.currencies.get(self.client.get("simple/supported_vs_currencies", parse_currencies)).await
    }

    /// Whether it quotes in this currency. While its list is unavailable, every currency is requested; unknown ones are
    /// rejected.
    async fn quotes_in(&self, currency: &Currency) -> bool {
        self.currencies().await.map_or(true, |currencies| currencies.contains(currency.as_str()))
    }

    /// Fetches the points at the ends of these buckets. Our asset ids are CoinGecko's, so any id may be requested.
    async fn fetch_page(&self, series: &Series, page: Window) -> Result<CandleSet, ProviderError> {
        let Series { asset, currency, interval } = series;
        if !asset.may_exist() || !self.quotes_in(currency).await {
            return Err(ProviderError::NotOffered(ProviderId::CoinGecko));
        }
        let (now, oldest) = (page.now, page.now - time::Duration::days(self.reach) + time::Duration::HOUR);
        let first = (page.from + interval.length()).max(oldest);
        if first >= page.to + interval.length() {
            return Ok(CandleSet::new(page));
        }
        let chart = format!("coins/{asset}/market_chart");
        let path = match interval {
            Interval::Daily => {
                // N days have N points: the one of today at 00:00, and those of the N - 1 days before.
                let days = (Interval::Daily.bucket(now) - Interval::Daily.bucket(first)).whole_days() + 1;
                let days = days.clamp(1, self.reach);
                format!("{chart}?vs_currency={currency}&days={days}&interval=daily")
            }
            Interval::Hourly => {
                // A shorter range would have denser points. The range ends later than the page, because its last point
                // is dropped.
                let last = (page.to + time::Duration::hours(2) + MAX_LATENESS).min(now);
                let first = first.min(last - SHORTEST_RANGE);
                if last == now {
                    let days = (now - first).whole_days() + 1;
                    format!("{chart}?vs_currency={currency}&days={days}")
                } else {
                    let (first, last) = (first.unix_timestamp(), last.unix_timestamp());
                    format!("{chart}/range?vs_currency={currency}&from={first}&to={last}")
                }
            }
        };
        let (points, hash) = self.client.get_hashed(&path, |status, body| parse_points(status, body, page)).await?;
        Ok(points.with_body_hash(hash))
    }

    async fn fetch_spots(&self, assets: &[AssetId], currency: &Currency) -> Spots {
        if !self.quotes_in(currency).await {
            return Spots::default();
        }
        let assets: Vec<AssetId> = assets.iter().filter(|asset| asset.may_exist()).cloned().collect();
        let mut spots = Spots::default();
        for assets in assets.chunks(IDS_PER_CALL) {
            let ids: Vec<&str> = assets.iter().map(AssetId::as_str).collect();
            let path = format!(
                "simple/price?ids={}&vs_currencies={currency}&include_last_updated_at=true&precision=full",
                ids.join(",")
            );
            match self.client.get_hashed(&path, |status, body| parse_spots(status, body, assets, currency)).await {
                Ok((reported, hash)) => add_reported(&self.client, &mut spots, reported, hash),
                Err(error) => spots.extend(Spots::failed(assets, &error)),
            }
        }
        spots
    }

    async fn fetch_names(&self) -> Result<Names, ProviderError> {
        let currencies = (*self.currencies().await?).clone();
        Ok(Names { assets: self.client.get("coins/list", parse_coin_ids).await?, currencies })
    }
}

fn parse_currencies(status: StatusCode, body: &str) -> Parsed<HashSet<String>> {
    check(status, body)?;
    Ok(json::parse::<Vec<String>>(body)?.into_iter().map(|currency| currency.to_ascii_lowercase()).collect())
}

fn parse_coin_ids(status: StatusCode, body: &str) -> Parsed<HashSet<String>> {
    check(status, body)?;
    Ok(json::parse::<Vec<Object<Coin>>>(body)?.into_iter().map(|Object(coin)| coin.id).collect())
}

/// The header of the key, the rate limit, and how many days series go back. Paid plans have their own host.
fn plan(url: &str) -> (&'static str, RateLimit, i64) {
    let paid = Url::parse(url).is_ok_and(|url| url.host_str() == Some(PRO_HOST));
    if paid {
        ("x-cg-pro-api-key", PRO, DAYS_WITH_PAID_KEY)
    } else {
        ("x-cg-demo-api-key", DEMO, DAYS_WITHOUT_PAID_KEY)
    }
}

/// Fails for an error, under any status.
fn check(status: StatusCode, body: &str) -> Parsed<()> {
    let code = match serde_json::from_str(body) {
        Ok(Object(Refusal::Status { status } | Refusal::Nested { error: Object(Nested { status }) })) => {
            status.0.error_code
        }
        Ok(Object(Refusal::Text { error })) if matches!(&*error, "coin not found" | "invalid vs_currency") => {
            return Err(AttemptError::NotOffered);
        }
        Err(_) if status.is_success() => return Ok(()),
        _ if status == StatusCode::NOT_FOUND => return Err(AttemptError::NotOffered),
        _ => return Err(AttemptError::Permanent(format!("status {}", status.as_u16()))),
    };
    Err(match code {
        TOO_MANY_REQUESTS => AttemptError::RateLimited("rate limit exceeded".into()),
        BEYOND_ITS_REACH => AttemptError::NotOffered,
        code => AttemptError::Permanent(format!("status {}, error {code}", status.as_u16())),
    })
}

pub(super) fn parse_points(status: StatusCode, body: &str, window: Window) -> Parsed<CandleSet> {
    check(status, body)?;
    let chart: Chart<'_> = json::object(body)?;
    let mut candle_set = CandleSet::new(window);
    let mut points = Vec::with_capacity(chart.prices.len());
    for row in chart.prices {
        match json::fields(row) {
            Some([time, price]) => points.push((time, price)),
            None => candle_set.reject(RejectReason::Shape, row.get()),
        }
    }
    candle_set.add_points(points);
    Ok(candle_set)
}

pub(super) fn parse_spots(
    status: StatusCode,
    body: &str,
    assets: &[AssetId],
    currency: &Currency,
) -> Parsed<Vec<(AssetId, ReportedPrice)>> {
    check(status, body)?;
    let found: BTreeMap<String, BTreeMap<String, Option<json::Field<'_>>>> = json::parse(body)?;
    // Unknown ids are missing, and so are unknown currencies of an id. A coin without a market has null. A price
    // without a time is ignored.
    let price_of = |asset: &AssetId| {
        let fields = found.get(asset.as_str())?;
        let (price, at) = ((*fields.get(currency.as_str())?)?, (*fields.get("last_updated_at")?)?);
        Some((asset.clone(), reported(json::text(price), parse_time(json::text(at), TimeUnit::Seconds))))
    };
    Ok(assets.iter().filter_map(price_of).collect())
}

impl Provider for CoinGecko {
    fn id(&self) -> ProviderId {
        ProviderId::CoinGecko
    }

    fn candles<'a>(&'a self, series: &'a Series, from: OffsetDateTime, to: OffsetDateTime) -> Pages<'a> {
        let window = request_window(&self.client, series, from, to);
        let oldest = window.now - time::Duration::days(self.reach) - series.interval.length();
        let pages = match series.interval {
            Interval::Daily => split_pages(window, ONE_PAGE),
            Interval::Hourly => split_pages(Window { from: window.from.max(oldest), ..window }, HOURS_PER_CALL),
        };
        fetch_pages(&self.client, series, pages, |page| Box::pin(self.fetch_page(series, page)))
    }

    fn spots<'a>(&'a self, assets: &'a [AssetId], currency: &'a Currency) -> BoxFuture<'a, Spots> {
        Box::pin(self.fetch_spots(assets, currency))
    }

    fn names(&self) -> BoxFuture<'_, Result<Names, ProviderError>> {
        Box::pin(self.fetch_names())
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
    fn days_are_read_and_the_present_price_is_dropped() {
        let body = r#"{"prices":[[1711756800000,69893.4485],[1711843200000,69702.3087473573],
            [1711929600000,71246.9514],[1711983682000,68887.749515]],
            "market_caps":[[1711843200000,1370247487960.09]],"total_volumes":[[1711843200000,16408802301.83]]}"#;
        let candle_set = parse_points(StatusCode::OK, body, WINDOW).expect("points");
        let (candles, rejected) = candle_set.finish();
        let prices: Vec<String> = candles.iter().map(|candle| candle.close.to_string()).collect();
        let expected = ["69893.4485", "69702.3087473573", "71246.9514"].map(str::to_owned);
        assert_eq!((prices, rejected), (expected.to_vec(), vec![]));
        // The price at 2024-04-01 00:00 closes the day before.
        assert_eq!(candles[2].bucket, datetime!(2024-03-31 0:00 UTC));
        assert!(candles.iter().all(|candle| candle.open.is_none() && candle.volume.is_none()));
    }

    #[test]
    fn errors_are_read_in_every_form() {
        let read = |status, body| parse_points(status, body, WINDOW).map(|_| ());
        let limited = r#"{"status":{"error_code":429,"error_message":"You've exceeded the Rate Limit."}}"#;
        assert!(matches!(read(StatusCode::OK, limited), Err(AttemptError::RateLimited(_))));
        let reach = r#"{"error":{"status":{"timestamp":"2024-04-01","error_code":10012,"error_message":"allowed time range"}}}"#;
        assert_eq!(read(StatusCode::UNAUTHORIZED, reach), Err(AttemptError::NotOffered));
        assert_eq!(read(StatusCode::NOT_FOUND, r#"{"error":"coin not found"}"#), Err(AttemptError::NotOffered));
        assert_eq!(
            read(StatusCode::UNPROCESSABLE_ENTITY, r#"{"error":"invalid vs_currency"}"#),
            Err(AttemptError::NotOffered)
        );
        let key = r#"{"status":{"error_code":10002,"error_message":"API Key Missing"}}"#;
        assert!(matches!(read(StatusCode::UNAUTHORIZED, key), Err(AttemptError::Permanent(_))));
        assert!(matches!(read(StatusCode::OK, "{}"), Err(AttemptError::Transient(_))));
    }

    #[test]
    fn present_prices_are_exact_and_missing_ones_are_ignored() {
        let ids = ["bitcoin", "shiba-inu", "nothing", "no-currency", "no-market", "no-time", "broken"];
        let assets = ids.map(|id| AssetId::parse(id).expect("an id"));
        let body = r#"{"bitcoin":{"usd":103663,"last_updated_at":1747407859},
            "shiba-inu":{"usd":1.2350000000000001e-05,"last_updated_at":1747407859},"no-currency":{},
            "no-market":{"usd":null,"last_updated_at":null},"no-time":{"usd":5,"last_updated_at":null},
            "broken":{"usd":-5,"last_updated_at":1747407859}}"#;
        let currency = Currency::parse("usd").expect("a code");
        let reported = parse_spots(StatusCode::OK, body, &assets, &currency).expect("prices");
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
    fn lists_are_read() {
        let currencies = parse_currencies(StatusCode::OK, r#"["usd","EUR","bits"]"#).expect("a list");
        assert!(currencies.len() == 3 && currencies.contains("eur"));
        let coin = r#"[{"id":"bitcoin","symbol":"btc","name":"Bitcoin"},{"id":"other","symbol":"btc","name":"Other"}]"#;
        let ids = parse_coin_ids(StatusCode::OK, coin).expect("coins");
        assert!(ids.contains("bitcoin") && !ids.contains("btc"));
    }

    #[test]
    fn a_paid_plan_is_recognised_by_its_host() {
        assert_eq!(plan("https://api.coingecko.com/api/v3"), ("x-cg-demo-api-key", DEMO, DAYS_WITHOUT_PAID_KEY));
        assert_eq!(plan("https://pro-api.coingecko.com/api/v3"), ("x-cg-pro-api-key", PRO, DAYS_WITH_PAID_KEY));
        assert_eq!(
            plan("http://127.0.0.1:8080/pro-api.coingecko.com"),
            ("x-cg-demo-api-key", DEMO, DAYS_WITHOUT_PAID_KEY)
        );
    }
}
