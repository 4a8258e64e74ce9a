//! When to look for work: at once on a notification, at a job's due time, and every poll interval behind both.

use std::{collections::HashMap, sync::Arc, time::Duration};

use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    CANCELLATIONS, CHANNEL,
    cancel::Cancellations,
    retry::Backoff,
    store::{self, Look},
};
use crate::boot::{
    db::{Database, answered},
    listen::{Heard, listen},
};

/// Due times closer together than this are looked up together: at 1,000 due times a second, a look-up and a claim for
/// each would cost more than the jobs.
const TOGETHER: Duration = Duration::from_millis(5);

/// Rings the bell of each queue that has due jobs.
pub struct Pacer {
    pub pool: PgPool,
    pub poll: Duration,
    pub bells: HashMap<&'static str, Arc<Notify>>,
    pub cancellations: Arc<Cancellations>,
    pub stop: CancellationToken,
}

impl Pacer {
    /// Rings until `stop`: one statement per look, however many queues.
    pub async fn run(self, database: Database) {
        let look = Notify::new();
        tokio::join!(self.listen(&database, &look), self.watch_due_times(&look));
    }

    async fn listen(&self, database: &Database, look: &Notify) {
        listen(database, CHANNEL, &self.stop, |heard| match heard {
            Heard::Payload(news) if news == CANCELLATIONS => self.cancellations.bell.notify_one(),
            Heard::Payload(queue) => {
                // The bell for what is due now, the look for what is due soon.
                if let Some(bell) = self.bells.get(queue.as_str()) {
                    bell.notify_one();
                }
                look.notify_one();
            }
            Heard::Listening => {
                look.notify_one();
                self.cancellations.bell.notify_one();
            }
        })
        .await;
    }

    async fn watch_due_times(&self, look: &Notify) {
        let queues: Vec<String> = self.bells.keys().map(|queue| (*queue).to_owned()).collect();
        let mut failures = 0;
        while !self.stop.is_cancelled() {
            let looks = tokio::select! {
                looks = answered(store::look(&self.pool, &queues)) => looks,
                () = self.stop.cancelled() => return,
            };
            let wait = match looks {
                Ok(looks) => {
                    failures = 0;
                    self.ring_and_wait(&looks)
                }
                Err(error) => {
                    failures += 1;
                    tracing::debug!(failures, %error, "could not look for due jobs; trying again");
                    Backoff::DATABASE.wait(failures).max(self.poll)
                }
            };
            tokio::select! {
                () = async {
                    tokio::time::sleep(TOGETHER.min(wait)).await;
                    tokio::select! { () = tokio::time::sleep(wait.saturating_sub(TOGETHER)) => {} () = look.notified() => {} }
                } => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// Rings for what is due, and answers how long to sleep: until the next due time or the next poll.
    fn ring_and_wait(&self, looks: &[Look]) -> Duration {
        let mut wait = self.poll;
        for Look { queue, is_due, next } in looks {
            if *is_due && let Some(bell) = self.bells.get(queue.as_str()) {
                bell.notify_one();
            }
            // What is due in this moment has come since the statement began: soon, then.
            let next = next.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default());
            wait = next.map_or(wait, |next| wait.min(next.max(TOGETHER)));
        }
        wait
    }
}
