//! Replays of many dead letters: at a rate, after a canary, with a stop when too many die again.

use serde_json::json;
use ulid::Ulid;
use uuid::Uuid;

use super::Operator;
pub use super::replay_job::ReplayDeadLetters;
pub use crate::replay::{
    MAX_RATE, MAX_SELECTED, Pace, REPLAYS_WITHOUT_ASKING, Replay, ReplayChange, Selected, Selection, Skip,
    StartedReplay,
};
use crate::{
    NewJob, Page, enqueue,
    order::Order,
    status::JobStatus,
    store::operator::{audit, replays as sql},
};
use runtime::error::Error;

/// The most dead letters that are discarded in one transaction.
const BATCH: i64 = 500;

impl Operator {
    /// Counts the dead letters of a selection, and returns the five oldest.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn select_dead(&self, selection: &Selection) -> Result<Selected, Error> {
        let count = sql::count(&self.pool, selection, MAX_SELECTED).await?;
        let samples = sql::samples(&self.pool, selection, 5).await?;
        let samples = samples.into_iter().map(JobStatus::from).collect();
        let sql::Count { all: count, replayed_before, at } = count;
        Ok(Selected { count, is_capped: count >= MAX_SELECTED, replayed_before, counted_at: at.into(), samples })
    }

    /// Starts a replay of the dead letters that are selected now; jobs that die later are not taken. Nothing starts if
    /// some of them were replayed [`REPLAYS_WITHOUT_ASKING`] times or more, unless `pace` confirms that.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn start_replay(&self, selection: &Selection, pace: Pace, order: &Order) -> Result<StartedReplay, Error> {
        let id = Uuid::from(Ulid::generate());
        let count = sql::count(&self.queue.pool, selection, i64::from(pace.limit)).await?;
        if count.replayed_before > 0 && !pace.include_replayed {
            return Ok(StartedReplay::ReplayedBefore(count.replayed_before));
        }
        // What dies after the count is not taken: it was neither recorded nor checked for earlier replays.
        let counted_at = selection.died_before.unwrap_or(count.at.into());
        let counted = Selection { died_before: Some(counted_at), ..selection.clone() };
        let mut tx = self.queue.begin().await?;
        let replay = sql::insert(&mut tx, id, &counted, pace).await?;
        let filter = json!({"queue": selection.queue, "group": selection.group, "error": selection.error,
                            "rate": pace.rate, "limit": pace.limit, "canary": pace.canary,
                            "stop_if_dead": pace.stop_if_dead, "include_replayed": pace.include_replayed});
        let count = usize::try_from(count.all).unwrap_or(0);
        audit::record(&mut *tx, order, "replay", &id.to_string(), Some(filter), count).await?;
        enqueue(&mut tx, &[NewJob::of(&ReplayDeadLetters { replay: id })?]).await?;
        tx.commit().await?;
        Ok(StartedReplay::Started(Box::new(replay)))
    }

    /// Returns a page of replays before an id, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn replays(&self, before: Option<Uuid>, limit: u32) -> Result<Page<Replay, Uuid>, Error> {
        let rows = sql::list(&self.pool, before.unwrap_or(Uuid::max()), i64::from(limit) + 1).await?;
        Ok(Page::new(rows, limit, |last| last.id))
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
            let discarded_now = usize::try_from(count).unwrap_or(0);
            audit::record(&mut *tx, order, "discard", &selection.queue, Some(filter), discarded_now).await?;
            tx.commit().await?;
            discarded += count;
        }
        Ok(discarded)
    }
}
