//! Binance: at most 1,000 rows per call, times in milliseconds, prices as text. Bans of an address last two minutes or
//! longer.
//!
//! It quotes in `usdt` and `eur`, and not in `usd`. 418 is its ban; 403 comes from its firewall. A delisted pair keeps
//! its last price for years; only the time of the price shows this.

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use time::OffsetDateTime;

use super::{
    client::{AttemptError, Parsed, check_status},
    exchange::ExchangeSpec,
    json,
    listing::Pairs,
    rate_limiter::RateLimit,
    spots::{ReportedPrice, reported},
};
use crate::prices::{
    model::{Interval, ProviderId},
    normalise::{CandleSet, RawCandle, TimeUnit, Window, parse_time},
};
use runtime::clients::object::Object;

const INVALID_SYMBOL: i64 = -1121;
const TOO_MANY_REQUESTS: i64 = -1003;
const ROWS: i32 = 1000;

pub(super) const BINANCE: ExchangeSpec = ExchangeSpec {
    id: ProviderId::Binance,
    // The limit is 6,000 units of weight per minute. Our calls cost at most 4, except the daily list of pairs.
    rate_limit: RateLimit { every: Duration::from_millis(200), burst: 40 },
    // Its limits are counted per minute.
    default_pause: Duration::from_secs(60),
    // The traded pairs, without account permissions, which are most of the response.
    pairs_path: "api/v3/exchangeInfo?symbolStatus=TRADING&showPermissionSets=false",
    parse_pairs,
    pair_name,
    rows: ROWS,
    beginning: OffsetDateTime::UNIX_EPOCH,
    candles_path,
    parse_candles,
    // With more, the weight is twenty times as high.
    spots_per_call: 20,
    spots_path: |pairs, _| format!("api/v3/ticker/24hr?type=MINI&symbols=%5B%22{}%22%5D", pairs.join("%22,%22")),
    parse_spot,
};

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

/// The names of pairs by convention. Binance has no `usd`.
fn pair_name(base: &str, quote: &str) -> Option<String> {
    (quote != "USD").then(|| format!("{base}{quote}"))
}

fn candles_path(pair: &str, page: Window) -> String {
    let interval = match page.interval {
        Interval::Daily => "1d",
        Interval::Hourly => "1h",
    };
    let [first, end] = [page.from, page.to].map(|time| time.unix_timestamp().saturating_mul(1000));
    let last = end - 1;
    format!("api/v3/klines?symbol={pair}&interval={interval}&startTime={first}&endTime={last}&limit={ROWS}")
}

fn parse_pairs(status: StatusCode, body: &str) -> Parsed<Pairs> {
    check(status, body)?;
    let info: Info<'_> = json::object(body)?;
    // A pair that is halted or delisted has no present price.
    let traded = json::entries::<Symbol>(info.symbols).filter(|pair| pair.status == "TRADING");
    Ok(traded.map(|pair| (pair.base_asset, pair.quote_asset, pair.symbol)).collect())
}

fn parse_candles(status: StatusCode, body: &str, page: Window) -> Parsed<CandleSet> {
    check(status, body)?;
    let rows: Vec<json::Field<'_>> = json::parse(body)?;
    Ok(json::candles(&rows, page, |[time, open, high, low, close, volume, _, _, trades]| {
        // Without trades the price is that of an earlier time.
        (trades != "0").then_some(RawCandle { time, unit: TimeUnit::Millis, open, high, low, close, volume })
    }))
}

fn parse_spot(status: StatusCode, body: &str, pair: &str) -> Parsed<ReportedPrice> {
    check(status, body)?;
    let tickers: Vec<Object<Ticker<'_>>> = json::parse(body)?;
    let ticker = tickers.into_iter().map(|Object(ticker)| ticker).find(|ticker| ticker.symbol == pair);
    Ok(match ticker.map(|ticker| (ticker.last_price, ticker.close_time, ticker.count)) {
        // Without trades the price is older than 24 hours.
        None | Some((None, ..) | (_, None, _) | (.., Some(0))) => Ok(None),
        Some((Some(price), Some(at), _)) => reported(json::text(price), parse_time(json::text(at), TimeUnit::Millis)),
    })
}

/// Fails for an error: an object with a code, where a result is an array.
fn check(status: StatusCode, body: &str) -> Parsed<()> {
    match serde_json::from_str(body) {
        Ok(Object(Refusal { code: INVALID_SYMBOL })) => Err(AttemptError::NotOffered),
        Ok(Object(Refusal { code: TOO_MANY_REQUESTS })) => Err(AttemptError::RateLimited("too many requests".into())),
        Ok(Object(Refusal { code })) => {
            Err(AttemptError::Permanent(format!("status {}, code {code}", status.as_u16())))
        }
        Err(_) => check_status(status),
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::prices::{model::Currency, normalise::RejectReason};

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
        let candle_set = parse_candles(StatusCode::OK, body, WINDOW).expect("rows");
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
        let candle_set = parse_candles(StatusCode::OK, body, WINDOW).expect("rows");
        let (candles, rejected) = candle_set.finish();
        assert_eq!((candles.len(), rejected.len()), (1, 3));
        assert!(rejected.iter().all(|(reason, _)| *reason == RejectReason::Shape));
    }

    #[test]
    fn errors_are_read_by_code() {
        let read = |status, body| parse_candles(status, body, WINDOW).map(|_| ());
        let bad = StatusCode::BAD_REQUEST;
        assert_eq!(read(bad, r#"{"code":-1121,"msg":"Invalid symbol."}"#), Err(AttemptError::NotOffered));
        assert!(matches!(
            read(StatusCode::OK, r#"{"code":-1003,"msg":"Too much."}"#),
            Err(AttemptError::RateLimited(_))
        ));
        assert!(matches!(read(bad, r#"{"code":-1100,"msg":"Illegal characters"}"#), Err(AttemptError::Permanent(_))));
        assert!(matches!(read(bad, "<html>"), Err(AttemptError::Permanent(_))));
        assert!(matches!(read(StatusCode::OK, "<html>"), Err(AttemptError::Transient(_))));
        assert!(matches!(read(StatusCode::OK, r#"[[1710288000000,"65470"#), Err(AttemptError::Transient(_))));
    }

    #[test]
    fn a_candle_without_trades_is_ignored() {
        let body = r#"[[1710201600000,"5","6","4","5","1",1710287999999,"1",7,"1","1","0"],
            [1710288000000,"5","5","5","5","0.00000000",1710374399999,"0",0,"0","0","0"]]"#;
        let candle_set = parse_candles(StatusCode::OK, body, WINDOW).expect("rows");
        let (candles, rejected) = candle_set.finish();
        assert_eq!((candles.len(), rejected), (1, vec![]));
        assert_eq!(candles[0].bucket, datetime!(2024-03-12 0:00 UTC));
    }

    #[test]
    fn a_present_price_without_time_is_ignored() {
        let read = |fields: &str| {
            let body = format!(r#"[{{"symbol":"BTCEUR",{fields}}}]"#);
            let reported = parse_spot(StatusCode::OK, &body, "BTCEUR").expect("a ticker");
            reported.map(|price| price.map(|(price, at)| (price.to_string(), at)))
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
        let pairs = parse_pairs(StatusCode::OK, &body).expect("pairs");
        let name = |code| pairs.name(code, &Currency::parse("eur").expect("a code")).map(str::to_owned);
        assert_eq!((name("BTC"), name("ETH")), (pair_name("BTC", "EUR"), None));
        assert_eq!(pair_name("BTC", "USD"), None, "usdt is not usd");
    }
}
