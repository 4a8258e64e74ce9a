//! A cache in this process, bounded by its size in bytes. Other processes cannot invalidate it, so its entries are
//! fresh for a short time.

use std::sync::Arc;

use moka::{policy::EvictionPolicy, sync};

use super::entry::{Entry, RETENTION, Value};

/// The limit of a cache of everything. A chart of 30 days takes about 1 KiB, one of all hours of ten years 3 MiB.
pub(super) const MAX_BYTES: u64 = 64 << 20;
/// The limit of a cache of what PostgreSQL does not have: about 10,000 entries.
pub(super) const MAX_FALLBACK_BYTES: u64 = 4 << 20;
/// The overhead of an entry, in bytes.
const ENTRY_OVERHEAD: usize = 300;

/// The entries by key.
pub(super) type Memory = sync::Cache<String, Arc<Entry>>;

/// An empty cache of at most this many bytes.
pub(super) fn start(max_bytes: u64) -> Memory {
    sync::Cache::builder()
        .max_capacity(max_bytes)
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
