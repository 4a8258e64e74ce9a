//! The check of other workers' leases, and the rescue of the jobs of silent workers.

use std::{
    collections::{BTreeSet, HashSet},
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use metrics::counter;
use sqlx::PgConnection;

use super::{Heartbeat, one_more, within};
use crate::{
    counts::Event,
    metrics::RESCUED,
    silence::Observer,
    store::{
        self,
        leases::{self as sql, WorkerLease},
    },
    write_results::may_be_of_one_row,
};
use runtime::{
    error::causes,
    executor::{on_session, on_session_within},
    mutex::lock,
};

/// How long the server may look for workers without a row. It takes a few milliseconds, but not while an old snapshot keeps
/// the index entries of all later claims.
const HOLDERS_LIMIT: Duration = Duration::from_secs(1);
/// The refused jobs after which a rescue in parts ends, unless it has rescued a job by then.
const MOST_REFUSED: usize = 10;

impl Heartbeat {
    /// Checks the leases of other workers once, and rescues the jobs of silent ones. `with_jobs` also looks for workers that
    /// hold running jobs but have no row.
    pub(super) async fn check_leases(
        &self,
        connection: &mut PgConnection,
        observer: &mut Observer,
        without_row: &mut Vec<WorkerLease>,
        with_jobs: bool,
    ) -> sqlx::Result<()> {
        let sent = Instant::now();
        let find = sql::workers(on_session(connection, &self.database), &self.worker);
        let mut workers = within(self.reply_limit(), find).await?;
        // Less often than the workers, because it walks the running jobs and rarely finds one.
        if with_jobs && let Some(found) = self.find_holders(connection).await? {
            *without_row = found;
        }
        without_row.retain(|missing| !workers.iter().any(|worker| worker.worker == missing.worker));
        workers.extend(without_row.iter().cloned());
        observer.record(workers, sent, Instant::now());
        let silent = observer.silent_workers();
        if silent.is_empty() { Ok(()) } else { self.rescue(connection, &silent).await }
    }

    /// Returns the workers that hold running jobs but have no row. `None` if they are not known this time: the walk reached
    /// its limit, or the database refuses to give a running job without a worker's name one. The session still works, so the
    /// workers with rows are checked nevertheless.
    async fn find_holders(&self, connection: &mut PgConnection) -> sqlx::Result<Option<Vec<WorkerLease>>> {
        // The server ends the walk before this side stops to wait. Otherwise each walk would end the session, and with it the
        // observation of all workers.
        let limit = HOLDERS_LIMIT.min(self.timing.lease / 10);
        let find = sql::holders_without_row(on_session_within(connection, &self.database, limit), &self.worker);
        match within(self.reply_limit(), find).await {
            Ok(found) => {
                self.failures.holders.store(0, Relaxed);
                let without_row = |worker| WorkerLease { worker, version: None, lease: None };
                Ok(Some(found.into_iter().map(without_row).collect()))
            }
            Err(error @ sqlx::Error::Database(_)) => {
                if let Some(failures) = one_more(&self.failures.holders) {
                    tracing::warn!(
                        failures,
                        error = causes(&error),
                        "could not look for jobs of workers without a row"
                    );
                }
                Ok(None)
            }
            Err(error) => Err(error),
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
    /// rescued in parts, without those that it refuses. If it refuses all, the cause is hardly one of the rows: then no job is
    /// left out. `rescued` gets the queues of the rescued jobs, also before an error.
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
        // A set gives them a random order. In a fixed one, ten refused jobs at its front would keep all others from being tried.
        let held: HashSet<String> = held.into_iter().collect();
        let mut parts = lock(&self.refused).parts(held.into_iter().collect());
        while (parts.succeeds || parts.refused.len() < MOST_REFUSED)
            && Instant::now() < until
            && let Some(part) = parts.next(usize::MAX)
        {
            let rescue = sql::rescue_some(on_session(connection, &self.database), silent, &part);
            let queues = within(limit, rescue).await;
            if let Some(queues) = parts.record(part, queues)? {
                if !parts.succeeds && !queues.is_empty() {
                    parts.succeeds = true;
                    // What refused the jobs before may have refused all, and has just ended: each gets another try.
                    let again = parts.refused.drain(..).map(|(id, _)| vec![id]);
                    parts.left.extend(again);
                }
                rescued.extend(queues);
            }
        }
        for (id, error) in parts.into_refused()? {
            lock(&self.refused).leave_out(id, &error);
        }
        Ok(())
    }
}
