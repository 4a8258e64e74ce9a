//! The data of prices: exact decimals, times in UTC, and the provider of each price.

use std::fmt;

use bigdecimal::BigDecimal;
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr};
use time::{Date, Duration, OffsetDateTime};

/// The canonical id of an asset, such as `bitcoin`: letters, digits, hyphens, underscores and dots. Those of providers have
/// lower-case letters; an id with others is unknown to them, and not invalid.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AssetId(String);

/// A currency that prices are quoted in, in lower case: `usd`, `eur`. `usdt` is a different currency from `usd`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Currency(String);

impl AssetId {
    /// The rule of [`Self::parse`].
    pub(super) const RULE: &str = "1 to 64 letters, digits, hyphens, underscores and dots";

    /// Parses an id. Returns `None` when the text is not a valid id.
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        ((1..=64).contains(&text.len()) && text.chars().all(allowed)).then(|| Self(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a provider may know the id. One of dots alone names no asset, and would lead to another path of a URL.
    pub(super) fn may_exist(&self) -> bool {
        self.0.contains(|c| c != '.')
    }
}

impl Currency {
    /// The rule of [`Self::parse`].
    pub(super) const RULE: &str = "2 to 10 letters and digits";

    /// Parses a code in any case. Returns `None` when the text is not a valid code.
    pub fn parse(text: &str) -> Option<Self> {
        let known = (2..=10).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric());
        known.then(|| Self(text.to_ascii_lowercase()))
    }

    /// The code in lower case.
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

/// The length of the buckets of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Interval {
    Daily,
    Hourly,
}

impl Interval {
    /// The name, as queries and rows contain it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The length of one bucket.
    pub fn length(self) -> Duration {
        match self {
            Self::Daily => Duration::DAY,
            Self::Hourly => Duration::HOUR,
        }
    }

    /// The start of the bucket that contains `time`, in UTC.
    pub fn bucket(self, time: OffsetDateTime) -> OffsetDateTime {
        let length = self.length().whole_seconds();
        let start = time.unix_timestamp().div_euclid(length) * length;
        // Rounding down a valid time gives a valid time.
        OffsetDateTime::from_unix_timestamp(start).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

/// A provider of prices.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    strum::Display,
    EnumString,
    IntoStaticStr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum ProviderId {
    CoinGecko,
    Kraken,
    Coinbase,
    Binance,
}

impl ProviderId {
    /// All providers, in the default order of preference.
    pub const ALL: [Self; 4] = [Self::CoinGecko, Self::Kraken, Self::Coinbase, Self::Binance];

    /// The name, as `CRYPTO_PROVIDERS`, rows and responses contain it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Parses a name.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// The SHA-256 of the body of a response.
pub type BodyHash = [u8; 32];

/// The prices of one finished bucket. Providers that only report prices have no open, high, low or volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candle {
    /// The start of the bucket, in UTC.
    pub bucket: OffsetDateTime,
    pub open: Option<BigDecimal>,
    pub high: Option<BigDecimal>,
    pub low: Option<BigDecimal>,
    /// The price at the end of the bucket.
    pub close: BigDecimal,
    /// The traded amount, in units of the asset.
    pub volume: Option<BigDecimal>,
    /// The hash of the response that contained the row.
    pub body_sha256: Option<BodyHash>,
}

/// The price of an asset at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    pub price: BigDecimal,
    /// The time of the price, by the clock of the provider.
    pub as_of: OffsetDateTime,
    pub provider: ProviderId,
    /// The hash of the response that contained the price. `None` when the price is read from the database.
    pub body_sha256: Option<BodyHash>,
}

/// One stored price of a series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    pub bucket: OffsetDateTime,
    pub price: BigDecimal,
}

/// The key of a series of prices.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Series {
    pub asset: AssetId,
    pub currency: Currency,
    pub interval: Interval,
}

/// The price of an asset at one moment, as readers see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// Decimal digits, without an exponent.
    pub price: String,
    #[serde(with = "time::serde::rfc3339")]
    pub as_of: OffsetDateTime,
    #[serde(rename = "source")]
    pub provider: ProviderId,
    /// A newer price should exist, but could not be fetched.
    pub stale: bool,
}

// The format is fixed here because payloads are stored; the default of the crate depends on its features.
time::serde::format_description!(iso_date, Date, "[year]-[month]-[day]");

/// The job that fetches the daily prices of an asset up to a day, from one provider.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FetchPrices {
    /// The day of the fetch; it stores the prices of the days before.
    #[serde(with = "iso_date")]
    pub day: Date,
    pub asset: AssetId,
    #[serde(rename = "source")]
    pub provider: ProviderId,
}
