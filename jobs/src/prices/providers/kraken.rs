//! Kraken: errors under HTTP 200, answers under other names than were asked for, and 720 rows at most, ever.
//!
//! Its times are seconds and its prices text. The last row is the running bucket's: `last` is the last finished one. Its
//! ticker has no time, so a present price is the close of the last minute in which something was traded.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::BoxFuture;
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use time::OffsetDateTime;

use super::{
    Names, Pages, Provider, Spots, Trouble, answer,
    budget::Allowance,
    caller::{Caller, Manner, Verdict},
    listing::{PairNames, Pairs},
    pages::{load, whole, window},
    spots::{ReportedPrice, one_by_one},
};
use crate::{
    clock::Clock,
    prices::{
        model::{AssetId, Currency, Series, Source},
        normalise::{Raw, Reason, Sheet, Unit, Window, positive, time},
    },
};

const ALLOWANCE: Allowance = Allowance { every: Duration::from_secs(1), burst: 15 };
/// Its counter of 15 falls by one in three seconds.
const REST: Duration = Duration::from_secs(15);
/// What was not traded for so long has no present price.
const PRESENT: time::Duration = time::Duration::hours(2);

/// The source.
pub struct Kraken {
    caller: Caller,
    pairs: PairNames,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(default)]
    error: Vec<String>,
    #[serde(borrow)]
    result: Option<BTreeMap<String, answer::Field<'a>>>,
}

/// `wsname` is `XBT/USD`; `altname` is `XBTUSD`, which its queries take.
#[derive(Deserialize)]
struct Pair {
    altname: String,
    wsname: String,
}

impl Kraken {
    pub fn new(client: Client, url: &str, clock: Clock) -> Self {
        let manner = Manner { allowance: ALLOWANCE, rest: REST, key: None };
        let caller = Caller::new(Source::Kraken, client, url, clock, manner);
        Self { caller, pairs: PairNames::new(usual) }
    }

    async fn list(&self) -> Result<Pairs, Trouble> {
        self.caller.get("0/public/AssetPairs", listed).await
    }

    async fn page(&self, series: &Series, page: Window) -> Result<Sheet, Trouble> {
        let pair = self.pairs.name(self.list(), &series.asset, &series.currency).await;
        let pair = pair.ok_or(Trouble::NotOffered(Source::Kraken))?;
        let length = series.interval.length();
        // It returns rows after `since`; what is too early is left out later.
        let (minutes, since) = (length.whole_minutes(), (page.from - length).unix_timestamp());
        let path = format!("0/public/OHLC?pair={pair}&interval={minutes}&since={since}");
        self.caller.get(&path, |status, body| ohlc(status, body, page)).await
    }

    async fn present(&self, assets: &[AssetId], currency: &Currency) -> Spots {
        let pairs = self.pairs.of(self.list(), assets, currency).await;
        let since = (self.caller.clock.now() - PRESENT).unix_timestamp();
        let caller = &self.caller;
        let ask = move |pair: String| async move {
            caller.get(&format!("0/public/OHLC?pair={pair}&interval=1&since={since}"), last_trade).await
        };
        one_by_one(caller, pairs, ask).await
    }
}

/// The result, or what its errors mean; warnings are none.
fn result<'a, T>(status: StatusCode, body: &'a str) -> Result<BTreeMap<String, answer::Field<'a>>, Verdict<T>> {
    if !status.is_success() {
        return Err(Verdict::Refused(format!("it answered {}", status.as_u16())));
    }
    let answer: Answer<'a> = answer::read(body)?;
    if let Some(error) = answer.error.iter().find(|error| !error.starts_with('W')) {
        let (class, what) = error.split_once(':').unwrap_or((error, ""));
        let line: String = error.chars().filter(|c| !c.is_control()).take(80).collect();
        return Err(match (class, what) {
            ("EQuery", "Unknown asset pair" | "Invalid asset pair") => Verdict::NotOffered,
            ("EGeneral", "Too many requests") | ("EAPI" | "EOrder", "Rate limit exceeded") => Verdict::Limited(line),
            ("EGeneral", "Temporary lockout") => Verdict::Banned(line),
            ("EService", what) if what.starts_with("Throttled") => Verdict::Limited(line),
            ("EService" | "EDatabase", _) | ("EGeneral", "Internal error") => Verdict::Broken(line),
            _ => Verdict::Refused(line),
        });
    }
    answer.result.ok_or_else(|| Verdict::Broken("its answer has neither a result nor an error".into()))
}

/// The rows of the one key that is not `last`, whatever the pair was called in the question; and `last`.
fn rows<T>(status: StatusCode, body: &str) -> Result<(Vec<answer::Field<'_>>, Option<OffsetDateTime>), Verdict<T>> {
    let result = result(status, body)?;
    let last = result.get("last").and_then(|last| time(answer::text(last), Unit::Seconds).ok());
    match result.iter().find(|(key, _)| *key != "last") {
        Some((_, rows)) => Ok((answer::read(rows.get())?, last)),
        None => Err(Verdict::Broken("its answer has no rows".into())),
    }
}

fn ohlc(status: StatusCode, body: &str, page: Window) -> Verdict<Sheet> {
    let (rows, last) = match rows(status, body) {
        Ok(rows) => rows,
        Err(verdict) => return verdict,
    };
    let mut sheet = Sheet::new(page);
    for row in rows {
        match answer::fields(row) {
            // Rows after the last finished one still change.
            Some([at, _, _, _, _, _, _, _])
                if last.zip(time(at, Unit::Seconds).ok()).is_some_and(|(last, at)| at > last) => {}
            // The eighth is the number of trades; without any, the price is that of an earlier time.
            Some([_, _, _, _, _, _, _, "0"]) => {}
            // The sixth is the average price.
            Some([time, open, high, low, close, _, volume, _]) => {
                sheet.row(Raw { time, unit: Unit::Seconds, open, high, low, close, volume });
            }
            None => sheet.reject(Reason::Shape, row.get()),
        }
    }
    Verdict::Answer(sheet)
}

/// The price of the last trade. It is of the minute that it is in; the start of that minute is the time which is certain.
fn last_trade(status: StatusCode, body: &str) -> Verdict<ReportedPrice> {
    let (rows, _) = match rows(status, body) {
        Ok(rows) => rows,
        Err(verdict) => return verdict,
    };
    for row in rows.into_iter().rev() {
        match answer::fields(row) {
            Some([_, _, _, _, _, _, _, "0"]) => {}
            Some([at, _, _, _, close, _, _, _]) => {
                let time = time(at, Unit::Seconds);
                return Verdict::Answer(positive(close).and_then(|price| Ok(Some((price, time?)))));
            }
            None => return Verdict::Answer(Err(Reason::Shape)),
        }
    }
    Verdict::Answer(Ok(None))
}

fn listed(status: StatusCode, body: &str) -> Verdict<Pairs> {
    let result = match result(status, body) {
        Ok(result) => result,
        Err(verdict) => return verdict,
    };
    let mut pairs = Pairs::default();
    for pair in result.values().filter_map(|pair| serde_json::from_str::<Pair>(pair.get()).ok()) {
        if let Some((base, quote)) = pair.wsname.split_once('/') {
            pairs.add(common(base), common(quote), &pair.altname);
        }
    }
    Verdict::Answer(pairs)
}

/// It takes both codes in a row.
fn usual(base: &str, quote: &str) -> Option<String> {
    let own = |code| match code {
        "BTC" => "XBT",
        "DOGE" => "XDG",
        code => code,
    };
    Some(format!("{}{}", own(base), own(quote)))
}

/// The code that other exchanges have for one of Kraken's.
fn common(code: &str) -> &str {
    match code {
        "XBT" => "BTC",
        "XDG" => "DOGE",
        code => code,
    }
}

impl Provider for Kraken {
    fn source(&self) -> Source {
        Source::Kraken
    }

    fn candles<'a>(&'a self, series: &'a Series, from: OffsetDateTime, to: OffsetDateTime) -> Pages<'a> {
        let pages = whole(window(&self.caller, series, from, to));
        load(&self.caller, series, pages, |page| Box::pin(self.page(series, page)))
    }

    fn spots<'a>(&'a self, assets: &'a [AssetId], currency: &'a Currency) -> BoxFuture<'a, Spots> {
        Box::pin(self.present(assets, currency))
    }

    fn names(&self) -> BoxFuture<'_, Result<Names, Trouble>> {
        Box::pin(self.pairs.names(self.list()))
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

    fn read(body: &str) -> Verdict<Sheet> {
        ohlc(StatusCode::OK, body, WINDOW)
    }

    #[test]
    fn reads_the_one_key_that_is_not_last_and_what_is_committed() {
        // 15:00, 16:00 and 17:00: the last one is over, but not committed yet.
        let body = r#"{"error":[],"result":{"XXBTZUSD":[
            [1616684400,"52556.5","52620.3","52550.8","52600.1","52590.2","11.59350101",249],
            [1616688000,"52600.1","52643.0","52500.0","52570.0","52560.1","17.12345678",301],
            [1616691600,"52570.0","52580.0","52570.0","52575.5","52574.9","0.51000000",12]],"last":1616688000}}"#;
        let Verdict::Answer(sheet) = read(body) else { panic!("no rows") };
        let (candles, rejected) = sheet.finish();
        let closes: Vec<String> = candles.iter().map(|candle| candle.close.to_string()).collect();
        assert_eq!((closes, rejected), (vec!["52600.1".into(), "52570".into()], vec![]));
    }

    #[test]
    fn reads_errors_under_200() {
        let error = |text: &str| read(&format!(r#"{{"error":["{text}"]}}"#)).map(|_| ());
        assert_eq!(error("EQuery:Unknown asset pair"), Verdict::NotOffered);
        for limited in ["EGeneral:Too many requests", "EAPI:Rate limit exceeded", "EService:Throttled: 1616688000"] {
            assert!(matches!(error(limited), Verdict::Limited(_)), "{limited}");
        }
        for passing in ["EService:Unavailable", "EService:Busy", "EGeneral:Internal error"] {
            assert!(matches!(error(passing), Verdict::Broken(_)), "{passing}");
        }
        assert!(matches!(error("EGeneral:Temporary lockout"), Verdict::Banned(_)));
        assert!(matches!(error("EGeneral:Invalid arguments"), Verdict::Refused(_)));
        assert!(matches!(read(r#"{"error":[]}"#), Verdict::Broken(_)));
        assert!(matches!(read(r#"{"error":[],"result":{"last":1616688000}}"#), Verdict::Broken(_)));
        let warned = r#"{"error":["WGeneral:Deprecated"],"result":{"XDGUSD":[],"last":1616688000}}"#;
        assert!(matches!(read(warned), Verdict::Answer(_)));
    }

    #[test]
    fn a_candle_without_trades_is_left_out() {
        let body = r#"{"error":[],"result":{"XXBTZUSD":[[1616684400,"5","6","4","5","5","1",7],
            [1616688000,"5","5","5","5","0.0","0.00000000",0]],"last":1616688000}}"#;
        let Verdict::Answer(sheet) = read(body) else { panic!("no rows") };
        let (candles, rejected) = sheet.finish();
        assert_eq!((candles.len(), rejected), (1, vec![]));
    }

    #[test]
    fn a_present_price_is_that_of_the_last_trade_and_its_minute() {
        let read = |rows: &str| {
            let body = format!(r#"{{"error":[],"result":{{"XXBTZUSD":[{rows}],"last":1616688000}}}}"#);
            let Verdict::Answer(reported) = last_trade(StatusCode::OK, &body) else { panic!("no price") };
            reported.map(|price| price.map(|(price, at)| (price.to_string(), at)))
        };
        let traded = r#"[1616688000,"5","6","4","5.50","5","1",7]"#;
        let quiet = r#"[1616688060,"5.5","5.5","5.5","5.5","0.0","0.00000000",0]"#;
        let price = Ok(Some(("5.5".to_owned(), datetime!(2021-03-25 16:00 UTC))));
        assert_eq!(read(traded), price);
        assert_eq!(read(&format!("{traded},{quiet}")), price, "a minute without a trade has no price of its own");
        assert_eq!(read(quiet), Ok(None));
        assert_eq!(read(""), Ok(None));
        assert_eq!(read(&traded.replace("5.50", "NaN")), Err(Reason::Decimal));
        assert_eq!(read("[7]"), Err(Reason::Shape));
    }

    #[test]
    fn pairs_are_listed_under_common_codes() {
        let body = r#"{"error":[],"result":{
            "XXBTZUSD":{"altname":"XBTUSD","wsname":"XBT\/USD","base":"XXBT","quote":"ZUSD","status":"online"},
            "XDGEUR":{"altname":"XDGEUR","wsname":"XDG\/EUR"},"XETHXXBT":{"altname":"ETHXBT","wsname":"ETH\/XBT"},
            "XXBTZUSD.d":{"altname":"XBTUSD.d"}}}"#;
        let Verdict::Answer(pairs) = listed(StatusCode::OK, body) else { panic!("no pairs") };
        for (base, quote, name) in [("BTC", "usd", "XBTUSD"), ("DOGE", "eur", "XDGEUR"), ("ETH", "btc", "ETHXBT")] {
            assert_eq!(pairs.name(base, &Currency::parse(quote).expect("a code")), Some(name));
            assert_eq!(usual(base, &quote.to_uppercase()).as_deref(), Some(name));
        }
    }
}
