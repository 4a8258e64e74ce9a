//! Binance: at most 1,000 rows a call, times in milliseconds, prices as text, and bans of an address for two minutes up.
//!
//! It quotes in `usdt` and `eur`, and has no dollar. 418 is its ban; 403 is the firewall before it. A pair that it has
//! given up keeps its last price for years: only the time of the price shows it.

use std::{slice, time::Duration};

use futures_util::future::BoxFuture;
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use time::OffsetDateTime;

use super::{
    Names, Pages, Provider, Spots, Trouble, answer,
    budget::Allowance,
    caller::{Caller, Manner, Verdict},
    listing::{PairNames, Pairs},
    pages::{cut, load, window},
    spots::{ReportedPrice, add, one_by_one},
};
use crate::{
    clock::Clock,
    prices::{
        model::{AssetId, Currency, Interval, Series, Source},
        normalise::{Raw, Reason, Sheet, Unit, Window, positive, time},
    },
};

/// 6,000 units of weight a minute are granted, and no call of ours but the list of a day costs more than 4.
const ALLOWANCE: Allowance = Allowance { every: Duration::from_millis(200), burst: 40 };
/// Its limits are counted by the minute.
const REST: Duration = Duration::from_secs(60);
const ROWS: i32 = 1000;
/// Tickers in one call: with more, its weight is twenty times as much.
const TICKERS: usize = 20;
const INVALID_SYMBOL: i64 = -1121;
const TOO_MANY_REQUESTS: i64 = -1003;
/// The pairs that are traded, without the rights of accounts, which are the larger part.
const PAIRS: &str = "api/v3/exchangeInfo?symbolStatus=TRADING&showPermissionSets=false";

/// The source.
pub struct Binance {
    caller: Caller,
    pairs: PairNames,
}

#[derive(Deserialize)]
struct Refusal {
    code: i64,
}

/// Its last price, and the time of it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ticker<'a> {
    symbol: String,
    #[serde(borrow)]
    last_price: Option<answer::Field<'a>>,
    #[serde(borrow)]
    close_time: Option<answer::Field<'a>>,
    /// Trades of the last 24 hours.
    count: Option<u64>,
}

#[derive(Deserialize)]
struct Info<'a> {
    #[serde(borrow)]
    symbols: Vec<answer::Field<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Symbol {
    symbol: String,
    status: String,
    base_asset: String,
    quote_asset: String,
}

impl Binance {
    pub fn new(client: Client, url: &str, clock: Clock) -> Self {
        let manner = Manner { allowance: ALLOWANCE, rest: REST, key: None };
        let caller = Caller::new(Source::Binance, client, url, clock, manner);
        Self { caller, pairs: PairNames::new(usual) }
    }

    async fn list(&self) -> Result<Pairs, Trouble> {
        self.caller.get(PAIRS, listed).await
    }

    async fn page(&self, series: &Series, page: Window) -> Result<Sheet, Trouble> {
        let pair = self.pairs.name(self.list(), &series.asset, &series.currency).await;
        let pair = pair.ok_or(Trouble::NotOffered(Source::Binance))?;
        let interval = match series.interval {
            Interval::Daily => "1d",
            Interval::Hourly => "1h",
        };
        let (first, last) = (millis(page.from), millis(page.to) - 1);
        let path =
            format!("api/v3/klines?symbol={pair}&interval={interval}&startTime={first}&endTime={last}&limit={ROWS}");
        self.caller.get(&path, |status, body| klines(status, body, page)).await
    }

    async fn present(&self, assets: &[AssetId], currency: &Currency) -> Spots {
        let pairs = self.pairs.of(self.list(), assets, currency).await;
        let mut spots = Spots::default();
        for pairs in pairs.chunks(TICKERS) {
            match self.tickers(pairs).await {
                Ok(reported) => add(&self.caller, &mut spots, reported),
                // One unknown symbol fails them all.
                Err(Trouble::NotOffered(_)) => {
                    let ask = move |symbol: String| async move {
                        let pair = pairs.iter().find(|(_, name)| *name == symbol);
                        let reported = self.tickers(pair.map_or(&[], slice::from_ref)).await?;
                        Ok::<ReportedPrice, Trouble>(reported.into_iter().next().map_or(Ok(None), |(_, price)| price))
                    };
                    let alone = one_by_one(&self.caller, pairs.to_vec(), ask).await;
                    spots.found.extend(alone.found);
                    spots.failed.extend(alone.failed);
                }
                Err(trouble) => {
                    spots.failed.extend(Spots::failed(pairs.iter().map(|(asset, _)| asset), &trouble).failed);
                }
            }
        }
        spots
    }

    async fn tickers(&self, pairs: &[(AssetId, String)]) -> Result<Vec<(AssetId, ReportedPrice)>, Trouble> {
        let names: Vec<String> = pairs.iter().map(|(_, name)| format!("%22{name}%22")).collect();
        let path = format!("api/v3/ticker/24hr?type=MINI&symbols=%5B{}%5D", names.join(","));
        self.caller.get(&path, |status, body| tickers(status, body, pairs)).await
    }
}

fn millis(time: OffsetDateTime) -> i64 {
    time.unix_timestamp().saturating_mul(1000)
}

/// It has no dollar.
fn usual(base: &str, quote: &str) -> Option<String> {
    (quote != "USD").then(|| format!("{base}{quote}"))
}

fn listed(status: StatusCode, body: &str) -> Verdict<Pairs> {
    if let Some(refusal) = refusal(status, body) {
        return refusal;
    }
    let info: Info<'_> = match answer::read(body) {
        Ok(info) => info,
        Err(verdict) => return verdict,
    };
    let mut pairs = Pairs::default();
    // A pair that is halted or given up has no present price. One of another form is no pair of ours.
    let symbols = info.symbols.iter().filter_map(|symbol| serde_json::from_str::<Symbol>(symbol.get()).ok());
    for pair in symbols.filter(|pair| pair.status == "TRADING") {
        pairs.add(&pair.base_asset, &pair.quote_asset, &pair.symbol);
    }
    Verdict::Answer(pairs)
}

fn klines(status: StatusCode, body: &str, page: Window) -> Verdict<Sheet> {
    if let Some(refusal) = refusal(status, body) {
        return refusal;
    }
    let rows: Vec<answer::Field<'_>> = match answer::read(body) {
        Ok(rows) => rows,
        Err(verdict) => return verdict,
    };
    let mut sheet = Sheet::new(page);
    for row in rows {
        match answer::fields(row) {
            // The ninth is the number of trades; without any, the price is that of an earlier time.
            Some([_, _, _, _, _, _, _, _, "0"]) => {}
            Some([time, open, high, low, close, volume, _, _, _]) => {
                sheet.row(Raw { time, unit: Unit::Millis, open, high, low, close, volume });
            }
            None => sheet.reject(Reason::Shape, row.get()),
        }
    }
    Verdict::Answer(sheet)
}

fn tickers(status: StatusCode, body: &str, pairs: &[(AssetId, String)]) -> Verdict<Vec<(AssetId, ReportedPrice)>> {
    if let Some(refusal) = refusal(status, body) {
        return refusal;
    }
    let tickers: Vec<Ticker<'_>> = match answer::read(body) {
        Ok(tickers) => tickers,
        Err(verdict) => return verdict,
    };
    let reported = tickers.iter().filter_map(|ticker| {
        let (asset, _) = pairs.iter().find(|(_, name)| *name == ticker.symbol)?;
        Some((asset.clone(), price(ticker)))
    });
    Verdict::Answer(reported.collect())
}

fn price(ticker: &Ticker<'_>) -> ReportedPrice {
    match (ticker.last_price, ticker.close_time, ticker.count) {
        // Without a trade in its window, the price is older than the window.
        (None, ..) | (_, None, _) | (.., Some(0)) => Ok(None),
        (Some(price), Some(at), _) => Ok(Some((positive(answer::text(price))?, time(answer::text(at), Unit::Millis)?))),
    }
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

    fn candles<'a>(&'a self, series: &'a Series, from: OffsetDateTime, to: OffsetDateTime) -> Pages<'a> {
        let pages = cut(window(&self.caller, series, from, to), ROWS);
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
        let Verdict::Answer(sheet) = klines(StatusCode::OK, body, WINDOW) else { panic!("no rows") };
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
        let Verdict::Answer(sheet) = klines(StatusCode::OK, body, WINDOW) else { panic!("no rows") };
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

    #[test]
    fn a_candle_without_trades_is_left_out() {
        let body = r#"[[1710201600000,"5","6","4","5","1",1710287999999,"1",7,"1","1","0"],
            [1710288000000,"5","5","5","5","0.00000000",1710374399999,"0",0,"0","0","0"]]"#;
        let Verdict::Answer(sheet) = klines(StatusCode::OK, body, WINDOW) else { panic!("no rows") };
        let (candles, rejected) = sheet.finish();
        assert_eq!((candles.len(), rejected), (1, vec![]));
        assert_eq!(candles[0].bucket, datetime!(2024-03-12 0:00 UTC));
    }

    #[test]
    fn a_price_has_the_exchanges_time_or_is_left_out() {
        let asset = AssetId::parse("bitcoin").expect("an id");
        let read = |fields: &str| {
            let body = format!(r#"[{{"symbol":"BTCEUR",{fields}}}]"#);
            let pairs = [(asset.clone(), "BTCEUR".to_owned())];
            let Verdict::Answer(mut reported) = tickers(StatusCode::OK, &body, &pairs) else { panic!("no price") };
            reported.pop().expect("a ticker").1.map(|price| price.map(|(price, at)| (price.to_string(), at)))
        };
        let at = datetime!(2024-03-13 12:00:00.5 UTC);
        assert_eq!(
            read(r#""lastPrice":"7.50000000","closeTime":1710331200500,"count":3"#),
            Ok(Some(("7.5".into(), at)))
        );
        assert_eq!(read(r#""lastPrice":"7.5","closeTime":1710331200500,"count":0"#), Ok(None), "no trade for a day");
        assert_eq!(read(r#""lastPrice":"7.5","count":3"#), Ok(None), "a price without its time");
        assert_eq!(read(r#""lastPrice":null,"closeTime":1710331200500,"count":3"#), Ok(None));
        assert_eq!(read(r#""lastPrice":"7.5","closeTime":1710331200,"count":3"#), Err(Reason::Time));
        assert_eq!(read(r#""lastPrice":"-7.5","closeTime":1710331200500,"count":3"#), Err(Reason::NotPositive));
    }

    #[test]
    fn only_pairs_that_are_traded_are_listed() {
        let pair = |symbol: &str, status: &str, base: &str| {
            format!(
                r#"{{"symbol":"{symbol}","status":"{status}","baseAsset":"{base}","quoteAsset":"EUR","filters":[]}}"#
            )
        };
        let body =
            format!(r#"{{"symbols":[{},{}]}}"#, pair("BTCEUR", "TRADING", "BTC"), pair("ETHEUR", "BREAK", "ETH"));
        let Verdict::Answer(pairs) = listed(StatusCode::OK, &body) else { panic!("no pairs") };
        let name = |code| pairs.name(code, &Currency::parse("eur").expect("a code")).map(str::to_owned);
        assert_eq!((name("BTC"), name("ETH")), (usual("BTC", "EUR"), None));
        assert_eq!(usual("BTC", "USD"), None, "a coin worth a dollar is not a dollar");
    }
}
