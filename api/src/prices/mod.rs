//! The price endpoints: current prices, price charts, and the daily fetch that an admin starts at once.

mod wire;

use std::time::Duration;

use jobs::prices::{
    Prices,
    model::{AssetId, Currency, Interval, Quote, Series},
    read::Read,
    symbols::suggestion,
};
use poem::{
    Request,
    http::{HeaderValue, StatusCode, header},
};
use poem_openapi::OpenApi;
use queue::operator::audit::{Order, Via};

use self::wire::{Asset, Assets, CurrencyCode, DaysParam, Fetch, MarketChart, SimplePrices};
use crate::{
    auth::{Admin, Private},
    context::Context,
    middleware::correlation,
    problem::{Failure, Problem, errors, whole_seconds},
    rate_limit::Limit,
    tags::Tag,
    validation::{AllValid, FieldError, FirstOr, Query, ValidationError},
    wire::{Json, responses},
};

/// The `Warning` header of a stale response (RFC 7234).
const STALE: &str = "110 - \"Response is Stale\"";

/// The price endpoints.
#[derive(Clone)]
pub struct PricesApi {
    prices: Prices,
    limit: Limit,
    admin_limit: Limit,
}

impl PricesApi {
    /// The endpoints. Those that read share one rate limit, `RATE_LIMIT`; the other one is within that of all admin routes.
    pub(crate) fn new(Context { app, limits, .. }: &Context<'_>) -> Self {
        Self { prices: app.prices.clone(), limit: limits.prices.clone(), admin_limit: limits.admin.clone() }
    }
}

responses! {
    /// The current prices by asset, in the order of the request.
    SimplePriceResponse = 200 Json<SimplePrices> {
        /// `110 - "Response is Stale"`, if no newer price of one of the assets was available.
        "Warning": Option<String>,
    };

    /// The prices in the order of time.
    MarketChartResponse = 200 Json<MarketChart> {
        /// `110 - "Response is Stale"`, if no provider was available for newer prices. `199 - "25 points are missing"`,
        /// if the chart lacks points that should exist. Both are separated by a comma.
        "Warning": Option<String>,
    };

    /// The day's fetch is enqueued, by this request or an earlier one.
    FetchResponse = 202 Json<Fetch>;
}

errors! {
    Reading: [401, 403, 404, 422, 429, 503];
    Fetching: [401, 403, 429, 503];
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
        let (assets, currency) = (assets.0, currency.0.and_then(|code| self.currency(&code))).all_valid()?;
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
        interval: Query<FirstOr<Interval>>,
    ) -> Result<MarketChartResponse, Failure<Reading>> {
        self.limit.acquire(&caller).await?;
        let currency = currency.0.and_then(|code| self.currency(&code));
        let (asset, currency, days, interval) = (asset.0, currency, days.0, interval.0).all_valid()?;
        let series = Series { asset, currency, interval };
        let chart = match self.prices.chart(&series, days.0).await? {
            Read::Found(chart) => chart,
            Read::Unknown => return Err(unknown_asset(&series.asset, &series.currency).into()),
            Read::Nothing { retry_after } => return Err(unavailable(series.asset.as_str(), retry_after).into()),
        };
        let warning = warning_header(chart.stale, chart.missing);
        Ok(MarketChartResponse::Ok(Json::new(&MarketChart::new(series, days, chart))?, warning))
    }

    /// Fetch prices now
    ///
    /// Enqueues today's daily fetch (in UTC): one job for each asset and provider. Each job of a day exists once,
    /// regardless of the number of requests; a job that has failed for good starts again. Every request is recorded as an
    /// operator's action. A request body is ignored. One admin may send 60 requests a minute to all admin routes together.
    #[oai(path = "/admin/prices/fetch", method = "post", operation_id = "fetch_prices")]
    async fn fetch(&self, request: &Request, Admin(caller): Admin) -> Result<FetchResponse, Failure<Fetching>> {
        self.admin_limit.acquire(&caller).await?;
        let order = Order::new(&caller.operator_name(), Via::Http, "a fetch at once").map_err(Problem::internal)?;
        let asked = self.prices.fetch_today(correlation::origin(request), &order).await?;
        Ok(FetchResponse::Ok(Json::new(&Fetch::from(asked))?))
    }
}

impl PricesApi {
    /// The currency with this code, if it is on the whitelist.
    fn currency(&self, code: &str) -> Result<Currency, ValidationError> {
        let allowed = self.prices.currencies();
        Currency::parse(code)
            .filter(|currency| allowed.contains(currency))
            .ok_or_else(|| FieldError::not_one_of(&wire::list_currencies(allowed)).at_text("query", "currency", code))
    }
}

/// The quotes of all assets.
///
/// # Errors
/// 404 if one of the assets is unknown; 503 if one of them has no price and no provider is available.
fn all_quotes(reads: Vec<(AssetId, Read<Quote>)>, currency: &Currency) -> Result<Vec<(AssetId, Quote)>, Problem> {
    let (mut quotes, mut without_price) = (Vec::new(), Vec::new());
    for (asset, read) in reads {
        match read {
            Read::Found(quote) => quotes.push((asset, quote)),
            Read::Unknown => return Err(unknown_asset(&asset, currency)),
            Read::Nothing { retry_after } => without_price.push((asset.to_string(), retry_after)),
        }
    }
    let (assets, waits): (Vec<_>, Vec<_>) = without_price.into_iter().unzip();
    match waits.into_iter().max() {
        Some(wait) => Err(unavailable(&assets.join(", "), wait)),
        None => Ok(quotes),
    }
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
    let detail = format!("No provider is available for prices of {assets} at the moment, please try again.");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        .header(header::RETRY_AFTER, HeaderValue::from(whole_seconds(retry_after)))
}
