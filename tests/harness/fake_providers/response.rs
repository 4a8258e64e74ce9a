//! The responses of each provider, in its own format.

use std::time::{Duration, UNIX_EPOCH};

use jobs::prices::model::ProviderId;
use poem::{Body, Response, http::StatusCode};

use super::{
    Fault,
    table::{Row, Table},
};

const DAY: i64 = 86400;
/// The code of each asset at the exchanges, and at Kraken. CoinGecko uses the ids.
pub(super) const CODES: [(&str, &str, &str); 3] =
    [("bitcoin", "BTC", "XBT"), ("ethereum", "ETH", "ETH"), ("solana", "SOL", "SOL")];

/// Builds the response to a request, with the fault if there is one.
pub(super) fn build(table: &Table, provider: ProviderId, path: &str, query: &str, fault: Option<&Fault>) -> Response {
    let plain = |status: u16, text: &str| (status, text.to_owned(), "text/html", Vec::new());
    let (status, body, kind, headers) = match fault {
        Some(Fault::RateLimited(after)) => {
            let headers: Vec<_> = after.map(|after| ("retry-after", after.to_owned())).into_iter().collect();
            (429, too_many_requests(provider), "application/json", headers)
        }
        Some(Fault::Banned(seconds)) => {
            let body = r#"{"code":-1003,"msg":"Way too much request weight used; IP banned."}"#.to_owned();
            (418, body, "application/json", vec![("retry-after", seconds.to_string())])
        }
        Some(Fault::Forbidden) => plain(403, "<html>Request blocked</html>"),
        Some(Fault::Status(status)) => plain(*status, "upstream trouble"),
        Some(Fault::Unavailable(after)) => (503, String::new(), "text/html", vec![("retry-after", (*after).into())]),
        Some(Fault::Redirect) => (302, String::new(), "text/html", vec![("location", "/elsewhere".into())]),
        Some(Fault::Html) => plain(200, "<!doctype html><title>Just a moment...</title>"),
        Some(Fault::Huge) => (200, format!("[{}]", "0,".repeat(6 << 20)), "application/json", Vec::new()),
        Some(Fault::LimitedWith200) => (200, too_many_requests(provider), "application/json", Vec::new()),
        _ => {
            let (status, body) = correct(table, provider, path, query, fault);
            (status, body, "application/json", Vec::new())
        }
    };
    let mut response = Response::builder().status(StatusCode::from_u16(status).unwrap()).content_type(kind);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    match fault {
        Some(Fault::Truncated) => response.body(body[..body.len() / 2].to_owned()),
        Some(Fault::Closed) => {
            let half = body.as_bytes()[..body.len() / 2].to_vec();
            let pieces = [Ok(half), Err(std::io::Error::other("fault: closed"))];
            response.body(Body::from_bytes_stream(futures_util::stream::iter(pieces)))
        }
        _ => response.body(body),
    }
}

/// "Too many requests" in the provider's format.
fn too_many_requests(provider: ProviderId) -> String {
    let text = match provider {
        ProviderId::CoinGecko => r#"{"status":{"error_code":429,"error_message":"You've exceeded the Rate Limit."}}"#,
        ProviderId::Kraken => r#"{"error":["EGeneral:Too many requests"]}"#,
        ProviderId::Coinbase => r#"{"message":"Public rate limit exceeded"}"#,
        ProviderId::Binance => r#"{"code":-1003,"msg":"Too much request weight used."}"#,
    };
    text.to_owned()
}

/// The correct response, except for faults in single prices and rows.
fn correct(table: &Table, provider: ProviderId, path: &str, query: &str, fault: Option<&Fault>) -> (u16, String) {
    let query: Vec<(String, String)> = reqwest::Url::parse(&format!("http://x/?{query}"))
        .map(|url| url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
        .expect("a query");
    let parameter = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let segments: Vec<&str> = path.split('/').collect();
    match (provider, &*segments) {
        (ProviderId::CoinGecko, ["simple", "price"]) => coingecko_spots(table, parameter, fault),
        (ProviderId::CoinGecko, ["coins", id, "market_chart", range @ ..]) => {
            coingecko_chart(table, id, !range.is_empty(), parameter, fault)
        }
        (ProviderId::Kraken, ["0", "public", "OHLC"]) => kraken_candles(table, parameter, fault),
        (ProviderId::Coinbase, ["products", product, "candles"]) => coinbase_candles(table, product, parameter, fault),
        (ProviderId::Coinbase, ["products", product, "ticker"]) => coinbase_spot(table, product, fault),
        (ProviderId::Binance, ["api", "v3", "klines"]) => binance_candles(table, parameter, fault),
        (ProviderId::Binance, ["api", "v3", "ticker", "24hr"]) => binance_spots(table, parameter, fault),
        _ => (404, r#"{"error":"no such endpoint"}"#.into()),
    }
}

/// A current price with this fault applied.
fn apply_to_price(price: String, fault: Option<&Fault>) -> String {
    match fault {
        Some(Fault::NotANumber) => "NaN".into(),
        Some(Fault::Negative) => "-1.5".into(),
        Some(Fault::Null) => "null".into(),
        Some(Fault::Enormous) => "1e999999999".into(),
        _ => price,
    }
}

fn quoted(text: &str) -> String {
    if text == "null" { text.into() } else { format!("\"{text}\"") }
}

/// The time of a current price.
fn as_of(table: &Table, fault: Option<&Fault>) -> i64 {
    match fault {
        Some(Fault::Stale) => table.now() - DAY,
        Some(Fault::Microseconds) => table.now() * 1_000_000,
        _ => table.now() - 20,
    }
}

fn seconds(row: &Row) -> i64 {
    if row.micros { row.time * 1_000_000 } else { row.time }
}

fn millis(row: &Row) -> i64 {
    if row.micros { row.time * 1_000_000 } else { row.time * 1000 }
}

fn lines(rows: &[Row], line: impl Fn(&Row) -> String) -> String {
    format!("[{}]", rows.iter().map(line).collect::<Vec<_>>().join(","))
}

fn coingecko_spots(table: &Table, parameter: impl Fn(&str) -> Option<String>, fault: Option<&Fault>) -> (u16, String) {
    let (Some(ids), Some(currency)) = (parameter("ids"), parameter("vs_currencies")) else {
        return (422, r#"{"error":"Missing parameter"}"#.into());
    };
    let found = ids.split(',').filter(|_| currency != "usdt").filter_map(|id| {
        let price = apply_to_price(table.spot(id, &currency)?, fault);
        Some(format!(r#""{id}":{{"{currency}":{price},"last_updated_at":{}}}"#, as_of(table, fault)))
    });
    (200, format!("{{{}}}", found.collect::<Vec<_>>().join(",")))
}

fn coingecko_chart(
    table: &Table,
    id: &str,
    range: bool,
    parameter: impl Fn(&str) -> Option<String>,
    fault: Option<&Fault>,
) -> (u16, String) {
    let Some(currency) = parameter("vs_currency").filter(|currency| currency != "usdt") else {
        return (422, r#"{"error":"invalid vs_currency"}"#.into());
    };
    let number = |name: &str| parameter(name).and_then(|text| text.parse::<i64>().ok());
    let now = table.now();
    let (from, to) = if range {
        (number("from").expect("from"), number("to").expect("to").min(now))
    } else {
        (now - number("days").expect("days") * DAY, now)
    };
    if from < now - 366 * DAY {
        let text = r#"{"error":{"status":{"error_code":10012,"error_message":"Your request exceeds the allowed time range."}}}"#;
        return (401, text.into());
    }
    // CoinGecko derives the granularity from the range unless the request sets it to daily.
    let length = match to - from {
        _ if parameter("interval").as_deref() == Some("daily") => DAY,
        span if span <= DAY => 300,
        span if span <= 90 * DAY => 3600,
        _ => DAY,
    };
    let Some(mut rows) = table.points(ProviderId::CoinGecko, (id, &currency), length, (from, to), fault) else {
        return (404, r#"{"error":"coin not found"}"#.into());
    };
    if length < DAY {
        // CoinGecko's hourly points are some seconds after the hour.
        rows.iter_mut().for_each(|row| row.time += 37);
    }
    let (Some(last), true) = (rows.last().cloned(), fault != Some(&Fault::Stale)) else {
        return (200, format!(r#"{{"prices":{},"market_caps":[],"total_volumes":[]}}"#, prices(&rows)));
    };
    rows.push(Row { time: now, close: table.spot(id, &currency).expect("a price"), ..last });
    (200, format!(r#"{{"prices":{},"market_caps":[],"total_volumes":[]}}"#, prices(&rows)))
}

fn prices(rows: &[Row]) -> String {
    lines(rows, |row| format!("[{},{}]", millis(row), row.close))
}

/// Splits an exchange's pair into asset and currency.
fn parse_pair(provider: ProviderId, text: &str) -> Option<(&'static str, &'static str)> {
    let code = |&(id, code, kraken): &(&'static str, &'static str, &'static str)| {
        let base = if provider == ProviderId::Kraken { kraken } else { code };
        let rest = text.strip_prefix(base)?;
        ["usd", "eur", "usdt"]
            .into_iter()
            .filter(|currency| provider != ProviderId::Binance || *currency != "usd")
            .find(|currency| rest.trim_start_matches('-') == currency.to_uppercase())
            .map(|currency| (id, currency))
    };
    CODES.iter().find_map(code)
}

/// Kraken returns its oldest pairs under their old names.
pub(super) fn kraken_key(pair: &str) -> String {
    match (&pair[..3], &pair[3..]) {
        ("XBT" | "ETH", "USD" | "EUR") => format!("X{}Z{}", &pair[..3], &pair[3..]),
        _ => pair.to_owned(),
    }
}

fn kraken_candles(table: &Table, parameter: impl Fn(&str) -> Option<String>, fault: Option<&Fault>) -> (u16, String) {
    let name = parameter("pair").unwrap_or_default();
    let Some(pair) = parse_pair(ProviderId::Kraken, &name) else {
        return (200, r#"{"error":["EQuery:Unknown asset pair"]}"#.into());
    };
    let length = parameter("interval").and_then(|text| text.parse::<i64>().ok()).expect("minutes") * 60;
    let since = parameter("since").and_then(|text| text.parse::<i64>().ok()).unwrap_or_default();
    let from = (since + 1).max(table.now() / length * length - 719 * length);
    let mut rows = table.rows(ProviderId::Kraken, pair, length, (from, table.now()), fault).expect("an asset");
    if let (60, Some(last)) = (length, rows.last_mut()) {
        // The last close is the current price.
        last.close = apply_to_price(last.close.clone(), fault);
        last.micros = fault == Some(&Fault::Microseconds);
    }
    let text = lines(&rows, |row| {
        let Row { open, high, low, close, .. } = row;
        format!(r#"[{},"{open}","{high}","{low}",{},"{open}","12.5",321]"#, seconds(row), quoted(close))
    });
    let last = table.now() / length * length - length;
    (200, format!(r#"{{"error":[],"result":{{"{}":{text},"last":{last}}}}}"#, kraken_key(&name)))
}

fn coinbase_candles(
    table: &Table,
    product: &str,
    parameter: impl Fn(&str) -> Option<String>,
    fault: Option<&Fault>,
) -> (u16, String) {
    let Some(pair) = parse_pair(ProviderId::Coinbase, product) else {
        return (404, r#"{"message":"NotFound"}"#.into());
    };
    let length = parameter("granularity").and_then(|text| text.parse::<i64>().ok()).expect("seconds");
    let time = |name: &str| {
        let text = parameter(name)?;
        let time = time::OffsetDateTime::parse(&text, &time::format_description::well_known::Rfc3339);
        Some(time.expect("RFC 3339").unix_timestamp())
    };
    // Coinbase ignores `start` without `end`, and `end` without `start`.
    let (from, to) = time("start").zip(time("end")).unwrap_or((table.now() - 299 * length, table.now()));
    if (to - from) / length >= 300 {
        return (400, r#"{"message":"granularity too small for the requested time range."}"#.into());
    }
    // Coinbase may return one row before `start`.
    let mut rows = table.rows(ProviderId::Coinbase, pair, length, (from - length, to), fault).expect("an asset");
    if fault != Some(&Fault::Reordered) {
        rows.reverse();
    }
    let text = lines(&rows, |row| {
        let Row { open, high, low, close, .. } = row;
        format!("[{},{low},{high},{open},{close},12.5]", seconds(row))
    });
    (200, text)
}

fn coinbase_spot(table: &Table, product: &str, fault: Option<&Fault>) -> (u16, String) {
    let Some((asset, currency)) = parse_pair(ProviderId::Coinbase, product) else {
        return (404, r#"{"message":"NotFound"}"#.into());
    };
    let price = quoted(&apply_to_price(table.spot(asset, currency).expect("a price"), fault));
    let time = UNIX_EPOCH + Duration::from_secs(u64::try_from(as_of(table, fault)).expect("after 1970"));
    let time = match fault {
        Some(Fault::Microseconds) => as_of(table, fault).to_string(),
        _ => time::OffsetDateTime::from(time).format(&time::format_description::well_known::Rfc3339).expect("a time"),
    };
    let text = format!(
        r#"{{"ask":"9.9","bid":"9.8","volume":"1.0","trade_id":7,"price":{price},"size":"0.1","time":"{time}"}}"#
    );
    (200, text)
}

fn binance_candles(table: &Table, parameter: impl Fn(&str) -> Option<String>, fault: Option<&Fault>) -> (u16, String) {
    let Some(pair) = parse_pair(ProviderId::Binance, &parameter("symbol").unwrap_or_default()) else {
        return (400, r#"{"code":-1121,"msg":"Invalid symbol."}"#.into());
    };
    let number = |name: &str| parameter(name).and_then(|text| text.parse::<i64>().ok());
    let length = if parameter("interval").as_deref() == Some("1d") { DAY } else { 3600 };
    let limit = usize::try_from(number("limit").unwrap_or(500)).expect("a limit").min(1000);
    let from = number("startTime").map_or(0, |millis| (millis + 999) / 1000);
    let to = number("endTime").map_or(table.now(), |millis| millis / 1000);
    let mut rows = table.rows(ProviderId::Binance, pair, length, (from, to), None).expect("an asset");
    rows.truncate(limit);
    if fault.is_some() {
        rows = table
            .rows(ProviderId::Binance, pair, length, (from, rows.last().map_or(to, |row| row.time)), fault)
            .expect("an asset");
    }
    let text = lines(&rows, |row| {
        let Row { open, high, low, close, .. } = row;
        let (start, end) = (millis(row), (row.time + length) * 1000 - 1);
        let close = quoted(close);
        format!(r#"[{start},"{open}","{high}","{low}",{close},"12.5",{end},"99.5",321,"6.1","48.2","0"]"#)
    });
    (200, text)
}

fn binance_spots(table: &Table, parameter: impl Fn(&str) -> Option<String>, fault: Option<&Fault>) -> (u16, String) {
    let text = parameter("symbols").unwrap_or_default();
    let mut found = Vec::new();
    for symbol in text.trim_matches(['[', ']']).split(',').map(|symbol| symbol.trim_matches('"')) {
        let Some((asset, currency)) = parse_pair(ProviderId::Binance, symbol) else {
            return (400, r#"{"code":-1121,"msg":"Invalid symbol."}"#.into());
        };
        let price = quoted(&apply_to_price(table.spot(asset, currency).expect("a price"), fault));
        let close = as_of(table, fault) * 1000;
        let text = format!(
            r#"{{"symbol":"{symbol}","openPrice":"9.9","lastPrice":{price},"openTime":{},"closeTime":{close},"count":321}}"#,
            close - DAY * 1000
        );
        found.push(text);
    }
    (200, format!("[{}]", found.join(",")))
}
