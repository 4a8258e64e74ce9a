//! The prices of the fake providers: one curve over time, with exceptions set by a test.

use std::collections::{HashMap, HashSet};

use jobs::prices::model::ProviderId;

use super::Fault;

/// One bucket. All prices are texts.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// Unix seconds.
    pub time: i64,
    pub open: String,
    pub high: String,
    pub low: String,
    pub close: String,
    /// Whether the provider writes the time in microseconds.
    pub micros: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Table {
    /// The base price of each asset in each currency, in cents.
    cents: HashMap<(&'static str, &'static str), i64>,
    spots: HashMap<(String, String), String>,
    prices: HashMap<(String, String, i64), String>,
    /// Times at which a provider has no price. `None` means every provider.
    missing: HashSet<(Option<ProviderId>, i64)>,
    /// Codes that exchanges list although they have no prices for them.
    pub delisted: Vec<&'static str>,
    /// How many days ago the first bucket starts.
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
            delisted: Vec::new(),
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

    /// Returns the table at this time.
    pub(crate) fn at(&self, now: i64) -> Self {
        Self { now, ..self.clone() }
    }

    /// The time of the request, in Unix seconds.
    pub(crate) fn now(&self) -> i64 {
        self.now
    }

    /// Sets a current price.
    pub(crate) fn set_spot(&mut self, asset: &str, currency: &str, price: &str) {
        self.spots.insert((asset.into(), currency.into()), price.into());
    }

    /// Sets the price at a time, which is the close of every bucket that ends then.
    pub(crate) fn set_price(&mut self, asset: &str, currency: &str, time: i64, price: &str) {
        self.prices.insert((asset.into(), currency.into(), time), price.into());
    }

    /// Removes the price at a time for every asset, and with it every bucket that ends then. `None` means every provider.
    pub(crate) fn remove_price(&mut self, provider: Option<ProviderId>, time: i64) {
        self.missing.insert((provider, time));
    }

    /// Restores every removed price.
    pub(crate) fn restore_prices(&mut self) {
        self.missing.clear();
    }

    /// Returns whether a provider has the price at a time.
    pub(crate) fn has_price(&self, provider: ProviderId, time: i64) -> bool {
        !self.missing.contains(&(None, time)) && !self.missing.contains(&(Some(provider), time))
    }

    /// The current price.
    pub(crate) fn spot(&self, asset: &str, currency: &str) -> Option<String> {
        let set = self.spots.get(&(asset.to_owned(), currency.to_owned())).cloned();
        set.or_else(|| self.price(asset, currency, self.now))
    }

    /// The price at a time: one cent more each hour, and back to the base price every 100 hours.
    pub(crate) fn price(&self, asset: &str, currency: &str, time: i64) -> Option<String> {
        let set = self.prices.get(&(asset.to_owned(), currency.to_owned(), time)).cloned();
        set.or_else(|| self.cents(asset, currency).map(|cents| text(cents + time / 3600 % 100)))
    }

    /// The buckets of this length that start in `from..=to`, the current one included, with this fault applied.
    /// `None` for an unknown asset.
    pub(crate) fn rows(
        &self,
        provider: ProviderId,
        pair: (&str, &str),
        length: i64,
        span: (i64, i64),
        fault: Option<&Fault>,
    ) -> Option<Vec<Row>> {
        self.series(provider, pair, (length, length), span, fault)
    }

    /// The prices at the times in `from..=to`, `step` seconds apart. Otherwise as [`Table::rows`].
    pub(crate) fn points(
        &self,
        provider: ProviderId,
        pair: (&str, &str),
        step: i64,
        span: (i64, i64),
        fault: Option<&Fault>,
    ) -> Option<Vec<Row>> {
        self.series(provider, pair, (step, 0), span, fault)
    }

    /// Rows that are `step` seconds apart. Each has the price `later` seconds after its time.
    fn series(
        &self,
        provider: ProviderId,
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
            let current = moment > self.now;
            let close = if current { self.spot(asset, currency) } else { self.price(asset, currency, moment) }?;
            // Wide enough for every price that a test sets close to the curve.
            let (low, high) = (cents / 10, cents * 10);
            let row = Row { time, open: text(cents), high: text(high), low: text(low), close, micros: false };
            self.has_price(provider, moment).then_some(row)
        };
        let mut rows: Vec<Row> = times.filter_map(row).collect();
        if let Some(fault) = fault {
            apply_to_rows(&mut rows, fault);
        }
        Some(rows)
    }
}

/// Applies a fault to one row in the middle, whose bucket has ended.
fn apply_to_rows(rows: &mut Vec<Row>, fault: &Fault) {
    if rows.len() < 3 {
        return;
    }
    let at = rows.len() / 2;
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
