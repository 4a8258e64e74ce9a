//! What a cache of items stores and returns.

use std::{sync::Arc, time::Duration};

use super::super::item::Item;

/// How long a lease is valid: a load that takes longer does not fill the cache.
pub(super) const LEASE_TTL: Duration = Duration::from_secs(5);

/// The cached state of an id: the item, or `None` if no such item exists.
pub type Entry = Option<Arc<Item>>;

/// The right to fill one entry, until a write removes it.
pub type Lease = u128;

/// The result of a cache look-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The id is cached.
    Hit(Entry),
    /// The id is not cached, and the caller may fill it.
    Leased(Lease),
    /// The id is not cached. With [`Cache::lease`](super::Cache::lease): another process holds the lease.
    Missed,
}

/// The cache is not available. Callers read the database instead.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cache: {0}")]
pub struct CacheError(pub String);

impl From<runtime::clients::redis::Broken> for CacheError {
    fn from(error: runtime::clients::redis::Broken) -> Self {
        Self(error.0)
    }
}
