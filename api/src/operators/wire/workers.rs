//! The schemas of workers.

use std::collections::BTreeMap;

use poem_openapi::Object;
use queue::{operator::workers::WorkerInfo, status::JobStatus};
use serde::Serialize;

use super::jobs::Job;
use crate::{
    page::PageLimit,
    wire::{Nullable, Timestamp},
};

/// The largest number of workers on a page. Its default is its maximum: clients that follow no link get as many workers
/// as before the list had pages.
pub(crate) type WorkerLimit = PageLimit<1000, 1000, u32>;

/// A worker.
#[derive(Object)]
pub(crate) struct Worker {
    id: String,
    /// Whether its lease is valid.
    live: bool,
    started_at: Timestamp,
    /// Seconds since its last heartbeat.
    silent_seconds: f64,
    lease_seconds: f64,
    /// Its running jobs, by the database.
    running: i64,
    /// Seconds since the start of its oldest running job.
    oldest_run_seconds: Nullable<f64>,
    /// Whether an operator has asked it to stop.
    drain_requested: bool,
    /// Null for a worker of an earlier release.
    report: Nullable<WorkerReport>,
    /// Why its claims fail, by queue; empty while they succeed.
    claim_errors: BTreeMap<String, ClaimError>,
}

/// What a worker reports about itself with each heartbeat.
#[derive(Object, Serialize)]
struct WorkerReport {
    host: String,
    pid: u32,
    /// The release, and the commit if it is known.
    version: String,
    /// Whether notifications reach it; without them it polls.
    listening: bool,
    /// Whether it claims no more jobs, because it stops.
    draining: bool,
    /// By queue.
    queues: BTreeMap<String, WorkerQueue>,
}

/// What a worker reports about one of its queues.
#[derive(Object, Serialize)]
struct WorkerQueue {
    /// How many jobs it runs at once.
    slots: u32,
    running: u32,
    /// Its last successful claim, also one that found no job.
    last_claim: Nullable<Timestamp>,
    /// Whether the keys of waiting jobs share the slots.
    fair: bool,
    /// How many jobs of one key may run at once in all workers; null without a limit.
    per_key: Nullable<u32>,
}

/// Why claims fail, and since when.
#[derive(Object)]
struct ClaimError {
    error: String,
    since: Timestamp,
}

/// A worker with its running jobs.
#[derive(Object)]
pub(crate) struct WorkerDetails {
    #[oai(flatten)]
    worker: Worker,
    /// The jobs that it holds, longest run first, at most 100.
    held: Vec<Job>,
}

/// The value of [`WorkerDetails`].
#[derive(Serialize)]
pub(crate) struct WorkerView {
    #[serde(flatten)]
    pub worker: WorkerInfo,
    pub held: Vec<JobStatus>,
}
