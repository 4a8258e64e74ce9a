//! The prices of the stand-in: one curve over time, with exceptions that a test makes.

use std::collections::{HashMap, HashSet};

use jobs::prices::model::ProviderId;

use super::Fault;

/// One bucket, every price as text.
#[derive(Debug, Clone)]
pub struct Row {
    /// Unix seconds; `time_suffix` follows the number as the source writes it.
    pub time: i64,
    pub open: String,
    pub high: String,
    pub low: String,
    pub close: String,
    /// The time comes in microseconds.
    pub micros: bool,
}

#[derive(Debug, Clone)]
pub struct Table {
    /// Cents of each asset in each currency.
    cents: HashMap<(&'static str, &'static str), i64>,
    spots: HashMap<(String, String), String>,
    prices: HashMap<(String, String, i64), String>,
    /// Moments whose price a source does not have; `None` stands for every source.
    missing: HashSet<(Option<ProviderId>, i64)>,
    /// Codes that exchanges list although they have no pair of them.
    pub gone: Vec<&'static str>,
    /// The first bucket starts so many days ago.
    pub days: i64,
    /// The time of the request, in Unix seconds.
    now: i64,
}

impl Default for Table {
    fn default() -> Self {
        let mut cents = HashMap::new();
        for (asset, price) in [("bitcoin", 10_366_312), ("ethereum", 251_250), ("solana", 16_823), ("pepecoin", 312)] {
            for (currency, of_hundred) in [("usd", 100), ("eur", 90), ("usdt", 101)] {
                cents.insert((asset, currency), price * of_hundred / 100);
            }
        }
        Self {
            cents,
            spots: HashMap::new(),
            prices: HashMap::new(),
            missing: HashSet::new(),
            gone: Vec::new(),
            days: 2000,
            now: 0,
        }
    }
}

fn text(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

impl Table {
    fn cents(&self, asset: &str, currency: &str) -> Option<i64> {
        self.cents.iter().find(|((a, c), _)| (*a, *c) == (asset, currency)).map(|(_, cents)| *cents)
    }

    /// The table as it is at this time.
    pub fn at(&self, now: i64) -> Self {
        Self { now, ..self.clone() }
    }

    /// The time of the request, in Unix seconds.
    pub fn now(&self) -> i64 {
        self.now
    }

    /// Changes a present price.
    pub fn set_spot(&mut self, asset: &str, currency: &str, price: &str) {
        self.spots.insert((asset.into(), currency.into()), price.into());
    }

    /// Changes the price of a moment: the close of each bucket that ends then.
    pub fn set_price(&mut self, asset: &str, currency: &str, moment: i64, price: &str) {
        self.prices.insert((asset.into(), currency.into(), moment), price.into());
    }

    /// Takes the price of a moment away, and with it each bucket that ends then: from every asset, at one source or all.
    pub fn lose(&mut self, source: Option<ProviderId>, moment: i64) {
        self.missing.insert((source, moment));
    }

    /// Gives back what was taken away.
    pub fn find_again(&mut self) {
        self.missing.clear();
    }

    /// Whether a source has the price of a moment.
    pub fn has(&self, source: ProviderId, moment: i64) -> bool {
        !self.missing.contains(&(None, moment)) && !self.missing.contains(&(Some(source), moment))
    }

    /// The present price.
    pub fn spot(&self, asset: &str, currency: &str) -> Option<String> {
        let set = self.spots.get(&(asset.to_owned(), currency.to_owned())).cloned();
        set.or_else(|| self.price(asset, currency, self.now))
    }

    /// The price of a moment: a cent more in each hour, and from the start after a hundred.
    pub fn price(&self, asset: &str, currency: &str, moment: i64) -> Option<String> {
        let set = self.prices.get(&(asset.to_owned(), currency.to_owned(), moment)).cloned();
        set.or_else(|| self.cents(asset, currency).map(|cents| text(cents + moment / 3600 % 100)))
    }

    /// The buckets of this length that start in `from..=to`, the running one included, with what this fault does to
    /// them. `None` for an asset that is not here.
    pub fn rows(
        &self,
        source: ProviderId,
        pair: (&str, &str),
        length: i64,
        span: (i64, i64),
        fault: Option<&Fault>,
    ) -> Option<Vec<Row>> {
        self.series(source, pair, (length, length), span, fault)
    }

    /// The prices of the moments in `from..=to` that are this far apart, as [`Table::rows`].
    pub fn points(
        &self,
        source: ProviderId,
        pair: (&str, &str),
        step: i64,
        span: (i64, i64),
        fault: Option<&Fault>,
    ) -> Option<Vec<Row>> {
        self.series(source, pair, (step, 0), span, fault)
    }

    /// Rows that are `step` apart and have the price `later` than their time.
    fn series(
        &self,
        source: ProviderId,
        (asset, currency): (&str, &str),
        (step, later): (i64, i64),
        (from, to): (i64, i64),
        fault: Option<&Fault>,
    ) -> Option<Vec<Row>> {
        let cents = self.cents(asset, currency)?;
        let stale = if fault == Some(&Fault::Stale) { 10 * 86400 } else { 0 };
        let first = from.max(self.now / 86400 * 86400 - self.days * 86400);
        let first = first + (step - first.rem_euclid(step)) % step;
        let times = (first..=to.min(self.now - stale)).step_by(usize::try_from(step).unwrap());
        let row = |time: i64| {
            let moment = time + later;
            let running = moment > self.now;
            let close = if running { self.spot(asset, currency) } else { self.price(asset, currency, moment) }?;
            // Wide enough for every price that a test sets near the formula's.
            let (low, high) = (cents / 10, cents * 10);
            let row = Row { time, open: text(cents), high: text(high), low: text(low), close, micros: false };
            self.has(source, moment).then_some(row)
        };
        let mut rows: Vec<Row> = times.filter_map(row).collect();
        if let Some(fault) = fault {
            spoil(&mut rows, fault);
        }
        Some(rows)
    }
}

/// Which row a fault is in: a finished one.
fn spoiled(rows: &[Row]) -> usize {
    rows.len() / 2
}

fn spoil(rows: &mut Vec<Row>, fault: &Fault) {
    if rows.len() < 3 {
        return;
    }
    let at = spoiled(rows);
    let row = &mut rows[at];
    match fault {
        Fault::NotANumber => row.close = "NaN".into(),
        Fault::Negative => row.close = "-1.5".into(),
        Fault::Null => row.close = "null".into(),
        Fault::Enormous => row.close = "1e999999999".into(),
        Fault::Inverted => std::mem::swap(&mut row.high, &mut row.low),
        Fault::Microseconds => row.micros = true,
        Fault::Misaligned => row.time += 17,
        Fault::Reordered => rows.reverse(),
        Fault::Duplicated => {
            let copy = row.clone();
            rows.insert(0, copy);
        }
        Fault::Contradicting => {
            let mut copy = row.clone();
            copy.close = copy.open.clone();
            copy.close.push('7');
            rows.push(copy);
        }
        _ => {}
    }
}
