//! What a worker reports about itself with each heartbeat, for operators.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use serde::Serialize;
use sqlx::types::JsonValue;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::{fair::Sharing, in_flight::InFlight, storable::StorableText};
use runtime::{error::causes, version::VERSION};

/// The state of a running worker. Its parts record here what they do; each heartbeat writes it into the worker's row.
pub(crate) struct WorkerStatus {
    queues: Mutex<BTreeMap<&'static str, QueueState>>,
    /// Whether notifications arrive; without them the worker polls.
    pub is_listening: AtomicBool,
    /// Cancelled when the worker stops claiming.
    draining: CancellationToken,
}

struct QueueState {
    slots: usize,
    /// The deadline of a run.
    deadline: Duration,
    sharing: Sharing,
    in_flight: InFlight,
    last_claim: Option<OffsetDateTime>,
    error: Option<ClaimError>,
}

#[derive(Clone, Serialize)]
struct ClaimError {
    error: String,
    #[serde(with = "time::serde::rfc3339")]
    since: OffsetDateTime,
}

/// The form in the worker's row, which [`Worker`](crate::status::WorkerInfo) reads.
#[derive(Serialize)]
struct Report<'a> {
    host: &'a str,
    pid: u32,
    version: &'a str,
    listening: bool,
    draining: bool,
    queues: BTreeMap<&'static str, QueueReport>,
}

#[derive(Serialize)]
struct QueueReport {
    slots: usize,
    running: usize,
    #[serde(with = "time::serde::rfc3339::option")]
    last_claim: Option<OffsetDateTime>,
    fair: bool,
    per_key: Option<u32>,
}

impl WorkerStatus {
    /// The status of a worker that has not claimed yet.
    pub(crate) fn new(draining: CancellationToken) -> Self {
        Self { queues: Mutex::default(), is_listening: AtomicBool::new(false), draining }
    }

    /// Adds a queue with this number of slots, whose runs have this deadline.
    pub(crate) fn add_queue(
        &self,
        queue: &'static str,
        slots: usize,
        deadline: Duration,
        sharing: Sharing,
        in_flight: InFlight,
    ) {
        let state = QueueState { slots, deadline, sharing, in_flight, last_claim: None, error: None };
        self.lock().insert(queue, state);
    }

    /// The longest deadline of the queues that have a run; `None` without a run.
    pub(crate) fn longest_deadline_in_flight(&self) -> Option<Duration> {
        let queues = self.lock();
        let running = queues.values().filter(|queue| !queue.in_flight.tokens().is_empty());
        running.map(|queue| queue.deadline).max()
    }

    /// Records a claim that the database has completed.
    pub(crate) fn claimed(&self, queue: &str) {
        if let Some(state) = self.lock().get_mut(queue) {
            state.last_claim = Some(OffsetDateTime::now_utc());
            state.error = None;
        }
    }

    /// Records a claim that failed in the database.
    pub(crate) fn claim_failed(&self, queue: &str, error: &sqlx::Error) {
        if let Some(state) = self.lock().get_mut(queue) {
            let since = state.error.as_ref().map_or_else(OffsetDateTime::now_utc, |earlier| earlier.since);
            state.error = Some(ClaimError { error: StorableText::from(causes(error)).to_string(), since });
        }
    }

    /// The errors of claims by queue, for the worker's row; `None` while all claims succeed.
    pub(crate) fn claim_errors(&self) -> Option<JsonValue> {
        let queues = self.lock();
        let errors: BTreeMap<&str, &ClaimError> =
            queues.iter().filter_map(|(queue, state)| Some((*queue, state.error.as_ref()?))).collect();
        if errors.is_empty() { None } else { serde_json::to_value(errors).ok() }
    }

    /// Everything else, for the worker's row.
    pub(crate) fn report(&self) -> Option<JsonValue> {
        let host =
            nix::unistd::gethostname().map_or_else(|_| "host".into(), |name| name.to_string_lossy().into_owned());
        let queues = self.lock();
        let queues = queues.iter().map(|(queue, state)| {
            let running = state.in_flight.tokens().len();
            let (slots, last_claim, Sharing { fair, per_key }) = (state.slots, state.last_claim, state.sharing);
            (*queue, QueueReport { slots, running, last_claim, fair, per_key })
        });
        serde_json::to_value(Report {
            host: &StorableText::from(host).to_string(),
            pid: std::process::id(),
            version: VERSION.as_str(),
            listening: self.is_listening.load(Relaxed),
            draining: self.draining.is_cancelled(),
            queues: queues.collect(),
        })
        .ok()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, QueueState>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
