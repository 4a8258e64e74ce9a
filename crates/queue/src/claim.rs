//! Claims exactly as many due jobs as can run now.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use metrics::counter;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    fair::KeyedClaims,
    in_flight::{ClaimedJob, InFlight},
    lease::Lease,
    metrics::CLAIM_ERRORS,
    poller::WakeSignal,
    retry::Backoff,
    store::{
        self,
        claim::{self as sql, Claimed},
    },
    worker_status::WorkerStatus,
};
use runtime::{
    db::Pool,
    error::{causes, is_logged},
    telemetry::traces::span::{self, Span},
    time_limit::with_time_limit,
};

/// The most jobs of one claim. With 500, each job cost 10 % more; beyond 1,000 the statement only gets longer.
const MAX_JOBS: usize = 1000;
/// How long the rows of a claim with an unknown outcome may still appear: a little more than the statement's time
/// limit.
const LOST_CLAIM_WINDOW: Duration = Duration::from_secs(7);
/// Between two checks for such rows while the claimer is idle.
const LOST_CLAIM_CHECK: Duration = Duration::from_secs(1);
/// Between two looks for jobs without a key in a queue that claims only by keys. It reads all waiting jobs of the queue.
const ADD_KEYS_EVERY: Duration = Duration::from_secs(5);

/// Claims the jobs of one queue.
pub(crate) struct Claimer {
    pub pool: Pool,
    pub worker: Arc<str>,
    pub queue: &'static str,
    pub slots: Arc<Semaphore>,
    pub in_flight: InFlight,
    pub lease: Arc<Lease>,
    pub status: Arc<WorkerStatus>,
    pub signal: Arc<WakeSignal>,
    /// Requests a poll of the due times.
    pub poll_request: Arc<Notify>,
    /// Claims by keys, if the queue shares its slots by them.
    pub keyed: Option<KeyedClaims>,
    pub jobs: mpsc::Sender<ClaimedJob>,
    pub stop: CancellationToken,
}

impl Claimer {
    /// Claims until `stop`. A claim under way is never abandoned, because its rows would stay Running without a runner.
    pub(crate) async fn run(mut self) {
        let mut failures = 0;
        let mut lost_claims_until: Option<Instant> = None;
        let mut next_keys = Instant::now();
        while let Some(mut slots) = self.free_slots().await {
            if lost_claims_until.is_some() || self.signal.take_lost_claim_check() {
                match self.give_back_lost_claims().await {
                    Ok(()) => lost_claims_until = lost_claims_until.filter(|until| Instant::now() < *until),
                    Err(error) => {
                        tracing::debug!(queue = self.queue, error = causes(&error), "could not check for lost claims");
                    }
                }
            }
            if self.keyed.as_ref().is_some_and(KeyedClaims::is_limited) && Instant::now() >= next_keys {
                next_keys = Instant::now() + ADD_KEYS_EVERY;
                if let Err(error) = self.add_keys().await {
                    tracing::debug!(queue = self.queue, error = causes(&error), "could not add keys to jobs");
                }
            }
            // The statements above may have taken longer than the rest of the lease.
            if !self.lease.is_valid() {
                continue;
            }
            let wanted = slots.num_permits();
            let started = span::is_exporting().then(SystemTime::now);
            let mut jobs = Vec::new();
            let claimed = with_time_limit(self.claim(wanted, &mut jobs)).await;
            if let Err(error) = &claimed {
                failures += 1;
                counter!(CLAIM_ERRORS, "queue" => self.queue).increment(1);
                self.status.claim_failed(self.queue, error);
                if is_logged(failures) {
                    let error = causes(error);
                    tracing::warn!(queue = self.queue, failures, error, "could not claim jobs; retrying");
                }
                if jobs.is_empty() {
                    self.sleep(Backoff::DATABASE.wait(failures)).await;
                    continue;
                }
            } else {
                self.status.claimed(self.queue);
            }
            if failures > 0 {
                // A claim that failed may have lost only its response. One that hung may even be executed only now,
                // after the database has recovered.
                lost_claims_until = Some(Instant::now() + LOST_CLAIM_WINDOW);
            }
            if claimed.is_ok() {
                failures = 0;
            }
            let found = jobs.len();
            if let Some(started) = started.filter(|_| found > 0) {
                Span::record_claim(self.queue, started, jobs.iter().map(|job| job.traceparent.as_deref()));
            }
            self.in_flight.tokens().extend(jobs.iter().map(|job| (job.id.clone(), job.token)));
            for job in jobs {
                // `wanted` limits the claim, so there is a slot for each job. The channel outlives this loop.
                let Some(slot) = slots.split(1) else { break };
                let _ = self.jobs.send(ClaimedJob { job, slot }).await;
            }
            drop(slots);
            if found < wanted && self.keyed.as_ref().is_none_or(KeyedClaims::has_found_all) {
                tokio::select! {
                    () = self.signal.wait(&self.poll_request) => {}
                    () = tokio::time::sleep(LOST_CLAIM_CHECK), if lost_claims_until.is_some() => {}
                    () = self.stop.cancelled() => {}
                }
            }
        }
    }

    /// Claims up to `wanted` jobs. After an error, `jobs` has those that were claimed before it: they can run.
    async fn claim(&mut self, wanted: usize, jobs: &mut Vec<Claimed>) -> sqlx::Result<()> {
        if let Some(keyed) = &mut self.keyed {
            *jobs = keyed.claim(&self.pool, &self.worker, self.queue, wanted).await?;
        }
        if jobs.len() < wanted && self.keyed.as_ref().is_none_or(|keyed| !keyed.is_limited()) {
            let rest = wanted - jobs.len();
            let marks = self.signal.low_water.get();
            let limit = i64::try_from(rest).unwrap_or(i64::MAX);
            let found = sql::claim(&self.pool, &self.worker, self.queue, marks, limit).await?;
            let due = found.iter().map(|job| (job.priority, job.due));
            self.signal.low_water.claimed(marks, due, found.len() == rest);
            jobs.extend(found);
        }
        Ok(())
    }

    /// Adds keys to jobs of a queue that claims only by keys.
    async fn add_keys(&self) -> sqlx::Result<()> {
        const BATCH: i64 = 10_000;
        let mut added = BATCH.unsigned_abs();
        while added == BATCH.unsigned_abs() && !self.stop.is_cancelled() {
            added = sql::add_keys(&self.pool, self.queue, BATCH).await?;
        }
        Ok(())
    }

    /// Waits for a free slot and a valid lease, then takes all free slots; `None` at the stop.
    async fn free_slots(&self) -> Option<OwnedSemaphorePermit> {
        loop {
            let first = tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                slot = self.slots.clone().acquire_owned() => slot.ok()?,
            };
            if self.lease.is_valid() {
                let mut slots = first;
                let more = self.slots.available_permits().min(MAX_JOBS - 1);
                if let Ok(permits) = u32::try_from(more)
                    && let Ok(rest) = self.slots.clone().try_acquire_many_owned(permits)
                {
                    slots.merge(rest);
                }
                return Some(slots);
            }
            drop(first);
            self.sleep(Duration::from_millis(50)).await;
        }
    }

    async fn sleep(&self, time: Duration) {
        tokio::select! { () = tokio::time::sleep(time) => {} () = self.stop.cancelled() => {} }
    }

    /// Gives back jobs that this worker holds in the database but does not know: the response of their claim was lost, or
    /// the database has lost their result. No other worker takes them while this worker's lease is valid.
    async fn give_back_lost_claims(&self) -> sqlx::Result<()> {
        // No claim is under way here, so a run that is found and not known will never be known.
        let (known, tokens): (Vec<String>, Vec<i32>) = self.in_flight.tokens().clone().into_iter().unzip();
        let lost = store::find_lost_claims(&self.pool, &self.worker, &[self.queue], &known, &tokens).await?;
        if lost.is_empty() {
            return Ok(());
        }
        let (ids, tokens): (Vec<String>, Vec<i32>) = lost.into_iter().map(|run| (run.id, run.token)).unzip();
        let jobs = store::give_back_lost_claims(&self.pool, &self.worker, &ids, &tokens).await?;
        tracing::info!(queue = self.queue, jobs, "gave back jobs whose claim or result was lost");
        Ok(())
    }
}
