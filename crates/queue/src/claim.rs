//! Takes exactly as many due jobs as can run now, and knows which ones this worker holds.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use metrics::counter;
use serde::Serialize;
use sqlx::{PgPool, types::JsonValue};
use time::OffsetDateTime;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    heartbeat::Lease,
    metrics::CLAIM_ERRORS,
    poller::WakeSignal,
    retry::Backoff,
    storable::StorableText,
    store::{self, Claimed},
};
use runtime::{
    db::with_time_limit,
    error::causes,
    telemetry::traces::span::{self, Span},
};

/// At most this many in one claim: with 500 each job cost a tenth more, beyond 1,000 the statement only gets longer.
const MOST: usize = 1000;
/// After a claim whose outcome is unknown, this long may its rows still appear: the statement's time limit and a bit.
const DOUBT: Duration = Duration::from_secs(7);

/// Between two looks for such rows while nothing else is to be done.
const DOUBTFUL_LOOK: Duration = Duration::from_secs(1);

/// A job on its way through this worker, with the slot that it occupies.
pub struct ClaimedJob {
    pub job: Claimed,
    pub slot: OwnedSemaphorePermit,
}

/// The jobs of one queue that this worker has claimed and whose results are not yet written.
#[derive(Clone, Default)]
pub struct InFlight(Arc<Mutex<HashMap<String, i32>>>);

impl InFlight {
    fn tokens(&self) -> MutexGuard<'_, HashMap<String, i32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The result of this run is written, or its token no longer holds; a later run of the job is still held.
    pub fn release(&self, id: &str, token: i32) {
        let mut tokens = self.tokens();
        if tokens.get(id) == Some(&token) {
            tokens.remove(id);
        }
    }
}

/// Why claims of this worker fail, by queue: written into its row with each heartbeat, where operators see it.
#[derive(Default)]
pub struct ClaimErrors(Mutex<BTreeMap<&'static str, ClaimError>>);

#[derive(Serialize)]
struct ClaimError {
    error: String,
    #[serde(with = "time::serde::rfc3339")]
    since: OffsetDateTime,
}

impl ClaimErrors {
    fn note(&self, queue: &'static str, error: &sqlx::Error) {
        let error = StorableText::from(causes(error)).to_string();
        let mut errors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = errors.get(queue).map_or_else(OffsetDateTime::now_utc, |earlier| earlier.since);
        errors.insert(queue, ClaimError { error, since });
    }

    fn clear(&self, queue: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(queue);
    }

    /// As the worker's row has it; `None` while all claims succeed.
    pub fn as_json(&self) -> Option<JsonValue> {
        let errors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if errors.is_empty() { None } else { serde_json::to_value(&*errors).ok() }
    }
}

/// What a claiming loop needs.
pub struct Claimer {
    pub pool: PgPool,
    pub worker: Arc<str>,
    pub queue: &'static str,
    pub slots: Arc<Semaphore>,
    pub in_flight: InFlight,
    pub lease: Arc<Lease>,
    pub errors: Arc<ClaimErrors>,
    pub signal: Arc<WakeSignal>,
    /// Asks for a look at the due times.
    pub look: Arc<Notify>,
    pub jobs: mpsc::Sender<ClaimedJob>,
    pub stop: CancellationToken,
}

impl Claimer {
    /// Claims until `stop`. A claim under way is never abandoned: its rows would be nobody's.
    pub async fn run(self) {
        let mut failures = 0;
        let mut doubt: Option<Instant> = None;
        while let Some(mut slots) = self.free_slots().await {
            if let Some(until) = doubt {
                match self.give_back_unheld().await {
                    Ok(()) if Instant::now() >= until => doubt = None,
                    Ok(()) => {}
                    Err(error) => {
                        tracing::debug!(queue = self.queue, error = causes(&error), "could not look for lost claims");
                    }
                }
            }
            let wanted = slots.num_permits();
            let limit = i64::try_from(wanted).unwrap_or(i64::MAX);
            let began = span::is_exporting().then(SystemTime::now);
            let claim = store::claim(&self.pool, &self.worker, self.queue, limit);
            let jobs = match with_time_limit(claim).await {
                Ok(jobs) => jobs,
                Err(error) => {
                    failures += 1;
                    counter!(CLAIM_ERRORS, "queue" => self.queue).increment(1);
                    self.errors.note(self.queue, &error);
                    let error = causes(&error);
                    tracing::warn!(queue = self.queue, failures, error, "could not claim jobs; trying again");
                    self.pause(Backoff::DATABASE.wait(failures)).await;
                    continue;
                }
            };
            if failures > 0 {
                // The answer of one that failed may be all that was lost, and what hung with the database may be executed
                // only now that it is back.
                doubt = Some(Instant::now() + DOUBT);
                self.errors.clear(self.queue);
            }
            failures = 0;
            let found = jobs.len();
            if let Some(began) = began.filter(|_| found > 0) {
                Span::record_claim(self.queue, began, jobs.iter().map(|job| job.traceparent.as_deref()));
            }
            self.in_flight.tokens().extend(jobs.iter().map(|job| (job.id.clone(), job.token)));
            for job in jobs {
                // `wanted` bounds the claim, so a slot is always left; the channel outlives this loop.
                let Some(slot) = slots.split(1) else { break };
                let _ = self.jobs.send(ClaimedJob { job, slot }).await;
            }
            drop(slots);
            if found < wanted {
                tokio::select! {
                    () = self.signal.rung(&self.look) => {}
                    () = tokio::time::sleep(DOUBTFUL_LOOK), if doubt.is_some() => {}
                    () = self.stop.cancelled() => {}
                }
            }
        }
    }

    /// Waits for a free slot and a standing lease, and takes all slots that are free then; `None` at the stop.
    async fn free_slots(&self) -> Option<OwnedSemaphorePermit> {
        loop {
            let first = tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                slot = self.slots.clone().acquire_owned() => slot.ok()?,
            };
            if self.lease.stands() {
                let mut slots = first;
                let more = self.slots.available_permits().min(MOST - 1);
                if let Ok(permits) = u32::try_from(more)
                    && let Ok(rest) = self.slots.clone().try_acquire_many_owned(permits)
                {
                    slots.merge(rest);
                }
                return Some(slots);
            }
            drop(first);
            self.pause(Duration::from_millis(50)).await;
        }
    }

    async fn pause(&self, time: Duration) {
        tokio::select! { () = tokio::time::sleep(time) => {} () = self.stop.cancelled() => {} }
    }

    /// Gives back rows that are in our name and that we know nothing of: a claim reached the database, and its answer
    /// did not reach us. Nobody else would touch them while our lease stands.
    async fn give_back_unheld(&self) -> sqlx::Result<()> {
        let held: Vec<String> = self.in_flight.tokens().keys().cloned().collect();
        let lost = store::give_back_unheld(&self.pool, &self.worker, self.queue, &held).await?;
        if lost > 0 {
            tracing::info!(queue = self.queue, jobs = lost, "gave back jobs whose claim was with_time_limit to nobody");
        }
        Ok(())
    }
}
