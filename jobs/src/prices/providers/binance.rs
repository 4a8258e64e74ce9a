//! Binance: at most 1,000 rows per call, times in milliseconds, prices as text. Bans of an address last two minutes or
//! longer.
//!
//! It quotes in `usdt` and `eur`, and not in `usd`. 418 is its ban; 403 comes from its firewall. A delisted pair keeps
//! its last price for years; only the time of the price shows this.

use std::{slice, time::Duration};

use futures_util::future::BoxFuture;
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use time::OffsetDateTime;

use super::{
    Names, Pages, Provider, ProviderError, Spots,
    client::{ParsedResponse, ProviderClient, ProviderLimits},
    json,
    listing::{PairNames, Pairs},
    pages::{fetch_pages, request_window, split_pages},
    rate_limiter::RateLimit,
    spots::{ReportedPrice, add_reported, fetch_one_by_one},
};
use crate::prices::{
    model::{AssetId, Currency, Interval, ProviderId, Series},
    normalise::{CandleSet, RawCandle, RejectReason, TimeUnit, Window, parse_price, parse_time},
};
use runtime::clock::Clock;

/// The limit is 6,000 units of weight per minute. Our calls cost at most 4, except the daily list of pairs.
const RATE_LIMIT: RateLimit = RateLimit { every: Duration::from_millis(200), burst: 40 };
/// Its limits are counted per minute.
const DEFAULT_PAUSE: Duration = Duration::from_secs(60);
const ROWS: i32 = 1000;
/// Tickers per call. With more, the weight is twenty times as high.
const TICKERS: usize = 20;
const INVALID_SYMBOL: i64 = -1121;
const TOO_MANY_REQUESTS: i64 = -1003;
/// The traded pairs, without account permissions, which are most of the response.
const PAIRS: &str = "api/v3/exchangeInfo?symbolStatus=TRADING&showPermissionSets=false";

/// The client of Binance.
pub struct Binance {
    client: ProviderClient,
    pairs: PairNames,
}

#[derive(Deserialize)]
struct Refusal {
    code: i64,
}

/// The last price and its time.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ticker<'a> {
    symbol: String,
    #[serde(borrow)]
    last_price: Option<json::Field<'a>>,
    #[serde(borrow)]
    close_time: Option<json::Field<'a>>,
    /// Trades within the last 24 hours.
    count: Option<u64>,
}

#[derive(Deserialize)]
struct Info<'a> {
    #[serde(borrow)]
    symbols: Vec<json::Field<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Symbol {
    symbol: String,
    status: String,
    base_asset: String,
    quote_asset: String,
}

impl Binance {
    pub fn new(http: Client, url: &str, clock: Clock) -> Self {
        let limits = ProviderLimits { rate_limit: RATE_LIMIT, default_pause: DEFAULT_PAUSE, key: None };
        let client = ProviderClient::new(ProviderId::Binance, http, url, clock, limits);
        Self { client, pairs: PairNames::new(pair_name) }
    }

    async fn fetch_pairs(&self) -> Result<Pairs, ProviderError> {
        self.client.get(PAIRS, parse_pairs).await
    }

    async fn fetch_page(&self, series: &Series, page: Window) -> Result<CandleSet, ProviderError> {
        let pair = self.pairs.name(self.fetch_pairs(), &series.asset, &series.currency).await;
        let pair = pair.ok_or(ProviderError::NotOffered(ProviderId::Binance))?;
        let interval = match series.interval {
            Interval::Daily => "1d",
            Interval::Hourly => "1h",
        };
        let (first, last) = (millis(page.from), millis(page.to) - 1);
        let path =
            format!("api/v3/klines?symbol={pair}&interval={interval}&startTime={first}&endTime={last}&limit={ROWS}");
        self.client.get(&path, |status, body| parse_candles(status, body, page)).await
    }

    async fn fetch_spots(&self, assets: &[AssetId], currency: &Currency) -> Spots {
        let pairs = self.pairs.names_of(self.fetch_pairs(), assets, currency).await;
        let mut spots = Spots::default();
        for pairs in pairs.chunks(TICKERS) {
            match self.fetch_tickers(pairs).await {
                Ok(reported) => add_reported(&self.client, &mut spots, reported),
                // One unknown symbol fails the whole call.
                Err(ProviderError::NotOffered(_)) => {
                    let fetch = move |symbol: String| async move {
                        let pair = pairs.iter().find(|(_, name)| *name == symbol);
                        let reported = self.fetch_tickers(pair.map_or(&[], slice::from_ref)).await?;
                        Ok::<ReportedPrice, ProviderError>(
                            reported.into_iter().next().map_or(Ok(None), |(_, price)| price),
                        )
                    };
                    let separate = fetch_one_by_one(&self.client, pairs.to_vec(), fetch).await;
                    spots.found.extend(separate.found);
                    spots.failed.extend(separate.failed);
                }
                Err(error) => {
                    spots.failed.extend(Spots::failed(pairs.iter().map(|(asset, _)| asset), &error).failed);
                }
            }
        }
        spots
    }

    async fn fetch_tickers(&self, pairs: &[(AssetId, String)]) -> Result<Vec<(AssetId, ReportedPrice)>, ProviderError> {
        let names: Vec<String> = pairs.iter().map(|(_, name)| format!("%22{name}%22")).collect();
        let path = format!("api/v3/ticker/24hr?type=MINI&symbols=%5B{}%5D", names.join(","));
        self.client.get(&path, |status, body| parse_tickers(status, body, pairs)).await
    }
}

fn millis(time: OffsetDateTime) -> i64 {
    time.unix_timestamp().saturating_mul(1000)
}

/// The names of pairs by convention. Binance has no `usd`.
fn pair_name(base: &str, quote: &str) -> Option<String> {
    (quote != "USD").then(|| format!("{base}{quote}"))
}

fn parse_pairs(status: StatusCode, body: &str) -> ParsedResponse<Pairs> {
    if let Some(refusal) = refusal(status, body) {
        return refusal;
    }
    let info: Info<'_> = match json::parse(body) {
        Ok(info) => info,
        Err(failure) => return failure,
    };
    let mut pairs = Pairs::default();
    // A pair that is halted or delisted has no present price. An entry of another form is ignored.
    let symbols = info.symbols.iter().filter_map(|symbol| serde_json::from_str::<Symbol>(symbol.get()).ok());
    for pair in symbols.filter(|pair| pair.status == "TRADING") {
        pairs.add(&pair.base_asset, &pair.quote_asset, &pair.symbol);
    }
    ParsedResponse::Value(pairs)
}

fn parse_candles(status: StatusCode, body: &str, page: Window) -> ParsedResponse<CandleSet> {
    if let Some(refusal) = refusal(status, body) {
        return refusal;
    }
    let rows: Vec<json::Field<'_>> = match json::parse(body) {
        Ok(rows) => rows,
        Err(failure) => return failure,
    };
    let mut candle_set = CandleSet::new(page);
    for row in rows {
        match json::fields(row) {
            // The ninth field is the number of trades. Without trades the price is that of an earlier time.
            Some([_, _, _, _, _, _, _, _, "0"]) => {}
            Some([time, open, high, low, close, volume, _, _, _]) => {
                candle_set.add_row(RawCandle { time, unit: TimeUnit::Millis, open, high, low, close, volume });
            }
            None => candle_set.reject(RejectReason::Shape, row.get()),
        }
    }
    ParsedResponse::Value(candle_set)
}

fn parse_tickers(
    status: StatusCode,
    body: &str,
    pairs: &[(AssetId, String)],
) -> ParsedResponse<Vec<(AssetId, ReportedPrice)>> {
    if let Some(refusal) = refusal(status, body) {
        return refusal;
    }
    let tickers: Vec<Ticker<'_>> = match json::parse(body) {
        Ok(tickers) => tickers,
        Err(failure) => return failure,
    };
    let reported = tickers.iter().filter_map(|ticker| {
        let (asset, _) = pairs.iter().find(|(_, name)| *name == ticker.symbol)?;
        Some((asset.clone(), reported_price(ticker)))
    });
    ParsedResponse::Value(reported.collect())
}

fn reported_price(ticker: &Ticker<'_>) -> ReportedPrice {
    match (ticker.last_price, ticker.close_time, ticker.count) {
        // Without trades the price is older than 24 hours.
        (None, ..) | (_, None, _) | (.., Some(0)) => Ok(None),
        (Some(price), Some(at), _) => {
            Ok(Some((parse_price(json::text(price))?, parse_time(json::text(at), TimeUnit::Millis)?)))
        }
    }
}

/// An error is an object with a code, where a result is an array.
fn refusal<T>(status: StatusCode, body: &str) -> Option<ParsedResponse<T>> {
    match serde_json::from_str(body) {
        Ok(Refusal { code: INVALID_SYMBOL }) => Some(ParsedResponse::NotOffered),
        Ok(Refusal { code: TOO_MANY_REQUESTS }) => Some(ParsedResponse::RateLimited("too many requests".into())),
        Ok(Refusal { code }) => Some(ParsedResponse::Permanent(format!("status {}, code {code}", status.as_u16()))),
        Err(_) if status.is_success() => None,
        Err(_) => Some(ParsedResponse::Permanent(format!("status {}", status.as_u16()))),
    }
}

impl Provider for Binance {
    fn id(&self) -> ProviderId {
        ProviderId::Binance
    }

    fn candles<'a>(&'a self, series: &'a Series, from: OffsetDateTime, to: OffsetDateTime) -> Pages<'a> {
        let pages = split_pages(request_window(&self.client, series, from, to), ROWS);
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
    use time::macros::datetime;

    use super::*;

    const WINDOW: Window = Window {
        interval: Interval::Daily,
        from: datetime!(2024-03-01 0:00 UTC),
        to: datetime!(2024-03-14 12:00 UTC),
        now: datetime!(2024-03-14 12:00 UTC),
    };

    #[test]
    fn finished_rows_are_read() {
        // Twelve fields. The rows are of 2024-03-13 and 14; the last one is running.
        let body = r#"[
            [1710288000000,"65470.10000000","67510.00000000","65101.55000000","66890.25000000","1234.56700000",
             1710374399999,"81650123.11000000",51234,"612.1","40512345.2","0"],
            [1710374400000,"66890.25000000","67100.00000000","66000.00000000","66500.00000000","210.5",
             1710460799999,"13998123.4",9876,"100.1","6650000.1","0"]]"#;
        let ParsedResponse::Value(candle_set) = parse_candles(StatusCode::OK, body, WINDOW) else { panic!("no rows") };
        let (candles, rejected) = candle_set.finish();
        assert_eq!((candles.len(), rejected), (1, vec![]));
        let texts = [&candles[0].open, &candles[0].high, &candles[0].low, &Some(candles[0].close.clone())]
            .map(|price| price.as_ref().map(ToString::to_string).unwrap_or_default());
        assert_eq!(texts, ["65470.1", "67510", "65101.55", "66890.25"]);
        assert_eq!(candles[0].bucket, datetime!(2024-03-13 0:00 UTC));
    }

    #[test]
    fn only_a_malformed_row_is_rejected() {
        let body = r#"[null,[1710288000000,"1","2"],{"a":1},[1710201600000,"5","6","4","5","1",0,"1",1,"1","1","0"]]"#;
        let ParsedResponse::Value(candle_set) = parse_candles(StatusCode::OK, body, WINDOW) else { panic!("no rows") };
        let (candles, rejected) = candle_set.finish();
        assert_eq!((candles.len(), rejected.len()), (1, 3));
        assert!(rejected.iter().all(|(reason, _)| *reason == RejectReason::Shape));
    }

    #[test]
    fn errors_are_read_by_code() {
        let read = |status, body| parse_candles(status, body, WINDOW).map(|_| ());
        let bad = StatusCode::BAD_REQUEST;
        assert_eq!(read(bad, r#"{"code":-1121,"msg":"Invalid symbol."}"#), ParsedResponse::NotOffered);
        assert!(matches!(read(StatusCode::OK, r#"{"code":-1003,"msg":"Too much."}"#), ParsedResponse::RateLimited(_)));
        assert!(matches!(read(bad, r#"{"code":-1100,"msg":"Illegal characters"}"#), ParsedResponse::Permanent(_)));
        assert!(matches!(read(bad, "<html>"), ParsedResponse::Permanent(_)));
        assert!(matches!(read(StatusCode::OK, "<html>"), ParsedResponse::Transient(_)));
        assert!(matches!(read(StatusCode::OK, r#"[[1710288000000,"65470"#), ParsedResponse::Transient(_)));
    }

    #[test]
    fn a_candle_without_trades_is_ignored() {
        let body = r#"[[1710201600000,"5","6","4","5","1",1710287999999,"1",7,"1","1","0"],
            [1710288000000,"5","5","5","5","0.00000000",1710374399999,"0",0,"0","0","0"]]"#;
        let ParsedResponse::Value(candle_set) = parse_candles(StatusCode::OK, body, WINDOW) else { panic!("no rows") };
        let (candles, rejected) = candle_set.finish();
        assert_eq!((candles.len(), rejected), (1, vec![]));
        assert_eq!(candles[0].bucket, datetime!(2024-03-12 0:00 UTC));
    }

    #[test]
    fn a_present_price_without_time_is_ignored() {
        let asset = AssetId::parse("bitcoin").expect("an id");
        let read = |fields: &str| {
            let body = format!(r#"[{{"symbol":"BTCEUR",{fields}}}]"#);
            let pairs = [(asset.clone(), "BTCEUR".to_owned())];
            let ParsedResponse::Value(mut reported) = parse_tickers(StatusCode::OK, &body, &pairs) else {
                panic!("no price")
            };
            reported.pop().expect("a ticker").1.map(|price| price.map(|(price, at)| (price.to_string(), at)))
        };
        let at = datetime!(2024-03-13 12:00:00.5 UTC);
        assert_eq!(
            read(r#""lastPrice":"7.50000000","closeTime":1710331200500,"count":3"#),
            Ok(Some(("7.5".into(), at)))
        );
        assert_eq!(
            read(r#""lastPrice":"7.5","closeTime":1710331200500,"count":0"#),
            Ok(None),
            "no trade within 24 hours"
        );
        assert_eq!(read(r#""lastPrice":"7.5","count":3"#), Ok(None), "a price without its time");
        assert_eq!(read(r#""lastPrice":null,"closeTime":1710331200500,"count":3"#), Ok(None));
        assert_eq!(read(r#""lastPrice":"7.5","closeTime":1710331200,"count":3"#), Err(RejectReason::Time));
        assert_eq!(read(r#""lastPrice":"-7.5","closeTime":1710331200500,"count":3"#), Err(RejectReason::NotPositive));
    }

    #[test]
    fn only_traded_pairs_are_offered() {
        let pair = |symbol: &str, status: &str, base: &str| {
            format!(
                r#"{{"symbol":"{symbol}","status":"{status}","baseAsset":"{base}","quoteAsset":"EUR","filters":[]}}"#
            )
        };
        let body =
            format!(r#"{{"symbols":[{},{}]}}"#, pair("BTCEUR", "TRADING", "BTC"), pair("ETHEUR", "BREAK", "ETH"));
        let ParsedResponse::Value(pairs) = parse_pairs(StatusCode::OK, &body) else { panic!("no pairs") };
        let name = |code| pairs.name(code, &Currency::parse("eur").expect("a code")).map(str::to_owned);
        assert_eq!((name("BTC"), name("ETH")), (pair_name("BTC", "EUR"), None));
        assert_eq!(pair_name("BTC", "USD"), None, "usdt is not usd");
    }
}
