//! Binance: at most 1,000 rows a call, times in milliseconds, prices as text, and bans of an address for two minutes up.
//!
//! It quotes in `usdt` and `eur`, and has no dollar. 418 is its ban; 403 is the firewall before it.

use std::time::Duration;

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
    model::{AssetId, Currency, Interval, Series, Source, Spot},
    normalise::{Raw, Reason, Sheet, Unit, Window, positive},
    symbols::symbol,
};

/// 6,000 units of weight a minute are granted, and no call of ours costs more than 4: a fifth of that.
const ALLOWANCE: Allowance = Allowance { every: Duration::from_millis(200), burst: 40 };
/// Its limits are counted by the minute.
const REST: Duration = Duration::from_secs(60);
const ROWS: usize = 1000;
const INVALID_SYMBOL: i64 = -1121;
const TOO_MANY_REQUESTS: i64 = -1003;

/// The source.
pub struct Binance(Caller);

#[derive(Deserialize)]
struct Refusal {
    code: i64,
}

#[derive(Deserialize)]
struct Ticker<'a> {
    symbol: String,
    #[serde(borrow)]
    price: answer::Field<'a>,
}

impl Binance {
    pub fn new(client: Client, url: &str, clock: Clock) -> Self {
        let manner = Manner { allowance: ALLOWANCE, rest: REST, key: None };
        Self(Caller::new(Source::Binance, client, url, clock, manner))
    }

    async fn pages(&self, series: &Series, from: OffsetDateTime, to: OffsetDateTime) -> Result<Fetched, Trouble> {
        let offered = symbol(Source::Binance, &series.asset, &series.currency);
        let pair = offered.ok_or(Trouble::NotOffered(Source::Binance))?.asked;
        let interval = match series.interval {
            Interval::Daily => "1d",
            Interval::Hourly => "1h",
        };
        let window = window(&self.0, series, from, to);
        let mut sheet = Sheet::new(window);
        let (mut start, to) = (window.from, window.to);
        while start < to {
            let (first, last) = (millis(start), millis(to) - 1);
            let path = format!(
                "api/v3/klines?symbol={pair}&interval={interval}&startTime={first}&endTime={last}&limit={ROWS}"
            );
            let (page, rows, latest) = self.0.get(&path, |status, body| klines(status, body, window)).await?;
            sheet.merge(page);
            match latest {
                // It starts at the first row that there is, so a full page goes on after its last.
                Some(latest) if rows >= ROWS && latest >= start => start = latest + series.interval.length(),
                _ => break,
            }
        }
        Ok(fetched(&self.0, series, sheet))
    }

    async fn present(&self, assets: &[AssetId], currency: &Currency) -> Result<Vec<(AssetId, Spot)>, Trouble> {
        let named = |asset| Some((asset, symbol(Source::Binance, asset, currency)?.asked));
        let pairs: Vec<(&AssetId, &str)> = assets.iter().filter_map(named).collect();
        let told = match self.tickers(&pairs).await {
            // One unknown symbol fails them all.
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

    async fn tickers(&self, pairs: &[(&AssetId, &str)]) -> Result<Vec<Told>, Trouble> {
        if pairs.is_empty() {
            return Err(Trouble::NotOffered(Source::Binance));
        }
        let names: Vec<String> = pairs.iter().map(|(_, name)| format!("%22{name}%22")).collect();
        let path = format!("api/v3/ticker/price?symbols=%5B{}%5D", names.join(","));
        self.0.get(&path, |status, body| tickers(status, body, pairs)).await
    }
}

fn millis(time: OffsetDateTime) -> i64 {
    time.unix_timestamp().saturating_mul(1000)
}

/// A page, how many rows it had, and the latest of their times.
type Page = (Sheet, usize, Option<OffsetDateTime>);

fn klines(status: StatusCode, body: &str, window: Window) -> Verdict<Page> {
    if let Some(refusal) = refusal(status, body) {
        return refusal;
    }
    let rows: Vec<answer::Field<'_>> = match answer::read(body) {
        Ok(rows) => rows,
        Err(verdict) => return verdict,
    };
    let mut sheet = Sheet::new(window);
    let mut latest = None;
    for row in &rows {
        match answer::fields(row) {
            Some([time, open, high, low, close, volume]) => {
                latest = latest.max(sheet.row(Raw { time, unit: Unit::Millis, open, high, low, close, volume }));
            }
            None => sheet.reject(Reason::Shape, row.get()),
        }
    }
    Verdict::Answer((sheet, rows.len(), latest))
}

fn tickers(status: StatusCode, body: &str, pairs: &[(&AssetId, &str)]) -> Verdict<Vec<Told>> {
    if let Some(refusal) = refusal(status, body) {
        return refusal;
    }
    let tickers: Vec<Ticker<'_>> = match answer::read(body) {
        Ok(tickers) => tickers,
        Err(verdict) => return verdict,
    };
    let told = tickers.iter().filter_map(|ticker| {
        let (asset, _) = pairs.iter().find(|(_, name)| *name == ticker.symbol)?;
        // It does not say when.
        Some(((*asset).clone(), positive(answer::text(ticker.price)).map(|price| (price, None))))
    });
    Verdict::Answer(told.collect())
}

/// An error is an object with a code where an answer is an array.
fn refusal<T>(status: StatusCode, body: &str) -> Option<Verdict<T>> {
    match serde_json::from_str(body) {
        Ok(Refusal { code: INVALID_SYMBOL }) => Some(Verdict::NotOffered),
        Ok(Refusal { code: TOO_MANY_REQUESTS }) => Some(Verdict::Limited("too many requests".into())),
        Ok(Refusal { code }) => Some(Verdict::Refused(format!("it answered {}, code {code}", status.as_u16()))),
        Err(_) if status.is_success() => None,
        Err(_) => Some(Verdict::Refused(format!("it answered {}", status.as_u16()))),
    }
}

impl Provider for Binance {
    fn source(&self) -> Source {
        Source::Binance
    }

    fn candles<'a>(
        &'a self,
        series: &'a Series,
        from: OffsetDateTime,
        to: OffsetDateTime,
    ) -> BoxFuture<'a, Result<Fetched, Trouble>> {
        Box::pin(self.pages(series, from, to))
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

    const WINDOW: Window = Window {
        interval: Interval::Daily,
        from: datetime!(2024-03-01 0:00 UTC),
        to: datetime!(2024-03-14 12:00 UTC),
        now: datetime!(2024-03-14 12:00 UTC),
    };

    #[test]
    fn reads_its_rows() {
        // Twelve fields, the last row running: 2024-03-13 and 14.
        let body = r#"[
            [1710288000000,"65470.10000000","67510.00000000","65101.55000000","66890.25000000","1234.56700000",
             1710374399999,"81650123.11000000",51234,"612.1","40512345.2","0"],
            [1710374400000,"66890.25000000","67100.00000000","66000.00000000","66500.00000000","210.5",
             1710460799999,"13998123.4",9876,"100.1","6650000.1","0"]]"#;
        let Verdict::Answer((sheet, rows, latest)) = klines(StatusCode::OK, body, WINDOW) else { panic!("no rows") };
        assert_eq!((rows, latest), (2, Some(datetime!(2024-03-14 0:00 UTC))));
        let (candles, rejected) = sheet.finish();
        assert_eq!((candles.len(), rejected), (1, vec![]));
        let texts = [&candles[0].open, &candles[0].high, &candles[0].low, &Some(candles[0].close.clone())]
            .map(|price| price.as_ref().map(ToString::to_string).unwrap_or_default());
        assert_eq!(texts, ["65470.1", "67510", "65101.55", "66890.25"]);
        assert_eq!(candles[0].bucket, datetime!(2024-03-13 0:00 UTC));
    }

    #[test]
    fn a_row_of_another_form_is_rejected_alone() {
        let body = r#"[null,[1710288000000,"1","2"],{"a":1},[1710201600000,"5","6","4","5","1",0,"1",1,"1","1","0"]]"#;
        let Verdict::Answer((sheet, ..)) = klines(StatusCode::OK, body, WINDOW) else { panic!("no rows") };
        let (candles, rejected) = sheet.finish();
        assert_eq!((candles.len(), rejected.len()), (1, 3));
        assert!(rejected.iter().all(|(reason, _)| *reason == Reason::Shape));
    }

    #[test]
    fn reads_its_errors_by_their_codes() {
        let read = |status, body| klines(status, body, WINDOW).map(|_| ());
        let bad = StatusCode::BAD_REQUEST;
        assert_eq!(read(bad, r#"{"code":-1121,"msg":"Invalid symbol."}"#), Verdict::NotOffered);
        assert!(matches!(read(StatusCode::OK, r#"{"code":-1003,"msg":"Too much."}"#), Verdict::Limited(_)));
        assert!(matches!(read(bad, r#"{"code":-1100,"msg":"Illegal characters"}"#), Verdict::Refused(_)));
        assert!(matches!(read(bad, "<html>"), Verdict::Refused(_)));
        assert!(matches!(read(StatusCode::OK, "<html>"), Verdict::Broken(_)));
        assert!(matches!(read(StatusCode::OK, r#"[[1710288000000,"65470"#), Verdict::Broken(_)));
    }
}
