//! The schemas of jobs.

use poem_openapi::{Enum, Object};
use queue::{
    operator::jobs::LiveJobs,
    status::{self, JobDetails as Details, JobStatus},
};
use serde::Serialize;
use serde_json::Value;

use super::FreeJson;
use crate::wire::{Nullable, Timestamp};

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
pub(crate) enum JobState {
    /// It waits until it is due and a worker claims it.
    Waiting,
    Running,
    Done,
    /// A dead letter: it is not retried any more, but kept for a replay.
    Dead,
    /// Ended by an operator. Only a replay by its id runs it again.
    Cancelled,
    /// Another program has written a state that Millrace does not know.
    Unknown,
}

/// A job.
#[derive(Object)]
pub(crate) struct Job {
    id: String,
    queue: String,
    state: JobState,
    priority: i32,
    /// Runs so far, regardless of their outcome.
    runs: i32,
    /// Runs that failed since it was enqueued or replayed.
    failures: i32,
    /// Consecutive crashes since it was enqueued or replayed.
    crashes: i32,
    due_at: Timestamp,
    /// By the database's clock; negative if it is due.
    due_in_seconds: f64,
    /// The worker that runs it or ran it last.
    worker: Nullable<String>,
    started_at: Nullable<Timestamp>,
    ended_at: Nullable<Timestamp>,
    last_error: Nullable<String>,
    /// The group of its last error.
    error_group: Nullable<String>,
    /// No other job of its queue with this key waits or runs.
    key: Nullable<String>,
    correlation_id: Nullable<String>,
    traceparent: Nullable<String>,
}

/// The waiting or running jobs that a request cancels.
#[derive(Object)]
pub(crate) struct CancelledJobs {
    /// Whether nothing was changed.
    dry_run: bool,
    /// The number of jobs that are cancelled or will be, or with `dry_run` of those that the request selects.
    count: u64,
    /// Whether there may be more than the request selects.
    is_capped: bool,
    /// The five oldest.
    samples: Vec<Job>,
    /// All of them have ids before this one. With it, a request does not select jobs whose ids are newer.
    before: String,
    /// The jobs that a request with this `limit` cancels, oldest first. A request with these `ids` cancels no others, such
    /// as jobs that were committed since and have older ids.
    ids: Vec<String>,
}

/// The value of [`CancelledJobs`].
#[derive(Serialize)]
pub(crate) struct CancelledView {
    pub dry_run: bool,
    pub count: u64,
    pub is_capped: bool,
    pub samples: Vec<JobStatus>,
    pub before: String,
    pub ids: Vec<String>,
}

impl CancelledView {
    /// What a request would cancel of these jobs: at most `limit`.
    pub(crate) fn dry_run(selected: LiveJobs, limit: u32) -> Self {
        let LiveJobs { mut ids, count, is_capped, samples, before } = selected;
        ids.truncate(limit as usize);
        Self { dry_run: true, count: u64::try_from(count).unwrap_or(u64::MAX), is_capped, samples, before, ids }
    }
}

/// A job and its errors.
#[derive(Object)]
pub(crate) struct JobDetails {
    #[oai(flatten)]
    job: Job,
    /// Why it is not running; details about its run if it is.
    why: String,
    /// The last few errors, oldest first.
    errors: Vec<JobError>,
    /// What happened to it, oldest first: the newest 20 events.
    events: Vec<JobEvent>,
    /// How often operators have replayed it.
    replays: i32,
    /// Only with `payload=true`: the payload as JSON, or as text if it is not JSON.
    payload: Option<FreeJson>,
}

/// An error of a run.
#[derive(Object)]
struct JobError {
    at: Timestamp,
    /// The number of the run.
    run: i32,
    /// The worker of the run; null if an operator ended the job.
    worker: Nullable<String>,
    /// When the run was due; absent in errors of earlier releases.
    due: Option<Timestamp>,
    /// When the run started; absent in errors of earlier releases.
    started: Option<Timestamp>,
    /// Every cause.
    error: String,
}

/// One thing that happened to a job.
#[derive(Object)]
struct JobEvent {
    at: Timestamp,
    /// `enqueued`, `running`, `run_failed`, `rescued`, `snoozed`, `given_back`, `done`, `cancelled`, `discarded`,
    /// `replayed`, or `failed`: how its record had failed before a replay.
    event: String,
    /// A sentence.
    text: String,
    /// Its fields depend on the event.
    details: FreeJson,
}

/// The value of [`JobDetails`].
#[derive(Serialize)]
pub(crate) struct JobView {
    #[serde(flatten)]
    job: JobStatus,
    why: String,
    errors: Value,
    events: Vec<status::JobEvent>,
    replays: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Value>,
}

impl JobView {
    /// The job without its payload.
    pub(crate) fn masked(details: Details) -> Self {
        Self { payload: None, ..Self::opened(details) }
    }

    /// The job with its payload.
    pub(crate) fn opened(details: Details) -> Self {
        let Details { job, why, errors, events, replays, payload } = details;
        Self { job, why, errors, events, replays, payload: Some(payload) }
    }
}

/// Why a job is not running.
#[derive(Object)]
pub(crate) struct Why {
    job: Job,
    /// One sentence: the first check that fails, or that it runs.
    verdict: String,
    /// In the order in which they decide.
    checks: Vec<Check>,
    /// What happened to the job, oldest first: the newest 20 events.
    events: Vec<JobEvent>,
}

/// One check.
#[derive(Object)]
pub(super) struct Check {
    ok: bool,
    /// What was found.
    text: String,
    /// A command that corrects it.
    fix: Nullable<String>,
}
