//! What is searched and what is found.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// An item as a search shows it; its version orders the writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    pub id: i64,
    /// Of the item: an older one never replaces a newer one.
    pub version: i64,
    pub title: String,
    pub description: Option<String>,
    pub price_cents: Option<i64>,
    pub owner_id: i64,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// A document that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    pub document: Document,
    /// Where it matches: HTML, in which everything is escaped but the `<em>` around what was searched for.
    pub highlight: String,
}

/// What a search found, best first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// How many match, the ones beyond the limit included; counted up to [`COUNTED`].
    pub total: i64,
    pub hits: Vec<Hit>,
}

/// Up to here matches are counted and ranked. A word that nearly every item has would cost a look at each of them:
/// 105 ms of 100,000, instead of 23.
pub const COUNTED: i64 = 5_000;
