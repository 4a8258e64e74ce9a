//! The cache of one process, bounded by its size in bytes. Other processes cannot invalidate it, so its entries are fresh
//! for a short time.

use std::sync::Arc;

use moka::{policy::EvictionPolicy, sync};

use super::entry::{Entry, RETENTION, Value};

/// The limit of all entries. A chart of 30 days takes about 1 KiB, one of all hours of ten years 3 MiB.
const MAX_BYTES: u64 = 64 << 20;
/// The overhead of an entry, in bytes.
const ENTRY_OVERHEAD: usize = 300;

/// The entries by key.
pub(super) type Memory = sync::Cache<String, Arc<Entry>>;

/// An empty cache.
pub(super) fn start() -> Memory {
    sync::Cache::builder()
        .max_capacity(MAX_BYTES)
        .weigher(|key: &String, entry: &Arc<Entry>| weight(key, entry))
        // The default policy rejects new entries while the cache is full.
        .eviction_policy(EvictionPolicy::lru())
        .time_to_live(RETENTION)
        .build()
}

fn weight(key: &str, entry: &Entry) -> u32 {
    let text = match &entry.value {
        Value::Chart { prices, .. } => prices.get().len(),
        Value::Spot(quote) => quote.price.len(),
        _ => 0,
    };
    u32::try_from(ENTRY_OVERHEAD + key.len() + text).unwrap_or(u32::MAX)
}
