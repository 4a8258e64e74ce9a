//! Cache-aside look-up of items by id: on a miss, all concurrent readers share one load from the database.

use std::sync::Arc;

use metrics::{counter, describe_counter};
use moka::{policy::EvictionPolicy, sync};

use super::{
    cache::{Cache, CacheError, Entry, Lookup, redis},
    item::ItemId,
    store,
};
use runtime::{clients::single_flight::SingleFlight, db::Pool, error::Error};

/// Look-ups, by the result of the cache.
const REQUESTS: &str = "millrace_cache_requests_total";
/// Loads from the database. There are fewer loads than misses, because concurrent misses share one load.
const LOADS: &str = "millrace_cache_loads_total";
const CACHE: &str = "items";
/// The limit of remembered ids that this process wrote.
const MAX_OWN_WRITES: u64 = 100_000;
/// How often one look-up loads the row if writes keep ending its lease. The last row is returned, but not cached.
const MAX_LOADS: usize = 2;

/// The version of a deleted item: no later version exists.
pub(super) const DELETED_VERSION: i64 = i64::MAX;

/// Items by id, read through a cache.
pub(super) struct CachedItems {
    pool: Pool,
    cache: Cache,
    loads: SingleFlight<ItemId, Result<Entry, Error>>,
    /// The versions that this process wrote, kept for as long as a shared cache could return older ones. The removal
    /// from the cache may have failed, and a process must always see its own writes.
    own_writes: sync::Cache<ItemId, i64>,
}

impl CachedItems {
    /// Reads through `cache`, and loads from `pool` on a miss.
    pub(super) fn new(pool: &Pool, cache: Cache) -> Self {
        describe_counter!(REQUESTS, "Reads of a cache, by outcome.");
        describe_counter!(LOADS, "Reads of what a cache did not have.");
        for outcome in ["hit", "miss", "error"] {
            counter!(REQUESTS, "cache" => CACHE, "outcome" => outcome).absolute(0);
        }
        counter!(LOADS, "cache" => CACHE).absolute(0);
        let own_writes = sync::Cache::builder().max_capacity(MAX_OWN_WRITES).eviction_policy(EvictionPolicy::lru());
        let own_writes = own_writes.time_to_live(redis::TTL * 2).build();
        Self { pool: pool.clone(), cache, loads: SingleFlight::default(), own_writes }
    }

    /// The item with this id.
    ///
    /// # Errors
    /// When the item is not cached and the database is not available.
    pub(super) async fn find(self: &Arc<Self>, id: ItemId) -> Result<Entry, Error> {
        let lookup = self.cache.peek(id).await;
        let outcome = match &lookup {
            Ok(Lookup::Hit(entry)) if self.is_current(id, entry) => "hit",
            Ok(_) => "miss",
            Err(_) => "error",
        };
        counter!(REQUESTS, "cache" => CACHE, "outcome" => outcome).increment(1);
        match lookup {
            Ok(Lookup::Hit(entry)) if outcome == "hit" => Ok(entry),
            lookup => {
                let (this, is_outdated) = (self.clone(), matches!(lookup, Ok(Lookup::Hit(_))));
                let loaded = self.loads.join(id, move || async move { this.load(id, is_outdated).await });
                loaded.await.unwrap_or_else(|| Err(Error::Internal("a load of an item ended in a panic".into())))
            }
        }
    }

    /// Removes an item from the cache after a committed write. From now on this process returns no older version.
    ///
    /// # Errors
    /// When the shared cache is not available: the indexing job of the write removes the entry later.
    pub(super) async fn invalidate(&self, id: ItemId, version: i64) -> Result<(), CacheError> {
        self.record_write(id, version);
        self.loads.forget(&id);
        self.cache.remove(id).await
    }

    /// Removes an item from the cache if it is shared, for a write whose own removal may have failed.
    ///
    /// # Errors
    /// When the shared cache is not available.
    pub(super) async fn invalidate_shared(&self, id: ItemId) -> Result<(), CacheError> {
        if self.cache.is_shared() { self.cache.remove(id).await } else { Ok(()) }
    }

    async fn load(&self, id: ItemId, is_outdated: bool) -> Result<Entry, Error> {
        if is_outdated {
            // The removal after a write of this process failed, so repeat it. Another failure is ignored: a load does
            // not need the cache.
            let _ = self.cache.remove(id).await;
        }
        let mut found = None;
        for _ in 0..MAX_LOADS {
            let lease = match self.cache.lease(id).await {
                Ok(Lookup::Hit(entry)) if self.is_current(id, &entry) => return Ok(entry),
                Ok(Lookup::Leased(lease)) => Some(lease),
                Ok(Lookup::Hit(_) | Lookup::Missed) | Err(_) => None,
            };
            counter!(LOADS, "cache" => CACHE).increment(1);
            // Before the row is read. Version 0 stands for a commit without a response, which may still happen.
            let is_written = self.own_writes.get(&id).is_some_and(|version| version > 0);
            let entry = store::find(&self.pool, id).await?.map(Arc::new);
            if is_written && entry.is_none() {
                // Another process has deleted it, and no id is used twice. So its absence may be cached.
                self.record_write(id, DELETED_VERSION);
            }
            let is_filled = match lease {
                Some(lease) => self.cache.fill(id, lease, entry.clone()).await.unwrap_or(true),
                None => true,
            };
            found = entry;
            // If the lease has ended, the entry may be older than a write, so that another load is worthwhile.
            if is_filled {
                break;
            }
        }
        Ok(found)
    }

    fn record_write(&self, id: ItemId, version: i64) {
        self.own_writes
            .entry(id)
            .and_upsert_with(|known| known.map_or(version, |known| known.into_value().max(version)));
    }

    /// Whether an entry is at least as new as the last write of this process.
    fn is_current(&self, id: ItemId, entry: &Entry) -> bool {
        match (self.own_writes.get(&id), entry) {
            (None, _) => true,
            (Some(written), Some(item)) => item.version >= written,
            // An absent entry is current only if the item was deleted. Otherwise it is older than the write.
            (Some(written), None) => written == DELETED_VERSION,
        }
    }
}
