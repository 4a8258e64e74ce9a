//! Cache of items by id, in this process or shared through Redis, that cannot be filled with an outdated row.
//!
//! On a miss the reader takes a lease and loads the row. It may fill the cache only while it still holds the lease
//! (memcache leases). Every write removes the entry *and the lease* after its commit. A fill with a row that was read
//! before the write is therefore refused, however late it comes. This needs no clock, marker or tombstone that could
//! expire too early. When Redis is emptied, the leases are lost together with the entries. A removal may come late or
//! several times without harm.
//!
//! A process loads an id once at a time. So a lease of its own that a new load meets is abandoned: its load or its fill
//! failed, or Redis granted it too late. The new load takes it over, and the number of the old lease fills nothing.

mod entry;
pub mod memory;
pub mod redis;

pub use self::entry::{CacheError, Entry, Lease, Lookup};
use self::{memory::Memory, redis::Redis};
use super::item::ItemId;

/// A cache of items.
pub enum Cache {
    /// In this process.
    Memory(Memory),
    /// Shared by all processes.
    Redis(Redis),
}

impl Cache {
    /// Looks an id up without taking a lease.
    ///
    /// # Errors
    /// When Redis is not available; the cache in memory never fails.
    pub async fn peek(&self, id: ItemId) -> Result<Lookup, CacheError> {
        match self {
            Self::Memory(memory) => Ok(memory.peek(id)),
            Self::Redis(redis) => redis.peek(id).await,
        }
    }

    /// Looks an id up, and takes a lease if it is not cached. A lease of this process is taken over.
    ///
    /// # Errors
    /// When Redis is not available.
    pub async fn lease(&self, id: ItemId) -> Result<Lookup, CacheError> {
        match self {
            Self::Memory(memory) => Ok(memory.lease(id)),
            Self::Redis(redis) => redis.lease(id).await,
        }
    }

    /// Caches what was read under a lease. Returns `false` if the lease is no longer valid: the entry may be older than
    /// a write.
    ///
    /// # Errors
    /// When Redis is not available.
    pub async fn fill(&self, id: ItemId, lease: Lease, entry: Entry) -> Result<bool, CacheError> {
        match self {
            Self::Memory(memory) => Ok(memory.fill(id, lease, entry)),
            Self::Redis(redis) => redis.fill(id, lease, entry).await,
        }
    }

    /// Removes an id and its lease.
    ///
    /// # Errors
    /// When Redis is not available.
    pub async fn remove(&self, id: ItemId) -> Result<(), CacheError> {
        match self {
            Self::Memory(memory) => {
                memory.remove(id);
                Ok(())
            }
            Self::Redis(redis) => redis.remove(id).await,
        }
    }

    /// Whether other processes see the entries of this one.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Redis(_))
    }
}
