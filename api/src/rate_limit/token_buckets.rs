//! Token buckets in memory: a table of fixed size.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use runtime::clients::bucket::{Size, Taken};
use tokio::time::Instant;

/// The number of buckets per limit: 512 KiB. Keys with the same bucket share its tokens.
///
/// With 1,000 keys at once, 1.5 % of them share a bucket. The hash seed changes at every start, so a client cannot choose
/// another client's bucket.
const BUCKETS: usize = 1 << 16;

/// The buckets of one limit. Clones share them.
///
/// Each bucket is one number: the time at which it will be full again. After a window without requests a bucket is full,
/// so no cleanup is necessary.
#[derive(Clone)]
pub(super) struct TokenBuckets {
    size: Size,
    buckets: Arc<[AtomicU64]>,
    hasher: RandomState,
    start: Instant,
}

impl TokenBuckets {
    /// Full buckets.
    pub(super) fn new(size: Size) -> Self {
        let buckets = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Self { size, buckets, hasher: RandomState::new(), start: Instant::now() }
    }

    /// Takes this number of tokens from the bucket of this key, or none.
    pub(super) fn acquire(&self, key: impl Hash, tokens: u32) -> Taken {
        self.acquire_at(key, tokens, self.start.elapsed())
    }

    /// Returns this number of tokens to the bucket of this key.
    pub(super) fn refund(&self, key: impl Hash, tokens: u32) {
        let (now, cost) = (nanos(self.start.elapsed()), self.nanos_per_token().saturating_mul(tokens.into()));
        let index = self.hasher.hash_one(key) as usize % BUCKETS;
        if let Some(bucket) = self.buckets.get(index) {
            let add_tokens = |full_at: u64| (full_at > now).then(|| full_at.saturating_sub(cost));
            let _ = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add_tokens);
        }
    }

    /// The time in which one token refills, in nanoseconds.
    fn nanos_per_token(&self) -> u64 {
        (nanos(self.size.window) / u64::from(self.size.quota.max(1))).max(1)
    }

    fn acquire_at(&self, key: impl Hash, tokens: u32, now: Duration) -> Taken {
        let quota = u64::from(self.size.quota.max(1));
        let (now, token) = (nanos(now), self.nanos_per_token());
        let (window, cost) = (token.saturating_mul(quota), token.saturating_mul(tokens.into()));
        let outcome = |granted, full_at: u64| {
            let full_in = full_at.saturating_sub(now);
            let left = window.saturating_sub(full_in) / token;
            Taken {
                granted,
                left: u32::try_from(left).unwrap_or(u32::MAX),
                full_in: Duration::from_nanos(full_in),
                next_in: Duration::from_nanos(full_in.saturating_add(cost).saturating_sub(window)),
            }
        };
        let index = self.hasher.hash_one(key) as usize % BUCKETS;
        // The remainder is always a valid index.
        let Some(bucket) = self.buckets.get(index) else { return outcome(true, now) };
        let updated = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let full_at = full_at.max(now).saturating_add(cost);
            (full_at <= now.saturating_add(window)).then_some(full_at)
        });
        match updated {
            Ok(before) => outcome(true, before.max(now).saturating_add(cost)),
            Err(full_at) => outcome(false, full_at),
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

    fn buckets() -> TokenBuckets {
        TokenBuckets::new(Size { quota: 6, window: Duration::from_secs(60) })
    }

    #[test]
    fn a_quota_is_available_at_once_and_then_refills_evenly() {
        let buckets = buckets();
        let acquire = |millis: u64| {
            let taken = buckets.acquire_at("ada", 1, Duration::from_millis(millis));
            (taken.granted, taken.left, taken.next_in.as_millis())
        };
        for (now, left) in [(0, 5), (0, 4), (1, 3), (2, 2), (3, 1)] {
            assert_eq!(acquire(now), (true, left, 0));
        }
        assert_eq!(acquire(3), (true, 0, 9_997));
        assert_eq!(acquire(4), (false, 0, 9_996));
        assert_eq!(acquire(9_999), (false, 0, 1));
        assert_eq!(acquire(10_000), (true, 0, 10_000));
        assert!(!acquire(10_001).0, "a refusal costs no token, a grant costs one");
        assert_eq!((0..10).filter(|_| acquire(600_000).0).count(), 6, "at most one quota");
    }

    #[test]
    fn a_quota_that_does_not_divide_the_window_is_exact() {
        for quota in [7, 999_983] {
            let buckets = TokenBuckets::new(Size { quota, window: Duration::from_secs(1) });
            let taken = (0..quota + 2).filter(|_| buckets.acquire_at("ada", 1, Duration::ZERO).granted).count();
            assert_eq!(taken, quota as usize);
        }
    }

    #[test]
    fn several_tokens_are_taken_together_or_not_at_all() {
        let buckets = buckets();
        let acquire = |tokens, seconds| {
            let taken = buckets.acquire_at("ada", tokens, Duration::from_secs(seconds));
            (taken.granted, taken.left, taken.next_in.as_secs())
        };
        assert_eq!(acquire(4, 0), (true, 2, 20));
        assert_eq!(acquire(3, 0), (false, 2, 10), "one is missing, and refills in 10 s");
        assert_eq!(acquire(2, 0), (true, 0, 20));
        assert_eq!(acquire(6, 60), (true, 0, 60));
    }

    #[test]
    fn more_tokens_than_the_quota_are_refused_with_the_time_until_the_bucket_is_full() {
        let buckets = buckets();
        let acquire = |tokens, seconds| {
            let taken = buckets.acquire_at("ada", tokens, Duration::from_secs(seconds));
            (taken.granted, taken.left, taken.full_in.as_secs())
        };
        assert_eq!(acquire(7, 5), (false, 6, 0));
        assert_eq!(acquire(4, 5), (true, 2, 40));
        assert_eq!(acquire(u32::MAX, 5), (false, 2, 40));
        assert_eq!(acquire(6, 44), (false, 5, 1));
        assert_eq!(acquire(6, 45), (true, 0, 60), "the whole quota, at the time of the refusal");
    }

    #[test]
    fn keys_have_separate_buckets() {
        let buckets = buckets();
        let now = Duration::from_secs(1);
        while buckets.acquire_at("ada", 1, now).granted {}
        let others = (0..100).filter(|other| buckets.acquire_at(other, 1, now).granted).count();
        assert!(others >= 98, "{others} of 100");
        let positions: HashSet<_> = (0..10).map(|_| TokenBuckets::new(buckets.size).hasher.hash_one("ada")).collect();
        assert!(positions.len() > 1, "the position of a bucket must be unpredictable");
    }

    #[test]
    fn concurrent_requests_get_at_most_one_quota() {
        let buckets = buckets();
        let taken: usize = std::thread::scope(|scope| {
            let acquire = || (0..1000).filter(|_| buckets.acquire_at("ada", 1, Duration::ZERO).granted).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(acquire)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(taken, 6);
    }
}
