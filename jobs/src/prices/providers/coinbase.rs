//! Coinbase Exchange: rows are low, high, open, close, the newest first, and at most 300 per call.
//!
//! Times are seconds. `start` is only used together with `end`; both may be off by one row. Buckets without trades are
//! missing.

use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339, macros::datetime};

use super::{
    Names, Pages, Provider, ProviderError, Spots,
    client::{ParsedResponse, ProviderClient, ProviderLimits},
    json,
    listing::{PairNames, Pairs},
    pages::{fetch_pages, request_window, split_pages},
    rate_limiter::RateLimit,
    spots::{ReportedPrice, fetch_one_by_one},
};
use crate::prices::{
    model::{AssetId, Currency, ProviderId, Series},
    normalise::{CandleSet, RawCandle, RejectReason, TimeUnit, Window, parse_price},
};
use runtime::clock::Clock;

const RATE_LIMIT: RateLimit = RateLimit { every: Duration::from_millis(100), burst: 15 };
/// The rate limit refills within 1.5 s.
const DEFAULT_PAUSE: Duration = Duration::from_secs(2);
const ROWS: i32 = 300;
/// There are no older prices, and empty pages cost calls.
const BEGINNING: OffsetDateTime = datetime!(2015-01-01 0:00 UTC);

/// The client of Coinbase.
pub struct Coinbase {
    client: ProviderClient,
    pairs: PairNames,
}

#[derive(Deserialize)]
struct Ticker<'a> {
    #[serde(borrow)]
    price: Option<json::Field<'a>>,
    #[serde(borrow)]
    time: Option<json::Field<'a>>,
}

#[derive(Deserialize)]
struct Product {
    id: String,
    base_currency: String,
    quote_currency: String,
    status: String,
}

impl Coinbase {
    pub fn new(http: Client, url: &str, clock: Clock) -> Self {
        let limits = ProviderLimits { rate_limit: RATE_LIMIT, default_pause: DEFAULT_PAUSE, key: None };
        let client = ProviderClient::new(ProviderId::Coinbase, http, url, clock, limits);
        Self { client, pairs: PairNames::new(pair_name) }
    }

    async fn fetch_pairs(&self) -> Result<Pairs, ProviderError> {
        self.client.get("products", parse_pairs).await
    }

    async fn fetch_page(&self, series: &Series, page: Window) -> Result<CandleSet, ProviderError> {
        let pair = self.pairs.name(self.fetch_pairs(), &series.asset, &series.currency).await;
        let pair = pair.ok_or(ProviderError::NotOffered(ProviderId::Coinbase))?;
        let length = series.interval.length();
        // Both are starts of rows: of the first and the last of the page.
        let [first, last] =
            [page.from, page.to - time::Duration::SECOND].map(|at| format_time(series.interval.bucket(at)));
        let path = format!("products/{pair}/candles?granularity={}&start={first}&end={last}", length.whole_seconds());
        self.client.get(&path, |status, body| parse_candles(status, body, page)).await
    }

    async fn fetch_spots(&self, assets: &[AssetId], currency: &Currency) -> Spots {
        let pairs = self.pairs.names_of(self.fetch_pairs(), assets, currency).await;
        let client = &self.client;
        let fetch =
            move |pair: String| async move { client.get(&format!("products/{pair}/ticker"), parse_ticker).await };
        fetch_one_by_one(client, pairs, fetch).await
    }
}

fn pair_name(base: &str, quote: &str) -> Option<String> {
    Some(format!("{base}-{quote}"))
}

fn parse_pairs(status: StatusCode, body: &str) -> ParsedResponse<Pairs> {
    if let Some(failure) = refusal(status).or_else(|| parse_message(body)) {
        return failure;
    }
    let products: Vec<json::Field<'_>> = match json::parse(body) {
        Ok(products) => products,
        Err(failure) => return failure,
    };
    let mut pairs = Pairs::default();
    let products = products.iter().filter_map(|product| serde_json::from_str::<Product>(product.get()).ok());
    for product in products.filter(|product| product.status != "delisted") {
        pairs.add(&product.base_currency, &product.quote_currency, &product.id);
    }
    ParsedResponse::Value(pairs)
}

/// A time as queries take it, in whole seconds.
fn format_time(time: OffsetDateTime) -> String {
    // Fails only for years after 9999.
    time.replace_nanosecond(0).unwrap_or(time).format(&Rfc3339).unwrap_or_default()
}

fn refusal<T>(status: StatusCode) -> Option<ParsedResponse<T>> {
    match status {
        StatusCode::NOT_FOUND => Some(ParsedResponse::NotOffered),
        status if status.is_success() => None,
        status => Some(ParsedResponse::Permanent(format!("status {}", status.as_u16()))),
    }
}

/// An error message without an error status.
#[derive(Deserialize)]
struct Message {
    message: String,
}

fn parse_message<T>(body: &str) -> Option<ParsedResponse<T>> {
    let message = serde_json::from_str::<Message>(body).ok()?.message.to_ascii_lowercase();
    Some(if message.contains("rate limit") {
        ParsedResponse::RateLimited("rate limit exceeded".into())
    } else {
        ParsedResponse::Permanent("response is a message instead of prices".into())
    })
}

fn parse_candles(status: StatusCode, body: &str, window: Window) -> ParsedResponse<CandleSet> {
    if let Some(failure) = refusal(status).or_else(|| parse_message(body)) {
        return failure;
    }
    let rows: Vec<json::Field<'_>> = match json::parse(body) {
        Ok(rows) => rows,
        Err(failure) => return failure,
    };
    let mut candle_set = CandleSet::new(window);
    for row in rows {
        match json::fields(row) {
            Some([time, low, high, open, close, volume]) => {
                candle_set.add_row(RawCandle { time, unit: TimeUnit::Seconds, open, high, low, close, volume });
            }
            None => candle_set.reject(RejectReason::Shape, row.get()),
        }
    }
    ParsedResponse::Value(candle_set)
}

fn parse_ticker(status: StatusCode, body: &str) -> ParsedResponse<ReportedPrice> {
    if let Some(failure) = refusal(status).or_else(|| parse_message(body)) {
        return failure;
    }
    let ticker: Ticker<'_> = match json::parse(body) {
        Ok(ticker) => ticker,
        Err(failure) => return failure,
    };
    // A product without a trade has neither price nor time.
    let (Some(price), Some(time)) = (ticker.price, ticker.time) else { return ParsedResponse::Value(Ok(None)) };
    let time = OffsetDateTime::parse(json::text(time), &Rfc3339).map_err(|_| RejectReason::Time);
    ParsedResponse::Value(parse_price(json::text(price)).and_then(|price| Ok(Some((price, time?)))))
}

impl Provider for Coinbase {
    fn id(&self) -> ProviderId {
        ProviderId::Coinbase
    }

    fn candles<'a>(&'a self, series: &'a Series, from: OffsetDateTime, to: OffsetDateTime) -> Pages<'a> {
        let pages = split_pages(request_window(&self.client, series, from.max(BEGINNING), to), ROWS);
        fetch_pages(&self.client, series, pages, |page| Box::pin(self.fetch_page(series, page)))
    }

    fn spots<'a>(&'a self, assets: &'a [AssetId], currency: &'a Currency) -> BoxFuture<'a, Spots> {
        Box::pin(self.fetch_spots(assets, currency))
    }

    fn names(&self) -> BoxFuture<'_, Result<Names, ProviderError>> {
        Box::pin(self.pairs.names(self.fetch_pairs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prices::model::Interval;

    const WINDOW: Window = Window {
        interval: Interval::Hourly,
        from: datetime!(2024-03-13 10:00 UTC),
        to: datetime!(2024-03-13 13:00 UTC),
        now: datetime!(2024-03-13 13:20 UTC),
    };

    #[test]
    fn rows_are_read_in_their_order_of_fields() {
        // 12:00, 10:00 and, before the range, 09:00. Nothing was traded at 11:00.
        let body = "[[1710331200,73300.5,73402.47,73310.25,73370.65,1.56794406],
            [1710324000,72990.01,73255,73000.1,73250.7,22.1],[1710320400,1,3,2,2,1]]";
        let ParsedResponse::Value(candle_set) = parse_candles(StatusCode::OK, body, WINDOW) else { panic!("no rows") };
        let (candles, rejected) = candle_set.finish();
        assert_eq!((candles.len(), rejected), (2, vec![]));
        let last = &candles[1];
        let texts = [&last.open, &last.high, &last.low].map(|price| price.as_ref().map(ToString::to_string));
        assert_eq!(texts, ["73310.25", "73402.47", "73300.5"].map(|text| Some(text.to_owned())));
        assert_eq!((last.bucket, last.close.to_string()), (datetime!(2024-03-13 12:00 UTC), "73370.65".into()));
    }

    #[test]
    fn errors_are_read() {
        let read = |status, body| parse_candles(status, body, WINDOW).map(|_| ());
        assert_eq!(read(StatusCode::NOT_FOUND, r#"{"message":"NotFound"}"#), ParsedResponse::NotOffered);
        assert!(matches!(read(StatusCode::BAD_REQUEST, r#"{"message":"granularity"}"#), ParsedResponse::Permanent(_)));
        assert!(matches!(
            read(StatusCode::OK, r#"{"message":"Public rate limit exceeded"}"#),
            ParsedResponse::RateLimited(_)
        ));
        assert!(matches!(read(StatusCode::OK, "[[1710331200,NaN]]"), ParsedResponse::Transient(_)));
    }

    #[test]
    fn a_present_price_has_the_time_of_its_trade() {
        let read = |price: &str, time: &str| {
            let body = format!(r#"{{"ask":"1","bid":"1","trade_id":7,"price":{price},"size":"1","time":{time}}}"#);
            let ParsedResponse::Value(reported) = parse_ticker(StatusCode::OK, &body) else { panic!("no price") };
            reported.map(|price| price.map(|(price, time)| (price.to_string(), time)))
        };
        let time = datetime!(2024-03-13 12:00:01.5 UTC);
        assert_eq!(read("\"73370.65\"", "\"2024-03-13T12:00:01.500000Z\""), Ok(Some(("73370.65".into(), time))));
        assert_eq!(read("\"73370.65\"", "\"1710331200\""), Err(RejectReason::Time));
        assert_eq!(read("\"NaN\"", "\"2024-03-13T12:00:01Z\""), Err(RejectReason::Decimal));
        assert_eq!(read("null", "\"2024-03-13T12:00:01Z\""), Ok(None), "nothing was traded");
        assert_eq!(read("\"73370.65\"", "null"), Ok(None), "a price without its time");
    }

    #[test]
    fn a_delisted_product_is_not_offered() {
        let body = r#"[{"id":"BTC-USD","base_currency":"BTC","quote_currency":"USD","status":"online","max":"1"},
            {"id":"XRP-USD","base_currency":"XRP","quote_currency":"USD","status":"delisted"}]"#;
        let ParsedResponse::Value(pairs) = parse_pairs(StatusCode::OK, body) else { panic!("no products") };
        let name = |code| pairs.name(code, &Currency::parse("usd").expect("a code")).map(str::to_owned);
        assert_eq!((name("BTC"), name("XRP")), (pair_name("BTC", "USD"), None));
    }
}
