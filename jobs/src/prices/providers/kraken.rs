//! Kraken: errors come with HTTP 200, results under other names than requested, and at most the latest 720 rows.
//!
//! Times are seconds and prices text. The last row is the running bucket; `last` is the time of the last finished one.
//! The ticker has no time, so the present price is the close of the last minute with a trade.

use std::{collections::BTreeMap, time::Duration};

use reqwest::StatusCode;
use serde::Deserialize;
use time::OffsetDateTime;

use super::{
    client::{AttemptError, Parsed, check_status},
    exchange::ExchangeSpec,
    json,
    listing::Pairs,
    pages::ONE_PAGE,
    rate_limiter::RateLimit,
    spots::{ReportedPrice, reported},
};
use crate::prices::{
    model::ProviderId,
    normalise::{CandleSet, RawCandle, RejectReason, TimeUnit, Window, parse_time},
};

/// A pair without a trade for this long has no present price.
const PRESENT: time::Duration = time::Duration::hours(2);

pub(super) const KRAKEN: ExchangeSpec = ExchangeSpec {
    id: ProviderId::Kraken,
    rate_limit: RateLimit { every: Duration::from_secs(1), burst: 15 },
    // The counter of 15 calls falls by one every 3 s.
    default_pause: Duration::from_secs(15),
    pairs_path: "0/public/AssetPairs",
    parse_pairs,
    pair_name,
    rows: ONE_PAGE,
    beginning: OffsetDateTime::UNIX_EPOCH,
    candles_path,
    parse_candles,
    spots_per_call: 1,
    spots_path,
    parse_spot,
};

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

fn candles_path(pair: &str, page: Window) -> String {
    let length = page.interval.length();
    // Rows after `since` are returned; earlier ones are dropped by the window.
    let (minutes, since) = (length.whole_minutes(), (page.from - length).unix_timestamp());
    format!("0/public/OHLC?pair={pair}&interval={minutes}&since={since}")
}

fn spots_path(pairs: &[&str], now: OffsetDateTime) -> String {
    format!("0/public/OHLC?pair={}&interval=1&since={}", pairs.concat(), (now - PRESENT).unix_timestamp())
}

/// The result, or the meaning of its errors. Warnings are ignored.
fn parse_result(status: StatusCode, body: &str) -> Parsed<BTreeMap<String, json::Field<'_>>> {
    check_status(status)?;
    let envelope: Envelope<'_> = json::object(body)?;
    if let Some(error) = envelope.error.iter().find(|error| !error.starts_with('W')) {
        let (class, what) = error.split_once(':').unwrap_or((error, ""));
        let line: String = error.chars().filter(|c| !c.is_control()).take(80).collect();
        return Err(match (class, what) {
            ("EQuery", "Unknown asset pair" | "Invalid asset pair") => AttemptError::NotOffered,
            ("EGeneral", "Too many requests") | ("EAPI" | "EOrder", "Rate limit exceeded") => {
                AttemptError::RateLimited(line)
            }
            ("EGeneral", "Temporary lockout") => AttemptError::Banned(line),
            ("EService", what) if what.starts_with("Throttled") => AttemptError::RateLimited(line),
            ("EService" | "EDatabase", _) | ("EGeneral", "Internal error") => AttemptError::Transient(line),
            _ => AttemptError::Permanent(line),
        });
    }
    envelope.result.ok_or_else(|| AttemptError::Transient("response has neither a result nor an error".into()))
}

/// The rows, under the only key that is not `last`, and `last`. The key may differ from the requested pair.
fn parse_rows(status: StatusCode, body: &str) -> Parsed<(Vec<json::Field<'_>>, Option<OffsetDateTime>)> {
    let result = parse_result(status, body)?;
    let last = result.get("last").and_then(|last| parse_time(json::text(last), TimeUnit::Seconds).ok());
    match result.iter().find(|(key, _)| *key != "last") {
        Some((_, rows)) => Ok((json::parse(rows.get())?, last)),
        None => Err(AttemptError::Transient("response has no rows".into())),
    }
}

fn parse_candles(status: StatusCode, body: &str, page: Window) -> Parsed<CandleSet> {
    let (rows, last) = parse_rows(status, body)?;
    // The sixth field is the average price.
    Ok(json::candles(&rows, page, |[time, open, high, low, close, _, volume, trades]| {
        // Rows after the last finished one may still change. Without trades the price is that of an earlier time.
        let unfinished = last.zip(parse_time(time, TimeUnit::Seconds).ok()).is_some_and(|(last, time)| time > last);
        let is_wanted = !unfinished && trades != "0";
        is_wanted.then_some(RawCandle { time, unit: TimeUnit::Seconds, open, high, low, close, volume })
    }))
}

/// The price of the last trade. Its exact time is unknown; the start of its minute is used.
fn parse_spot(status: StatusCode, body: &str, _: &str) -> Parsed<ReportedPrice> {
    let (rows, _) = parse_rows(status, body)?;
    let mut latest = rows.into_iter().rev().map(json::fields::<8>);
    Ok(match latest.find(|row| !matches!(row, Some([.., "0"]))) {
        Some(Some([at, _, _, _, close, _, _, _])) => reported(close, parse_time(at, TimeUnit::Seconds)),
        Some(None) => Err(RejectReason::Shape),
        None => Ok(None),
    })
}

fn parse_pairs(status: StatusCode, body: &str) -> Parsed<Pairs> {
    let result = parse_result(status, body)?;
    let mut pairs = Pairs::default();
    for pair in json::entries::<Pair>(result.into_values()) {
        if let Some((base, quote)) = pair.wsname.split_once('/') {
            pairs.add(common_code(base), common_code(quote), &pair.altname);
        }
    }
    Ok(pairs)
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

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::prices::{
        model::{Currency, Interval},
        normalise::RejectReason,
    };

    const WINDOW: Window = Window {
        interval: Interval::Hourly,
        from: datetime!(2021-03-25 0:00 UTC),
        to: datetime!(2021-03-25 18:00 UTC),
        now: datetime!(2021-03-25 18:00 UTC),
    };

    fn read(body: &str) -> Parsed<CandleSet> {
        parse_candles(StatusCode::OK, body, WINDOW)
    }

    #[test]
    fn finished_rows_are_read_from_the_only_key_that_is_not_last() {
        // 15:00, 16:00 and 17:00. The last bucket is over, but not finished yet.
        let body = r#"{"error":[],"result":{"XXBTZUSD":[
            [1616684400,"52556.5","52620.3","52550.8","52600.1","52590.2","11.59350101",249],
            [1616688000,"52600.1","52643.0","52500.0","52570.0","52560.1","17.12345678",301],
            [1616691600,"52570.0","52580.0","52570.0","52575.5","52574.9","0.51000000",12]],"last":1616688000}}"#;
        let candle_set = read(body).expect("rows");
        let (candles, rejected) = candle_set.finish();
        let closes: Vec<String> = candles.iter().map(|candle| candle.close.to_string()).collect();
        assert_eq!((closes, rejected), (vec!["52600.1".into(), "52570".into()], vec![]));
    }

    #[test]
    fn errors_with_status_200_are_read() {
        let error = |text: &str| read(&format!(r#"{{"error":["{text}"]}}"#)).map(|_| ());
        assert_eq!(error("EQuery:Unknown asset pair"), Err(AttemptError::NotOffered));
        for limited in ["EGeneral:Too many requests", "EAPI:Rate limit exceeded", "EService:Throttled: 1616688000"] {
            assert!(matches!(error(limited), Err(AttemptError::RateLimited(_))), "{limited}");
        }
        for passing in ["EService:Unavailable", "EService:Busy", "EGeneral:Internal error"] {
            assert!(matches!(error(passing), Err(AttemptError::Transient(_))), "{passing}");
        }
        assert!(matches!(error("EGeneral:Temporary lockout"), Err(AttemptError::Banned(_))));
        assert!(matches!(error("EGeneral:Invalid arguments"), Err(AttemptError::Permanent(_))));
        assert!(matches!(read(r#"{"error":[]}"#), Err(AttemptError::Transient(_))));
        assert!(matches!(read(r#"{"error":[],"result":{"last":1616688000}}"#), Err(AttemptError::Transient(_))));
        let warned = r#"{"error":["WGeneral:Deprecated"],"result":{"XDGUSD":[],"last":1616688000}}"#;
        assert!(read(warned).is_ok());
    }

    #[test]
    fn a_candle_without_trades_is_ignored() {
        let body = r#"{"error":[],"result":{"XXBTZUSD":[[1616684400,"5","6","4","5","5","1",7],
            [1616688000,"5","5","5","5","0.0","0.00000000",0]],"last":1616688000}}"#;
        let candle_set = read(body).expect("rows");
        let (candles, rejected) = candle_set.finish();
        assert_eq!((candles.len(), rejected), (1, vec![]));
    }

    #[test]
    fn a_present_price_is_the_last_trade_at_the_start_of_its_minute() {
        let read = |rows: &str| {
            let body = format!(r#"{{"error":[],"result":{{"XXBTZUSD":[{rows}],"last":1616688000}}}}"#);
            let reported = parse_spot(StatusCode::OK, &body, "XBTUSD").expect("a price");
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
        let pairs = parse_pairs(StatusCode::OK, body).expect("pairs");
        for (base, quote, name) in [("BTC", "usd", "XBTUSD"), ("DOGE", "eur", "XDGEUR"), ("ETH", "btc", "ETHXBT")] {
            assert_eq!(pairs.name(base, &Currency::parse(quote).expect("a code")), Some(name));
            assert_eq!(pair_name(base, &quote.to_uppercase()).as_deref(), Some(name));
        }
    }
}
