//! Kraken: errors come with HTTP 200, results under other names than requested, and at most the latest 720 rows.
//!
//! Times are seconds and prices text. The last row is the running bucket; `last` is the time of the last finished one.
//! The ticker has no time, so the present price is the close of the last minute with a trade.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::BoxFuture;
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use time::OffsetDateTime;

use super::{
    Names, Pages, Provider, ProviderError, Spots,
    client::{ParsedResponse, ProviderClient, ProviderLimits},
    json,
    listing::{PairNames, Pairs},
    pages::{fetch_pages, request_window, single_page},
    rate_limiter::RateLimit,
    spots::{ReportedPrice, fetch_one_by_one},
};
use crate::prices::{
    model::{AssetId, Currency, ProviderId, Series},
    normalise::{CandleSet, RawCandle, RejectReason, TimeUnit, Window, parse_price, parse_time},
};
use runtime::clock::Clock;

const RATE_LIMIT: RateLimit = RateLimit { every: Duration::from_secs(1), burst: 15 };
/// The counter of 15 calls falls by one every 3 s.
const DEFAULT_PAUSE: Duration = Duration::from_secs(15);
/// A pair without a trade for this long has no present price.
const PRESENT: time::Duration = time::Duration::hours(2);

/// The client of Kraken.
pub struct Kraken {
    client: ProviderClient,
    pairs: PairNames,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(default)]
    error: Vec<String>,
    #[serde(borrow)]
    result: Option<BTreeMap<String, json::Field<'a>>>,
}

/// `wsname` is `XBT/USD`; `altname` is `XBTUSD`, the name in queries.
#[derive(Deserialize)]
struct Pair {
    altname: String,
    wsname: String,
}

impl Kraken {
    pub fn new(http: Client, url: &str, clock: Clock) -> Self {
        let limits = ProviderLimits { rate_limit: RATE_LIMIT, default_pause: DEFAULT_PAUSE, key: None };
        let client = ProviderClient::new(ProviderId::Kraken, http, url, clock, limits);
        Self { client, pairs: PairNames::new(pair_name) }
    }

    async fn fetch_pairs(&self) -> Result<Pairs, ProviderError> {
        self.client.get("0/public/AssetPairs", parse_pairs).await
    }

    async fn fetch_page(&self, series: &Series, page: Window) -> Result<CandleSet, ProviderError> {
        let pair = self.pairs.name(self.fetch_pairs(), &series.asset, &series.currency).await;
        let pair = pair.ok_or(ProviderError::NotOffered(ProviderId::Kraken))?;
        let length = series.interval.length();
        // Rows after `since` are returned; earlier ones are dropped by the window.
        let (minutes, since) = (length.whole_minutes(), (page.from - length).unix_timestamp());
        let path = format!("0/public/OHLC?pair={pair}&interval={minutes}&since={since}");
        self.client.get(&path, |status, body| parse_candles(status, body, page)).await
    }

    async fn fetch_spots(&self, assets: &[AssetId], currency: &Currency) -> Spots {
        let pairs = self.pairs.names_of(self.fetch_pairs(), assets, currency).await;
        let since = (self.client.clock.now() - PRESENT).unix_timestamp();
        let client = &self.client;
        let fetch = move |pair: String| async move {
            client.get(&format!("0/public/OHLC?pair={pair}&interval=1&since={since}"), parse_last_trade).await
        };
        fetch_one_by_one(client, pairs, fetch).await
    }
}

/// The result, or the meaning of its errors. Warnings are ignored.
fn parse_result<'a, T>(
    status: StatusCode,
    body: &'a str,
) -> Result<BTreeMap<String, json::Field<'a>>, ParsedResponse<T>> {
    if !status.is_success() {
        return Err(ParsedResponse::Permanent(format!("status {}", status.as_u16())));
    }
    let envelope: Envelope<'a> = json::parse(body)?;
    if let Some(error) = envelope.error.iter().find(|error| !error.starts_with('W')) {
        let (class, what) = error.split_once(':').unwrap_or((error, ""));
        let line: String = error.chars().filter(|c| !c.is_control()).take(80).collect();
        return Err(match (class, what) {
            ("EQuery", "Unknown asset pair" | "Invalid asset pair") => ParsedResponse::NotOffered,
            ("EGeneral", "Too many requests") | ("EAPI" | "EOrder", "Rate limit exceeded") => {
                ParsedResponse::RateLimited(line)
            }
            ("EGeneral", "Temporary lockout") => ParsedResponse::Banned(line),
            ("EService", what) if what.starts_with("Throttled") => ParsedResponse::RateLimited(line),
            ("EService" | "EDatabase", _) | ("EGeneral", "Internal error") => ParsedResponse::Transient(line),
            _ => ParsedResponse::Permanent(line),
        });
    }
    envelope.result.ok_or_else(|| ParsedResponse::Transient("response has neither a result nor an error".into()))
}

/// The rows, under the only key that is not `last`, and `last`. The key may differ from the requested pair.
fn parse_rows<T>(
    status: StatusCode,
    body: &str,
) -> Result<(Vec<json::Field<'_>>, Option<OffsetDateTime>), ParsedResponse<T>> {
    let result = parse_result(status, body)?;
    let last = result.get("last").and_then(|last| parse_time(json::text(last), TimeUnit::Seconds).ok());
    match result.iter().find(|(key, _)| *key != "last") {
        Some((_, rows)) => Ok((json::parse(rows.get())?, last)),
        None => Err(ParsedResponse::Transient("response has no rows".into())),
    }
}

fn parse_candles(status: StatusCode, body: &str, page: Window) -> ParsedResponse<CandleSet> {
    let (rows, last) = match parse_rows(status, body) {
        Ok(rows) => rows,
        Err(failure) => return failure,
    };
    let mut candle_set = CandleSet::new(page);
    for row in rows {
        match json::fields(row) {
            // Rows after the last finished one may still change.
            Some([at, _, _, _, _, _, _, _])
                if last.zip(parse_time(at, TimeUnit::Seconds).ok()).is_some_and(|(last, at)| at > last) => {}
            // The eighth field is the number of trades. Without trades the price is that of an earlier time.
            Some([_, _, _, _, _, _, _, "0"]) => {}
            // The sixth field is the average price.
            Some([time, open, high, low, close, _, volume, _]) => {
                candle_set.add_row(RawCandle { time, unit: TimeUnit::Seconds, open, high, low, close, volume });
            }
            None => candle_set.reject(RejectReason::Shape, row.get()),
        }
    }
    ParsedResponse::Value(candle_set)
}

/// The price of the last trade. Its exact time is unknown; the start of its minute is used.
fn parse_last_trade(status: StatusCode, body: &str) -> ParsedResponse<ReportedPrice> {
    let (rows, _) = match parse_rows(status, body) {
        Ok(rows) => rows,
        Err(failure) => return failure,
    };
    for row in rows.into_iter().rev() {
        match json::fields(row) {
            Some([_, _, _, _, _, _, _, "0"]) => {}
            Some([at, _, _, _, close, _, _, _]) => {
                let time = parse_time(at, TimeUnit::Seconds);
                return ParsedResponse::Value(parse_price(close).and_then(|price| Ok(Some((price, time?)))));
            }
            None => return ParsedResponse::Value(Err(RejectReason::Shape)),
        }
    }
    ParsedResponse::Value(Ok(None))
}

fn parse_pairs(status: StatusCode, body: &str) -> ParsedResponse<Pairs> {
    let result = match parse_result(status, body) {
        Ok(result) => result,
        Err(failure) => return failure,
    };
    let mut pairs = Pairs::default();
    for pair in result.values().filter_map(|pair| serde_json::from_str::<Pair>(pair.get()).ok()) {
        if let Some((base, quote)) = pair.wsname.split_once('/') {
            pairs.add(common_code(base), common_code(quote), &pair.altname);
        }
    }
    ParsedResponse::Value(pairs)
}

/// The names of pairs by convention: both codes joined.
fn pair_name(base: &str, quote: &str) -> Option<String> {
    let kraken_code = |code| match code {
        "BTC" => "XBT",
        "DOGE" => "XDG",
        code => code,
    };
    Some(format!("{}{}", kraken_code(base), kraken_code(quote)))
}

/// Converts a code of Kraken to the common one.
fn common_code(code: &str) -> &str {
    match code {
        "XBT" => "BTC",
        "XDG" => "DOGE",
        code => code,
    }
}

impl Provider for Kraken {
    fn id(&self) -> ProviderId {
        ProviderId::Kraken
    }

    fn candles<'a>(&'a self, series: &'a Series, from: OffsetDateTime, to: OffsetDateTime) -> Pages<'a> {
        let pages = single_page(request_window(&self.client, series, from, to));
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
    use crate::prices::model::Interval;

    const WINDOW: Window = Window {
        interval: Interval::Hourly,
        from: datetime!(2021-03-25 0:00 UTC),
        to: datetime!(2021-03-25 18:00 UTC),
        now: datetime!(2021-03-25 18:00 UTC),
    };

    fn read(body: &str) -> ParsedResponse<CandleSet> {
        parse_candles(StatusCode::OK, body, WINDOW)
    }

    #[test]
    fn finished_rows_are_read_from_the_only_key_that_is_not_last() {
        // 15:00, 16:00 and 17:00. The last bucket is over, but not finished yet.
        let body = r#"{"error":[],"result":{"XXBTZUSD":[
            [1616684400,"52556.5","52620.3","52550.8","52600.1","52590.2","11.59350101",249],
            [1616688000,"52600.1","52643.0","52500.0","52570.0","52560.1","17.12345678",301],
            [1616691600,"52570.0","52580.0","52570.0","52575.5","52574.9","0.51000000",12]],"last":1616688000}}"#;
        let ParsedResponse::Value(candle_set) = read(body) else { panic!("no rows") };
        let (candles, rejected) = candle_set.finish();
        let closes: Vec<String> = candles.iter().map(|candle| candle.close.to_string()).collect();
        assert_eq!((closes, rejected), (vec!["52600.1".into(), "52570".into()], vec![]));
    }

    #[test]
    fn errors_with_status_200_are_read() {
        let error = |text: &str| read(&format!(r#"{{"error":["{text}"]}}"#)).map(|_| ());
        assert_eq!(error("EQuery:Unknown asset pair"), ParsedResponse::NotOffered);
        for limited in ["EGeneral:Too many requests", "EAPI:Rate limit exceeded", "EService:Throttled: 1616688000"] {
            assert!(matches!(error(limited), ParsedResponse::RateLimited(_)), "{limited}");
        }
        for passing in ["EService:Unavailable", "EService:Busy", "EGeneral:Internal error"] {
            assert!(matches!(error(passing), ParsedResponse::Transient(_)), "{passing}");
        }
        assert!(matches!(error("EGeneral:Temporary lockout"), ParsedResponse::Banned(_)));
        assert!(matches!(error("EGeneral:Invalid arguments"), ParsedResponse::Permanent(_)));
        assert!(matches!(read(r#"{"error":[]}"#), ParsedResponse::Transient(_)));
        assert!(matches!(read(r#"{"error":[],"result":{"last":1616688000}}"#), ParsedResponse::Transient(_)));
        let warned = r#"{"error":["WGeneral:Deprecated"],"result":{"XDGUSD":[],"last":1616688000}}"#;
        assert!(matches!(read(warned), ParsedResponse::Value(_)));
    }

    #[test]
    fn a_candle_without_trades_is_ignored() {
        let body = r#"{"error":[],"result":{"XXBTZUSD":[[1616684400,"5","6","4","5","5","1",7],
            [1616688000,"5","5","5","5","0.0","0.00000000",0]],"last":1616688000}}"#;
        let ParsedResponse::Value(candle_set) = read(body) else { panic!("no rows") };
        let (candles, rejected) = candle_set.finish();
        assert_eq!((candles.len(), rejected), (1, vec![]));
    }

    #[test]
    fn a_present_price_is_the_last_trade_at_the_start_of_its_minute() {
        let read = |rows: &str| {
            let body = format!(r#"{{"error":[],"result":{{"XXBTZUSD":[{rows}],"last":1616688000}}}}"#);
            let ParsedResponse::Value(reported) = parse_last_trade(StatusCode::OK, &body) else { panic!("no price") };
            reported.map(|price| price.map(|(price, at)| (price.to_string(), at)))
        };
        let traded = r#"[1616688000,"5","6","4","5.50","5","1",7]"#;
        let quiet = r#"[1616688060,"5.5","5.5","5.5","5.5","0.0","0.00000000",0]"#;
        let price = Ok(Some(("5.5".to_owned(), datetime!(2021-03-25 16:00 UTC))));
        assert_eq!(read(traded), price);
        assert_eq!(read(&format!("{traded},{quiet}")), price, "a minute without a trade has no price");
        assert_eq!(read(quiet), Ok(None));
        assert_eq!(read(""), Ok(None));
        assert_eq!(read(&traded.replace("5.50", "NaN")), Err(RejectReason::Decimal));
        assert_eq!(read("[7]"), Err(RejectReason::Shape));
    }

    #[test]
    fn pairs_are_listed_under_common_codes() {
        let body = r#"{"error":[],"result":{
            "XXBTZUSD":{"altname":"XBTUSD","wsname":"XBT\/USD","base":"XXBT","quote":"ZUSD","status":"online"},
            "XDGEUR":{"altname":"XDGEUR","wsname":"XDG\/EUR"},"XETHXXBT":{"altname":"ETHXBT","wsname":"ETH\/XBT"},
            "XXBTZUSD.d":{"altname":"XBTUSD.d"}}}"#;
        let ParsedResponse::Value(pairs) = parse_pairs(StatusCode::OK, body) else { panic!("no pairs") };
        for (base, quote, name) in [("BTC", "usd", "XBTUSD"), ("DOGE", "eur", "XDGEUR"), ("ETH", "btc", "ETHXBT")] {
            assert_eq!(pairs.name(base, &Currency::parse(quote).expect("a code")), Some(name));
            assert_eq!(pair_name(base, &quote.to_uppercase()).as_deref(), Some(name));
        }
    }
}
