//! The schemas of schedules and their fires.

use poem_openapi::{Enum, Object};

use crate::wire::{Nullable, Timestamp};

/// A schedule: its next fires and its last ones.
#[derive(Object)]
#[oai(rename = "Schedule")]
pub(crate) struct Schedule {
    name: String,
    /// Six fields, seconds first, in UTC.
    cron: String,
    /// What happens to fires that were missed while no worker ran.
    catch_up: CatchUp,
    /// The next fire; null if the expression has no further time.
    next: Nullable<Timestamp>,
    /// The next five nominal times, with those that an operator skips.
    upcoming: Vec<Upcoming>,
    /// The last 20 fires, newest first.
    latest: Vec<Fire>,
}

/// A policy for missed fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
enum CatchUp {
    Skip,
    Latest,
    All,
}

/// A nominal time that is still to come.
#[derive(Object)]
#[oai(rename = "UpcomingFire")]
struct Upcoming {
    time: Timestamp,
    /// The operator who skips it.
    skipped_by: Nullable<String>,
}

/// How a fire came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename = "FireKind", rename_all = "snake_case")]
enum Kind {
    OnTime,
    /// It was missed, and fired later.
    MadeUp,
    /// It did not fire: an operator skipped it, or it was missed.
    Skipped,
    ByHand,
}

/// What came of a fire: the state of its jobs that needs most attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename = "FireOutcome", rename_all = "snake_case")]
enum Outcome {
    NoJobs,
    Dead,
    /// A job failed and waits for its next attempt.
    Retried,
    Running,
    Waiting,
    Cancelled,
    Done,
    /// None of its jobs is known: finished jobs are deleted after a day, and earlier releases recorded no ids.
    NotKnown,
}

/// A fire.
#[derive(Object)]
#[oai(rename = "ScheduleFire")]
pub(crate) struct Fire {
    schedule: String,
    /// The nominal time.
    fire_time: Timestamp,
    kind: Kind,
    fired_at: Timestamp,
    /// The operator who fired by hand, or who skipped it before its time.
    fired_by: Nullable<String>,
    /// The number of missed nominal times before it that do not fire.
    passed_over: i32,
    /// The number of jobs that it enqueued.
    jobs: i32,
    first_job: Nullable<String>,
    last_job: Nullable<String>,
    outcome: Outcome,
    states: States,
}

/// The jobs of a fire by their states. Deleted jobs are not counted.
#[derive(Object)]
#[oai(rename = "FireJobStates")]
struct States {
    /// Without those that failed before.
    waiting: i64,
    /// They failed and wait for their next attempt.
    retried: i64,
    running: i64,
    done: i64,
    dead: i64,
    cancelled: i64,
}
