//! Forgets what is finished, once it is old: in small steps with pauses, beside the work and never in its way.
//!
//! Every worker tries every few minutes. A step is one statement under a lock of its transaction, so only one process
//! takes one at a time; two passes that meet do each other no harm.

use std::time::{Duration, SystemTime};

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use ulid::Ulid;

use super::{retry::Backoff, store};
use runtime::{db::with_time_limit, error::causes};

/// How long what has ended is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Finished jobs, and workers that are gone.
    pub done: Duration,
    /// Dead letters and cancelled jobs.
    pub dead: Duration,
    /// Between two passes, on average.
    pub every: Duration,
}

impl Retention {
    /// A day for what went well, a month for what somebody may want to look at.
    pub const SHIPPED: Self = Self {
        done: Duration::from_secs(24 * 3600),
        dead: Duration::from_secs(30 * 24 * 3600),
        every: Duration::from_secs(300),
    };
}

/// Jobs in one step.
const STEP: i64 = 2000;
/// After each step, for everybody else.
const PAUSE: Duration = Duration::from_millis(20);
/// Clocks of those who make ids may be ahead by this much.
const AHEAD: Duration = Duration::from_secs(3600);
/// Above every id of digits and letters.
const END: &str = "zzzzzzzzzzzzzzzz";

/// What the forgetting loop needs.
pub struct Cleaner {
    pub pool: PgPool,
    pub retention: Retention,
    pub stop: CancellationToken,
}

impl Cleaner {
    /// Makes passes until `stop`. A pass that fails is left to the next one: nothing waits for it.
    pub async fn run(self) {
        loop {
            // Full jitter around the middle: workers that were started together part at once.
            let wait = Backoff { base: self.retention.every * 2, cap: self.retention.every * 2 }.wait(1);
            tokio::select! { () = tokio::time::sleep(wait) => {} () = self.stop.cancelled() => return }
            match self.pass().await {
                Ok((0, 0)) => {}
                Ok((jobs, workers)) => tracing::info!(jobs, workers, "forgot what ended long ago"),
                Err(error) => {
                    tracing::warn!(
                        error = causes(&error),
                        "could not delete_expired what ended long ago; trying again later"
                    );
                }
            }
        }
    }

    /// Forgets all that is old; answers how many jobs and workers.
    async fn pass(&self) -> sqlx::Result<(i64, u64)> {
        let Retention { done, dead, .. } = self.retention;
        let now = SystemTime::now();
        // A job is no older than its id: what is young by its id need not be looked at. Ids that are no ULIDs, other
        // producers' or from a clock gone wrong, are before or after all of that.
        let young = now - done.min(dead);
        let mut deleted = 0;
        for (mut after, before) in [(String::new(), at(young)), (at(now + AHEAD), END.to_owned())] {
            while after < before && !self.stop.is_cancelled() {
                let step = store::delete_expired(&self.pool, &after, &before, STEP, done, dead);
                let Some(step) = with_time_limit(step).await? else { return Ok((deleted, 0)) };
                deleted += step.forgotten;
                after = step.upto;
                tokio::select! { () = tokio::time::sleep(PAUSE) => {} () = self.stop.cancelled() => {} }
            }
        }
        Ok((deleted, store::leases::forget_workers(&self.pool, done).await?))
    }
}

/// The first id of this time.
fn at(time: SystemTime) -> String {
    Ulid::from_parts(Ulid::from_datetime(time).timestamp_ms(), 0).to_string()
}
