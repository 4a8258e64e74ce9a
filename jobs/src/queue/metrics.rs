//! The names of the queue's metrics, and their presence at zero from the start.

use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

pub const ENQUEUED: &str = "millrace_jobs_enqueued_total";
pub const FINISHED: &str = "millrace_jobs_finished_total";
pub const WAIT: &str = "millrace_job_wait_seconds";
pub const RUN: &str = "millrace_job_run_seconds";
pub const RESCUED: &str = "millrace_jobs_rescued_total";
pub const FENCED: &str = "millrace_jobs_fenced_total";

/// Says what each metric means, once a process.
pub fn describe() {
    describe_counter!(ENQUEUED, "Jobs enqueued by this process.");
    describe_counter!(FINISHED, "Runs that ended, by outcome.");
    describe_histogram!(WAIT, Unit::Seconds, "From the time a job was due to the start of its run.");
    describe_histogram!(RUN, Unit::Seconds, "How long runs took.");
    describe_counter!(RESCUED, "Running jobs taken back from workers whose lease had ended.");
    describe_counter!(FENCED, "Results dropped because the run no longer held its job.");
}

/// Makes every series of a queue visible before anything happened in it.
pub(crate) fn zero(queue: &'static str) {
    for name in [ENQUEUED, RESCUED, FENCED] {
        counter!(name, "queue" => queue).absolute(0);
    }
    for outcome in ["done", "retry", "snooze", "dead", "given_back"] {
        counter!(FINISHED, "queue" => queue, "outcome" => outcome).absolute(0);
    }
    for name in [WAIT, RUN] {
        drop(histogram!(name, "queue" => queue));
    }
}
