//! The rules about leases and runs: who may claim and rescue, and when a run may begin and end.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::history::Event;

/// What is known of a worker's lease.
#[derive(Default)]
struct Lease {
    /// The times of its renewals, in order.
    renewals: Vec<i64>,
    lease_us: i64,
    /// The renewal before the last late claim of each queue, and the time of that claim.
    late_claims: HashMap<String, (Option<i64>, i64)>,
}

/// What is known of the runs of one job.
#[derive(Default)]
struct Task {
    /// The pauses that its failed runs asked for.
    pauses_us: HashMap<i32, i64>,
    /// When its runs did their work.
    ended: HashMap<i32, i64>,
    /// The last failure that was recorded: its run and its time.
    retried: Option<(i32, i64)>,
}

/// The state of these rules.
#[derive(Default)]
pub(super) struct Runs {
    leases: HashMap<String, Lease>,
    tasks: HashMap<String, Task>,
    /// Jobs that report their runs.
    reporting: HashSet<String>,
    /// Jobs that must start in time, in milliseconds of the history: the last moment.
    expected: BTreeMap<String, u64>,
}

impl Runs {
    /// Reads an event. Returns the promise that it breaks.
    pub(super) fn add(&mut self, at_ms: u64, event: &Event) -> Option<String> {
        match event {
            Event::Started { job, .. } => {
                self.reporting.insert(job.clone());
                if self.expected.get(job).is_some_and(|latest| at_ms <= *latest) {
                    self.expected.remove(job);
                }
                None
            }
            Event::Expected { job, within_ms } => {
                if !self.reporting.contains(job) {
                    self.expected.insert(job.clone(), at_ms + within_ms);
                }
                None
            }
            Event::Failed { job, run, pause_ms } => {
                let pause_us = i64::try_from(*pause_ms).unwrap_or(i64::MAX).saturating_mul(1000);
                self.task(job).pauses_us.insert(*run, pause_us);
                None
            }
            Event::Ended { job, run, at_us } => {
                self.task(job).ended.insert(*run, *at_us);
                None
            }
            Event::Renewed { worker, at_us, lease_us } => {
                let lease = self.leases.entry(worker.clone()).or_default();
                lease.renewals.push(*at_us);
                lease.lease_us = *lease_us;
                None
            }
            Event::Retried { job, run, at_us } => {
                self.task(job).retried = Some((*run, *at_us));
                None
            }
            Event::Claimed { job, kind, run, worker, at_us } => {
                self.check_pause(job, *run, *at_us).or_else(|| self.check_lease(worker, kind, *at_us))
            }
            Event::Rescued { job, worker, at_us } => self.check_rescue(job, worker, *at_us),
            Event::Completed { job, run, at_us, .. } => self.check_end(job, *run, *at_us),
            _ => None,
        }
    }

    fn task(&mut self, job: &str) -> &mut Task {
        self.tasks.entry(job.to_owned()).or_default()
    }

    /// A job that failed runs again after the pause that it asked for. Both times are of the database's clock.
    fn check_pause(&self, job: &str, run: i32, at_us: i64) -> Option<String> {
        let task = self.tasks.get(job)?;
        let (failed_run, failed_at) = task.retried?;
        let (pause, waited) = (*task.pauses_us.get(&failed_run)?, at_us - failed_at);
        (waited < pause)
            .then(|| format!("the job {job} waited {waited} us for its run {run}, and asked for {pause} us"))
    }

    /// A worker claims only while it has a lease. It looks before each claim of a queue, so one claim of each queue may
    /// have been under way when the lease expired, such as at a freeze. A second one is a claim without a lease.
    fn check_lease(&mut self, worker: &str, queue: &str, at_us: i64) -> Option<String> {
        let lease = self.leases.entry(worker.to_owned()).or_default();
        let renewed = lease.renewals.partition_point(|renewal| *renewal <= at_us).checked_sub(1);
        let renewed = renewed.and_then(|place| lease.renewals.get(place).copied());
        if renewed.is_some_and(|renewed| at_us - renewed <= lease.lease_us) {
            return None;
        }
        // The jobs of one claim have the same time.
        let before = lease.late_claims.insert(queue.to_owned(), (renewed, at_us));
        before.filter(|(renewal, claim)| *renewal == renewed && *claim != at_us).map(|_| {
            let since = renewed.map_or_else(|| "never".to_owned(), |renewed| format!("{} us before", at_us - renewed));
            format!("{worker} claimed {queue} repeatedly, and had renewed its lease {since}")
        })
    }

    /// A worker is rescued only after a whole lease without a renewal. A single renewal may have been under way when the
    /// rescue read the leases. Of two, the first one was visible.
    fn check_rescue(&self, job: &str, worker: &str, at_us: i64) -> Option<String> {
        let lease = self.leases.get(worker)?;
        let renewals =
            lease.renewals.iter().filter(|renewal| (at_us - lease.lease_us..at_us).contains(renewal)).count();
        (renewals > 1)
            .then(|| format!("the job {job} was rescued from {worker}, which had renewed its lease {renewals} times"))
    }

    /// A job is completed by the run that holds it, so after the work of that run.
    fn check_end(&self, job: &str, run: i32, at_us: i64) -> Option<String> {
        if !self.reporting.contains(job) {
            return None;
        }
        let ended = self.tasks.get(job).and_then(|task| task.ended.get(&run));
        let is_early = ended.is_none_or(|ended| at_us < *ended);
        is_early.then(|| format!("the job {job} was completed before its run {run} had ended"))
    }

    /// The promises that are broken by what did not happen: until this moment, in milliseconds of a history that goes on, or
    /// until the end.
    pub(super) fn finish(self, goes_on_at_ms: Option<u64>) -> Vec<String> {
        let late = self.expected.into_iter().filter(|(_, latest)| goes_on_at_ms.is_none_or(|now| *latest < now));
        late.map(|(job, _)| format!("the job {job} was committed while no worker listened, and did not start in time"))
            .collect()
    }
}

#[cfg(test)]
mod tests;
