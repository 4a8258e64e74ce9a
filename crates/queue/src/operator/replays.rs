//! Replays of many dead letters: at a rate, after a canary, with a stop when too many die again.
//!
//! A replay is a job of the queue, so it survives every restart. Each of its runs makes one batch of dead letters wait
//! again, spread over time by their due times, and snoozes until the next batch. Its progress is a row of `replays`,
//! which each run writes in the transaction of its batch.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use ulid::Ulid;
use uuid::Uuid;

use super::Operator;
pub use crate::replay::{MAX_RATE, MAX_SELECTED, Pace, Replay, ReplayChange, Selected, Selection};
use crate::{
    Failure, Job, NewJob, Outcome, Policy, Run, enqueue,
    order::Order,
    store::operator::{self as store, audit, replays as sql},
};
use runtime::error::Error;

/// The most dead letters of one batch.
const BATCH: i64 = 500;
/// A batch covers about so much time, so that a stop takes effect soon.
const BATCH_SECONDS: f64 = 2.0;
/// Between two looks while a replay is paused or waits for its canary.
const PAUSE: Duration = Duration::from_secs(1);
impl Operator {
    /// Counts the dead letters of a selection, and returns the five oldest.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn select_dead(&self, selection: &Selection) -> Result<Selected, Error> {
        let count = sql::count(&self.pool, selection, MAX_SELECTED).await?;
        let samples = sql::samples(&self.pool, selection, 5).await?;
        let mut jobs = Vec::new();
        for id in samples {
            jobs.extend(self.show(&id).await?.map(|details| details.job));
        }
        Ok(Selected { count, is_capped: count >= MAX_SELECTED, samples: jobs })
    }

    /// Starts a replay of the dead letters that are selected now; jobs that die later are not taken. Returns it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn start_replay(&self, selection: &Selection, pace: Pace, order: &Order) -> Result<Replay, Error> {
        let id = Uuid::from(Ulid::generate());
        let count = sql::count(&self.pool, selection, i64::from(pace.limit)).await?;
        let mut tx = self.queue.begin().await?;
        let replay = sql::insert(&mut tx, id, selection, pace).await?;
        let filter = json!({"group": selection.group, "error": selection.error, "rate": pace.rate, "limit": pace.limit,
                            "canary": pace.canary, "stop_if_dead": pace.stop_if_dead, "replay": id});
        let count = usize::try_from(count).unwrap_or(0);
        audit::record(&mut *tx, order, "replay", &selection.queue, Some(filter), count).await?;
        enqueue(&mut tx, &[NewJob::of(&ReplayDeadLetters { replay: id })?]).await?;
        tx.commit().await?;
        Ok(replay)
    }

    /// Lists replays, newest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn replays(&self, limit: u32) -> Result<Vec<Replay>, Error> {
        Ok(sql::list(&self.pool, limit.into()).await?)
    }

    /// Returns a replay; `None` if the id is unknown.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn find_replay(&self, id: Uuid) -> Result<Option<Replay>, Error> {
        Ok(sql::find(&self.pool, id).await?)
    }

    /// Pauses, resumes or stops a replay. Returns `false` if its state does not allow the change.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn change_replay(&self, id: Uuid, change: ReplayChange, order: &Order) -> Result<bool, Error> {
        let (from, to, action) = change.states();
        let mut tx = self.queue.begin().await?;
        let reason = (change == ReplayChange::Stop).then(|| format!("{}: {}", order.actor, order.reason));
        if !sql::change(&mut tx, id, from, to, reason.as_deref()).await? {
            return Ok(false);
        }
        audit::record(&mut *tx, order, action, &id.to_string(), None, 1).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Cancels the selected dead letters for good: no later replay by a filter takes them. Returns their number, at most
    /// `limit`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable. Batches before the error are done.
    pub async fn discard_dead(&self, selection: &Selection, limit: u32, order: &Order) -> Result<u64, Error> {
        let mut discarded = 0;
        while discarded < u64::from(limit) {
            let batch = BATCH.min(i64::from(limit) - i64::try_from(discarded).unwrap_or(i64::MAX));
            let mut tx = self.queue.begin().await?;
            let count = sql::discard(&mut tx, selection, batch).await?;
            if count == 0 {
                break;
            }
            let filter = json!({"group": selection.group, "error": selection.error});
            audit::record(
                &mut *tx,
                order,
                "discard",
                &selection.queue,
                Some(filter),
                usize::try_from(count).unwrap_or(0),
            )
            .await?;
            tx.commit().await?;
            discarded += count;
        }
        Ok(discarded)
    }

    /// Runs one step of a replay. Returns the time until the next step; `None` when it has ended.
    async fn step_replay(&self, id: Uuid) -> Result<Option<Duration>, Error> {
        let mut tx = self.queue.begin().await?;
        let Some(replay) = sql::lock(&mut tx, id).await? else { return Ok(None) };
        match replay.state.as_str() {
            "running" => {}
            "paused" => return Ok(Some(PAUSE)),
            _ => return Ok(None),
        }
        let ended = sql::outcomes(&mut tx, id).await?;
        if let Some(reason) = too_many_dead(&replay, &ended) {
            sql::finish(&mut tx, id, "stopped", Some(&reason)).await?;
            tx.commit().await?;
            tracing::warn!(replay = %id, queue = replay.queue, reason, "replay stopped");
            return Ok(None);
        }
        let canary_left = replay.canary - replay.replayed;
        if canary_left <= 0 && replay.canary > 0 && replay.replayed == replay.canary && ended.live > 0 {
            return Ok(Some(PAUSE));
        }
        let left = replay.max_jobs - replay.replayed;
        // A rate is at most 10,000.
        #[allow(clippy::cast_possible_truncation)]
        let by_rate = (replay.rate * BATCH_SECONDS).ceil() as i64;
        let mut size = BATCH.min(by_rate.max(1)).min(left);
        if canary_left > 0 {
            size = size.min(canary_left);
        }
        let selection =
            Selection { queue: replay.queue.clone(), group: replay.error_group.clone(), error: replay.error.clone() };
        let batch = if size > 0 { sql::next(&mut tx, &selection, &replay, size).await? } else { Vec::new() };
        let Some(last) = batch.last() else {
            sql::finish(&mut tx, id, "done", None).await?;
            tx.commit().await?;
            tracing::info!(replay = %id, queue = replay.queue, replayed = replay.replayed, "replay done");
            return Ok(None);
        };
        let (mut replayed, mut skipped) = (Vec::new(), 0);
        for job in &batch {
            if !store::replay(&mut tx, &job.id).await? {
                skipped += 1;
                continue;
            }
            if let Some(kind) = self.kinds.0.get(replay.queue.as_str()) {
                kind.on_replay(&job.payload, &mut tx).await?;
            }
            replayed.push(job.id.clone());
        }
        let wait = sql::record(&mut tx, &replay, &replayed, skipped, &last.id).await?;
        tx.commit().await?;
        // The next batch is prepared a little before it is due.
        Ok(Some(Duration::try_from_secs_f64(wait - 0.1).unwrap_or_default()))
    }
}

/// Returns why a replay must stop, if more of its ended jobs have died again than it allows. Fewer than ten ended jobs
/// decide only if they are all of the canary.
fn too_many_dead(replay: &sql::Running, ended: &sql::Outcomes) -> Option<String> {
    let total = ended.dead + ended.good;
    let is_enough = total >= 10 || (replay.canary > 0 && total >= replay.canary);
    // Counts of jobs are far below 2^52.
    #[allow(clippy::cast_precision_loss)]
    let share = ended.dead as f64 / total.max(1) as f64;
    (is_enough && share > replay.stop_if_dead)
        .then(|| format!("{} of {total} jobs died again, more than {:.0} %", ended.dead, replay.stop_if_dead * 100.0))
}

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
}
