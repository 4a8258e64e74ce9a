//! What PostgreSQL itself can do, with our tables and nothing of ours around them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::PgConnection;
use tokio::{sync::Barrier, task::JoinSet};

use super::{Bench, store};
use crate::error::Error;

/// Rows in a transaction of [`Step::InsertMany`].
pub const BATCH: usize = 100;
/// Jobs in a claim of [`Step::Drain`]: as many as in our own largest.
const CLAIM: i64 = 500;

/// What the clients of a baseline have done together.
#[derive(Debug, Clone, Default)]
pub struct Done {
    pub rows: u64,
    /// From the moment in which all were connected to the end of the last one.
    pub took: Duration,
    /// How long each transaction took, in no order.
    pub latencies: Vec<Duration>,
}

impl Done {
    /// Rows per second.
    pub fn rate(&self) -> f64 {
        self.rows as f64 / self.took.as_secs_f64()
    }
}

/// What a client of a baseline does, again and again.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// A transaction and its job, in a transaction of their own: `BEGIN`, two prepared inserts, `COMMIT`; four round
    /// trips, as with `pgbench -M prepared`.
    InsertOne,
    /// [`BATCH`] of them in one transaction.
    InsertMany,
    /// Claims due jobs of this queue and marks them as done: no lease, no fence, no decoding, nothing run.
    Drain(&'static str),
}

impl Step {
    /// Answers how many rows it dealt with.
    async fn take(self, session: &mut PgConnection) -> sqlx::Result<usize> {
        match self {
            Self::InsertOne => store::insert(session, 1).await.map(|()| 1),
            Self::InsertMany => store::insert(session, BATCH).await.map(|()| BATCH),
            Self::Drain(queue) => {
                let ids = store::claim_bare(session, queue, CLAIM).await?;
                store::finish_bare(session, &ids).await.map(|()| ids.len())
            }
        }
    }
}

/// Has `clients` sessions take steps until `time` is over or nothing is left to do.
///
/// # Errors
/// The first of the database's own.
pub async fn run(bench: &Bench, step: Step, clients: usize, time: Duration) -> Result<Done, Error> {
    let connected = Arc::new(Barrier::new(clients));
    let mut running = JoinSet::new();
    for _ in 0..clients {
        let (mut session, connected) = (bench.session().await?, connected.clone());
        running.spawn(async move {
            // The first of each prepares its statements.
            step.take(&mut session).await?;
            let mut done = Done::default();
            connected.wait().await;
            let begun = Instant::now();
            while begun.elapsed() < time {
                let from = Instant::now();
                let rows = step.take(&mut session).await?;
                if rows == 0 {
                    break;
                }
                done.rows += rows as u64;
                done.latencies.push(from.elapsed());
                done.took = begun.elapsed();
            }
            Ok::<_, sqlx::Error>(done)
        });
    }
    let mut all = Done::default();
    while let Some(done) = running.join_next().await {
        let mut done = done.map_err(|error| Error::Internal(error.to_string()))??;
        all.rows += done.rows;
        all.took = all.took.max(done.took);
        all.latencies.append(&mut done.latencies);
    }
    Ok(all)
}
