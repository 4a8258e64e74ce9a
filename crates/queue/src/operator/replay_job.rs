//! The job of a replay. Each of its runs makes one batch of dead letters wait again, spread over time by their due
//! times, and snoozes until the next batch.
//!
//! Its progress is a row of `replays`, which each run writes in the transaction of its batch. So a replay survives every
//! restart. A replay whose job is cancelled, or becomes a dead letter, is stopped; it goes on when that job is replayed.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Operator, Replayable};
use crate::{
    Failure, Job, Outcome, Policy, Run, Tx,
    counts::Event,
    replay::{ReplayChange, Selection, Skip},
    storable::StorableText,
    store::operator::{self as store, replays as sql},
};
use runtime::error::{Error, causes};

/// The most dead letters of one batch.
const BATCH: i64 = 500;
/// The most dead letters of a batch with a savepoint for each of them. PostgreSQL keeps up to 64 subtransactions of a
/// transaction in shared memory; with more, every snapshot gets slower.
const BATCH_WITH_SAVEPOINTS: i64 = 50;
/// A batch covers about so much time, so that a stop takes effect soon.
const BATCH_SECONDS: f64 = 2.0;
/// Between two looks while a replay is paused or waits for its canary.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest time between two looks after the last batch.
const LONGEST_PAUSE: f64 = 10.0;
/// The beginning of the reason of a replay that was stopped with its job.
const JOB_ENDED: &str = "its job has ended: ";

/// The job of a replay: each run is one step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReplayDeadLetters {
    pub replay: Uuid,
}

impl Job for ReplayDeadLetters {
    const NAME: &'static str = "replay_dead_letters";
    type Context = Operator;

    fn policy(_: &Operator) -> Policy {
        Policy { attempts: 1000, concurrency: 4, ..Policy::default() }
    }

    async fn run(self, operator: Operator, _: Run) -> Result<Outcome, Failure> {
        Ok(match operator.step_replay(self.replay).await? {
            Some(wait) => Outcome::Snooze(wait),
            None => Outcome::Done,
        })
    }

    /// Stops the replay, because nothing continues it.
    async fn on_discard(self, operator: Operator, reason: String) -> Result<(), Failure> {
        Ok(operator.stop_with_job(self.replay, &reason).await?)
    }
}

impl Replayable for ReplayDeadLetters {
    /// Continues a replay that was stopped with its job, also one that was paused before. One that an operator has stopped
    /// stays so, and the job finds nothing to do.
    async fn on_replay(self, _: Operator, tx: &mut Tx) -> Result<(), Error> {
        Ok(sql::reopen(tx, self.replay, JOB_ENDED).await?)
    }
}

/// What the failure of one dead letter does to its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnFailure {
    /// It undoes the batch.
    UndoBatch,
    /// It undoes that dead letter, which is skipped.
    Skip,
}

impl Operator {
    /// Stops a replay whose job has ended without it. An ended replay does not change.
    async fn stop_with_job(&self, id: Uuid, reason: &str) -> Result<(), Error> {
        let (open, stopped, _) = ReplayChange::Stop.states();
        let because = StorableText::from(format!("{JOB_ENDED}{reason}"));
        let mut tx = self.queue.begin().await?;
        let is_stopped = sql::change(&mut tx, id, open, stopped, Some(because.as_str())).await?;
        tx.commit().await?;
        if is_stopped {
            tracing::warn!(replay = %id, reason, "replay stopped with its job");
        }
        Ok(())
    }

    /// Runs one step of a replay. Returns the time until the next step; `None` when it has ended.
    ///
    /// Savepoints cost two round trips for each job. So a batch gets them only after it has failed without them.
    async fn step_replay(&self, id: Uuid) -> Result<Option<Duration>, Error> {
        match self.try_step(id, OnFailure::UndoBatch).await {
            Err(error) => {
                tracing::warn!(replay = %id, error = causes(&error), "a batch of a replay failed; trying its jobs one by one");
                self.try_step(id, OnFailure::Skip).await
            }
            wait => wait,
        }
    }

    async fn try_step(&self, id: Uuid, on_failure: OnFailure) -> Result<Option<Duration>, Error> {
        let mut tx = self.queue.begin().await?;
        let Some(replay) = sql::lock(&mut tx, id).await? else { return Ok(None) };
        let is_watching = match replay.state.as_str() {
            "running" => false,
            "watching" => true,
            "paused" => return Ok(Some(PAUSE)),
            _ => return Ok(None),
        };
        let ended = sql::outcomes(&mut tx, id).await?;
        if let Some(reason) = too_many_dead(&replay, &ended, is_watching) {
            return stop(tx, &replay, &reason).await;
        }
        let waits_for_canary = replay.canary > 0 && replay.replayed == replay.canary;
        if waits_for_canary && ended.live > 0 && !is_watching {
            return Ok(Some(PAUSE));
        }
        let size = if is_watching { 0 } else { batch_size(&replay, on_failure) };
        let selection = Selection {
            queue: replay.queue.clone(),
            group: replay.error_group.clone(),
            error: replay.error.clone(),
            // The replay has it.
            died_before: None,
        };
        let batch = if size > 0 { sql::next(&mut tx, &selection, &replay, size).await? } else { Vec::new() };
        let Some(last) = batch.last() else { return end(tx, &replay, &ended, is_watching).await };
        let (mut replayed, mut skips) = (Vec::new(), Vec::new());
        for job in &batch {
            match self.replay_one(&mut tx, &replay.queue, job, on_failure).await? {
                None => replayed.push(job.id.clone()),
                Some(cause) => {
                    skips.push(Skip { job: job.id.clone(), cause: StorableText::from(cause).to_string() });
                }
            }
        }
        // A batch of at most `BATCH_SECONDS`, rounded up to a whole job.
        let ahead = BATCH_SECONDS + 1.0 / replay.rate;
        let wait = sql::record(&mut tx, &replay, &replayed, &skips, &last.id, ahead).await?;
        tx.commit().await?;
        self.queue.counts.of(&replay.queue).add(Event::Enqueued, replayed.len() as u64);
        for Skip { job, cause } in &skips {
            tracing::warn!(replay = %id, job, cause, "a dead letter could not be replayed; it is skipped");
        }
        // The next batch is prepared a little before it is due.
        Ok(Some(Duration::try_from_secs_f64(wait - 0.1).unwrap_or_default()))
    }

    /// Makes one dead letter wait again. Returns why it is skipped; `None` if it waits again.
    async fn replay_one(
        &self,
        tx: &mut Tx,
        queue: &str,
        job: &sql::DeadJob,
        on_failure: OnFailure,
    ) -> Result<Option<String>, Error> {
        let with_savepoint = on_failure == OnFailure::Skip;
        if with_savepoint {
            tx.savepoint().await?;
        }
        let replay = async {
            if !store::replay(tx, &job.id).await? {
                return Ok(Some("another job with its key waits or runs".to_owned()));
            }
            if let Some(kind) = self.kinds.0.get(queue) {
                kind.on_replay(&job.payload, tx).await?;
            }
            Ok(None)
        };
        let result: Result<_, Error> = replay.await;
        match result {
            Err(error) if with_savepoint => {
                tx.undo().await?;
                Ok(Some(causes(&error)))
            }
            Ok(skipped) if with_savepoint => {
                tx.release().await?;
                Ok(skipped)
            }
            result => result,
        }
    }
}

/// The number of jobs of the next batch; 0 if the limit of the replay is reached.
fn batch_size(replay: &sql::Running, on_failure: OnFailure) -> i64 {
    // A rate is at most 10,000.
    #[allow(clippy::cast_possible_truncation)]
    let by_rate = (replay.rate * BATCH_SECONDS).ceil() as i64;
    let most = if on_failure == OnFailure::Skip { BATCH_WITH_SAVEPOINTS } else { BATCH };
    let size = most.min(by_rate.max(1)).min(replay.max_jobs - replay.replayed);
    let canary_left = replay.canary - replay.replayed;
    if canary_left > 0 { size.min(canary_left) } else { size }
}

/// Stops a replay because too many of its jobs have died again.
async fn stop(mut tx: Tx, replay: &sql::Running, reason: &str) -> Result<Option<Duration>, Error> {
    sql::finish(&mut tx, replay.id, "stopped", Some(reason)).await?;
    tx.commit().await?;
    tracing::warn!(replay = %replay.id, queue = replay.queue, reason, "replay stopped");
    Ok(None)
}

/// Ends a replay that has no further dead letter, when its jobs have ended; until then it watches them.
async fn end(
    mut tx: Tx,
    replay: &sql::Running,
    ended: &sql::Outcomes,
    is_watching: bool,
) -> Result<Option<Duration>, Error> {
    if ended.live == 0 {
        if let Some(reason) = too_many_dead(replay, ended, true) {
            return stop(tx, replay, &reason).await;
        }
        sql::finish(&mut tx, replay.id, "done", None).await?;
        tx.commit().await?;
        tracing::info!(replay = %replay.id, queue = replay.queue, replayed = replay.replayed, "replay done");
        return Ok(None);
    }
    if !is_watching {
        sql::watch(&mut tx, replay.id).await?;
        tx.commit().await?;
    }
    // A job may wait for hours, such as for its next attempt: then the replay looks less often.
    let pause = (replay.over / 10.0).clamp(PAUSE.as_secs_f64(), LONGEST_PAUSE);
    Ok(Some(Duration::from_secs_f64(pause)))
}

/// Returns why a replay must stop, if more of its ended jobs have died again than it allows. Fewer than ten ended jobs
/// decide only if they are all of the canary, or if no job of the replay waits or runs any more and `is_last`.
fn too_many_dead(replay: &sql::Running, ended: &sql::Outcomes, is_last: bool) -> Option<String> {
    let total = ended.dead + ended.good;
    let are_all = is_last && ended.live == 0;
    let is_enough = total >= 10 || (replay.canary > 0 && total >= replay.canary) || are_all;
    // Counts of jobs are far below 2^52.
    #[allow(clippy::cast_precision_loss)]
    let share = ended.dead as f64 / total.max(1) as f64;
    (is_enough && share > replay.stop_if_dead)
        .then(|| format!("{} of {total} jobs died again, more than {:.0} %", ended.dead, replay.stop_if_dead * 100.0))
}
