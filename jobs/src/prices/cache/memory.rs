//! The cache of one process, bounded by its size in bytes.

use std::sync::Arc;

use moka::{policy::EvictionPolicy, sync};

use super::{Entry, RETENTION, Value};

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

impl Memory {
    pub(super) fn get(&self, keys: &[String]) -> Vec<Option<Arc<Entry>>> {
        keys.iter().map(|key| self.entries.get(key)).collect()
    }

    pub(super) fn put(&self, key: &str, entry: Arc<Entry>) {
        self.entries.insert(key.to_owned(), entry);
    }
}
