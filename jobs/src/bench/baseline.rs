//! Baselines of the benchmark: what PostgreSQL itself achieves with Millrace's tables and none of its code.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::PgConnection;
use tokio::{sync::Barrier, task::JoinSet};

use super::{Bench, store};
use runtime::error::Error;

/// Rows in a transaction of [`Step::InsertMany`].
pub const BATCH: usize = 100;
/// Jobs in one claim of [`Step::Drain`]: the size of a worker's largest claim.
const CLAIM: i64 = 500;

/// The work of all clients of a baseline or of an HTTP load.
#[derive(Debug, Clone, Default)]
pub struct Throughput {
    /// Rows of a baseline, or responses to a load.
    pub rows: u64,
    /// From the time when all clients were connected to the end of the last transaction or response.
    pub elapsed: Duration,
    /// The duration of each transaction or response, ascending.
    pub latencies: Vec<Duration>,
}

impl Throughput {
    /// Rows or responses per second.
    pub fn rate(&self) -> f64 {
        self.rows as f64 / self.elapsed.as_secs_f64()
    }
}

/// The database transaction that each client of a baseline repeats.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// Inserts one transaction and its job: `BEGIN`, two prepared inserts, `COMMIT`. These are four round trips, as with
    /// `pgbench -M prepared`.
    InsertOne,
    /// Inserts [`BATCH`] transactions and their jobs in one database transaction.
    InsertMany,
    /// Claims due jobs of this queue and marks them as done, without leases, fencing, decoding or running them.
    Drain(&'static str),
}

impl Step {
    /// Executes the step and returns the number of rows.
    async fn execute(self, session: &mut PgConnection) -> sqlx::Result<usize> {
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

/// Repeats a step in `clients` concurrent sessions until `time` is over or a step finds no rows.
///
/// # Errors
/// When a statement fails in the database.
pub async fn run(bench: &Bench, step: Step, clients: usize, time: Duration) -> Result<Throughput, Error> {
    let connected = Arc::new(Barrier::new(clients));
    let mut running = JoinSet::new();
    for _ in 0..clients {
        let (mut session, connected) = (bench.session().await?, connected.clone());
        running.spawn(async move {
            // Warm-up: the first step of each session prepares its statements.
            step.execute(&mut session).await?;
            let mut result = Throughput::default();
            connected.wait().await;
            let begun = Instant::now();
            while begun.elapsed() < time {
                let from = Instant::now();
                let rows = step.execute(&mut session).await?;
                if rows == 0 {
                    break;
                }
                result.rows += rows as u64;
                result.latencies.push(from.elapsed());
                result.elapsed = begun.elapsed();
            }
            Ok::<_, sqlx::Error>(result)
        });
    }
    let mut all = Throughput::default();
    while let Some(joined) = running.join_next().await {
        let mut result = joined.map_err(|error| Error::Internal(error.to_string()))??;
        all.rows += result.rows;
        all.elapsed = all.elapsed.max(result.elapsed);
        all.latencies.append(&mut result.latencies);
    }
    all.latencies.sort_unstable();
    Ok(all)
}
