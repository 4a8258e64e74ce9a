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
    refused::{Parts, RefusedJobs},
    retry::Backoff,
    store::{
        self,
        claim::{self as sql, Claimed},
    },
    worker_status::WorkerStatus,
    write_results::may_be_of_one_row,
};
use runtime::{
    db::Pool,
    error::{causes, is_logged, is_rolled_back},
    executor::repeatable,
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
/// How long the last check of a stop may take.
const LAST_CHECK: Duration = Duration::from_secs(1);
/// Between two looks for jobs without a key in a queue that claims only by keys. It reads all waiting jobs of the queue.
const ADD_KEYS_EVERY: Duration = Duration::from_secs(5);

/// How long one claim may try parts. The next claim goes on.
const PARTS_LIMIT: Duration = Duration::from_secs(2);
/// The fewest due jobs that a claim in parts looks at, if there are so many: the first ones may all be refused.
const MIN_DUE: usize = 100;
/// After so many refused jobs without a claimed one, a claim in parts tries jobs of the whole backlog.
const MAX_REFUSED: usize = 10;
/// So many claims in a row may find no job although there is a backlog. The next one waits for the signal.
const MAX_EMPTY_CLAIMS: u32 = 3;

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
    /// Jobs that cannot be claimed now.
    pub refused: RefusedJobs,
    pub jobs: mpsc::Sender<ClaimedJob>,
    pub stop: CancellationToken,
    /// The process stops without waiting any longer.
    pub now: CancellationToken,
}

/// What a claim that left slots free says about the backlog.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outlook {
    /// More jobs are due that may be claimed.
    More,
    Unknown,
}

impl Claimer {
    /// Claims until `stop`. A claim under way is never abandoned, because its rows would stay Running without a runner.
    pub(crate) async fn run(mut self) {
        let (mut failures, mut empty_claims) = (0, 0);
        // Whether a claim since the last success may have been executed although it failed.
        let mut is_in_doubt = false;
        let mut lost_claims_until: Option<Instant> = None;
        let mut not_given_back = RefusedJobs::new("give back");
        let mut next_keys = Instant::now();
        while let Some(mut slots) = self.free_slots().await {
            if (lost_claims_until.is_some() || self.signal.take_lost_claim_check())
                && self.check_lost_claims(&mut not_given_back).await.is_some()
            {
                lost_claims_until = lost_claims_until.filter(|until| Instant::now() < *until);
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
                is_in_doubt |= !is_rolled_back(error);
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
            if is_in_doubt {
                // A claim with an unknown outcome may have lost only its response. One that hung may even be executed
                // only now, after the database has recovered.
                lost_claims_until = Some(Instant::now() + LOST_CLAIM_WINDOW);
            }
            if claimed.is_ok() {
                (failures, is_in_doubt) = (0, false);
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
            empty_claims = if found > 0 { 0 } else { empty_claims + 1 };
            let is_more = matches!(claimed, Ok(Outlook::More)) && empty_claims <= MAX_EMPTY_CLAIMS;
            if found < wanted && !is_more && self.keyed.as_ref().is_none_or(KeyedClaims::has_found_all) {
                empty_claims = 0;
                tokio::select! {
                    () = self.signal.wait(&self.poll_request) => {}
                    () = tokio::time::sleep(LOST_CLAIM_CHECK), if lost_claims_until.is_some() => {}
                    () = self.stop.cancelled() => {}
                }
            }
        }
        if is_in_doubt {
            lost_claims_until = Some(Instant::now() + LOST_CLAIM_WINDOW);
        }
        let is_requested = self.signal.take_lost_claim_check();
        if let Some(until) = lost_claims_until.or_else(|| is_requested.then(Instant::now)) {
            self.give_back_at_stop(until, &mut not_given_back).await;
        }
    }

    /// Claims up to `wanted` jobs. After an error, `jobs` has those that were claimed before it: they can run.
    ///
    /// If the database refuses a claim because of one row, the jobs are claimed in parts, without those that it refuses.
    /// Not in a queue that limits its keys, whose running jobs must be counted by the statement that claims more.
    async fn claim(&mut self, wanted: usize, jobs: &mut Vec<Claimed>) -> sqlx::Result<Outlook> {
        let is_limited = self.keyed.as_ref().is_some_and(KeyedClaims::is_limited);
        if is_limited || self.refused.is_empty() {
            match self.claim_at_once(wanted, jobs).await {
                Err(error) if !is_limited && may_be_of_one_row(&error) => {}
                result => return result.map(|()| Outlook::Unknown),
            }
        }
        self.claim_in_parts(wanted, jobs).await
    }

    /// Claims due jobs in two statements, the second one in parts. While jobs are left out, every claim is like this, and keys
    /// get no shares. The marks stay, because the jobs that are left out are still due.
    ///
    /// If no job can be claimed, the cause is hardly one of the rows: operators see the error, and no job is left out. Before
    /// that, the claim tries samples of the whole backlog, because its first jobs may all be refused.
    async fn claim_in_parts(&mut self, wanted: usize, jobs: &mut Vec<Claimed>) -> sqlx::Result<Outlook> {
        // Other workers find the same jobs. Twice as many are read, in case that they claim the first ones.
        let due = self.find_due(wanted.saturating_mul(2).max(MIN_DUE), &self.refused.ids()).await?;
        let is_backlog = due.len() >= wanted;
        let mut parts = self.refused.parts(due);
        parts.succeeds = !jobs.is_empty();
        self.claim_parts(&mut parts, MAX_REFUSED, wanted, jobs).await?;
        let is_none_claimed = !parts.succeeds && !parts.refused.is_empty();
        if is_none_claimed {
            let mut left_out = self.refused.ids();
            left_out.extend(parts.refused.iter().map(|(id, _)| id.clone()));
            let due = self.find_due(MAX_JOBS, &left_out).await?;
            parts.left = self.refused.samples(due);
            self.claim_parts(&mut parts, usize::MAX, wanted, jobs).await?;
        }
        let is_more = jobs.len() < wanted && (is_backlog || is_none_claimed || !parts.left.is_empty());
        for (id, error) in parts.into_refused()? {
            counter!(CLAIM_ERRORS, "queue" => self.queue).increment(1);
            self.refused.leave_out(id, &error);
        }
        Ok(if is_more { Outlook::More } else { Outlook::Unknown })
    }

    /// Claims the parts that are left, until all slots are used, the time is over, or the database has refused so many jobs and
    /// has let none be claimed.
    async fn claim_parts(
        &self,
        parts: &mut Parts<String>,
        max_refused: usize,
        wanted: usize,
        jobs: &mut Vec<Claimed>,
    ) -> sqlx::Result<()> {
        let until = Instant::now() + PARTS_LIMIT;
        while jobs.len() < wanted
            && (parts.succeeds || parts.refused.len() < max_refused)
            && Instant::now() < until
            && let Some(part) = parts.next(wanted - jobs.len())
        {
            let found = sql::claim_some(&self.pool, &self.worker, self.queue, &part).await;
            if let Some(found) = parts.record(part, found)? {
                // If other workers have claimed them, nothing shows that the database lets jobs be claimed.
                parts.succeeds |= !found.is_empty();
                jobs.extend(found);
            }
        }
        Ok(())
    }

    async fn find_due(&self, limit: usize, left_out: &[String]) -> sqlx::Result<Vec<String>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        sql::find_due(&self.pool, self.queue, self.signal.low_water.get(), limit, left_out).await
    }

    /// Claims jobs by keys, if the queue shares its slots by them, and then by due time.
    async fn claim_at_once(&mut self, wanted: usize, jobs: &mut Vec<Claimed>) -> sqlx::Result<()> {
        if let Some(keyed) = &mut self.keyed {
            *jobs = keyed.claim(&self.pool, &self.worker, self.queue, wanted).await?;
        }
        if jobs.len() < wanted && self.keyed.as_ref().is_none_or(|keyed| !keyed.is_limited()) {
            let rest = wanted - jobs.len();
            let marks = self.signal.low_water.get();
            let limit = i64::try_from(rest).unwrap_or(i64::MAX);
            let started = Instant::now();
            let found = sql::claim(&self.pool, &self.worker, self.queue, marks, limit).await?;
            if let Some(keyed) = &mut self.keyed {
                keyed.record_due_claim(started.elapsed());
            }
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

    /// Gives back lost claims until this time, and once more after it. Otherwise these jobs would stay Running until the
    /// worker's other jobs have ended and its lease has expired, and their rescue would count a crash.
    async fn give_back_at_stop(&self, until: Instant, not_given_back: &mut RefusedJobs) {
        let checks = async {
            loop {
                let is_last = Instant::now() >= until;
                if self.check_lost_claims(not_given_back).await.is_some_and(|jobs| jobs > 0) {
                    // This worker claims no more, and the jobs may be below the marks of the others.
                    let announce = store::announce(repeatable(&self.pool), &[self.queue.to_owned()]).await;
                    if let Err(error) = announce {
                        let error = causes(&error);
                        tracing::debug!(queue = self.queue, error, "could not announce the jobs that were given back");
                    }
                }
                if is_last {
                    return;
                }
                tokio::time::sleep(LOST_CLAIM_CHECK.min(until.saturating_duration_since(Instant::now()))).await;
            }
        };
        // A database that does not respond must not delay the stop.
        let limit = until.saturating_duration_since(Instant::now()) + LAST_CHECK;
        if !matches!(self.now.run_until_cancelled(tokio::time::timeout(limit, checks)).await, Some(Ok(()))) {
            tracing::debug!(queue = self.queue, "could not check for lost claims before the stop");
        }
    }

    /// Looks for lost claims and gives them back. Returns the number of jobs; `None` if that failed.
    async fn check_lost_claims(&self, not_given_back: &mut RefusedJobs) -> Option<u64> {
        let given_back = self.give_back_lost_claims(not_given_back).await;
        if let Err(error) = &given_back {
            tracing::debug!(queue = self.queue, error = causes(error), "could not check for lost claims");
        }
        given_back.ok()
    }

    /// Gives back jobs that this worker holds in the database but does not know: the response of their claim was lost, or
    /// the database has lost their result. No other worker takes them while this worker's lease is valid. If the database
    /// refuses to change one of them, they are given back in parts.
    async fn give_back_lost_claims(&self, not_given_back: &mut RefusedJobs) -> sqlx::Result<u64> {
        // No claim is under way here, so a run that is found and not known will never be known.
        let (known, tokens): (Vec<String>, Vec<i32>) = self.in_flight.tokens().clone().into_iter().unzip();
        let mut lost = store::find_lost_claims(&self.pool, &self.worker, &[self.queue], &known, &tokens).await?;
        if !not_given_back.is_empty() {
            lost.retain(|run| !not_given_back.contains(&run.id));
        }
        let until = Instant::now() + PARTS_LIMIT;
        let (mut parts, mut jobs) = (Parts::of(lost), 0);
        // A refused job is left out also if it is the only one. Otherwise each claim would find it again.
        parts.succeeds = true;
        while Instant::now() < until
            && let Some(part) = parts.next(usize::MAX)
        {
            let (ids, tokens): (Vec<String>, Vec<i32>) = part.iter().map(|run| (run.id.clone(), run.token)).unzip();
            let given_back = store::give_back_lost_claims(&self.pool, &self.worker, &ids, &tokens).await;
            jobs += parts.record(part, given_back)?.unwrap_or(0);
        }
        if jobs > 0 {
            tracing::info!(queue = self.queue, jobs, "gave back jobs whose claim or result was lost");
        }
        for (run, error) in parts.into_refused()? {
            not_given_back.leave_out(run.id, &error);
        }
        Ok(jobs)
    }
}
