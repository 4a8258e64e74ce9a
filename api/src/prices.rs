//! The price endpoints: what assets cost now, and what they have cost.

mod view;

use std::time::Duration;

use jobs::prices::{
    Prices,
    model::{AssetId, Currency, Interval, Series},
    read::{Quote, Read},
    symbols::suggestion,
};
use poem::http::{HeaderValue, StatusCode, header};
use poem_openapi::{ApiResponse, OpenApi};

use self::view::{Asset, Assets, Chosen, Code, Frequency, MarketChart, SimplePrices};
use crate::{
    auth::Private,
    problem::{Fails, Problem, Statuses},
    rate_limit::{Limit, Limits},
    tags::Tag,
    validation::{FieldError, Query, ValidationError},
    wire::Json,
};

/// What an answer with something stale says (RFC 7234).
const STALE: &str = "110 - \"Response is Stale\"";

/// The price endpoints.
#[derive(Clone)]
pub struct PricesApi {
    prices: Prices,
    limit: Limit,
}

impl PricesApi {
    /// Endpoints of this feature, which share one limit: `RATE_LIMIT`.
    pub fn new(prices: Prices, limits: &Limits) -> Self {
        Self { prices, limit: limits.prices.clone() }
    }
}

#[derive(ApiResponse)]
enum Quoted {
    /// The present prices, by asset, in the order in which they were asked for.
    #[oai(status = 200)]
    Ok(
        Json<SimplePrices>,
        /// `110 - "Response is Stale"`, when a newer price of one of them could not be had.
        #[oai(header = "Warning")]
        Option<String>,
    ),
}

#[derive(ApiResponse)]
enum Charted {
    /// The prices, in the order of time.
    #[oai(status = 200)]
    Ok(
        Json<MarketChart>,
        /// `110 - "Response is Stale"`, when no provider could be asked for newer prices. `199 - "25 points are missing"`,
        /// when the chart lacks points that should be there. Both are separated by a comma.
        #[oai(header = "Warning")]
        Option<String>,
    ),
}

#[derive(Debug)]
struct Reading;

impl Statuses for Reading {
    const ALL: &'static [u16] = &[401, 403, 404, 422, 429, 503];
}

#[OpenApi(tag = "Tag::Prices")]
impl PricesApi {
    /// Present prices
    ///
    /// The newest that is known, after a provider was asked within the last minute. When none can be asked, or none has a
    /// price of the last hour, it comes with a `Warning`. `as_of` is the time of the price, by its provider.
    #[oai(path = "/simple_price", method = "get", operation_id = "get_simple_price")]
    async fn simple_price(
        &self,
        Private(caller): Private,
        /// Up to 50 ids of assets, separated by commas.
        assets: Query<Assets>,
        /// One of those that the service is set up for.
        currency: Query<Code>,
    ) -> Result<Quoted, Fails<Reading>> {
        self.limit.take(&caller).await?;
        let mut errors = Vec::new();
        let assets = required(assets, "assets", &mut errors);
        let currency = self.currency(currency, &mut errors);
        let (Some(Assets(assets)), Some(currency)) = (assets, currency) else {
            return Err(Problem::invalid(errors).into());
        };
        let quotes = shown(self.prices.quotes(&assets, &currency).await?, &currency)?;
        let warning = warning(quotes.iter().any(|(_, quote)| quote.stale), 0);
        Ok(Quoted::Ok(Json::new(&SimplePrices { currency, quotes })?, warning))
    }

    /// Prices over time
    ///
    /// One price for each day or hour that is over, in UTC: the price at its end, whichever provider it is from. A day is
    /// there a quarter of an hour after its end. Providers reach back for different times, and are asked for hours of the
    /// last 90 days. A chart that lacks points after its first one, or points for which a provider could not be asked,
    /// comes with a `Warning` that says how many. Where the API's processes do not share a cache through Redis, what
    /// another one has fetched may be left out for a minute.
    #[oai(path = "/market_chart", method = "get", operation_id = "get_market_chart")]
    async fn market_chart(
        &self,
        Private(caller): Private,
        /// The id of the asset.
        asset: Query<Asset>,
        /// One of those that the service is set up for.
        currency: Query<Code>,
        /// How many days up to the last one that is over: 1 to 3650, or `max` for all there are.
        days: Query<Chosen>,
        /// How far apart the prices are.
        interval: Query<Frequency>,
    ) -> Result<Charted, Fails<Reading>> {
        self.limit.take(&caller).await?;
        let mut errors = Vec::new();
        let asset = required(asset, "asset", &mut errors);
        let currency = self.currency(currency, &mut errors);
        let days = required(days, "days", &mut errors);
        let interval = interval.value_or_record(&mut errors).map_or(Interval::Daily, |Frequency(interval)| interval);
        let (Some(Asset(asset)), Some(currency), Some(days), true) = (asset, currency, days, errors.is_empty()) else {
            return Err(Problem::invalid(errors).into());
        };
        let series = Series { asset, currency, interval };
        let chart = match self.prices.chart(&series, days.0).await? {
            Read::Found(chart) => chart,
            Read::Unknown => return Err(unknown(&series.asset, &series.currency).into()),
            Read::Nothing { retry_after } => return Err(nothing(series.asset.as_str(), retry_after).into()),
        };
        let warning = warning(chart.stale, chart.missing);
        Ok(Charted::Ok(Json::new(&MarketChart::new(series, days, chart))?, warning))
    }
}

impl PricesApi {
    /// The currency, if it is one that may be asked for.
    fn currency(&self, given: Query<Code>, errors: &mut Vec<ValidationError>) -> Option<Currency> {
        let Code(text) = required(given, "currency", errors)?;
        let known = self.prices.currencies();
        let found = Currency::parse(&text).filter(|currency| known.contains(currency));
        if found.is_none() {
            let wrong = FieldError::new("enum", format!("Input should be {}", view::either(known)));
            errors.push(wrong.at("query", "currency", serde_json::to_string(&text).ok().as_deref()));
        }
        found
    }
}

/// The value of a parameter that must be given.
fn required<T>(given: Query<T>, name: &'static str, errors: &mut Vec<ValidationError>) -> Option<T> {
    let before = errors.len();
    let value = given.value_or_record(errors);
    if value.is_none() && errors.len() == before {
        errors.push(FieldError::missing().at("query", name, None));
    }
    value
}

/// All quotes, or why there are not all.
fn shown(reads: Vec<(AssetId, Read<Quote>)>, currency: &Currency) -> Result<Vec<(AssetId, Quote)>, Problem> {
    if let Some((asset, _)) = reads.iter().find(|(_, read)| matches!(read, Read::Unknown)) {
        return Err(unknown(asset, currency));
    }
    let unavailable = reads.iter().filter_map(|(asset, read)| match read {
        Read::Nothing { retry_after } => Some((asset.as_str(), *retry_after)),
        Read::Found(_) | Read::Unknown => None,
    });
    let (assets, waits): (Vec<_>, Vec<_>) = unavailable.unzip();
    if let Some(wait) = waits.into_iter().max() {
        return Err(nothing(&assets.join(", "), wait));
    }
    let shown = reads.into_iter().filter_map(|(asset, read)| match read {
        Read::Found(quote) => Some((asset, quote)),
        Read::Unknown | Read::Nothing { .. } => None,
    });
    Ok(shown.collect())
}

fn warning(stale: bool, missing: u32) -> Option<String> {
    let missing = match missing {
        0 => None,
        1 => Some("199 - \"1 point is missing\"".to_owned()),
        missing => Some(format!("199 - \"{missing} points are missing\"")),
    };
    let warnings: Vec<String> = stale.then(|| STALE.to_owned()).into_iter().chain(missing).collect();
    (!warnings.is_empty()).then(|| warnings.join(", "))
}

fn unknown(asset: &AssetId, currency: &Currency) -> Problem {
    let meant = suggestion(asset.as_str()).map(|id| format!("; did you mean {id}?")).unwrap_or_default();
    Problem::new(StatusCode::NOT_FOUND, format!("Unknown asset: no source has {asset} in {currency}{meant}"))
}

fn nothing(assets: &str, retry_after: Duration) -> Problem {
    let seconds = (retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0)).max(1);
    let detail = format!("No source can be asked for prices of {assets} at the moment, please try again.");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).header(header::RETRY_AFTER, HeaderValue::from(seconds))
}
