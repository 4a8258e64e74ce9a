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
    Names, Pages, Provider, Spots, Trouble, answer,
    budget::Allowance,
    caller::{Caller, Manner, Verdict},
    listing::{PairNames, Pairs},
    pages::{cut, load, window},
    spots::{ReportedPrice, one_by_one},
};
use crate::{
    clock::Clock,
    prices::{
        model::{AssetId, Currency, Series, Source},
        normalise::{Raw, Reason, Sheet, Unit, Window, positive},
    },
};

const ALLOWANCE: Allowance = Allowance { every: Duration::from_millis(100), burst: 15 };
/// Its bucket is full again after a second and a half.
const REST: Duration = Duration::from_secs(2);
const ROWS: i32 = 300;
/// Nothing is older, and empty pages are calls too.
const BEGINNING: OffsetDateTime = datetime!(2015-01-01 0:00 UTC);

/// The source.
pub struct Coinbase {
    caller: Caller,
    pairs: PairNames,
}

#[derive(Deserialize)]
struct Ticker<'a> {
    #[serde(borrow)]
    price: Option<answer::Field<'a>>,
    #[serde(borrow)]
    time: Option<answer::Field<'a>>,
}

#[derive(Deserialize)]
struct Product {
    id: String,
    base_currency: String,
    quote_currency: String,
    status: String,
}

impl Coinbase {
    pub fn new(client: Client, url: &str, clock: Clock) -> Self {
        let manner = Manner { allowance: ALLOWANCE, rest: REST, key: None };
        let caller = Caller::new(Source::Coinbase, client, url, clock, manner);
        Self { caller, pairs: PairNames::new(usual) }
    }

    async fn list(&self) -> Result<Pairs, Trouble> {
        self.caller.get("products", listed).await
    }

    async fn page(&self, series: &Series, page: Window) -> Result<Sheet, Trouble> {
        let pair = self.pairs.name(self.list(), &series.asset, &series.currency).await;
        let pair = pair.ok_or(Trouble::NotOffered(Source::Coinbase))?;
        let length = series.interval.length();
        // Both are starts of rows: the first and the last of the page.
        let [first, last] = [page.from, page.to - time::Duration::SECOND].map(|at| text(series.interval.bucket(at)));
        let path = format!("products/{pair}/candles?granularity={}&start={first}&end={last}", length.whole_seconds());
        self.caller.get(&path, |status, body| candles(status, body, page)).await
    }

    async fn present(&self, assets: &[AssetId], currency: &Currency) -> Spots {
        let pairs = self.pairs.of(self.list(), assets, currency).await;
        let caller = &self.caller;
        let ask = move |pair: String| async move { caller.get(&format!("products/{pair}/ticker"), ticker).await };
        one_by_one(caller, pairs, ask).await
    }
}

fn usual(base: &str, quote: &str) -> Option<String> {
    Some(format!("{base}-{quote}"))
}

fn listed(status: StatusCode, body: &str) -> Verdict<Pairs> {
    if let Some(verdict) = refusal(status).or_else(|| limited(body)) {
        return verdict;
    }
    let products: Vec<answer::Field<'_>> = match answer::read(body) {
        Ok(products) => products,
        Err(verdict) => return verdict,
    };
    let mut pairs = Pairs::default();
    let products = products.iter().filter_map(|product| serde_json::from_str::<Product>(product.get()).ok());
    for product in products.filter(|product| product.status != "delisted") {
        pairs.add(&product.base_currency, &product.quote_currency, &product.id);
    }
    Verdict::Answer(pairs)
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

fn ticker(status: StatusCode, body: &str) -> Verdict<ReportedPrice> {
    if let Some(verdict) = refusal(status).or_else(|| limited(body)) {
        return verdict;
    }
    let ticker: Ticker<'_> = match answer::read(body) {
        Ok(ticker) => ticker,
        Err(verdict) => return verdict,
    };
    // A product without a trade has neither.
    let (Some(price), Some(time)) = (ticker.price, ticker.time) else { return Verdict::Answer(Ok(None)) };
    let time = OffsetDateTime::parse(answer::text(time), &Rfc3339).map_err(|_| Reason::Time);
    Verdict::Answer(positive(answer::text(price)).and_then(|price| Ok(Some((price, time?)))))
}

impl Provider for Coinbase {
    fn source(&self) -> Source {
        Source::Coinbase
    }

    fn candles<'a>(&'a self, series: &'a Series, from: OffsetDateTime, to: OffsetDateTime) -> Pages<'a> {
        let pages = cut(window(&self.caller, series, from.max(BEGINNING), to), ROWS);
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
        let read = |price: &str, time: &str| {
            let body = format!(r#"{{"ask":"1","bid":"1","trade_id":7,"price":{price},"size":"1","time":{time}}}"#);
            let Verdict::Answer(reported) = ticker(StatusCode::OK, &body) else { panic!("no price") };
            reported.map(|price| price.map(|(price, time)| (price.to_string(), time)))
        };
        let time = datetime!(2024-03-13 12:00:01.5 UTC);
        assert_eq!(read("\"73370.65\"", "\"2024-03-13T12:00:01.500000Z\""), Ok(Some(("73370.65".into(), time))));
        assert_eq!(read("\"73370.65\"", "\"1710331200\""), Err(Reason::Time));
        assert_eq!(read("\"NaN\"", "\"2024-03-13T12:00:01Z\""), Err(Reason::Decimal));
        assert_eq!(read("null", "\"2024-03-13T12:00:01Z\""), Ok(None), "nothing was traded");
        assert_eq!(read("\"73370.65\"", "null"), Ok(None), "a price without its time");
    }

    #[test]
    fn a_product_that_was_given_up_is_not_listed() {
        let body = r#"[{"id":"BTC-USD","base_currency":"BTC","quote_currency":"USD","status":"online","max":"1"},
            {"id":"XRP-USD","base_currency":"XRP","quote_currency":"USD","status":"delisted"}]"#;
        let Verdict::Answer(pairs) = listed(StatusCode::OK, body) else { panic!("no products") };
        let name = |code| pairs.name(code, &Currency::parse("usd").expect("a code")).map(str::to_owned);
        assert_eq!((name("BTC"), name("XRP")), (usual("BTC", "USD"), None));
    }
}
