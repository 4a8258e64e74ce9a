//! The schemas of queues.

use poem_openapi::{Enum, Object};
use queue::operator::{audit, overview, why};
use serde::Serialize;

use super::{Action, jobs::Check};
use crate::wire::{Nullable, Timestamp};

/// What the numbers of waiting and due jobs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub(super) enum DepthIs {
    /// Counted now.
    Exact,
    /// Numbers from 10,000 on are estimates: the last count, and what has come and gone since.
    Estimated,
    /// Counting stopped at 10,000.
    AtLeast,
}

/// A queue and its jobs. Counts stop at 10,000, which means "at least", apart from those of `depth_is`.
#[derive(Object)]
pub(crate) struct QueueStatus {
    name: String,
    /// Since when no job of it is claimed.
    paused_at: Nullable<Timestamp>,
    /// Who paused it.
    paused_by: Nullable<String>,
    /// Why it is paused.
    reason: Nullable<String>,
    /// When it resumes by itself.
    resume_at: Nullable<Timestamp>,
    /// Live workers that run it.
    workers: i64,
    /// Those workers whose claims fail in the database.
    failing_workers: i64,
    /// The error of one of them.
    claim_error: Nullable<String>,
    waiting: i64,
    /// Waiting jobs that are due.
    due: i64,
    /// Whether `waiting` and `due` are counted or estimated.
    depth_is: DepthIs,
    running: i64,
    dead: i64,
    /// Finished jobs among the 10,000 newest jobs of all queues.
    recently_done: i64,
    /// Seconds since the first waiting job became due; negative if no job is due yet, null if no job waits.
    late_seconds: Nullable<f64>,
}

/// The state of all queues at one time.
#[derive(Object)]
#[oai(rename = "QueuesOverview")]
pub(crate) struct Overview {
    at: Timestamp,
    /// What is wrong, worst first, at most five; empty while all is well.
    problems: Vec<QueueProblem>,
    queues: Vec<QueueOverview>,
}

/// One thing that is wrong.
#[derive(Object)]
struct QueueProblem {
    kind: ProblemKind,
    /// A sentence.
    text: String,
    /// The queue that it concerns.
    queue: Nullable<String>,
    /// The worker that it concerns.
    worker: Nullable<String>,
    /// The group of errors of the dead letters; empty for those without a group.
    group: Nullable<String>,
    /// The path of the board's page that says more.
    link: String,
    /// The command that says more.
    command: String,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename = "QueueProblemKind", rename_all = "snake_case")]
enum ProblemKind {
    /// The claims of a worker fail.
    CannotClaim,
    /// A queue has due jobs and no live worker.
    NoWorker,
    Paused,
    /// Jobs have died of the same error in the last 15 minutes.
    Dying,
    /// A queue gets more jobs than its workers start.
    Behind,
    /// A worker without a valid lease holds jobs.
    SilentWorker,
    /// Destinations of callbacks are disabled, or not known now.
    Callbacks,
}

/// A queue with its rates and estimates. Rates are jobs per second.
#[derive(Object)]
pub(crate) struct QueueOverview {
    #[oai(flatten)]
    status: QueueStatus,
    /// Jobs that live workers can run at once.
    slots: u32,
    /// Jobs that were enqueued, retried or snoozed, over the last minutes.
    in_per_second: f64,
    in_per_second_15_min: f64,
    /// Runs that started, over the last minutes.
    out_per_second: f64,
    out_per_second_15_min: f64,
    /// 99 of 100 runs of the last 15 minutes started at most this long after they were due; null without runs, and above
    /// five minutes.
    wait_p99_seconds: Nullable<f64>,
    /// The mean duration of the runs of the last 15 minutes.
    mean_run_seconds: Nullable<f64>,
    /// When no due job is left, at the present rates; null if no job is due, or if that never happens.
    drained_in_seconds: Nullable<f64>,
    /// How many jobs a second come in beyond those that start, while jobs are due.
    growing_by_per_second: Nullable<f64>,
    /// The number of workers that the arrivals of the last 15 minutes need; null without runs.
    workers_needed: Nullable<u32>,
    /// The number of workers that also run all due jobs within ten minutes.
    workers_to_drain_in_10_min: Nullable<u32>,
    /// Jobs that became dead letters in the last 24 hours.
    dead_24h: i64,
    /// The last 60 minutes, oldest first.
    minutes: Vec<Minute>,
}

/// One minute of a queue.
#[derive(Object)]
#[oai(rename = "QueueMinute")]
struct Minute {
    /// Jobs that came in.
    came: i64,
    /// Runs that started.
    started: i64,
    /// New dead letters.
    dead: i64,
}

/// A queue with what operators did to it.
#[derive(Object)]
pub(crate) struct QueueDetails {
    #[oai(flatten)]
    queue: QueueOverview,
    /// Why its jobs wait, in the order in which that is decided.
    checks: Vec<Check>,
    /// The newest 50 actions on it, newest first.
    actions: Vec<Action>,
}

/// The value of [`QueueDetails`].
#[derive(Serialize)]
pub(crate) struct QueueView {
    #[serde(flatten)]
    pub queue: overview::QueueOverview,
    pub checks: Vec<why::Check>,
    pub actions: Vec<audit::Action>,
}
