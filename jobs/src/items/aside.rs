//! Looking an item up: from the cache, else loaded once for all who wait, and kept if nobody wrote meanwhile.

use std::sync::Arc;

use metrics::{counter, describe_counter};
use moka::{policy::EvictionPolicy, sync};
use sqlx::PgPool;

use super::{
    cache::{Broken, Cache, Entry, Lease, Looked, redis},
    item::ItemId,
    store,
};
use crate::{boot::db::answered, error::Error, remote::single_flight::SingleFlight};

/// Look-ups, by what the cache came to.
const REQUESTS: &str = "millrace_cache_requests_total";
/// Look-ups that went to the database; fewer than misses, since those at one moment share one.
const LOADS: &str = "millrace_cache_loads_total";
const CACHE: &str = "items";
/// Ids of this process's own writes that are remembered.
const WRITTEN: u64 = 100_000;
/// A load during which somebody wrote is repeated this often; after that its answer is good but not kept.
const LOAD_AGAIN: usize = 2;

/// The cache beside the database.
pub struct Aside {
    pool: PgPool,
    cache: Arc<dyn Cache>,
    flights: SingleFlight<ItemId, Result<Entry, Error>>,
    /// The versions that this process wrote, for as long as a shared cache could show older ones: the drop may have
    /// failed, and its own writes a process shows in any case.
    written: sync::Cache<ItemId, i64>,
}

impl Aside {
    /// Reads from `pool` what `cache` does not have.
    pub fn new(pool: &PgPool, cache: Arc<dyn Cache>) -> Self {
        describe_counter!(REQUESTS, "Reads of a cache, by outcome.");
        describe_counter!(LOADS, "Reads of what a cache did not have.");
        for outcome in ["hit", "miss", "error"] {
            counter!(REQUESTS, "cache" => CACHE, "outcome" => outcome).absolute(0);
        }
        counter!(LOADS, "cache" => CACHE).absolute(0);
        let written = sync::Cache::builder().max_capacity(WRITTEN).eviction_policy(EvictionPolicy::lru());
        let written = written.time_to_live(redis::LIFE * 2).build();
        Self { pool: pool.clone(), cache, flights: SingleFlight::default(), written }
    }

    /// The item with this id.
    ///
    /// # Errors
    /// When the cache does not know and the database cannot be asked now.
    pub async fn find(self: &Arc<Self>, id: ItemId) -> Result<Entry, Error> {
        let looked = self.cache.peek(id).await;
        let outcome = match &looked {
            Ok(Looked::Hit(entry)) if self.is_current(id, entry) => "hit",
            Ok(_) => "miss",
            Err(_) => "error",
        };
        counter!(REQUESTS, "cache" => CACHE, "outcome" => outcome).increment(1);
        match looked {
            Ok(Looked::Hit(entry)) if outcome == "hit" => Ok(entry),
            looked => {
                let (this, outdated) = (self.clone(), matches!(looked, Ok(Looked::Hit(_))));
                let loaded = self.flights.join(id, move || async move { this.load(id, outdated).await });
                loaded.await.unwrap_or_else(|| Err(Error::Internal("a load of an item ended in a panic".into())))
            }
        }
    }

    /// Hears of a committed write: nothing older is shown from here on.
    ///
    /// # Errors
    /// When a shared cache could not be told: the job of the write will tell it.
    pub async fn wrote(&self, id: ItemId, version: i64) -> Result<(), Broken> {
        self.written.entry(id).and_upsert_with(|held| held.map_or(version, |held| held.into_value().max(version)));
        self.flights.forget(&id);
        self.cache.forget(id).await
    }

    /// Drops an item from a cache that others share, on behalf of a write that may not have come to it.
    ///
    /// # Errors
    /// When it cannot be told now.
    pub async fn drop_shared(&self, id: ItemId) -> Result<(), Broken> {
        if self.cache.is_shared() { self.cache.forget(id).await } else { Ok(()) }
    }

    async fn load(&self, id: ItemId, outdated: bool) -> Result<Entry, Error> {
        if outdated {
            // The drop of a write of ours failed, so that it is still owed.
            let _ = self.cache.forget(id).await;
        }
        let mut found = None;
        for _ in 0..LOAD_AGAIN {
            let lease = match self.cache.lease(id).await {
                Ok(Looked::Hit(entry)) if self.is_current(id, &entry) => return Ok(entry),
                Ok(Looked::Leased(lease)) => Some(lease),
                Ok(Looked::Hit(_) | Looked::Missed) | Err(_) => None,
            };
            counter!(LOADS, "cache" => CACHE).increment(1);
            let entry = answered(store::find(&self.pool, id)).await?.map(Arc::new);
            let kept = self.keep(id, lease, &entry).await;
            found = entry;
            if kept {
                break;
            }
        }
        Ok(found)
    }

    /// Fills the cache; `false` when the entry may be older than a write and reading again may do better.
    async fn keep(&self, id: ItemId, lease: Option<Lease>, entry: &Entry) -> bool {
        match lease {
            Some(lease) => self.cache.fill(id, lease, entry.clone()).await.unwrap_or(true),
            None => true,
        }
    }

    /// Whether an entry is at least as new as what this process wrote.
    fn is_current(&self, id: ItemId, entry: &Entry) -> bool {
        match (self.written.get(&id), entry) {
            (None, _) => true,
            (Some(written), Some(item)) => item.version >= written,
            // Nothing there: it was deleted, if that was the write of ours; else the entry is from before.
            (Some(written), None) => written == GONE,
        }
    }
}

/// The version of what this process deleted: no later one will come.
pub const GONE: i64 = i64::MAX;
