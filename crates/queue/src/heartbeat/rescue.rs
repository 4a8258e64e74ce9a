//! The check of other workers' leases, and the rescue of the jobs of silent workers.

use std::{collections::BTreeSet, sync::atomic::Ordering::Relaxed, time::Instant};

use metrics::counter;
use sqlx::PgConnection;

use super::{Heartbeat, one_more, within};
use crate::{
    counts::Event,
    metrics::RESCUED,
    refused,
    silence::Observer,
    store::{
        self,
        leases::{self as sql, WorkerLease},
    },
    write_results::may_be_of_one_row,
};
use runtime::{error::causes, executor::on_session, mutex::lock};

impl Heartbeat {
    /// Checks the leases of other workers once, and rescues the jobs of silent ones. `with_jobs` also checks the
    /// running jobs for workers without a row, in the same statement.
    pub(super) async fn check_leases(
        &self,
        connection: &mut PgConnection,
        observer: &mut Observer,
        without_row: &mut Vec<WorkerLease>,
        with_jobs: bool,
    ) -> sqlx::Result<()> {
        let limit = self.reply_limit();
        let sent = Instant::now();
        // Checked less often than the workers, because it walks the running jobs and rarely finds one.
        let with_holders = if with_jobs { self.find_holders(connection).await? } else { None };
        let workers = if let Some(workers) = with_holders {
            *without_row = workers.iter().filter(|worker| worker.version.is_none()).cloned().collect();
            workers
        } else {
            let session = on_session(connection, &self.database);
            let mut workers = within(limit, sql::workers(session, &self.worker)).await?;
            without_row.retain(|missing| !workers.iter().any(|worker| worker.worker == missing.worker));
            workers.extend(without_row.iter().cloned());
            workers
        };
        observer.record(workers, sent, Instant::now());
        let silent = observer.silent_workers();
        if silent.is_empty() { Ok(()) } else { self.rescue(connection, &silent).await }
    }

    /// Returns all other workers, and those that hold running jobs but have no row. `None` if the database refuses to give a
    /// running job without a worker's name one: the workers with rows are checked nevertheless.
    async fn find_holders(&self, connection: &mut PgConnection) -> sqlx::Result<Option<Vec<WorkerLease>>> {
        let find = sql::workers_and_holders(on_session(connection, &self.database), &self.worker);
        match within(self.reply_limit(), find).await {
            Err(error) if may_be_of_one_row(&error) => {
                if let Some(failures) = one_more(&self.failures.holders) {
                    tracing::warn!(
                        failures,
                        error = causes(&error),
                        "could not look for jobs of workers without a row"
                    );
                }
                Ok(None)
            }
            found => {
                self.failures.holders.store(0, Relaxed);
                found.map(Some)
            }
        }
    }

    /// Rescues the jobs of dead workers, and announces them to all workers.
    async fn rescue(&self, connection: &mut PgConnection, silent: &[WorkerLease]) -> sqlx::Result<()> {
        let mut rescued = Vec::new();
        let result = self.rescue_all(connection, silent, &mut rescued).await;
        if rescued.is_empty() {
            return result;
        }
        tracing::warn!(jobs = rescued.len(), "rescued jobs of dead workers");
        for queue in &rescued {
            counter!(RESCUED, "queue" => queue.clone()).increment(1);
            self.report.counts.of(queue).add(Event::Rescued, 1);
        }
        let queues: BTreeSet<String> = rescued.into_iter().collect();
        let queues: Vec<String> = queues.into_iter().collect();
        let announce = store::announce(on_session(connection, &self.database), &queues);
        result.and(within(self.write_limit(), announce).await)
    }

    /// Rescues the jobs of dead workers in one statement. If the database refuses that because of one row, the jobs are
    /// rescued in parts, without those that it refuses. `rescued` gets their queues, also before an error.
    async fn rescue_all(
        &self,
        connection: &mut PgConnection,
        silent: &[WorkerLease],
        rescued: &mut Vec<String>,
    ) -> sqlx::Result<()> {
        let limit = self.write_limit();
        let is_none_refused = lock(&self.refused).is_empty();
        if is_none_refused {
            match within(limit, sql::rescue(on_session(connection, &self.database), silent)).await {
                Err(error) if may_be_of_one_row(&error) => {}
                result => return result.map(|queues| rescued.extend(queues)),
            }
        }
        // The next heartbeat is not delayed: the next check goes on.
        let until = Instant::now() + self.timing.rescue.min(self.timing.heartbeat / 2);
        let held = within(limit, sql::find_held(on_session(connection, &self.database), silent)).await?;
        let mut parts = lock(&self.refused).first_part(held);
        while Instant::now() < until
            && let Some(part) = parts.pop()
        {
            match within(limit, sql::rescue_some(on_session(connection, &self.database), silent, &part)).await {
                Ok(queues) => rescued.extend(queues),
                Err(error) if may_be_of_one_row(&error) => {
                    if let Some(id) = refused::split(part, &mut parts) {
                        lock(&self.refused).leave_out(id, &error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
