//! The options that select jobs.

use clap::Args;
use queue::{
    filter::{Age, Filter},
    status::State,
};

/// The options that select jobs, apart from the queue and the state. Every given condition must hold.
#[derive(Args)]
pub(super) struct FilterArguments {
    /// Select only jobs whose last error contains this text
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Select only jobs whose last error is of this group; `millrace dead` lists the groups
    #[arg(long)]
    group: Option<String>,
    /// Select only jobs that were enqueued longer ago, such as 30m, 2h or 1d
    #[arg(long, value_name = "AGE")]
    older_than: Option<Age>,
    /// Select only jobs that this worker runs or ran last
    #[arg(long)]
    worker: Option<String>,
    /// Select only jobs with at least this many runs
    #[arg(long, value_name = "RUNS", value_parser = clap::value_parser!(i32).range(0..))]
    attempts: Option<i32>,
    /// Select only the jobs with this unique key
    #[arg(long)]
    key: Option<String>,
}

impl FilterArguments {
    pub(super) fn filter(self, queue: Option<String>, state: Option<State>, before: Option<String>) -> Filter {
        let Self { error, group, older_than, worker, attempts, key } = self;
        Filter { queue, state, error, group, older_than, worker, attempts, key, before }
    }
}
