//! The queue's metrics: their names, and their series at zero from the start.

use std::{collections::BTreeSet, sync::Mutex};

use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram};

use runtime::mutex::lock;

pub const ENQUEUED: &str = "millrace_jobs_enqueued_total";
pub const FINISHED: &str = "millrace_jobs_finished_total";
pub const WAIT: &str = "millrace_job_wait_seconds";
pub const RUN: &str = "millrace_job_run_seconds";
pub const RESCUED: &str = "millrace_jobs_rescued_total";
pub const FENCED: &str = "millrace_jobs_fenced_total";
pub const CLAIM_ERRORS: &str = "millrace_claim_errors_total";

/// Every value of the label `outcome`.
const OUTCOMES: [&str; 6] = ["done", "retry", "snooze", "dead", "cancelled", "given_back"];

/// The queues that this process shows in `/metrics`. It is global like the metrics recorder.
static KNOWN: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());

/// The series of one queue's runs, looked up once: a look-up by name and labels costs more than a run of a small job.
pub struct Runs {
    pub wait: Histogram,
    pub run: Histogram,
    /// By outcome. They are so few that a search is faster than a hash.
    finished: [(&'static str, Counter); OUTCOMES.len()],
}

impl Runs {
    /// Looks up the series of a queue.
    pub fn of(queue: &'static str) -> Self {
        let finished = |outcome| (outcome, counter!(FINISHED, "queue" => queue, "outcome" => outcome));
        Self {
            wait: histogram!(WAIT, "queue" => queue),
            run: histogram!(RUN, "queue" => queue),
            finished: OUTCOMES.map(finished),
        }
    }

    /// Counts a run with this outcome.
    pub fn finished(&self, outcome: &str) {
        if let Some((_, counter)) = self.finished.iter().find(|(name, _)| *name == outcome) {
            counter.increment(1);
        }
    }
}

/// Describes each metric, once per process.
pub fn describe() {
    describe_counter!(ENQUEUED, "Jobs enqueued by this process.");
    describe_counter!(FINISHED, "Runs that ended, by outcome.");
    describe_histogram!(WAIT, Unit::Seconds, "From the time a job was due to the start of its run.");
    describe_histogram!(RUN, Unit::Seconds, "Duration of runs.");
    describe_counter!(RESCUED, "Running jobs taken over from workers whose lease had expired.");
    describe_counter!(FENCED, "Results dropped because the run no longer held its job.");
    describe_counter!(CLAIM_ERRORS, "Claims that the database refused or did not complete.");
}

/// Shows all series of a queue at zero, before anything has happened.
pub fn zero(queue: &'static str) {
    lock(&KNOWN).insert(queue);
    for name in [ENQUEUED, RESCUED, FENCED, CLAIM_ERRORS] {
        counter!(name, "queue" => queue).absolute(0);
    }
    Runs::of(queue).finished.iter().for_each(|(_, counter)| counter.absolute(0));
}

/// The queues for which [`zero`] was called. They limit the label values, regardless of the queues in the database.
pub(super) fn queue_names() -> Vec<String> {
    lock(&KNOWN).iter().map(|queue| (*queue).to_owned()).collect()
}
