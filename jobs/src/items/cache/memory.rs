//! The cache of one process: bounded by its bytes, and its entries live for at most 3 s.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::BoxFuture};
use moka::{ops::compute::Op, policy::EvictionPolicy, sync};

use super::{super::item::ItemId, Broken, Cache, Entry, LEASE, Lease, Looked};

/// Another process cannot drop from here: this is how old an item may be shown, counted from before it was read.
const LIFE: Duration = Duration::from_secs(3);
/// As [`LIFE`], of ids that do not exist: the next item created elsewhere may get one.
const LIFE_OF_NOTHING: Duration = Duration::from_secs(1);
/// All entries together.
const BYTES: u64 = 64 << 20;
/// What an entry takes beside its texts.
const ENTRY: usize = 300;

/// One id.
#[derive(Clone)]
enum Slot {
    Leased(Lease, Instant),
    Filled(Entry, Instant),
}

/// A cache in this process.
pub struct Memory {
    slots: sync::Cache<ItemId, Slot>,
    leases: AtomicU64,
}

impl Default for Memory {
    fn default() -> Self {
        let slots = sync::Cache::builder()
            .max_capacity(BYTES)
            .weigher(|_, slot: &Slot| weight(slot))
            // The default one refuses what is new while it is full: a lease among them could never become an entry.
            .eviction_policy(EvictionPolicy::lru())
            .time_to_live(LEASE.max(LIFE))
            .build();
        Self { slots, leases: AtomicU64::new(1) }
    }
}

fn weight(slot: &Slot) -> u32 {
    let texts = match slot {
        Slot::Filled(Some(item), _) => {
            item.title.len() + item.owner.full_name.len() + item.description.as_deref().map_or(0, str::len)
        }
        Slot::Filled(None, _) | Slot::Leased(..) => 0,
    };
    u32::try_from(ENTRY + texts).unwrap_or(u32::MAX)
}

impl Slot {
    /// What it shows, while it is fresh.
    fn entry(&self) -> Option<Entry> {
        match self {
            Self::Filled(entry, read) => {
                let life = if entry.is_some() { LIFE } else { LIFE_OF_NOTHING };
                (read.elapsed() < life).then(|| entry.clone())
            }
            Self::Leased(..) => None,
        }
    }
}

impl Memory {
    fn look(&self, id: ItemId) -> Looked {
        self.slots.get(&id).and_then(|slot| slot.entry()).map_or(Looked::Missed, Looked::Hit)
    }

    fn take(&self, id: ItemId) -> Looked {
        let lease = Lease::from(self.leases.fetch_add(1, Ordering::Relaxed));
        let mut looked = Looked::Leased(lease);
        self.slots.entry(id).and_compute_with(|held| {
            match held.map(|held| held.into_value()) {
                Some(Slot::Leased(_, since)) if since.elapsed() < LEASE => looked = Looked::Missed,
                Some(slot) => {
                    if let Some(entry) = slot.entry() {
                        looked = Looked::Hit(entry);
                    }
                }
                None => {}
            }
            if matches!(looked, Looked::Leased(_)) { Op::Put(Slot::Leased(lease, Instant::now())) } else { Op::Nop }
        });
        looked
    }

    fn keep(&self, id: ItemId, lease: Lease, entry: Entry) -> bool {
        let mut kept = false;
        self.slots.entry(id).and_compute_with(|held| match held.map(|held| held.into_value()) {
            // As old as the lease: the row was read after it was taken.
            Some(Slot::Leased(held, since)) if held == lease && since.elapsed() < LEASE => {
                kept = true;
                Op::Put(Slot::Filled(entry, since))
            }
            _ => Op::Nop,
        });
        kept
    }
}

impl Cache for Memory {
    fn peek(&self, id: ItemId) -> BoxFuture<'_, Result<Looked, Broken>> {
        let looked = self.look(id);
        async { Ok(looked) }.boxed()
    }

    fn lease(&self, id: ItemId) -> BoxFuture<'_, Result<Looked, Broken>> {
        let looked = self.take(id);
        async { Ok(looked) }.boxed()
    }

    fn fill(&self, id: ItemId, lease: Lease, entry: Entry) -> BoxFuture<'_, Result<bool, Broken>> {
        let kept = self.keep(id, lease, entry);
        async move { Ok(kept) }.boxed()
    }

    fn forget(&self, id: ItemId) -> BoxFuture<'_, Result<(), Broken>> {
        // Through the entry, as leases are: an invalidation would not wait for one that is being computed.
        self.slots.entry(id).and_compute_with(|_| Op::Remove);
        async { Ok(()) }.boxed()
    }

    fn is_shared(&self) -> bool {
        false
    }
}
