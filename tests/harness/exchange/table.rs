//! The prices of the stand-in: a formula, with exceptions that a test makes.

use std::collections::{HashMap, HashSet};

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
    closes: HashMap<(String, String, i64), String>,
    missing: HashSet<i64>,
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
        Self { cents, spots: HashMap::new(), closes: HashMap::new(), missing: HashSet::new(), days: 2000, now: 0 }
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

    /// Changes the price of a bucket.
    pub fn set_close(&mut self, asset: &str, currency: &str, bucket: i64, price: &str) {
        self.closes.insert((asset.into(), currency.into(), bucket), price.into());
    }

    /// Takes a bucket away, from every asset.
    pub fn lose(&mut self, bucket: i64) {
        self.missing.insert(bucket);
    }

    /// Gives back what was taken away.
    pub fn find_again(&mut self) {
        self.missing.clear();
    }

    pub fn spot(&self, asset: &str, currency: &str) -> Option<String> {
        let set = self.spots.get(&(asset.to_owned(), currency.to_owned())).cloned();
        set.or_else(|| self.cents(asset, currency).map(text))
    }

    pub fn close(&self, asset: &str, currency: &str, bucket: i64) -> Option<String> {
        let set = self.closes.get(&(asset.to_owned(), currency.to_owned(), bucket)).cloned();
        set.or_else(|| self.cents(asset, currency).map(|cents| text(cents + bucket / 3600 % 100)))
    }

    /// The buckets of this length that start in `from..=to`, the running one included, with what this fault does to
    /// them. `None` for an asset that is not here.
    pub fn rows(
        &self,
        (asset, currency): (&str, &str),
        length: i64,
        (from, to): (i64, i64),
        fault: Option<&Fault>,
    ) -> Option<Vec<Row>> {
        let cents = self.cents(asset, currency)?;
        let stale = if fault == Some(&Fault::Stale) { 10 * 86400 } else { 0 };
        let first = from.max(self.now / 86400 * 86400 - self.days * 86400);
        let first = first + (length - first.rem_euclid(length)) % length;
        let starts = (first..=to.min(self.now - stale)).step_by(usize::try_from(length).unwrap());
        let row = |time: i64| {
            let close = self.close(asset, currency, time)?;
            // Wide enough for every price that a test sets near the formula's.
            let (low, high) = (cents / 10, cents * 10);
            let row = Row { time, open: text(cents), high: text(high), low: text(low), close, micros: false };
            Some(row)
        };
        let mut rows: Vec<Row> = starts.filter(|start| !self.missing.contains(start)).filter_map(row).collect();
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
