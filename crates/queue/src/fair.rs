//! How keys share the slots of a queue: no key waits long behind the backlog of another, and a key may be limited.
//!
//! A claim walks over the keys that have waiting jobs and gives each an equal share of the free slots. What is left goes
//! to the jobs that are due longest. The walk stops after some keys, and the next claim goes on from there. So a key gets
//! its first job within two claims of a worker if no more than [`MAX_KEYS`] have waiting jobs, and within three if jobs
//! without a key have a turn in between. There are no shares while walks are slow, or while
//! [refused jobs](super::refused) are left out.
//!
//! A limit counts the running jobs of a key. It keeps no counter that a crash could leave wrong.

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::{
    fair_key::FairKey,
    low_water::place,
    store::claim::{self, Claimed, DueKey, Share},
    write_results::{is_cancelled, is_without_effect},
};
use runtime::{
    db::Pool,
    error::is_logged,
    executor::{begin, once},
};

/// The fewest and the most keys of one priority that one claim looks at, if there are so many. Each costs an index look-up.
const MIN_KEYS: usize = 16;
const MAX_KEYS: usize = 128;
/// Before the first key.
const START: i64 = FairKey::LEAST.number() - 1;

/// How a queue shares its slots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sharing {
    /// See [`Policy::fair`](crate::Policy::fair).
    pub fair: bool,
    /// See [`Policy::per_key`](crate::Policy::per_key).
    pub per_key: Option<u32>,
}

/// In a queue with fair shares, so many claims in a row may fill all slots by keys. The next one goes by due time alone, so
/// that jobs without a key also start. It delays the first job of a key by one claim.
const FULL_CLAIMS: u32 = 7;

/// A faster walk is never slow. While an old snapshot keeps dead entries, a walk reads those of all its keys.
/// [Low-water marks](super::low_water) cannot help, because the jobs of one key may be due long before those of another.
const SLOW_WALK: Duration = Duration::from_millis(100);
/// A slow walk takes this many times as long as claims by due time, which begin at the marks. If the database or the
/// network is slow, both are. Without dead entries, a walk over all keys of one priority takes about 5 times as long.
const SLOW_FACTOR: u32 = 20;
/// So many slow walks in a row begin a pause. Fewer may have another cause, such as a new session.
const SLOW_WALKS: u32 = 4;
/// After a slow walk that takes longer than this, the rest of the time limit is for the claim by due time.
const VERY_SLOW_WALK: Duration = Duration::from_secs(1);
/// A pause takes this many times as long as a slow walk, so that slow walks use a twentieth of the time.
const PAUSE_FACTOR: u32 = 19;
/// The longest pause, which also follows a claim by keys that the server has ended at its time limit.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Pauses claims by keys while their walks are slow.
#[derive(Debug, Default)]
struct KeyPause {
    /// Whether a claim by keys has begun and has not ended.
    is_open: bool,
    /// How long claims by due time take: the newest one, or more if one before took much longer.
    due_claim: Option<Duration>,
    /// How many walks in a row were slow.
    slow_walks: u32,
    /// How long the last walk took.
    last_walk: Duration,
    until: Option<Instant>,
}

impl KeyPause {
    /// Whether the claim that begins now goes by keys. If its time limit has ended the last one by keys, it does not: jobs
    /// are claimed although claims by keys hang.
    fn begin(&mut self, now: Instant) -> bool {
        let has_ended = !std::mem::take(&mut self.is_open);
        self.is_open = has_ended && self.until.is_none_or(|until| now >= until);
        self.is_open
    }

    /// Ends the claim by keys.
    fn end(&mut self) {
        self.is_open = false;
    }

    /// Records how long a claim by due time took.
    fn record_due_claim(&mut self, took: Duration) {
        self.due_claim = Some(took.max(self.due_claim.unwrap_or_default() * 7 / 8));
    }

    /// Whether a walk is slow that takes so long.
    fn is_slow(&self, took: Duration) -> bool {
        took > SLOW_WALK && self.due_claim.is_some_and(|due_claim| took > due_claim.saturating_mul(SLOW_FACTOR))
    }

    /// Records how long a walk took. Returns the length of the pause that begins now. It depends on the faster one of the
    /// last two walks, because a walk may also take long while the database hangs.
    fn record_walk(&mut self, took: Duration, now: Instant) -> Option<Duration> {
        let faster = took.min(std::mem::replace(&mut self.last_walk, took));
        if !self.is_slow(took) {
            self.slow_walks = 0;
            return None;
        }
        self.slow_walks = self.slow_walks.saturating_add(1);
        if self.slow_walks < SLOW_WALKS {
            return None;
        }
        let pause = faster.saturating_mul(PAUSE_FACTOR).min(LONGEST_PAUSE);
        self.until = Some(now + pause);
        Some(pause)
    }

    /// Begins the longest pause, after a claim by keys that the server has ended. Returns its length.
    fn record_cancelled_claim(&mut self, now: Instant) -> Duration {
        self.slow_walks = self.slow_walks.saturating_add(1);
        self.until = Some(now + LONGEST_PAUSE);
        LONGEST_PAUSE
    }
}

/// The claims of a queue with keys.
pub(crate) struct KeyedClaims {
    sharing: Sharing,
    /// How many claims in a row have filled all slots.
    full_claims: u32,
    pause: KeyPause,
    /// For each priority, the key after which the next walk begins.
    after: [i64; 3],
}

impl KeyedClaims {
    /// `None` if the queue does not share its slots by keys.
    pub(crate) fn new(sharing: Sharing) -> Option<Self> {
        let pause = KeyPause::default();
        (sharing != Sharing::default()).then_some(Self { sharing, full_claims: 0, pause, after: [START; 3] })
    }

    /// Whether each key has a limit. Jobs without a key are then found by [`claim::add_keys`].
    pub(crate) fn is_limited(&self) -> bool {
        self.sharing.per_key.is_some()
    }

    /// Whether a claim that left slots free has found all jobs that can be claimed. If keys are limited, only the end of
    /// a walk shows it.
    pub(crate) fn has_found_all(&self) -> bool {
        !self.is_limited() || self.is_walk_over()
    }

    /// Whether the last walk has reached the last key, so that the next one begins with the first.
    fn is_walk_over(&self) -> bool {
        self.after == [START; 3]
    }

    /// Claims up to `slots` jobs by keys. Without a limit, it may claim fewer than are due: the caller claims the rest by
    /// due time. It claims none while walks are slow.
    pub(crate) async fn claim(
        &mut self,
        pool: &Pool,
        worker: &str,
        queue: &str,
        slots: usize,
    ) -> sqlx::Result<Vec<Claimed>> {
        let full_claims = std::mem::take(&mut self.full_claims);
        if self.is_limited() {
            return self.claim_by_keys(pool, worker, queue, slots, full_claims).await;
        }
        if full_claims == FULL_CLAIMS || !self.pause.begin(Instant::now()) {
            return Ok(Vec::new());
        }
        let claimed = self.claim_by_keys(pool, worker, queue, slots, full_claims).await;
        self.pause.end();
        match claimed {
            // The statement has changed nothing: the jobs are claimed by due time.
            Err(error) if is_without_effect(&error) => {
                if is_cancelled(&error) {
                    let pause = self.pause.record_cancelled_claim(Instant::now());
                    self.log_pause(queue, pause);
                }
                Ok(Vec::new())
            }
            claimed => claimed,
        }
    }

    /// Records how long a claim by due time took, with which walks are compared.
    pub(crate) fn record_due_claim(&mut self, took: Duration) {
        self.pause.record_due_claim(took);
    }

    fn log_pause(&self, queue: &str, pause: Duration) {
        let slow_walks = self.pause.slow_walks;
        if is_logged(slow_walks) {
            tracing::warn!(queue, slow_walks, ?pause, "claims by keys are slow; meanwhile claiming by due time alone");
        }
    }

    /// Claims up to `slots` jobs by keys, after this many claims in a row that filled all slots.
    async fn claim_by_keys(
        &mut self,
        pool: &Pool,
        worker: &str,
        queue: &str,
        slots: usize,
        full_claims: u32,
    ) -> sqlx::Result<Vec<Claimed>> {
        let most = slots.clamp(MIN_KEYS, MAX_KEYS);
        let started = Instant::now();
        let mut keys = claim::find_keys(pool, queue, self.after, most as i64, self.is_limited()).await?;
        let took = started.elapsed();
        if !self.is_limited() {
            if let Some(pause) = self.pause.record_walk(took, Instant::now()) {
                self.log_pause(queue, pause);
            }
            if took > VERY_SLOW_WALK && self.pause.is_slow(took) {
                return Ok(Vec::new());
            }
        }
        keys.sort_unstable_by_key(|key| (Reverse(key.priority), key.key));
        let walked = |level: usize| keys.iter().filter(move |key| place(key.priority) == level);
        let is_whole: [bool; 3] = std::array::from_fn(|level| walked(level).count() < most);
        let shares = match self.sharing.per_key {
            Some(limit) => limited_shares(&keys, limit.into()),
            None => fair_shares(&keys, slots),
        };
        let are_several_due = keys.iter().filter(|key| key.is_due).count() > 1;
        let is_alone = !are_several_due && is_whole == [true; 3] && self.is_walk_over();
        if shares.is_empty() || (is_alone && !self.is_limited()) {
            self.after = std::array::from_fn(|level| {
                if is_whole[level] { START } else { walked(level).map(|key| key.key).max().unwrap_or(START) }
            });
            return Ok(Vec::new());
        }
        let limit = i64::try_from(slots).unwrap_or(i64::MAX);
        let jobs = match self.sharing.per_key {
            Some(per_key) => {
                let mut tx = begin(pool).await?;
                claim::lock_claims(&mut tx, queue).await?;
                let jobs = claim::claim_shares(&mut tx, worker, queue, &shares, Some(per_key.into()), limit).await?;
                tx.commit().await?;
                jobs
            }
            None => claim::claim_shares(once(pool), worker, queue, &shares, None, limit).await?,
        };
        let is_full = jobs.len() >= slots;
        if is_full {
            self.full_claims = full_claims.saturating_add(1);
        }
        let before = self.after;
        // Every key of the walk had its turn, unless the slots were used up. Then the next walk begins after the last key that
        // got one, so that it is the turn of the others.
        self.after = std::array::from_fn(|level| {
            let served = jobs.iter().filter(|job| place(job.priority) == level).filter_map(|job| job.fair_key).max();
            let last = walked(level).map(|key| key.key).max();
            match served {
                Some(served) if is_full && (Some(served) != last || !is_whole[level]) => served,
                None if is_full => before[level],
                _ if is_whole[level] => START,
                _ => last.unwrap_or(START),
            }
        });
        Ok(jobs)
    }
}

/// The number of keys of a queue that have due jobs. Looks at [`MAX_KEYS`] of each priority at most.
pub(crate) async fn count_due_keys(pool: &Pool, queue: &str) -> sqlx::Result<usize> {
    let keys = claim::find_keys(pool, queue, [START; 3], MAX_KEYS as i64, false).await?;
    let due: BTreeSet<i64> = keys.iter().filter(|key| key.is_due).map(|key| key.key).collect();
    Ok(due.len())
}

/// The keys of each priority with due jobs share all slots equally, and each gets at least one. The claim takes higher
/// priorities first, until no slot is free.
fn fair_shares(keys: &[DueKey], slots: usize) -> Vec<Share> {
    let due = |priority: i32| keys.iter().filter(move |key| key.is_due && key.priority == priority);
    let shares = [1, 0, -1].into_iter().flat_map(|priority| {
        let jobs = (slots / due(priority).count().max(1)).max(1);
        let jobs = i64::try_from(jobs).unwrap_or(i64::MAX);
        due(priority).take(slots).map(move |key| Share { priority, key: key.key, jobs })
    });
    shares.collect()
}

/// Each key with due jobs may have `limit` running jobs. It gets one share, for its highest priority: two shares would be
/// counted independently.
fn limited_shares(keys: &[DueKey], limit: i64) -> Vec<Share> {
    let mut shares: Vec<Share> = Vec::new();
    for key in keys.iter().filter(|key| key.is_due && key.running < limit) {
        let is_new = shares.iter().all(|share| share.key != key.key);
        if is_new {
            shares.push(Share { priority: key.priority, key: key.key, jobs: limit - key.running });
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(priority: i32, key: i64, running: i64) -> DueKey {
        DueKey { priority, key, is_due: true, running }
    }

    fn share(priority: i32, key: i64, jobs: i64) -> Share {
        Share { priority, key, jobs }
    }

    #[test]
    fn due_keys_share_the_slots_equally() {
        let later = DueKey { is_due: false, ..due(0, 9, 0) };
        for (keys, slots, expected) in [
            (vec![], 10, vec![]),
            (vec![later], 10, vec![]),
            (vec![due(0, 1, 0), later, due(0, 2, 0)], 10, vec![share(0, 1, 5), share(0, 2, 5)]),
            (vec![due(0, 1, 0), due(0, 2, 0), due(0, 3, 0)], 2, vec![share(0, 1, 1), share(0, 2, 1)]),
            (vec![due(1, 1, 0), due(0, 1, 0), due(0, 2, 0)], 4, vec![share(1, 1, 4), share(0, 1, 2), share(0, 2, 2)]),
        ] {
            assert_eq!(fair_shares(&keys, slots), expected, "{keys:?} with {slots} slots");
        }
    }

    #[test]
    fn slow_walks_are_followed_by_a_pause() {
        let (start, millis) = (Instant::now(), Duration::from_millis);
        let at = |time| start + millis(time);
        let mut pause = KeyPause::default();
        for time in 0..9 {
            assert_eq!(pause.record_walk(millis(5000), at(time)), None, "no claim by due time to compare with");
        }
        pause.record_due_claim(millis(5));
        // The fourth walk is fast, so the row begins again.
        for took in [200, 200, 200, 10, 200, 200, 200] {
            assert!(pause.begin(at(100)), "{took}");
            assert_eq!(pause.record_walk(millis(took), at(100)), None, "{took}");
            pause.end();
        }
        assert_eq!(pause.record_walk(millis(5000), at(100)), Some(millis(3800)), "the fourth in a row is a stall");
        assert!(!pause.begin(at(3899)));
        assert!(pause.begin(at(3900)));
        assert_eq!(pause.record_walk(millis(150), at(4000)), Some(millis(2850)), "the row goes on");
        pause.end();
        assert!(pause.begin(at(6850)));
        assert_eq!(pause.record_walk(millis(50), at(6900)), None, "a fast walk ends the row");
        pause.record_due_claim(millis(20));
        for time in 0..9 {
            assert_eq!(pause.record_walk(millis(400), at(6900 + time)), None, "claims by due time are slow as well");
        }
        assert!(!pause.begin(at(7000)), "its time limit has ended the claim");
        assert!(pause.begin(at(7001)), "once");
        pause.end();
        assert_eq!(pause.record_cancelled_claim(at(8000)), LONGEST_PAUSE);
        assert!(!pause.begin(at(67_999)));
        assert!(pause.begin(at(68_000)), "the longest pause is over");
    }

    #[test]
    fn a_slow_claim_by_due_time_counts_for_some_claims() {
        let (millis, mut pause) = (Duration::from_millis, KeyPause::default());
        for took in [80, 1, 1] {
            pause.record_due_claim(millis(took));
        }
        assert_eq!(pause.due_claim, Some(Duration::from_micros(61_250)));
        assert!(!pause.is_slow(millis(1225)) && pause.is_slow(millis(1226)));
    }

    #[test]
    fn a_limited_key_gets_what_its_running_jobs_leave() {
        let keys = [due(1, 1, 1), due(0, 1, 1), due(0, 2, 2), due(0, 3, 3), due(-1, 4, 0)];
        assert_eq!(limited_shares(&keys, 2), [share(1, 1, 1), share(-1, 4, 2)]);
    }
}
