//! Token buckets in the process: a table that never grows.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use jobs::remote::bucket::{Size, Taken};

/// Buckets of one limit: half a mebibyte. Two callers with one bucket share its tokens. Which ones these are changes
/// with every start, so nobody can aim at another's bucket; with a thousand callers at once, it happens to 1.5 % of them.
const BUCKETS: usize = 1 << 16;

/// A bucket is one number: the time at which it will be full again. So a caller who has been away for a window is the
/// same as one who never came, and nothing needs to be cleaned up. Clones share it.
#[derive(Clone)]
pub(super) struct Table {
    size: Size,
    buckets: Arc<[AtomicU64]>,
    hasher: RandomState,
    start: Instant,
}

impl Table {
    /// Buckets that are all full.
    pub(super) fn new(size: Size) -> Self {
        let buckets = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Self { size, buckets, hasher: RandomState::new(), start: Instant::now() }
    }

    /// Takes one token of this caller's.
    pub(super) fn take(&self, caller: impl Hash) -> Taken {
        self.take_at(caller, self.start.elapsed())
    }

    /// Gives a token of this caller's back.
    pub(super) fn give_back(&self, caller: impl Hash) {
        let (now, token) = (nanos(self.start.elapsed()), self.token());
        let at = self.hasher.hash_one(caller) as usize % BUCKETS;
        if let Some(bucket) = self.buckets.get(at) {
            let give = |full_at: u64| (full_at > now).then(|| full_at.saturating_sub(token));
            let _ = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, give);
        }
    }

    /// The time that one token is worth.
    fn token(&self) -> u64 {
        (nanos(self.size.window) / u64::from(self.size.quota.max(1))).max(1)
    }

    fn take_at(&self, caller: impl Hash, now: Duration) -> Taken {
        let quota = u64::from(self.size.quota.max(1));
        let (now, token) = (nanos(now), self.token());
        let window = token.saturating_mul(quota);
        let tell = |granted, full_at: u64| {
            let full_in = full_at.saturating_sub(now);
            let left = window.saturating_sub(full_in) / token;
            Taken {
                granted,
                left: u32::try_from(left).unwrap_or(u32::MAX),
                full_in: Duration::from_nanos(full_in),
                next_in: Duration::from_nanos(full_in.saturating_add(token).saturating_sub(window)),
            }
        };
        let at = self.hasher.hash_one(caller) as usize % BUCKETS;
        // The index is within the table by its remainder.
        let Some(bucket) = self.buckets.get(at) else { return tell(true, now) };
        let taken = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let full_at = full_at.max(now).saturating_add(token);
            (full_at <= now.saturating_add(window)).then_some(full_at)
        });
        match taken {
            Ok(before) => tell(true, before.max(now).saturating_add(token)),
            Err(full_at) => tell(false, full_at),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn table() -> Table {
        Table::new(Size { quota: 6, window: Duration::from_secs(60) })
    }

    #[test]
    fn a_quota_at_once_and_then_evenly() {
        let table = table();
        let take = |millis: u64| {
            let taken = table.take_at("ada", Duration::from_millis(millis));
            (taken.granted, taken.left, taken.next_in.as_millis())
        };
        for (now, left) in [(0, 5), (0, 4), (1, 3), (2, 2), (3, 1)] {
            assert_eq!(take(now), (true, left, 0));
        }
        assert_eq!(take(3), (true, 0, 9_997));
        assert_eq!(take(4), (false, 0, 9_996));
        assert_eq!(take(9_999), (false, 0, 1));
        assert_eq!(take(10_000), (true, 0, 10_000));
        assert!(!take(10_001).0, "what is refused costs nothing, and what is granted costs one");
        assert_eq!((0..10).filter(|_| take(600_000).0).count(), 6, "never more than a quota");
    }

    #[test]
    fn a_quota_that_the_window_is_no_multiple_of_is_exact() {
        for quota in [7, 999_983] {
            let table = Table::new(Size { quota, window: Duration::from_secs(1) });
            let taken = (0..quota + 2).filter(|_| table.take_at("ada", Duration::ZERO).granted).count();
            assert_eq!(taken, quota as usize);
        }
    }

    #[test]
    fn callers_have_buckets_of_their_own() {
        let table = table();
        let now = Duration::from_secs(1);
        while table.take_at("ada", now).granted {}
        let others = (0..100).filter(|other| table.take_at(other, now).granted).count();
        assert!(others >= 98, "{others} of 100");
        let places: HashSet<_> = (0..10).map(|_| Table::new(table.size).hasher.hash_one("ada")).collect();
        assert!(places.len() > 1, "where a bucket is must not be known");
    }

    #[test]
    fn many_at_once_get_no_more_than_a_quota() {
        let table = table();
        let taken: usize = std::thread::scope(|scope| {
            let take = || (0..1000).filter(|_| table.take_at("ada", Duration::ZERO).granted).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(taken, 6);
    }
}
