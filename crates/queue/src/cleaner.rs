//! The cleaner: deletes old ended jobs, replays and worker rows in small batches with pauses, so that it delays no job. It
//! also sums the counts of each hour, and counts the waiting jobs of long queues.
//!
//! Every worker runs it every few minutes. A batch is one statement under an advisory lock, so only one process deletes
//! at a time. Two cleaners that overlap do no harm.

use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;
use ulid::Ulid;

use super::{
    refused::RefusedJobs,
    retry::Backoff,
    store::{self, operator::replay_retention},
    write_results::{is_without_effect, may_be_of_one_row},
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
/// The most jobs that one pass skips because the database refuses to delete them. Each costs some statements that fail.
const MOST_REFUSED: u32 = 1000;
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

/// The deletion of expired jobs over several passes.
struct JobDeletion {
    /// The id after which the next pass begins. Empty, unless the last pass ended at a job that it could not delete.
    after: String,
    /// The jobs that this pass has deleted.
    deleted: i64,
    refused: RefusedJobs,
}

/// How a deletion without an error ended.
enum Deletion {
    /// At the last job, or at `stop`.
    Ended,
    /// Another process deletes.
    InAnotherProcess,
}

impl Cleaner {
    /// Deletes until `stop`. A failed pass is not repeated; the next one does its work.
    pub(crate) async fn run(self) {
        let mut jobs = JobDeletion { after: String::new(), deleted: 0, refused: RefusedJobs::new("delete") };
        loop {
            if let Err(error) = self.count_depths().await {
                tracing::debug!(error = causes(&error), "could not count the waiting jobs; retrying later");
            }
            // Full jitter around the interval separates workers that were started together.
            let wait = Backoff { base: self.retention.every * 2, cap: self.retention.every * 2 }.wait(1);
            tokio::select! { () = tokio::time::sleep(wait) => {} () = self.stop.cancelled() => return }
            self.clean(&mut jobs).await;
        }
    }

    /// Deletes everything that has expired, and sums the hours, until `stop`. A part that fails keeps no other from running.
    async fn clean(&self, jobs: &mut JobDeletion) {
        jobs.deleted = 0;
        let deletion = self.delete_expired(jobs).await;
        // Two processes can sum the same hours, but the second one does so for nothing.
        let is_only = !matches!(deletion, Ok(Deletion::InAnotherProcess));
        log_failure("delete expired jobs", deletion.map(|_| ()));
        if jobs.deleted > 0 {
            tracing::info!(jobs = jobs.deleted, "deleted expired jobs");
        }
        if is_only && !self.stop.is_cancelled() {
            log_failure("sum the counts of each hour", self.roll_up().await);
        }
        if !self.stop.is_cancelled() {
            log_failure("delete expired replays", self.delete_ended_replays().await);
        }
        if !self.stop.is_cancelled() {
            log_failure("delete rows of dead workers", self.delete_dead_workers().await);
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
            if self.stop.is_cancelled() {
                return Ok(());
            }
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

    /// Deletes the rows of workers that died longer ago than finished jobs are kept.
    async fn delete_dead_workers(&self) -> sqlx::Result<()> {
        let workers = store::leases::delete_dead_workers(&self.pool, self.retention.done).await?;
        if workers > 0 {
            tracing::info!(workers, "deleted rows of dead workers");
        }
        Ok(())
    }

    /// Waits between two batches. Returns `false` if this process stops.
    async fn pause(&self) -> bool {
        tokio::select! { () = tokio::time::sleep(PAUSE) => true, () = self.stop.cancelled() => false }
    }

    /// Deletes expired jobs. If the database refuses a batch, smaller ones follow, down to the single job that it refuses, which
    /// is skipped until the next pass.
    ///
    /// # Errors
    /// When the database cannot delete now. Also when the deletion of a single job reaches its time limit or is the victim of a
    /// deadlock: mostly the table is locked, as by `CREATE INDEX`, and every other job would take as long. The next pass begins
    /// after that job, because a slow trigger may be the cause.
    async fn delete_expired(&self, jobs: &mut JobDeletion) -> sqlx::Result<Deletion> {
        let Retention { done, dead, .. } = self.retention;
        let now = SystemTime::now();
        // A job is no older than its id, so recent ids are skipped. Ids that are no ULIDs, or come from a wrong clock,
        // are before or after them.
        let recent = now - done.min(dead);
        let begin = std::mem::take(&mut jobs.after);
        let mut refused = 0;
        for (first, before) in
            [(String::new(), first_id_of(recent)), (first_id_of(now + MAX_CLOCK_SKEW), END.to_owned())]
        {
            let (mut after, mut size) = (first.max(begin.clone()), BATCH);
            while after < before {
                let step = store::delete_expired(&self.pool, &after, &before, size, done, dead);
                match with_time_limit(step).await {
                    Ok(None) => return Ok(Deletion::InAnotherProcess),
                    Ok(Some(step)) => {
                        jobs.deleted += step.forgotten;
                        after = step.upto;
                        size = (2 * size + 1).min(BATCH);
                    }
                    Err(error) if !may_be_of_one_row(&error) && !is_without_effect(&error) => return Err(error),
                    Err(_) if size > 0 => size /= 2,
                    // The batch was one job.
                    Err(error) => {
                        let next = store::next_id(&self.pool, &after, &before).await?;
                        after = next.unwrap_or_else(|| before.clone());
                        if is_without_effect(&error) {
                            jobs.after = after;
                            return Err(error);
                        }
                        jobs.refused.log(&after, &error);
                        refused += 1;
                        if refused == MOST_REFUSED {
                            jobs.after = after;
                            return Err(error);
                        }
                    }
                }
                if !self.pause().await {
                    return Ok(Deletion::Ended);
                }
            }
        }
        Ok(Deletion::Ended)
    }
}

/// Logs that a part of a pass has failed.
fn log_failure(part: &str, result: sqlx::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(part, error = causes(&error), "a part of the cleaning failed; retrying later");
    }
}

/// The smallest id of this time.
fn first_id_of(time: SystemTime) -> String {
    Ulid::from_parts(Ulid::from_datetime(time).timestamp_ms(), 0).to_string()
}
