//! The names of the queue's metrics, and their presence at zero from the start.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};

use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram};

pub const ENQUEUED: &str = "millrace_jobs_enqueued_total";
pub const FINISHED: &str = "millrace_jobs_finished_total";
pub const WAIT: &str = "millrace_job_wait_seconds";
pub const RUN: &str = "millrace_job_run_seconds";
pub const RESCUED: &str = "millrace_jobs_rescued_total";
pub const FENCED: &str = "millrace_jobs_fenced_total";
pub const CLAIM_ERRORS: &str = "millrace_claim_errors_total";

/// Every value of the label `outcome`.
const OUTCOMES: [&str; 6] = ["done", "retry", "snooze", "dead", "cancelled", "given_back"];

/// The queues that this process has shown, as global as the recorder that shows them.
static KNOWN: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());

/// What is counted of each run of one kind of job, looked up once: a look-up by name and labels costs more than a run
/// of a small job.
pub struct Runs {
    pub wait: Histogram,
    pub run: Histogram,
    finished: HashMap<&'static str, Counter>,
}

impl Runs {
    /// The series of a queue.
    pub fn of(queue: &'static str) -> Self {
        let finished = |outcome| (outcome, counter!(FINISHED, "queue" => queue, "outcome" => outcome));
        Self {
            wait: histogram!(WAIT, "queue" => queue),
            run: histogram!(RUN, "queue" => queue),
            finished: OUTCOMES.into_iter().map(finished).collect(),
        }
    }

    /// A run ended so.
    pub fn finished(&self, outcome: &str) {
        if let Some(counter) = self.finished.get(outcome) {
            counter.increment(1);
        }
    }
}

/// Says what each metric means, once a process.
pub fn describe() {
    describe_counter!(ENQUEUED, "Jobs enqueued by this process.");
    describe_counter!(FINISHED, "Runs that ended, by outcome.");
    describe_histogram!(WAIT, Unit::Seconds, "From the time a job was due to the start of its run.");
    describe_histogram!(RUN, Unit::Seconds, "How long runs took.");
    describe_counter!(RESCUED, "Running jobs taken back from workers whose lease had ended.");
    describe_counter!(FENCED, "Results dropped because the run no longer held its job.");
    describe_counter!(CLAIM_ERRORS, "Claims that the database refused or did not answer.");
}

/// Makes every series of a queue visible before anything happened in it.
pub fn zero(queue: &'static str) {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner).insert(queue);
    for name in [ENQUEUED, RESCUED, FENCED, CLAIM_ERRORS] {
        counter!(name, "queue" => queue).absolute(0);
    }
    Runs::of(queue).finished.values().for_each(|counter| counter.absolute(0));
}

/// Every queue that [`zero`] was called for: a bound for labels, whatever the database names.
pub(super) fn known() -> Vec<String> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|queue| (*queue).to_owned()).collect()
}
