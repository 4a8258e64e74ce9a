//! The cache of one process, bounded by its size in bytes.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use moka::{policy::EvictionPolicy, sync};

use super::{Cache, Entry, RETENTION, Value};
use runtime::clients::redis::Broken;

/// The limit of all entries. A chart of 30 days takes about 1 KiB, one of all hours of ten years 3 MiB.
const MAX_BYTES: u64 = 64 << 20;
/// The overhead of an entry, in bytes.
const ENTRY_OVERHEAD: usize = 300;

/// A cache in this process.
pub struct Memory {
    entries: sync::Cache<String, Arc<Entry>>,
}

impl Default for Memory {
    fn default() -> Self {
        let entries = sync::Cache::builder()
            .max_capacity(MAX_BYTES)
            .weigher(|key: &String, entry: &Arc<Entry>| weight(key, entry))
            // The default policy rejects new entries while the cache is full.
            .eviction_policy(EvictionPolicy::lru())
            .time_to_live(RETENTION)
            .build();
        Self { entries }
    }
}

fn weight(key: &str, entry: &Entry) -> u32 {
    let text = match &entry.value {
        Value::Chart { prices, .. } => prices.get().len(),
        Value::Spot(quote) => quote.price.len(),
        _ => 0,
    };
    u32::try_from(ENTRY_OVERHEAD + key.len() + text).unwrap_or(u32::MAX)
}

impl Cache for Memory {
    fn get<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Result<Vec<Option<Arc<Entry>>>, Broken>> {
        let found = keys.iter().map(|key| self.entries.get(key)).collect();
        async { Ok(found) }.boxed()
    }

    fn put<'a>(&'a self, key: &'a str, entry: Arc<Entry>) -> BoxFuture<'a, Result<(), Broken>> {
        self.entries.insert(key.to_owned(), entry);
        async { Ok(()) }.boxed()
    }

    /// Always succeeds: callers in one process already share one load.
    fn lock<'a>(&'a self, keys: &'a [String], _: u128, _: Duration) -> BoxFuture<'a, Result<Vec<bool>, Broken>> {
        let all = vec![true; keys.len()];
        async { Ok(all) }.boxed()
    }

    fn unlock<'a>(&'a self, _: &'a [String], _: u128) -> BoxFuture<'a, Result<(), Broken>> {
        async { Ok(()) }.boxed()
    }

    fn is_shared(&self) -> bool {
        false
    }
}
