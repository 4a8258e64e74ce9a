//! Copies of items by id, in this process or shared through Redis, that never show what was dropped.
//!
//! A cache is filled under a lease: who misses takes one, reads the row, and fills only if the lease still stands. Every
//! write drops the entry *and the lease* after its commit. So however late a load or its fill comes, what it read before
//! the write is refused, without any clock, marker or tombstone that could end too early; and when Redis is emptied, the
//! leases are gone with the entries. A drop can come late and often: it makes nothing wrong.
//!
//! | file | what |
//! |---|---|
//! | [`memory`] | in this process: bounded, and short, since other processes cannot drop from it |
//! | [`redis`] | shared; a dead one costs no more than one wait a second |

pub mod memory;
pub mod redis;

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

use super::item::{Item, ItemId};

/// How long a lease stands: loads that take longer do not fill.
pub const LEASE: Duration = Duration::from_secs(5);

/// What is kept of an id: the item, or that there is none.
pub type Entry = Option<Arc<Item>>;

/// The right to fill one entry, until somebody drops it.
pub type Lease = u128;

/// What a look-up came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked {
    /// It is kept.
    Hit(Entry),
    /// It is not; who asked may fill it.
    Leased(Lease),
    /// It is not, and somebody else is about to fill it.
    Missed,
}

/// The cache cannot be asked now. Its caller does without.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cache: {0}")]
pub struct Broken(pub String);

impl From<crate::remote::redis::Broken> for Broken {
    fn from(broken: crate::remote::redis::Broken) -> Self {
        Self(broken.0)
    }
}

/// A cache of items.
pub trait Cache: Send + Sync {
    /// What is kept of an id.
    fn peek(&self, id: ItemId) -> BoxFuture<'_, Result<Looked, Broken>>;
    /// What is kept of an id, or a lease to fill it.
    fn lease(&self, id: ItemId) -> BoxFuture<'_, Result<Looked, Broken>>;
    /// Keeps what was read under a lease; `false` when the lease no longer stands: it may be older than a write.
    fn fill(&self, id: ItemId, lease: Lease, entry: Entry) -> BoxFuture<'_, Result<bool, Broken>>;
    /// Forgets an id and ends its lease.
    fn forget(&self, id: ItemId) -> BoxFuture<'_, Result<(), Broken>>;
    /// Whether other processes see what this one fills.
    fn is_shared(&self) -> bool;
}
