//! In-process cache, bounded by bytes; entries live for at most 3 s.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use moka::{ops::compute::Op, policy::EvictionPolicy, sync};

use super::{
    super::item::ItemId,
    entry::{Entry, LEASE_TTL, Lease, Lookup},
};

/// How long an item is served, counted from before its row was read. Other processes cannot remove entries from this cache,
/// so this is also how long their changes stay unseen.
const TTL: Duration = Duration::from_secs(3);
/// The same for an id without an item, which another process may create at any time.
const ABSENT_TTL: Duration = Duration::from_secs(1);
/// The limit of all entries together.
const MAX_BYTES: u64 = 64 << 20;
/// The size of an entry without its texts.
const ENTRY_OVERHEAD: usize = 300;

/// The state of one id, with the time of its lease.
#[derive(Clone)]
enum Slot {
    Leased(Lease, Instant),
    Filled(Entry, Instant),
}

/// A cache in this process.
pub struct Memory {
    slots: sync::Cache<ItemId, Slot>,
    next_lease: AtomicU64,
}

impl Default for Memory {
    fn default() -> Self {
        let slots = sync::Cache::builder()
            .max_capacity(MAX_BYTES)
            .weigher(|_, slot: &Slot| weight(slot))
            // The default policy rejects new keys while the cache is full, so that a lease could never become an entry.
            .eviction_policy(EvictionPolicy::lru())
            .time_to_live(LEASE_TTL.max(TTL))
            .build();
        Self { slots, next_lease: AtomicU64::new(1) }
    }
}

fn weight(slot: &Slot) -> u32 {
    let texts = match slot {
        Slot::Filled(Some(item), _) => {
            item.title.len() + item.owner.full_name.len() + item.description.as_deref().map_or(0, str::len)
        }
        Slot::Filled(None, _) | Slot::Leased(..) => 0,
    };
    u32::try_from(ENTRY_OVERHEAD + texts).unwrap_or(u32::MAX)
}

impl Slot {
    /// The entry, while it is fresh.
    fn entry(&self) -> Option<Entry> {
        match self {
            Self::Filled(entry, read) => {
                let ttl = if entry.is_some() { TTL } else { ABSENT_TTL };
                (read.elapsed() < ttl).then(|| entry.clone())
            }
            Self::Leased(..) => None,
        }
    }
}

impl Memory {
    pub(super) fn peek(&self, id: ItemId) -> Lookup {
        self.slots.get(&id).and_then(|slot| slot.entry()).map_or(Lookup::Missed, Lookup::Hit)
    }

    pub(super) fn lease(&self, id: ItemId) -> Lookup {
        let lease = Lease::from(self.next_lease.fetch_add(1, Ordering::Relaxed));
        let mut lookup = Lookup::Leased(lease);
        self.slots.entry(id).and_compute_with(|current| {
            if let Some(entry) = current.and_then(|current| current.into_value().entry()) {
                lookup = Lookup::Hit(entry);
                return Op::Nop;
            }
            Op::Put(Slot::Leased(lease, Instant::now()))
        });
        lookup
    }

    pub(super) fn fill(&self, id: ItemId, lease: Lease, entry: Entry) -> bool {
        let mut is_filled = false;
        self.slots.entry(id).and_compute_with(|current| match current.map(|current| current.into_value()) {
            // The entry gets the age of its lease, because the row was read after the lease was taken.
            Some(Slot::Leased(current, since)) if current == lease && since.elapsed() < LEASE_TTL => {
                is_filled = true;
                Op::Put(Slot::Filled(entry, since))
            }
            _ => Op::Nop,
        });
        is_filled
    }

    pub(super) fn remove(&self, id: ItemId) {
        // Through the entry API, as for leases: `invalidate` would not wait for a computation that is running.
        self.slots.entry(id).and_compute_with(|_| Op::Remove);
    }
}
