//! Detects expired leases of other workers by this process's monotonic clock.
//!
//! The database's clock may step, so it does not take part. A process that has just started or reconnected has observed
//! no lease yet.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::store::leases::WorkerLease;
use runtime::sabotage::{self, Bug};

/// The longest lease that a worker's row may claim.
const LONGEST_LEASE: Duration = Duration::from_secs(24 * 3600);

/// What this process has observed of the leases of other workers.
#[derive(Debug)]
pub(crate) struct Observer {
    /// The lease of this process. Also assumed for workers that have no row.
    lease: Duration,
    observed: HashMap<String, ObservedLease>,
    /// When the response of the latest check arrived.
    last_check: Option<Instant>,
}

#[derive(Debug)]
struct ObservedLease {
    row: WorkerLease,
    lease: Duration,
    /// When the response arrived that first contained this version of the row.
    since: Instant,
    /// When the latest check was sent that still saw this version.
    until: Instant,
}

impl Observer {
    /// An observer without observations. `lease` is the lease of this process.
    pub(crate) fn new(lease: Duration) -> Self {
        Self { lease, observed: HashMap::new(), last_check: None }
    }

    /// Restarts all observations after a lost connection, since heartbeats of others may have been missed meanwhile.
    pub(crate) fn reset(&mut self) {
        self.observed.clear();
        self.last_check = None;
    }

    /// Records the workers that one check returned. `sent` and `received` are the times of the check and of its
    /// response. Observation restarts after too long a gap: what stopped this process may have stopped the heartbeats
    /// of others too.
    pub(crate) fn record(&mut self, workers: Vec<WorkerLease>, sent: Instant, received: Instant) {
        // Checks are at most one heartbeat apart, which is at most half of the lease.
        if self.last_check.is_some_and(|last| sent.saturating_duration_since(last) > self.lease.mul_f64(0.75)) {
            self.reset();
        }
        self.last_check = Some(received);
        let mut earlier = std::mem::take(&mut self.observed);
        for row in workers {
            let lease = match row.lease {
                // Infinite and negative values count as our own lease.
                Some(seconds) => Duration::try_from_secs_f64(seconds).unwrap_or(self.lease).min(LONGEST_LEASE),
                None => self.lease,
            };
            let observed = match earlier.remove(&row.worker) {
                Some(observed) if observed.row.version == row.version => {
                    ObservedLease { row, lease, until: sent, ..observed }
                }
                _ => ObservedLease { row, lease, since: received, until: received },
            };
            self.observed.insert(observed.row.worker.clone(), observed);
        }
    }

    /// Returns the workers whose row did not change for the length of their lease.
    pub(crate) fn silent_workers(&self) -> Vec<WorkerLease> {
        self.observed.values().filter(|observed| observed.is_expired()).map(|observed| observed.row.clone()).collect()
    }

    /// Returns when the next lease expires, unless its worker renews it.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let current = self.observed.values().filter(|observed| !observed.is_expired());
        current.map(|observed| observed.since + observed.lease).min()
    }
}

impl ObservedLease {
    fn is_expired(&self) -> bool {
        // A tenth of the lease is less than two heartbeats are apart.
        let lease = if sabotage::planted(Bug::RescueOfLiveWorker) { self.lease / 10 } else { self.lease };
        self.until.saturating_duration_since(self.since) >= lease
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    fn lease_row(worker: &str, version: Option<&str>) -> WorkerLease {
        WorkerLease { worker: worker.into(), version: version.map(str::to_owned), lease: version.map(|_| 15.0) }
    }

    /// Checks every 2 s within these seconds and returns the workers that are silent at the end.
    fn check(
        observer: &mut Observer,
        begin: Instant,
        seconds: std::ops::Range<u64>,
        rows: &[WorkerLease],
    ) -> Vec<String> {
        for second in seconds.step_by(2) {
            let at = begin + Duration::from_secs(second);
            observer.record(rows.to_vec(), at, at);
        }
        let mut silent: Vec<String> = observer.silent_workers().into_iter().map(|row| row.worker).collect();
        silent.sort();
        silent
    }

    #[test]
    fn a_worker_is_silent_after_its_whole_lease_was_observed() {
        let (begin, mut observer) = (Instant::now(), Observer::new(LEASE));
        let both = [lease_row("dead", Some("1")), lease_row("gone", None)];
        assert!(check(&mut observer, begin, 0..15, &both).is_empty(), "after 14 s");
        assert_eq!(observer.next_expiry(), Some(begin + LEASE));
        assert_eq!(check(&mut observer, begin, 15..16, &both), ["dead", "gone"]);
        assert_eq!(observer.next_expiry(), None);
        let renewed = [lease_row("dead", Some("2")), lease_row("gone", Some("1"))];
        assert!(check(&mut observer, begin, 16..17, &renewed).is_empty(), "one renews, the other has a row again");
    }

    /// The rarest checks that can be configured: one per heartbeat, which is half of the lease.
    #[test]
    fn rare_checks_are_no_gap() {
        let (begin, mut observer) = (Instant::now(), Observer::new(LEASE));
        for check in 0..4 {
            let at = begin + LEASE.mul_f64(0.51) * check;
            observer.record(vec![lease_row("dead", Some("1"))], at, at);
        }
        assert_eq!(observer.silent_workers().len(), 1);
    }

    #[test]
    fn a_gap_or_a_lost_connection_restarts_the_observation() {
        let (begin, mut observer) = (Instant::now(), Observer::new(LEASE));
        let dead = [lease_row("dead", Some("1"))];
        check(&mut observer, begin, 0..13, &dead);
        assert!(check(&mut observer, begin, 100..101, &dead).is_empty(), "this process was suspended");
        check(&mut observer, begin, 101..115, &dead);
        observer.reset();
        assert!(check(&mut observer, begin, 115..129, &dead).is_empty(), "the database was unreachable");
        assert_eq!(check(&mut observer, begin, 129..132, &dead), ["dead"]);
    }

    #[test]
    fn an_odd_lease_affects_only_its_own_worker() {
        for (lease, silent) in [(f64::INFINITY, true), (f64::NAN, true), (-5.0, true), (1e300, true), (1e9, false)] {
            let (begin, mut observer) = (Instant::now(), Observer::new(LEASE));
            let odd = [WorkerLease { lease: Some(lease), ..lease_row("odd", Some("1")) }];
            assert_eq!(!check(&mut observer, begin, 0..17, &odd).is_empty(), silent, "{lease}");
        }
    }
}
