//! The price endpoints: current prices and price charts.

mod view;

use std::time::Duration;

use jobs::prices::{
    Prices,
    model::{AssetId, Currency, Interval, Quote, Series},
    read::Read,
    symbols::suggestion,
};
use poem::http::{HeaderValue, StatusCode, header};
use poem_openapi::{ApiResponse, OpenApi};

use self::view::{Asset, Assets, CurrencyCode, DaysParam, IntervalParam, MarketChart, SimplePrices};
use crate::{
    auth::Private,
    problem::{ErrorStatuses, Failure, Problem},
    rate_limit::{Limit, Limits},
    tags::Tag,
    validation::{FieldError, Query, ValidationError},
    wire::Json,
};

/// The `Warning` header of a stale response (RFC 7234).
const STALE: &str = "110 - \"Response is Stale\"";

/// The price endpoints.
#[derive(Clone)]
pub struct PricesApi {
    prices: Prices,
    limit: Limit,
}

impl PricesApi {
    /// The endpoints, which share one rate limit: `RATE_LIMIT`.
    pub fn new(prices: Prices, limits: &Limits) -> Self {
        Self { prices, limit: limits.prices.clone() }
    }
}

#[derive(ApiResponse)]
enum SimplePriceResponse {
    /// The current prices by asset, in the order of the request.
    #[oai(status = 200)]
    Ok(
        Json<SimplePrices>,
        /// `110 - "Response is Stale"`, if no newer price of one of the assets was available.
        #[oai(header = "Warning")]
        Option<String>,
    ),
}

#[derive(ApiResponse)]
enum MarketChartResponse {
    /// The prices in the order of time.
    #[oai(status = 200)]
    Ok(
        Json<MarketChart>,
        /// `110 - "Response is Stale"`, if no provider was available for newer prices. `199 - "25 points are missing"`,
        /// if the chart lacks points that should exist. Both are separated by a comma.
        #[oai(header = "Warning")]
        Option<String>,
    ),
}

#[derive(Debug)]
struct Reading;

impl ErrorStatuses for Reading {
    const ALL: &'static [u16] = &[401, 403, 404, 422, 429, 503];
}

#[OpenApi(tag = "Tag::Prices")]
impl PricesApi {
    /// Get current prices
    ///
    /// The newest known price of each asset. If it was fetched more than a minute ago, a provider is asked first. If no
    /// provider is available, or none has a price of the last hour, the response has a `Warning`. `as_of` is the time
    /// of the price, by its provider.
    #[oai(path = "/simple_price", method = "get", operation_id = "get_simple_price")]
    async fn simple_price(
        &self,
        Private(caller): Private,
        /// Up to 50 asset ids, separated by commas.
        assets: Query<Assets>,
        /// One of the configured currencies (`CRYPTO_CURRENCIES`).
        currency: Query<CurrencyCode>,
    ) -> Result<SimplePriceResponse, Failure<Reading>> {
        self.limit.acquire(&caller).await?;
        let mut errors = Vec::new();
        let assets = assets.required_or_record("assets", &mut errors);
        let currency = self.currency(currency, &mut errors);
        let (Some(Assets(assets)), Some(currency)) = (assets, currency) else {
            return Err(Problem::invalid(errors).into());
        };
        let quotes = all_quotes(self.prices.quotes(&assets, &currency).await?, &currency)?;
        let warning = warning_header(quotes.iter().any(|(_, quote)| quote.stale), 0);
        Ok(SimplePriceResponse::Ok(Json::new(&SimplePrices { currency, quotes })?, warning))
    }

    /// Get a price chart
    ///
    /// One price for each past day or hour in UTC: the price at its end, from any provider. The price of a day is
    /// available 15 minutes after its end. Providers have histories of different lengths; hourly prices are fetched for
    /// the last 90 days. The response has a `Warning` with the number of missing points if the chart lacks points after
    /// its first one, or if no provider was available for some. If the API processes do not share a cache through
    /// Redis, prices that another process has fetched may be missing for a minute.
    #[oai(path = "/market_chart", method = "get", operation_id = "get_market_chart")]
    async fn market_chart(
        &self,
        Private(caller): Private,
        /// The id of the asset.
        asset: Query<Asset>,
        /// One of the configured currencies (`CRYPTO_CURRENCIES`).
        currency: Query<CurrencyCode>,
        /// The number of days up to the last complete day: 1 to 3650, or `max` for all.
        days: Query<DaysParam>,
        /// The interval between two prices.
        interval: Query<IntervalParam>,
    ) -> Result<MarketChartResponse, Failure<Reading>> {
        self.limit.acquire(&caller).await?;
        let mut errors = Vec::new();
        let asset = asset.required_or_record("asset", &mut errors);
        let currency = self.currency(currency, &mut errors);
        let days = days.required_or_record("days", &mut errors);
        let interval =
            interval.value_or_record(&mut errors).map_or(Interval::Daily, |IntervalParam(interval)| interval);
        let (Some(Asset(asset)), Some(currency), Some(days), true) = (asset, currency, days, errors.is_empty()) else {
            return Err(Problem::invalid(errors).into());
        };
        let series = Series { asset, currency, interval };
        let chart = match self.prices.chart(&series, days.0).await? {
            Read::Found(chart) => chart,
            Read::Unknown => return Err(unknown_asset(&series.asset, &series.currency).into()),
            Read::Nothing { retry_after } => return Err(unavailable(series.asset.as_str(), retry_after).into()),
        };
        let warning = warning_header(chart.stale, chart.missing);
        Ok(MarketChartResponse::Ok(Json::new(&MarketChart::new(series, days, chart))?, warning))
    }
}

impl PricesApi {
    /// The currency, if it is on the whitelist; otherwise an error is added to `errors`.
    fn currency(&self, parameter: Query<CurrencyCode>, errors: &mut Vec<ValidationError>) -> Option<Currency> {
        let CurrencyCode(text) = parameter.required_or_record("currency", errors)?;
        let allowed = self.prices.currencies();
        let currency = Currency::parse(&text).filter(|currency| allowed.contains(currency));
        if currency.is_none() {
            let error = FieldError::new("enum", format!("Input should be {}", view::list_currencies(allowed)));
            errors.push(error.at("query", "currency", serde_json::to_string(&text).ok().as_deref()));
        }
        currency
    }
}

/// The quotes of all assets.
///
/// # Errors
/// 404 if one of the assets is unknown; 503 if one of them has no price and no provider is available.
fn all_quotes(reads: Vec<(AssetId, Read<Quote>)>, currency: &Currency) -> Result<Vec<(AssetId, Quote)>, Problem> {
    if let Some((asset, _)) = reads.iter().find(|(_, read)| matches!(read, Read::Unknown)) {
        return Err(unknown_asset(asset, currency));
    }
    let without_price = reads.iter().filter_map(|(asset, read)| match read {
        Read::Nothing { retry_after } => Some((asset.as_str(), *retry_after)),
        Read::Found(_) | Read::Unknown => None,
    });
    let (assets, waits): (Vec<_>, Vec<_>) = without_price.unzip();
    if let Some(wait) = waits.into_iter().max() {
        return Err(unavailable(&assets.join(", "), wait));
    }
    let quotes = reads.into_iter().filter_map(|(asset, read)| match read {
        Read::Found(quote) => Some((asset, quote)),
        Read::Unknown | Read::Nothing { .. } => None,
    });
    Ok(quotes.collect())
}

fn warning_header(stale: bool, missing: u32) -> Option<String> {
    let missing = match missing {
        0 => None,
        1 => Some("199 - \"1 point is missing\"".to_owned()),
        missing => Some(format!("199 - \"{missing} points are missing\"")),
    };
    let warnings: Vec<String> = stale.then(|| STALE.to_owned()).into_iter().chain(missing).collect();
    (!warnings.is_empty()).then(|| warnings.join(", "))
}

fn unknown_asset(asset: &AssetId, currency: &Currency) -> Problem {
    let hint = suggestion(asset.as_str()).map(|id| format!("; did you mean {id}?")).unwrap_or_default();
    Problem::new(StatusCode::NOT_FOUND, format!("Unknown asset: no source has {asset} in {currency}{hint}"))
}

fn unavailable(assets: &str, retry_after: Duration) -> Problem {
    let seconds = (retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0)).max(1);
    let detail = format!("No provider is available for prices of {assets} at the moment, please try again.");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).header(header::RETRY_AFTER, HeaderValue::from(seconds))
}
