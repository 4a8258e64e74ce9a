//! Parameters and schemas of capacity.

use poem_openapi::{Object, registry::MetaSchema};
use queue::operator::trends::TrendWindow;
use runtime::duration::parse_duration;

use super::queues::DepthIs;
use crate::{
    validation::{Choice, FieldError, QueryValue},
    wire::{Nullable, Timestamp},
};

impl Choice for TrendWindow {
    const ALL: &'static [Self] = &TrendWindow::ALL;

    fn name(self) -> &'static str {
        self.as_str()
    }
}

/// A duration in a query, read as seconds.
pub(crate) struct DurationParam;

impl QueryValue for DurationParam {
    type Out = f64;

    fn schema() -> MetaSchema {
        MetaSchema { pattern: Some("^[0-9]{1,6}[smhd]$".into()), ..MetaSchema::new("string") }
    }

    fn read(text: &str) -> Result<f64, FieldError> {
        let duration = parse_duration(text).map_err(|must| FieldError::value_error(format!("it {must}")))?;
        Ok(duration.as_seconds_f64())
    }
}

/// How many workers all queues need.
#[derive(Object)]
#[oai(rename = "WorkerScale")]
pub(crate) struct Scale {
    at: Timestamp,
    /// 99 of 100 jobs should start at most so long after they are due.
    objective_seconds: f64,
    /// No due job should be left after this time.
    drain_in_seconds: f64,
    /// Live workers.
    workers: u32,
    /// The most that a queue needs: each worker runs all queues of its program.
    workers_needed: u32,
    queues: Vec<QueueScale>,
}

/// How many workers a queue needs, and the figures that say so.
#[derive(Object)]
struct QueueScale {
    queue: String,
    /// Live workers that run it.
    workers: u32,
    /// For the arrivals and the due jobs: 0 while it is paused or idle, and 1 while its runs are not known.
    workers_needed: u32,
    /// For the arrivals alone; null without runs or without a live worker.
    workers_for_arrivals: Nullable<u32>,
    /// For the arrivals, and to run all due jobs in time.
    workers_to_drain: Nullable<u32>,
    is_paused: bool,
    due: i64,
    /// Whether `due` is counted or estimated.
    depth_is: DepthIs,
    running: i64,
    /// Jobs that come in each second, over the last 15 minutes.
    arrivals_per_second: f64,
    /// The mean duration of the runs of the last 15 minutes.
    mean_run_seconds: Nullable<f64>,
    /// The jobs that one worker runs at once.
    slots_per_worker: u32,
    /// When no due job is left with the present workers; null if that never happens, or nothing waits.
    drained_in_seconds: Nullable<f64>,
    /// The figures in a sentence.
    basis: String,
}

/// What happened in a queue.
#[derive(Object)]
#[oai(rename = "QueueTrends")]
pub(crate) struct Trends {
    queue: String,
    /// `1h`, `24h` or `14d`.
    window: String,
    /// The length of a point.
    step_seconds: u32,
    /// Whether the present depth, from which the others are computed, is counted or estimated.
    depth_is: DepthIs,
    /// Oldest first. The last point is not over yet.
    points: Vec<TrendPoint>,
    /// Releases, pauses, replays and discards in this time, oldest first.
    marks: Vec<TrendMark>,
}

/// What happened in a queue in one step of time.
#[derive(Object)]
struct TrendPoint {
    /// When it began.
    at: Timestamp,
    /// Jobs that were enqueued, retried or snoozed.
    came: i64,
    /// Runs that started.
    started: i64,
    /// New dead letters.
    dead: i64,
    /// 99 of 100 runs started at most this long after they were due; null without runs, and above five minutes.
    wait_p99_seconds: Nullable<f64>,
    /// Waiting and running jobs at its end: those of now, less what was enqueued since, and more what ended since.
    depth: i64,
}

/// Something that may explain a change.
#[derive(Object)]
struct TrendMark {
    at: Timestamp,
    /// `release`, `pause`, `resume`, `replay` or `discard`.
    kind: String,
    /// A sentence.
    text: String,
}
