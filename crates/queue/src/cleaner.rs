//! The cleaner: deletes old ended jobs, replays and worker rows in small batches with pauses, so that it delays no job. It
//! also sums the counts of each hour, and counts the waiting jobs of long queues.
//!
//! Every worker runs it every few minutes. A batch is one statement under an advisory lock, so only one process deletes
//! at a time. Two cleaners that overlap do no harm.

use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;
use ulid::Ulid;

use super::{
    retry::Backoff,
    store::{self, operator::replay_retention},
};
use runtime::{db::Pool, error::causes, executor::repeatable, time_limit::with_time_limit};

/// How long ended jobs and worker rows are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// For finished jobs and the rows of dead workers.
    pub done: Duration,
    /// For dead letters, cancelled jobs, and replays that have ended.
    pub dead: Duration,
    /// Between two passes of the cleaner, on average.
    pub every: Duration,
}

impl Retention {
    /// A day for finished jobs, and 30 days for jobs that a person may want to examine.
    pub const DEFAULT: Self = Self {
        done: Duration::from_secs(24 * 3600),
        dead: Duration::from_secs(30 * 24 * 3600),
        every: Duration::from_secs(300),
    };
}

/// The jobs that one batch examines, or the rows of replayed jobs that it deletes.
const BATCH: i64 = 2000;
/// The pause after each batch.
const PAUSE: Duration = Duration::from_millis(20);
/// How far the clocks of programs that create ids may be ahead.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(3600);
/// Sorts after every id of digits and letters.
const END: &str = "zzzzzzzzzzzzzzzz";

/// The hours that one batch sums. With five processes these are 7,200 minutes.
const HOURS: i32 = 24;
/// The minutes, hours or replays that one batch deletes.
const COUNTS: i64 = 1000;

/// Deletes what is older than its retention, sums the counts of each hour, and counts the waiting jobs.
pub(crate) struct Cleaner {
    pub pool: Pool,
    pub retention: Retention,
    /// The queues of this worker, whose waiting jobs are counted even while there are none.
    pub queues: Vec<String>,
    pub stop: CancellationToken,
}

impl Cleaner {
    /// Deletes until `stop`. A failed pass is not repeated; the next one does its work.
    pub(crate) async fn run(self) {
        loop {
            if let Err(error) = self.count_depths().await {
                tracing::debug!(error = causes(&error), "could not count the waiting jobs; retrying later");
            }
            // Full jitter around the interval separates workers that were started together.
            let wait = Backoff { base: self.retention.every * 2, cap: self.retention.every * 2 }.wait(1);
            tokio::select! { () = tokio::time::sleep(wait) => {} () = self.stop.cancelled() => return }
            match self.delete_expired().await {
                Ok((0, 0)) => {}
                Ok((jobs, workers)) => tracing::info!(jobs, workers, "deleted expired jobs and worker rows"),
                Err(error) => {
                    tracing::warn!(error = causes(&error), "could not delete expired jobs; retrying later");
                }
            }
        }
    }

    /// Counts the waiting jobs of all queues that were not counted in the last minute.
    async fn count_depths(&self) -> sqlx::Result<()> {
        for queue in with_time_limit(store::depths::uncounted(&self.pool, &self.queues)).await? {
            with_time_limit(store::depths::count(&self.pool, &queue)).await?;
        }
        Ok(())
    }

    /// Sums the hours that are over, and deletes minutes that are older than 14 days and hours older than 400 days.
    async fn roll_up(&self) -> sqlx::Result<()> {
        for queue in store::hours::queues(repeatable(&self.pool)).await? {
            while store::hours::sum(repeatable(&self.pool), &queue, HOURS).await? > 0 && self.pause().await {}
            while store::hours::delete_old_minutes(repeatable(&self.pool), &queue, COUNTS).await? && self.pause().await
            {
            }
            store::hours::delete_old_hours(repeatable(&self.pool), &queue, COUNTS).await?;
        }
        Ok(())
    }

    /// Deletes replays that ended longer ago than dead letters are kept. Open ones stay, however old they are.
    async fn delete_ended_replays(&self) -> sqlx::Result<()> {
        let age = self.retention.dead;
        while replay_retention::delete_jobs(&self.pool, age, BATCH).await? && self.pause().await {}
        let replays = replay_retention::delete(&self.pool, age, COUNTS).await?;
        if replays > 0 {
            tracing::info!(replays, "deleted expired replays");
        }
        Ok(())
    }

    /// Waits between two batches. Returns `false` if this process stops.
    async fn pause(&self) -> bool {
        tokio::select! { () = tokio::time::sleep(PAUSE) => true, () = self.stop.cancelled() => false }
    }

    /// Deletes everything that has expired. Returns the numbers of jobs and of worker rows.
    async fn delete_expired(&self) -> sqlx::Result<(i64, u64)> {
        let Retention { done, dead, .. } = self.retention;
        let now = SystemTime::now();
        // A job is no older than its id, so recent ids are skipped. Ids that are no ULIDs, or come from a wrong clock,
        // are before or after them.
        let recent = now - done.min(dead);
        let mut deleted = 0;
        for (mut after, before) in
            [(String::new(), first_id_of(recent)), (first_id_of(now + MAX_CLOCK_SKEW), END.to_owned())]
        {
            while after < before {
                let step = store::delete_expired(&self.pool, &after, &before, BATCH, done, dead);
                let Some(step) = with_time_limit(step).await? else { return Ok((deleted, 0)) };
                deleted += step.forgotten;
                after = step.upto;
                if !self.pause().await {
                    return Ok((deleted, 0));
                }
            }
        }
        self.roll_up().await?;
        self.delete_ended_replays().await?;
        Ok((deleted, store::leases::delete_dead_workers(&self.pool, done).await?))
    }
}

/// The smallest id of this time.
fn first_id_of(time: SystemTime) -> String {
    Ulid::from_parts(Ulid::from_datetime(time).timestamp_ms(), 0).to_string()
}
