//! Coinbase Exchange: rows are low, high, open, close, the newest first, and at most 300 per call.
//!
//! Times are seconds. `start` is only used together with `end`; both may be off by one row. Buckets without trades are
//! missing.

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339, macros::datetime};

use super::{
    client::{AttemptError, Parsed, check_status},
    exchange::ExchangeSpec,
    json,
    listing::Pairs,
    rate_limiter::RateLimit,
    spots::{ReportedPrice, reported},
};
use crate::prices::{
    model::ProviderId,
    normalise::{CandleSet, RawCandle, RejectReason, TimeUnit, Window, check_plausible},
};
use runtime::clients::object::Object;

pub(super) const COINBASE: ExchangeSpec = ExchangeSpec {
    id: ProviderId::Coinbase,
    rate_limit: RateLimit { every: Duration::from_millis(100), burst: 15 },
    // The rate limit refills within 1.5 s.
    default_pause: Duration::from_secs(2),
    pairs_path: "products",
    parse_pairs,
    pair_name,
    rows: 300,
    beginning: datetime!(2015-01-01 0:00 UTC),
    candles_path,
    parse_candles,
    spots_per_call: 1,
    spots_path: |pairs, _| format!("products/{}/ticker", pairs.concat()),
    parse_spot,
};

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

/// An error message, with or without an error status.
#[derive(Deserialize)]
struct Message {
    message: String,
}

fn pair_name(base: &str, quote: &str) -> Option<String> {
    Some(format!("{base}-{quote}"))
}

fn candles_path(pair: &str, page: Window) -> String {
    // Both are starts of rows: of the first and the last of the page.
    let [first, last] = [page.from, page.to - time::Duration::SECOND].map(|at| format_time(page.interval.bucket(at)));
    let seconds = page.interval.length().whole_seconds();
    format!("products/{pair}/candles?granularity={seconds}&start={first}&end={last}")
}

/// A time as queries take it, in whole seconds.
fn format_time(time: OffsetDateTime) -> String {
    // Fails only for years after 9999.
    time.replace_nanosecond(0).unwrap_or(time).format(&Rfc3339).unwrap_or_default()
}

fn parse_pairs(status: StatusCode, body: &str) -> Parsed<Pairs> {
    check(status, body)?;
    let products = json::entries::<Product>(json::parse::<Vec<json::Field<'_>>>(body)?);
    let traded = products.filter(|product| product.status != "delisted");
    Ok(traded.map(|product| (product.base_currency, product.quote_currency, product.id)).collect())
}

fn parse_candles(status: StatusCode, body: &str, page: Window) -> Parsed<CandleSet> {
    check(status, body)?;
    let rows: Vec<json::Field<'_>> = json::parse(body)?;
    Ok(json::candles(&rows, page, |[time, low, high, open, close, volume]| {
        Some(RawCandle { time, unit: TimeUnit::Seconds, open, high, low, close, volume })
    }))
}

fn parse_spot(status: StatusCode, body: &str, _: &str) -> Parsed<ReportedPrice> {
    check(status, body)?;
    let ticker: Ticker<'_> = json::object(body)?;
    // A product without a trade has neither price nor time.
    let (Some(price), Some(time)) = (ticker.price, ticker.time) else { return Ok(Ok(None)) };
    let time = OffsetDateTime::parse(json::text(time), &Rfc3339).map_err(|_| RejectReason::Time);
    let time = time.and_then(check_plausible);
    Ok(reported(json::text(price), time))
}

fn check(status: StatusCode, body: &str) -> Parsed<()> {
    if status == StatusCode::NOT_FOUND {
        return Err(AttemptError::NotOffered);
    }
    check_status(status)?;
    match serde_json::from_str::<Object<Message>>(body) {
        Ok(Object(Message { message })) if message.to_ascii_lowercase().contains("rate limit") => {
            Err(AttemptError::RateLimited("rate limit exceeded".into()))
        }
        Ok(_) => Err(AttemptError::Permanent("response is a message instead of prices".into())),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prices::model::{Currency, Interval};

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
        let candle_set = parse_candles(StatusCode::OK, body, WINDOW).expect("rows");
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
        assert_eq!(read(StatusCode::NOT_FOUND, r#"{"message":"NotFound"}"#), Err(AttemptError::NotOffered));
        assert!(matches!(
            read(StatusCode::BAD_REQUEST, r#"{"message":"granularity"}"#),
            Err(AttemptError::Permanent(_))
        ));
        assert!(matches!(
            read(StatusCode::OK, r#"{"message":"Public rate limit exceeded"}"#),
            Err(AttemptError::RateLimited(_))
        ));
        assert!(matches!(read(StatusCode::OK, "[[1710331200,NaN]]"), Err(AttemptError::Transient(_))));
    }

    #[test]
    fn a_present_price_has_the_time_of_its_trade() {
        let read = |price: &str, time: &str| {
            let body = format!(r#"{{"ask":"1","bid":"1","trade_id":7,"price":{price},"size":"1","time":{time}}}"#);
            let reported = parse_spot(StatusCode::OK, &body, "BTC-USD").expect("a price");
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
        let pairs = parse_pairs(StatusCode::OK, body).expect("products");
        let name = |code| pairs.name(code, &Currency::parse("usd").expect("a code")).map(str::to_owned);
        assert_eq!((name("BTC"), name("XRP")), (pair_name("BTC", "USD"), None));
    }
}
