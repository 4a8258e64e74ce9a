//! Prices as all sources are brought to: exact decimals, UTC, and where each comes from.

use std::fmt;

use bigdecimal::BigDecimal;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

/// An asset by its canonical id: lower-case letters, digits and hyphens, such as `bitcoin`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AssetId(String);

/// A currency that prices are quoted in, in lower case: `usd`, `eur`. `usdt` is one of its own, and never `usd`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Currency(String);

impl AssetId {
    /// Reads an id as it is written; `None` for what can be none.
    pub fn parse(text: &str) -> Option<Self> {
        let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        ((1..=64).contains(&text.len()) && text.chars().all(known)).then(|| Self(text.to_owned()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Currency {
    /// Reads a code in any case; `None` for what can be none.
    pub fn parse(text: &str) -> Option<Self> {
        let known = (2..=10).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric());
        known.then(|| Self(text.to_ascii_lowercase()))
    }

    /// Its text, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AssetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How far apart the prices of a series are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interval {
    Daily,
    Hourly,
}

impl Interval {
    /// As queries and rows have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Daily => "daily",
            Self::Hourly => "hourly",
        }
    }

    /// Reads its name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Daily, Self::Hourly].into_iter().find(|interval| interval.as_str() == text)
    }

    /// The length of one bucket.
    pub fn length(self) -> Duration {
        match self {
            Self::Daily => Duration::DAY,
            Self::Hourly => Duration::HOUR,
        }
    }

    /// The start of the bucket that a time is in, in UTC.
    pub fn bucket(self, time: OffsetDateTime) -> OffsetDateTime {
        let length = self.length().whole_seconds();
        let start = time.unix_timestamp().div_euclid(length) * length;
        // Every multiple below a time that exists exists too.
        OffsetDateTime::from_unix_timestamp(start).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

/// Who a price is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    CoinGecko,
    Kraken,
    Coinbase,
    Binance,
}

impl Source {
    /// All there are, in the default order of preference.
    pub const ALL: [Self; 4] = [Self::CoinGecko, Self::Kraken, Self::Coinbase, Self::Binance];

    /// As `CRYPTO_PROVIDERS`, rows and answers have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CoinGecko => "coingecko",
            Self::Kraken => "kraken",
            Self::Coinbase => "coinbase",
            Self::Binance => "binance",
        }
    }

    /// Reads its name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.as_str() == text)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happened in one finished bucket, normalised. Sources that only tell a price have no open, high, low or volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candle {
    /// The start of the bucket, in UTC.
    pub bucket: OffsetDateTime,
    pub open: Option<BigDecimal>,
    pub high: Option<BigDecimal>,
    pub low: Option<BigDecimal>,
    /// The price of the bucket.
    pub close: BigDecimal,
    /// What was traded, in units of the asset or of the currency.
    pub volume: Option<Volume>,
}

/// An amount that was traded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Volume {
    /// In units of the asset.
    Base(BigDecimal),
    /// In the currency.
    Quote(BigDecimal),
}

/// The price of an asset at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    pub price: BigDecimal,
    /// When it was the price, by the source; by our clock where the source does not say.
    pub as_of: OffsetDateTime,
    pub source: Source,
}

/// One price of a series as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    pub bucket: OffsetDateTime,
    pub price: BigDecimal,
    pub source: Source,
    pub fetched_at: OffsetDateTime,
}

/// What a series is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Series {
    pub asset: AssetId,
    pub currency: Currency,
    pub interval: Interval,
}
