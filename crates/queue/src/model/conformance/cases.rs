//! The rows that statements are tried on: all combinations of the columns that they read.

use super::world::Row;
use crate::model::{
    row::{Due, Ended, Job, Status},
    tests::reached_jobs,
};

/// A column that a statement reads or changes, in addition to the status, the holder and the attempts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Column {
    Failures,
    Crashes,
    Due,
    Ended,
    CancelRequested,
}

impl Column {
    const ALL: [Self; 5] = [Self::Failures, Self::Crashes, Self::Due, Self::Ended, Self::CancelRequested];

    /// The job with each value of the column.
    fn values(self, job: Job) -> Vec<Job> {
        match self {
            Self::Failures => [0, 1].map(|failures| Job { failures, ..job }).to_vec(),
            Self::Crashes => [0, 1].map(|crashes| Job { crashes, ..job }).to_vec(),
            Self::Due => [Due::Now, Due::Later].map(|due| Job { due, ..job }).to_vec(),
            Self::Ended => [Ended::No, Ended::Recently, Ended::LongAgo].map(|ended| Job { ended, ..job }).to_vec(),
            Self::CancelRequested => [false, true].map(|requested| Job { cancel_requested: requested, ..job }).to_vec(),
        }
    }
}

pub(super) const STATUSES: [Status; 5] =
    [Status::Pending, Status::Running, Status::Done, Status::Killed, Status::Cancelled];

/// Jobs in every status, with every holder and 0 to 2 attempts, and with each value of these columns. Also rows that the
/// model never reaches, such as a waiting job with an end: another program may have written them.
pub(super) fn jobs(columns: &[Column]) -> Vec<Job> {
    let mut jobs = Vec::new();
    for status in STATUSES {
        for holder in [None, Some(0), Some(1)] {
            jobs.extend((0..=2).map(|attempts| Job { status, holder, attempts, ..Job::new(Due::Now, false) }));
        }
    }
    for column in columns {
        jobs = jobs.into_iter().flat_map(|job| column.values(job)).collect();
    }
    jobs
}

/// A row for each of these jobs.
pub(super) fn rows(jobs: impl IntoIterator<Item = Job>) -> Vec<Row> {
    jobs.into_iter().enumerate().map(|(number, job)| Row::new(number, job)).collect()
}

/// Conditions compare attempts with a token, and the other counts with 0. So larger counts are no other case.
#[test]
fn the_rows_include_every_row_that_the_search_reaches() {
    let all = jobs(&Column::ALL);
    let reached = reached_jobs();
    assert!(reached.len() > 500, "the search reached only {} rows", reached.len());
    for job in reached {
        let case = Job {
            attempts: job.attempts.min(2),
            failures: job.failures.min(1),
            crashes: job.crashes.min(1),
            replays: 0,
            due: if job.due == Due::Now { Due::Now } else { Due::Later },
            ..job
        };
        assert!(all.contains(&case), "no statement is tried on {job:?}");
    }
}
