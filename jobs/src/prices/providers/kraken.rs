//! Kraken: errors under HTTP 200, answers under other names than were asked for, and 720 rows at most, ever.
//!
//! Its times are seconds and its prices text. The last row is the running bucket's: `last` is the last finished one.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::BoxFuture;
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use time::OffsetDateTime;

use super::{
    Fetched, Provider, Told, Trouble, answer,
    budget::Allowance,
    caller::{Caller, Manner, Verdict},
    fetched, spots, window,
};
use crate::clock::Clock;
use crate::prices::{
    model::{AssetId, Currency, Series, Source, Spot},
    normalise::{Raw, Reason, Sheet, Unit, Window, positive, time},
    symbols::{Symbol, symbol},
};

const ALLOWANCE: Allowance = Allowance { every: Duration::from_secs(1), burst: 15 };
/// Its counter of 15 falls by one in three seconds.
const REST: Duration = Duration::from_secs(15);

/// The source.
pub struct Kraken(Caller);

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(default)]
    error: Vec<String>,
    #[serde(borrow)]
    result: Option<BTreeMap<String, answer::Field<'a>>>,
}

/// `c` is the last trade: its price and its amount.
#[derive(Deserialize)]
struct Ticker<'a> {
    #[serde(borrow)]
    c: Vec<answer::Field<'a>>,
}

impl Kraken {
    pub fn new(client: Client, url: &str, clock: Clock) -> Self {
        let manner = Manner { allowance: ALLOWANCE, rest: REST, key: None };
        Self(Caller::new(Source::Kraken, client, url, clock, manner))
    }

    async fn rows(&self, series: &Series, from: OffsetDateTime, to: OffsetDateTime) -> Result<Fetched, Trouble> {
        let offered = symbol(Source::Kraken, &series.asset, &series.currency);
        let pair = offered.ok_or(Trouble::NotOffered(Source::Kraken))?.asked;
        let window = window(&self.0, series, from, to);
        let mut sheet = Sheet::new(window);
        if window.from < window.to {
            let length = series.interval.length();
            // Only rows after `since` are told; what is too early is left out later.
            let (minutes, since) = (length.whole_minutes(), (window.from - length).unix_timestamp());
            let path = format!("0/public/OHLC?pair={pair}&interval={minutes}&since={since}");
            sheet.merge(self.0.get(&path, |status, body| ohlc(status, body, window)).await?);
        }
        Ok(fetched(&self.0, series, sheet))
    }

    async fn present(&self, assets: &[AssetId], currency: &Currency) -> Result<Vec<(AssetId, Spot)>, Trouble> {
        let named = |asset| Some((asset, symbol(Source::Kraken, asset, currency)?));
        let pairs: Vec<(&AssetId, Symbol<'_>)> = assets.iter().filter_map(named).collect();
        let told = match self.tickers(&pairs).await {
            // One unknown pair fails them all.
            Err(Trouble::NotOffered(_)) if pairs.len() > 1 => {
                let mut told = Vec::new();
                for pair in pairs {
                    match self.tickers(&[pair]).await {
                        Err(Trouble::NotOffered(_)) => {}
                        other => told.extend(other?),
                    }
                }
                told
            }
            other => other?,
        };
        spots(&self.0, told)
    }

    async fn tickers(&self, pairs: &[(&AssetId, Symbol<'_>)]) -> Result<Vec<Told>, Trouble> {
        if pairs.is_empty() {
            return Err(Trouble::NotOffered(Source::Kraken));
        }
        let names: Vec<&str> = pairs.iter().map(|(_, symbol)| symbol.asked).collect();
        let path = format!("0/public/Ticker?pair={}", names.join(","));
        self.0.get(&path, |status, body| tickers(status, body, pairs)).await
    }
}

/// The result, or what the errors beside it mean; warnings are none.
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

fn ohlc(status: StatusCode, body: &str, window: Window) -> Verdict<Sheet> {
    let result = match result(status, body) {
        Ok(result) => result,
        Err(verdict) => return verdict,
    };
    let last = result.get("last").and_then(|last| time(answer::text(last), Unit::Seconds).ok());
    // The one key that is not `last`, whatever the pair was called in the question.
    let rows = result.iter().find(|(key, _)| *key != "last").map(|(_, rows)| answer::read(rows.get()));
    let rows: Vec<answer::Field<'_>> = match rows {
        Some(Ok(rows)) => rows,
        Some(Err(verdict)) => return verdict,
        None => return Verdict::Broken("its answer has no rows".into()),
    };
    let mut sheet = Sheet::new(window);
    for row in rows {
        match answer::fields(row) {
            // Rows after the last finished one still change.
            Some([at, _, _, _, _, _, _])
                if last.zip(time(at, Unit::Seconds).ok()).is_some_and(|(last, at)| at > last) => {}
            // The sixth is the average price.
            Some([time, open, high, low, close, _, volume]) => {
                sheet.row(Raw { time, unit: Unit::Seconds, open, high, low, close, volume });
            }
            None => sheet.reject(Reason::Shape, row.get()),
        }
    }
    Verdict::Answer(sheet)
}

fn tickers(status: StatusCode, body: &str, pairs: &[(&AssetId, Symbol<'_>)]) -> Verdict<Vec<Told>> {
    let result = match result(status, body) {
        Ok(result) => result,
        Err(verdict) => return verdict,
    };
    let told = result.iter().filter_map(|(key, ticker)| {
        let named = |symbol: &Symbol<'_>| symbol.answered == key || symbol.asked == key;
        // One pair was asked for: it is that, whatever it is called.
        let asset = match pairs {
            [(asset, _)] => asset,
            _ => pairs.iter().find(|(_, symbol)| named(symbol)).map(|(asset, _)| asset)?,
        };
        let price = serde_json::from_str::<Ticker<'_>>(ticker.get()).ok();
        let price = price.and_then(|ticker| ticker.c.first().copied()).ok_or(Reason::Shape);
        // It does not say when.
        Some(((*asset).clone(), price.and_then(|price| positive(answer::text(price))).map(|price| (price, None))))
    });
    Verdict::Answer(told.collect())
}

impl Provider for Kraken {
    fn source(&self) -> Source {
        Source::Kraken
    }

    fn candles<'a>(
        &'a self,
        series: &'a Series,
        from: OffsetDateTime,
        to: OffsetDateTime,
    ) -> BoxFuture<'a, Result<Fetched, Trouble>> {
        Box::pin(self.rows(series, from, to))
    }

    fn spots<'a>(
        &'a self,
        assets: &'a [AssetId],
        currency: &'a Currency,
    ) -> BoxFuture<'a, Result<Vec<(AssetId, Spot)>, Trouble>> {
        Box::pin(self.present(assets, currency))
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
    fn finds_prices_under_old_and_new_names() {
        let ids = ["bitcoin", "dogecoin"].map(|id| AssetId::parse(id).expect("an id"));
        let currency = Currency::parse("eur").expect("a code");
        let named = |asset| (asset, symbol(Source::Kraken, asset, &currency).expect("a pair"));
        let pairs: Vec<_> = ids.iter().map(named).collect();
        let body = r#"{"error":[],"result":{
            "XXBTZEUR":{"a":["44210.10","1","1.000"],"b":["44210.00","2","2.000"],"c":["44210.05","0.00190000"],"o":"44000.1"},
            "XDGEUR":{"a":["0.0601","1","1.000"],"b":["0.0599","2","2.000"],"c":["0.0600123","100.0"],"o":"0.05"}}}"#;
        let Verdict::Answer(mut told) = tickers(StatusCode::OK, body, &pairs) else { panic!("no prices") };
        told.sort_by(|(a, _), (b, _)| a.cmp(b));
        let told: Vec<String> =
            told.into_iter().map(|(asset, price)| format!("{asset} {}", price.expect("a price").0)).collect();
        assert_eq!(told, ["bitcoin 44210.05", "dogecoin 0.0600123"]);
    }
}
