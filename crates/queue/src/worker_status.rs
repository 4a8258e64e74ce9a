//! What a worker reports about itself with each heartbeat, for operators.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sqlx::types::JsonValue;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::{fair::Sharing, in_flight::InFlight, storable::StorableText};
use runtime::{error::causes, mutex::lock, version::VERSION};

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

/// What a worker reports about itself with each heartbeat.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    pub host: String,
    pub pid: u32,
    /// The release, and the commit if it is known.
    pub version: String,
    /// Whether notifications reach it; without them it polls.
    pub listening: bool,
    /// Whether it claims no more jobs, because it stops.
    pub draining: bool,
    pub queues: BTreeMap<String, QueueReport>,
}

/// What a worker reports about one of its queues.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueueReport {
    /// How many jobs it runs at once.
    pub slots: u32,
    pub running: u32,
    /// Its last successful claim, also one that found no job.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_claim: Option<OffsetDateTime>,
    /// See [`Policy::fair`](crate::Policy::fair); `false` for a worker of an earlier release.
    #[serde(default)]
    pub fair: bool,
    /// See [`Policy::per_key`](crate::Policy::per_key); `None` also for a worker of an earlier release.
    #[serde(default)]
    pub per_key: Option<u32>,
}

/// Why claims fail, and since when.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClaimError {
    pub error: String,
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
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
        lock(&self.queues).insert(queue, state);
    }

    /// The longest deadline of the queues that have a run; `None` without a run.
    pub(crate) fn longest_deadline_in_flight(&self) -> Option<Duration> {
        let queues = lock(&self.queues);
        let running = queues.values().filter(|queue| !queue.in_flight.tokens().is_empty());
        running.map(|queue| queue.deadline).max()
    }

    /// Records a claim that the database has completed.
    pub(crate) fn claimed(&self, queue: &str) {
        if let Some(state) = lock(&self.queues).get_mut(queue) {
            state.last_claim = Some(OffsetDateTime::now_utc());
            state.error = None;
        }
    }

    /// Records a claim that failed in the database.
    pub(crate) fn claim_failed(&self, queue: &str, error: &sqlx::Error) {
        if let Some(state) = lock(&self.queues).get_mut(queue) {
            let since = state.error.as_ref().map_or_else(OffsetDateTime::now_utc, |earlier| earlier.since);
            state.error = Some(ClaimError { error: StorableText::from(causes(error)).to_string(), since });
        }
    }

    /// The errors of claims by queue, for the worker's row; `None` while all claims succeed.
    pub(crate) fn claim_errors(&self) -> Option<JsonValue> {
        let queues = lock(&self.queues);
        let errors: BTreeMap<&str, &ClaimError> =
            queues.iter().filter_map(|(queue, state)| Some((*queue, state.error.as_ref()?))).collect();
        if errors.is_empty() { None } else { serde_json::to_value(errors).ok() }
    }

    /// Everything else, for the worker's row.
    pub(crate) fn report(&self) -> Option<JsonValue> {
        let host =
            nix::unistd::gethostname().map_or_else(|_| "host".into(), |name| name.to_string_lossy().into_owned());
        let queues = lock(&self.queues);
        let queues = queues.iter().map(|(queue, state)| {
            let [slots, running] =
                [state.slots, state.in_flight.tokens().len()].map(|jobs| u32::try_from(jobs).unwrap_or(u32::MAX));
            let (last_claim, Sharing { fair, per_key }) = (state.last_claim, state.sharing);
            ((*queue).to_owned(), QueueReport { slots, running, last_claim, fair, per_key })
        });
        serde_json::to_value(Report {
            host: StorableText::from(host).to_string(),
            pid: std::process::id(),
            version: VERSION.clone(),
            listening: self.is_listening.load(Relaxed),
            draining: self.draining.is_cancelled(),
            queues: queues.collect(),
        })
        .ok()
    }
}
