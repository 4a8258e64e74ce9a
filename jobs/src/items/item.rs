//! An item and its parts, and the changes that a caller may request.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::users::UserId;

/// An item's id, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ItemId(pub i64);

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An item at one version. The shared cache stores it in this serialised form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    pub id: ItemId,
    pub owner: Owner,
    pub title: String,
    pub description: Option<String>,
    pub price_cents: Option<i64>,
    /// The number of writes, starting at 1.
    pub version: i64,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// The owner of an item: the public part of a user, without the e-mail address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// A [`UserId`].
    pub id: i64,
    pub full_name: String,
}

/// The contents that a caller gives an item. A write replaces all of them: an absent field becomes empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    pub title: String,
    pub description: Option<String>,
    pub price_cents: Option<i64>,
}

/// The versions that a change may be applied to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Expected {
    /// Any version: the last write wins.
    #[default]
    Any,
    /// One of these.
    Versions(Vec<i64>),
}

impl Expected {
    /// Whether a change may be applied to this version.
    pub fn allows(&self, version: i64) -> bool {
        match self {
            Self::Any => true,
            Self::Versions(versions) => versions.contains(&version),
        }
    }
}

/// A change that a caller requests.
#[derive(Debug, Clone)]
pub struct Change {
    pub id: ItemId,
    /// The caller.
    pub by: UserId,
    pub expected: Expected,
    /// The versions that the change must not be applied to.
    pub unwanted: Option<Expected>,
}

impl Change {
    /// Whether the change may be applied to this version.
    pub fn allows(&self, version: i64) -> bool {
        self.expected.allows(version) && !self.unwanted.as_ref().is_some_and(|unwanted| unwanted.allows(version))
    }
}

/// The result of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeOutcome<T> {
    /// The change and its indexing job are committed.
    Done(T),
    /// There is no such item.
    Unknown,
    /// The item belongs to another user.
    NotYours,
    /// The item has this version, which the preconditions of the change exclude.
    Stale(i64),
}

/// One page of items.
#[derive(Debug, Clone)]
pub struct Page {
    /// The number of items on all pages.
    pub total: i64,
    pub items: Vec<Item>,
}
