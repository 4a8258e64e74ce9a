//! Answers that are kept for whoever asks next, in this process or shared through Redis; never the truth.
//!
//! An entry says until when it is fresh. It is kept longer than that, for the time in which nothing better is to be had.
//! The entries of a series carry the series' generation, and every write of the series begins a new one: so an entry
//! that was read before a write is known to be old, however late it comes.
//!
//! | file | what |
//! |---|---|
//! | [`memory`] | in this process, bounded; other processes cannot reach it, so nothing in it is fresh for long |
//! | [`redis`] | shared; a dead one costs no more than one short wait a second |

pub mod memory;
pub mod redis;

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;

use super::{model::Series, read::Quote};
use crate::remote::redis::Broken;

/// How long entries are kept, fresh or not.
pub const KEPT: Duration = Duration::from_secs(24 * 3600);

/// One of the writes of a series, as it is told from the others; 0 before the first one that is remembered.
pub type Generation = u128;

/// What is kept under one key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    pub value: Value,
    /// Until when it is as good as asking again.
    #[serde(with = "time::serde::timestamp::milliseconds")]
    pub fresh_until: OffsetDateTime,
    /// The series' generation before it was read.
    pub generation: Generation,
}

/// What an entry says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Value {
    /// `[[unix_ms,"price"],…]`, as it is shown; how many points up to the bucket `due` are missing.
    Chart {
        prices: Box<RawValue>,
        stale: bool,
        missing: u32,
        #[serde(with = "time::serde::timestamp::milliseconds")]
        due: OffsetDateTime,
    },
    /// A present price.
    Spot(Quote),
    /// There is no such thing.
    Unknown,
    /// There is nothing to show, and nobody could be asked.
    Nothing,
    /// How far the sources were asked for a series.
    Asked(Asked),
    /// Only the generation counts.
    Mark,
}

/// What is known of asking the sources for a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Buckets that all sources were asked for: what is missing there they do not have.
    #[serde(with = "time::serde::timestamp::milliseconds")]
    pub from: OffsetDateTime,
    #[serde(with = "time::serde::timestamp::milliseconds")]
    pub to: OffsetDateTime,
    /// Until when nobody is asked again for what is missing from `tried_from` on.
    #[serde(with = "time::serde::timestamp::milliseconds")]
    pub pause_until: OffsetDateTime,
    #[serde(with = "time::serde::timestamp::milliseconds")]
    pub tried_from: OffsetDateTime,
    /// Somebody who might have more could not be asked.
    pub failed: bool,
    /// Somebody offers the series.
    pub offered: bool,
}

impl Asked {
    /// Nobody was asked for anything.
    pub fn nothing(now: OffsetDateTime) -> Self {
        Self { from: now, to: now, pause_until: now, tried_from: now, failed: false, offered: false }
    }

    /// Whether it is too early to ask for what is missing from here on.
    pub fn is_paused(&self, from: OffsetDateTime, now: OffsetDateTime) -> bool {
        now < self.pause_until && self.tried_from <= from
    }

    /// All sources were asked for these buckets too.
    #[must_use]
    pub fn widened(self, (from, to): (OffsetDateTime, OffsetDateTime)) -> Self {
        let touches = self.from < self.to && from <= self.to && self.from <= to;
        if touches {
            Self { from: from.min(self.from), to: to.max(self.to), ..self }
        } else {
            Self { from, to, ..self }
        }
    }

    /// Nobody is asked until then.
    #[must_use]
    pub fn paused(self, until: OffsetDateTime) -> Self {
        Self { pause_until: until, ..self }
    }
}

/// The contract's key of a chart; `days` is a number or `max`.
pub fn chart_key(series: &Series, days: &str) -> String {
    format!("{}:{days}", series_key(series))
}

/// The key of the asset's present price.
pub fn spot_key(asset: &str, currency: &str) -> String {
    format!("{asset}:{currency}:spot:0")
}

/// Where a series' generation is kept.
pub fn generation_key(series: &Series) -> String {
    format!("{}:generation", series_key(series))
}

/// Where a series' [`Asked`] is kept.
pub fn asked_key(series: &Series) -> String {
    format!("{}:asked", series_key(series))
}

fn series_key(Series { asset, currency, interval }: &Series) -> String {
    format!("{asset}:{currency}:{}", interval.as_str())
}

/// A cache of answers.
pub trait Cache: Send + Sync {
    /// What is kept under these keys, each in its place.
    fn get<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Result<Vec<Option<Arc<Entry>>>, Broken>>;
    /// Keeps an entry.
    fn put<'a>(&'a self, key: &'a str, entry: Arc<Entry>) -> BoxFuture<'a, Result<(), Broken>>;
    /// Takes the turn at each of these keys that is free, for at most `life`: whether it did, each in its place.
    fn take<'a>(&'a self, keys: &'a [String], token: u128, life: Duration) -> BoxFuture<'a, Result<Vec<bool>, Broken>>;
    /// Gives back what was taken with this token.
    fn give_back<'a>(&'a self, keys: &'a [String], token: u128) -> BoxFuture<'a, Result<(), Broken>>;
    /// Whether other processes see what this one keeps.
    fn is_shared(&self) -> bool;
}
