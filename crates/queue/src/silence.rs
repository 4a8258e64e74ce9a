//! Which workers are silent, by this process's own monotonic clock. The database's clock may step, and a process that
//! has just started, or just come back, has watched no worker yet.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::store::leases::Holder;

/// The longest lease that a worker's row may ask for.
const LONGEST_LEASE: Duration = Duration::from_secs(24 * 3600);

/// What this process has seen of the leases of others.
#[derive(Debug)]
pub struct Observer {
    /// The lease of this process: taken for workers that have no row.
    lease: Duration,
    seen: HashMap<String, Seen>,
    /// When the last look came back.
    last: Option<Instant>,
}

#[derive(Debug)]
struct Seen {
    holder: Holder,
    lease: Duration,
    /// When the look that first saw this version came back.
    since: Instant,
    /// When the latest look that still saw it was sent.
    until: Instant,
}

impl Observer {
    /// Has seen nothing yet.
    pub fn new(lease: Duration) -> Self {
        Self { lease, seen: HashMap::new(), last: None }
    }

    /// The connection was lost: what the others did meanwhile is unknown, so every silence is counted anew.
    pub fn forget(&mut self) {
        self.seen.clear();
        self.last = None;
    }

    /// Notes what one look found: sent then, come back then. After too long a pause all counting starts again; whatever
    /// kept this process from looking may have kept others from their heartbeats.
    pub fn note(&mut self, found: Vec<Holder>, sent: Instant, received: Instant) {
        // Looks are a heartbeat apart at most, which is at most half of the lease.
        if self.last.is_some_and(|last| sent.saturating_duration_since(last) > self.lease.mul_f64(0.75)) {
            self.forget();
        }
        self.last = Some(received);
        let mut before = std::mem::take(&mut self.seen);
        for holder in found {
            let lease = match holder.lease {
                // More than the largest duration, or less than none, is as good as any.
                Some(seconds) => Duration::try_from_secs_f64(seconds).unwrap_or(self.lease).min(LONGEST_LEASE),
                None => self.lease,
            };
            let seen = match before.remove(&holder.worker) {
                Some(seen) if seen.holder.version == holder.version => Seen { holder, lease, until: sent, ..seen },
                _ => Seen { holder, lease, since: received, until: received },
            };
            self.seen.insert(seen.holder.worker.clone(), seen);
        }
    }

    /// Workers that were seen silent for their lease.
    pub fn silent(&self) -> Vec<Holder> {
        self.seen.values().filter(|seen| seen.is_silent()).map(|seen| seen.holder.clone()).collect()
    }

    /// When the next lease will have ended, unless its worker renews it.
    pub fn next_end(&self) -> Option<Instant> {
        self.seen.values().filter(|seen| !seen.is_silent()).map(|seen| seen.since + seen.lease).min()
    }
}

impl Seen {
    fn is_silent(&self) -> bool {
        self.until.saturating_duration_since(self.since) >= self.lease
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    fn holder(worker: &str, version: Option<&str>) -> Holder {
        Holder { worker: worker.into(), version: version.map(str::to_owned), lease: version.map(|_| 15.0) }
    }

    /// Looks every 2 s from second `from` to `to`; returns who is silent at the end.
    fn look(observer: &mut Observer, begin: Instant, seconds: std::ops::Range<u64>, found: &[Holder]) -> Vec<String> {
        for second in seconds.step_by(2) {
            let at = begin + Duration::from_secs(second);
            observer.note(found.to_vec(), at, at);
        }
        let mut silent: Vec<String> = observer.silent().into_iter().map(|holder| holder.worker).collect();
        silent.sort();
        silent
    }

    #[test]
    fn a_worker_is_silent_after_its_lease_was_watched_to_its_end() {
        let (begin, mut observer) = (Instant::now(), Observer::new(LEASE));
        let both = [holder("dead", Some("1")), holder("gone", None)];
        assert!(look(&mut observer, begin, 0..15, &both).is_empty(), "14 s");
        assert_eq!(observer.next_end(), Some(begin + LEASE));
        assert_eq!(look(&mut observer, begin, 15..16, &both), ["dead", "gone"]);
        assert_eq!(observer.next_end(), None);
        let renewed = [holder("dead", Some("2")), holder("gone", Some("1"))];
        assert!(look(&mut observer, begin, 16..17, &renewed).is_empty(), "it renews, and has a row again");
    }

    /// The rarest looks that can be configured: one for each heartbeat of half a lease.
    #[test]
    fn rare_looks_are_no_pause() {
        let (begin, mut observer) = (Instant::now(), Observer::new(LEASE));
        for look in 0..4 {
            let at = begin + LEASE.mul_f64(0.51) * look;
            observer.note(vec![holder("dead", Some("1"))], at, at);
        }
        assert_eq!(observer.silent().len(), 1);
    }

    #[test]
    fn a_pause_or_a_lost_connection_counts_for_nothing() {
        let (begin, mut observer) = (Instant::now(), Observer::new(LEASE));
        let dead = [holder("dead", Some("1"))];
        look(&mut observer, begin, 0..13, &dead);
        assert!(look(&mut observer, begin, 100..101, &dead).is_empty(), "this process stood still");
        look(&mut observer, begin, 101..115, &dead);
        observer.forget();
        assert!(look(&mut observer, begin, 115..129, &dead).is_empty(), "the database was away");
        assert_eq!(look(&mut observer, begin, 129..132, &dead), ["dead"]);
    }

    #[test]
    fn a_lease_of_any_length_harms_only_its_own_worker() {
        for (lease, silent) in [(f64::INFINITY, true), (f64::NAN, true), (-5.0, true), (1e300, true), (1e9, false)] {
            let (begin, mut observer) = (Instant::now(), Observer::new(LEASE));
            let odd = [Holder { lease: Some(lease), ..holder("odd", Some("1")) }];
            assert_eq!(!look(&mut observer, begin, 0..17, &odd).is_empty(), silent, "{lease}");
        }
    }
}
