//! Where prices come from: one interface, and each source's quirks behind it.
//!
//! | file | what |
//! |---|---|
//! | `coingecko`, `kraken`, `coinbase`, `binance` | what each source is asked, and how its answers are read |
//! | `answer` | rows of JSON, every number as its text |
//! | `caller` | one call: in its turn, tried again when that may help |
//! | `budget` | how often a source may be asked |
//! | `circuit` | whether it may be asked now |
//! | `metrics` | what is counted |

mod answer;
mod binance;
mod budget;
mod caller;
mod circuit;
mod coinbase;
mod coingecko;
mod kraken;
mod metrics;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use time::{OffsetDateTime, macros::datetime};

use self::caller::Caller;
use super::{
    Config,
    model::{AssetId, Candle, Currency, Series, Source, Spot},
    normalise::{Reason, Sheet, Window, present},
};
use crate::{clock::Clock, error::Error};

/// Why a source has not answered with prices. No text has a key or more than a line of what it sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It does not have this asset in this currency, or not at this interval: asking again will not help.
    #[error("{0} does not have it")]
    NotOffered(Source),
    /// Not now: its limits, its ban, or our circuit breaker say so.
    #[error("{source_name} is not to be asked for another {} s: {why}", after.as_secs())]
    Later { source_name: Source, after: std::time::Duration, why: String },
    /// It cannot be reached, is broken, or sends what cannot be read; tried several times.
    #[error("{0}: {1}")]
    Failed(Source, String),
}

/// Finished buckets, in the order of time and each once; what was wrong is left out and told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetched {
    pub candles: Vec<Candle>,
    /// Rows that broke an invariant, each with its reason; they are never stored.
    pub rejected: Vec<String>,
}

/// One source of prices.
pub trait Provider: Send + Sync {
    /// Which one.
    fn source(&self) -> Source;

    /// The finished buckets that start from `from` on and before `to`, as far as the source reaches; all its pages.
    ///
    /// # Errors
    /// Why there are none to be had.
    fn candles<'a>(
        &'a self,
        series: &'a Series,
        from: OffsetDateTime,
        to: OffsetDateTime,
    ) -> BoxFuture<'a, Result<Fetched, Trouble>>;

    /// The present prices of those of these assets that it has, at least one.
    ///
    /// # Errors
    /// As [`Provider::candles`]; [`Trouble::NotOffered`] when it has none of them. An asset whose price is no price is
    /// left out, but when that leaves none, it is [`Trouble::Failed`].
    fn spots<'a>(
        &'a self,
        assets: &'a [AssetId],
        currency: &'a Currency,
    ) -> BoxFuture<'a, Result<Vec<(AssetId, Spot)>, Trouble>>;
}

/// All sources, in the order of preference.
#[derive(Clone)]
pub struct Providers(pub Arc<[Arc<dyn Provider>]>);

impl Providers {
    /// Those that the configuration names.
    ///
    /// # Errors
    /// When an HTTP client cannot be built, or a key is none.
    pub fn start(config: &Config, clock: &Clock) -> Result<Self, Error> {
        let client = caller::client()?;
        let start = |source: &Source| -> Result<Arc<dyn Provider>, Error> {
            let (client, url, clock) = (client.clone(), config.url(*source), clock.clone());
            Ok(match source {
                Source::CoinGecko => {
                    Arc::new(coingecko::CoinGecko::new(client, url, config.coingecko_key.as_ref(), clock)?)
                }
                Source::Kraken => Arc::new(kraken::Kraken::new(client, url, clock)),
                Source::Coinbase => Arc::new(coinbase::Coinbase::new(client, url, clock)),
                Source::Binance => Arc::new(binance::Binance::new(client, url, clock)),
            })
        };
        Ok(Self(config.providers.iter().map(start).collect::<Result<_, _>>()?))
    }
}

/// No source has anything older.
const BEGINNING: OffsetDateTime = datetime!(2009-01-01 0:00 UTC);

/// What is asked of a source now: nothing from before there were prices, and nothing that is still to come.
fn window(caller: &Caller, series: &Series, from: OffsetDateTime, to: OffsetDateTime) -> Window {
    let now = caller.clock.now();
    Window { interval: series.interval, from: from.max(BEGINNING), to: to.min(now), now }
}

/// What the rows of all pages come to.
fn fetched(caller: &Caller, series: &Series, sheet: Sheet) -> Fetched {
    let (candles, rejected) = sheet.finish();
    rejected.iter().for_each(|(reason, _)| caller.series.rejected(*reason));
    if let Some((reason, row)) = rejected.first() {
        let Series { asset, currency, interval } = series;
        tracing::warn!(
            provider = %caller.source, %asset, %currency, interval = interval.as_str(),
            rows = rejected.len(), first = %reason, row, "rows rejected"
        );
    }
    Fetched { candles, rejected: rejected.into_iter().map(|(reason, row)| format!("{reason}: {row}")).collect() }
}

/// A present price as its source told it: of this asset, the price, and when it was that, if it says so.
type Told = (AssetId, Result<(bigdecimal::BigDecimal, Option<OffsetDateTime>), Reason>);

/// The prices among these that are some.
fn spots(caller: &Caller, told: Vec<Told>) -> Result<Vec<(AssetId, Spot)>, Trouble> {
    let now = caller.clock.now();
    let mut found = Vec::with_capacity(told.len());
    let mut wrong = None;
    for (asset, told) in told {
        let source = caller.source;
        let spot = told.and_then(|(price, as_of)| {
            let as_of = as_of.unwrap_or(now);
            present(as_of, now).map(|()| Spot { price, as_of, source })
        });
        match spot {
            Ok(spot) => found.push((asset, spot)),
            Err(reason) => {
                caller.series.rejected(reason);
                tracing::warn!(provider = %source, %asset, %reason, "a present price rejected");
                wrong = Some(format!("its price of {asset} is none: {reason}"));
            }
        }
    }
    match (found.is_empty(), wrong) {
        (true, Some(why)) => Err(Trouble::Failed(caller.source, why)),
        (true, None) => Err(Trouble::NotOffered(caller.source)),
        (false, _) => Ok(found),
    }
}
