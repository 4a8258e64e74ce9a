//! The entries of the cache of prices.

use std::{ops::Range, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;

use super::super::model::Quote;

/// How long entries are kept, fresh or not.
pub const RETENTION: Duration = Duration::from_secs(24 * 3600);

/// Identifies the latest write of a series; 0 when none is known.
pub type Generation = u128;

/// A cache entry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    pub value: Value,
    /// When the entry must be loaded again.
    #[serde(with = "time::serde::timestamp::milliseconds")]
    pub fresh_until: OffsetDateTime,
    /// The generation of the series before it was read.
    pub generation: Generation,
}

/// The value of an entry. The names of variants and fields are the stored form.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Value {
    /// `[[unix_ms,"price"],…]`, as in responses, and how many points up to the bucket `due` are missing.
    Chart {
        prices: Box<RawValue>,
        stale: bool,
        missing: u32,
        #[serde(with = "time::serde::timestamp::milliseconds")]
        due: OffsetDateTime,
    },
    /// A present price.
    Spot(Quote),
    /// The asset or series does not exist.
    Unknown,
    /// Nothing is stored, and no provider could be reached.
    Nothing,
    /// Which buckets were requested from all providers.
    #[serde(rename = "Asked")]
    Coverage(Coverage),
    /// No value; only the generation is used.
    Mark,
}

impl Value {
    /// Whether PostgreSQL does not have it. Without it, the next reader calls the providers again.
    pub fn is_only_cached(&self) -> bool {
        match self {
            Self::Chart { .. } => false,
            Self::Spot(quote) => quote.stale,
            Self::Unknown | Self::Nothing | Self::Coverage(_) | Self::Mark => true,
        }
    }
}

/// Which buckets of a series were requested from the providers, and when they may be requested again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// The buckets that all providers were asked for. What is missing there, no provider has.
    #[serde(with = "time::serde::timestamp::milliseconds")]
    pub from: OffsetDateTime,
    #[serde(with = "time::serde::timestamp::milliseconds")]
    pub to: OffsetDateTime,
    /// Until when no provider is called for buckets from `tried_from` on.
    #[serde(with = "time::serde::timestamp::milliseconds")]
    pub pause_until: OffsetDateTime,
    #[serde(with = "time::serde::timestamp::milliseconds")]
    pub tried_from: OffsetDateTime,
    /// A provider that may have more buckets failed.
    pub failed: bool,
    /// A provider offers the series.
    pub offered: bool,
}

impl Coverage {
    /// No provider was called.
    pub fn none(now: OffsetDateTime) -> Self {
        Self { from: now, to: now, pause_until: now, tried_from: now, failed: false, offered: false }
    }

    /// The buckets that all providers were asked for.
    pub fn known(&self) -> Range<OffsetDateTime> {
        self.from..self.to
    }

    /// Whether it is too early to request buckets from `from` on.
    pub fn is_paused(&self, from: OffsetDateTime, now: OffsetDateTime) -> bool {
        now < self.pause_until && self.tried_from <= from
    }

    /// Adds buckets that all providers were asked for.
    #[must_use]
    pub fn extended(self, (from, to): (OffsetDateTime, OffsetDateTime)) -> Self {
        let touches = self.from < self.to && from <= self.to && self.from <= to;
        if touches {
            Self { from: from.min(self.from), to: to.max(self.to), ..self }
        } else {
            Self { from, to, ..self }
        }
    }

    /// Sets the time until which no provider is called.
    #[must_use]
    pub fn with_pause(self, until: OffsetDateTime) -> Self {
        Self { pause_until: until, ..self }
    }
}
