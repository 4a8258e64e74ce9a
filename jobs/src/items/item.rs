//! An item and its parts, and what a caller may ask to be done with one.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::users::UserId;

/// An item's id: never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ItemId(pub i64);

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An item as it was at one version. Serialized it is what caches of other processes keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    pub id: ItemId,
    pub owner: Owner,
    pub title: String,
    pub description: Option<String>,
    pub price_cents: Option<i64>,
    /// Counts the writes, from 1.
    pub version: i64,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// Whom an item belongs to: as much of a user as anybody may see, so without the e-mail address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// A [`UserId`].
    pub id: i64,
    pub full_name: String,
}

/// What a caller says of an item, whole: what is not said is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    pub title: String,
    pub description: Option<String>,
    pub price_cents: Option<i64>,
}

/// Which versions a change may be made to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Expected {
    /// Whatever is there: the last write wins.
    #[default]
    Any,
    /// One of these.
    Versions(Vec<i64>),
}

impl Expected {
    /// Whether a change may be made to this version.
    pub fn allows(&self, version: i64) -> bool {
        match self {
            Self::Any => true,
            Self::Versions(versions) => versions.contains(&version),
        }
    }
}

/// A change that somebody asks for.
#[derive(Debug, Clone)]
pub struct Change {
    pub id: ItemId,
    /// Who asks.
    pub by: UserId,
    pub expected: Expected,
    /// The versions that it must not be made to.
    pub unwanted: Option<Expected>,
}

impl Change {
    /// Whether it may be made to this version.
    pub fn suits(&self, version: i64) -> bool {
        self.expected.allows(version) && !self.unwanted.as_ref().is_some_and(|unwanted| unwanted.allows(version))
    }
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed<T> {
    /// It is committed, and its indexing with it.
    Done(T),
    /// There is no such item.
    Unknown,
    /// It belongs to somebody else.
    NotYours,
    /// It has this version, to which the change must not be made.
    Stale(i64),
}

/// One page of items.
#[derive(Debug, Clone)]
pub struct Page {
    /// All there are.
    pub total: i64,
    pub items: Vec<Item>,
}
