//! Coinbase Exchange: low before high before open, the newest row first, and at most 300 rows a call.
//!
//! Its times are seconds. `start` counts only together with `end`, both may be off by a row, and buckets in which
//! nothing was traded are missing.

use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339, macros::datetime};

use super::{
    Fetched, Provider, Told, Trouble, answer,
    budget::Allowance,
    caller::{Caller, Manner, Verdict},
    fetched, spots, window,
};
use crate::clock::Clock;
use crate::prices::{
    model::{AssetId, Currency, Series, Source, Spot},
    normalise::{Raw, Reason, Sheet, Unit, Window, positive},
    symbols::symbol,
};

const ALLOWANCE: Allowance = Allowance { every: Duration::from_millis(100), burst: 15 };
/// Its bucket is full again after a second and a half.
const REST: Duration = Duration::from_secs(2);
const ROWS: i32 = 300;
/// Nothing is older, and empty pages are calls too.
const BEGINNING: OffsetDateTime = datetime!(2015-01-01 0:00 UTC);

/// The source.
pub struct Coinbase(Caller);

#[derive(Deserialize)]
struct Ticker<'a> {
    #[serde(borrow)]
    price: answer::Field<'a>,
    #[serde(borrow)]
    time: answer::Field<'a>,
}

impl Coinbase {
    pub fn new(client: Client, url: &str, clock: Clock) -> Self {
        let manner = Manner { allowance: ALLOWANCE, rest: REST, key: None };
        Self(Caller::new(Source::Coinbase, client, url, clock, manner))
    }

    async fn pages(&self, series: &Series, from: OffsetDateTime, to: OffsetDateTime) -> Result<Fetched, Trouble> {
        let offered = symbol(Source::Coinbase, &series.asset, &series.currency);
        let pair = offered.ok_or(Trouble::NotOffered(Source::Coinbase))?.asked;
        let window = window(&self.0, series, from, to);
        let mut sheet = Sheet::new(window);
        let length = series.interval.length();
        let (mut start, to) = (series.interval.bucket(window.from.max(BEGINNING)), window.to);
        while start < to {
            let next = start + length * ROWS;
            let (first, last) = (text(start), text((next - length).min(to)));
            let path =
                format!("products/{pair}/candles?granularity={}&start={first}&end={last}", length.whole_seconds());
            sheet.merge(self.0.get(&path, |status, body| candles(status, body, window)).await?);
            start = next;
        }
        Ok(fetched(&self.0, series, sheet))
    }

    async fn present(&self, assets: &[AssetId], currency: &Currency) -> Result<Vec<(AssetId, Spot)>, Trouble> {
        let mut told: Vec<Told> = Vec::new();
        for asset in assets {
            let Some(pair) = symbol(Source::Coinbase, asset, currency) else { continue };
            let path = format!("products/{}/ticker", pair.asked);
            match self.0.get(&path, |status, body| ticker(status, body, asset)).await {
                Err(Trouble::NotOffered(_)) => {}
                other => told.push(other?),
            }
        }
        spots(&self.0, told)
    }
}

/// As its queries have times, in whole seconds.
fn text(time: OffsetDateTime) -> String {
    // Only a year beyond 9999 cannot be written.
    time.replace_nanosecond(0).unwrap_or(time).format(&Rfc3339).unwrap_or_default()
}

fn refusal<T>(status: StatusCode) -> Option<Verdict<T>> {
    match status {
        StatusCode::NOT_FOUND => Some(Verdict::NotOffered),
        status if status.is_success() => None,
        status => Some(Verdict::Refused(format!("it answered {}", status.as_u16()))),
    }
}

/// Its words, where a status should have said it.
#[derive(Deserialize)]
struct Message {
    message: String,
}

fn limited<T>(body: &str) -> Option<Verdict<T>> {
    let message = serde_json::from_str::<Message>(body).ok()?.message.to_ascii_lowercase();
    Some(if message.contains("rate limit") {
        Verdict::Limited("rate limit exceeded".into())
    } else {
        Verdict::Refused("it answered with a message instead of prices".into())
    })
}

fn candles(status: StatusCode, body: &str, window: Window) -> Verdict<Sheet> {
    if let Some(verdict) = refusal(status).or_else(|| limited(body)) {
        return verdict;
    }
    let rows: Vec<answer::Field<'_>> = match answer::read(body) {
        Ok(rows) => rows,
        Err(verdict) => return verdict,
    };
    let mut sheet = Sheet::new(window);
    for row in rows {
        match answer::fields(row) {
            Some([time, low, high, open, close, volume]) => {
                sheet.row(Raw { time, unit: Unit::Seconds, open, high, low, close, volume });
            }
            None => sheet.reject(Reason::Shape, row.get()),
        }
    }
    Verdict::Answer(sheet)
}

fn ticker(status: StatusCode, body: &str, asset: &AssetId) -> Verdict<Told> {
    if let Some(verdict) = refusal(status).or_else(|| limited(body)) {
        return verdict;
    }
    let ticker: Ticker<'_> = match answer::read(body) {
        Ok(ticker) => ticker,
        Err(verdict) => return verdict,
    };
    let time = OffsetDateTime::parse(answer::text(ticker.time), &Rfc3339).map_err(|_| Reason::Time);
    let told = positive(answer::text(ticker.price)).and_then(|price| time.map(|time| (price, Some(time))));
    Verdict::Answer((asset.clone(), told))
}

impl Provider for Coinbase {
    fn source(&self) -> Source {
        Source::Coinbase
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
    use super::*;
    use crate::prices::model::Interval;

    const WINDOW: Window = Window {
        interval: Interval::Hourly,
        from: datetime!(2024-03-13 10:00 UTC),
        to: datetime!(2024-03-13 13:00 UTC),
        now: datetime!(2024-03-13 13:20 UTC),
    };

    #[test]
    fn reads_low_before_high_before_open_and_the_newest_first() {
        // 12:00, 10:00 and, before the range, 09:00; at 11:00 nothing was traded.
        let body = "[[1710331200,73300.5,73402.47,73310.25,73370.65,1.56794406],
            [1710324000,72990.01,73255,73000.1,73250.7,22.1],[1710320400,1,3,2,2,1]]";
        let Verdict::Answer(sheet) = candles(StatusCode::OK, body, WINDOW) else { panic!("no rows") };
        let (candles, rejected) = sheet.finish();
        assert_eq!((candles.len(), rejected), (2, vec![]));
        let last = &candles[1];
        let texts = [&last.open, &last.high, &last.low].map(|price| price.as_ref().map(ToString::to_string));
        assert_eq!(texts, ["73310.25", "73402.47", "73300.5"].map(|text| Some(text.to_owned())));
        assert_eq!((last.bucket, last.close.to_string()), (datetime!(2024-03-13 12:00 UTC), "73370.65".into()));
    }

    #[test]
    fn reads_its_errors() {
        let read = |status, body| candles(status, body, WINDOW).map(|_| ());
        assert_eq!(read(StatusCode::NOT_FOUND, r#"{"message":"NotFound"}"#), Verdict::NotOffered);
        assert!(matches!(read(StatusCode::BAD_REQUEST, r#"{"message":"granularity"}"#), Verdict::Refused(_)));
        assert!(matches!(read(StatusCode::OK, r#"{"message":"Public rate limit exceeded"}"#), Verdict::Limited(_)));
        assert!(matches!(read(StatusCode::OK, "[[1710331200,NaN]]"), Verdict::Broken(_)));
    }

    #[test]
    fn a_price_has_its_time() {
        let asset = AssetId::parse("bitcoin").expect("an id");
        let read = |price: &str, time: &str| {
            let body = format!(r#"{{"ask":"1","bid":"1","trade_id":7,"price":{price},"size":"1","time":"{time}"}}"#);
            let Verdict::Answer((_, told)) = ticker(StatusCode::OK, &body, &asset) else { panic!("no price") };
            told.map(|(price, time)| (price.to_string(), time))
        };
        let time = Some(datetime!(2024-03-13 12:00:01.5 UTC));
        assert_eq!(read("\"73370.65\"", "2024-03-13T12:00:01.500000Z"), Ok(("73370.65".into(), time)));
        assert_eq!(read("\"73370.65\"", "1710331200"), Err(Reason::Time));
        assert_eq!(read("null", "2024-03-13T12:00:01Z"), Err(Reason::Decimal));
    }
}
