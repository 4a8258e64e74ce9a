//! The workers: what each runs, and what it reports.

use std::collections::BTreeMap;

use serde::Serialize;
use time::OffsetDateTime;

use super::{Operator, audit::Order};
pub use crate::worker_status::{ClaimError, QueueReport, Report};
use crate::{
    Page, ReadTime,
    status::JobStatus,
    store::{
        list,
        operator::{audit, workers as sql},
    },
};
use runtime::error::Error;

/// A worker.
#[derive(Debug, Clone, Serialize)]
pub struct WorkerInfo {
    pub id: String,
    /// Whether its lease is valid.
    pub live: bool,
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// Seconds since its last heartbeat.
    pub silent_seconds: f64,
    pub lease_seconds: f64,
    /// Its running jobs, by the database.
    pub running: i64,
    /// Seconds since the start of its oldest running job.
    pub oldest_run_seconds: Option<f64>,
    /// Whether an operator has asked it to stop.
    pub drain_requested: bool,
    /// `null` for a worker of an earlier release.
    pub report: Option<Report>,
    /// Why its claims fail, by queue; empty while they succeed.
    pub claim_errors: BTreeMap<String, ClaimError>,
}

impl From<sql::WorkerRow> for WorkerInfo {
    fn from(row: sql::WorkerRow) -> Self {
        let errors = row.claim_errors.and_then(|errors| serde_json::from_value(errors).ok());
        Self {
            live: row.live,
            started_at: row.started_at.map_or(OffsetDateTime::UNIX_EPOCH, ReadTime::into),
            silent_seconds: row.silent_seconds,
            lease_seconds: row.lease_seconds,
            running: row.running,
            oldest_run_seconds: row.oldest_run_seconds,
            drain_requested: row.drain,
            report: row.status.and_then(|status| serde_json::from_value(status).ok()),
            claim_errors: errors.unwrap_or_default(),
            id: row.id,
        }
    }
}

impl Operator {
    /// Returns a page of workers after an id, at most `limit`. Pages are in the order of the ids; on a page live workers
    /// come first.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn list_workers(&self, after: Option<&str>, limit: u32) -> Result<Page<WorkerInfo, String>, Error> {
        let rows = sql::page(&self.pool, after.unwrap_or_default(), i64::from(limit) + 1).await?;
        let mut page = Page::new(rows.into_iter().map(WorkerInfo::from), limit, |last| last.id.clone());
        page.rows.sort_by_key(|worker| !worker.live);
        Ok(page)
    }

    /// Returns a worker; `None` if the id is unknown.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn find_worker(&self, id: &str) -> Result<Option<WorkerInfo>, Error> {
        Ok(sql::find(&self.pool, id).await?.map(WorkerInfo::from))
    }

    /// Lists the 1,000 workers that were seen last, live ones first.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn workers(&self) -> Result<Vec<WorkerInfo>, Error> {
        Ok(sql::workers(&self.pool).await?.into_iter().map(WorkerInfo::from).collect())
    }

    /// Lists the jobs that a worker holds, oldest run first, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn held_by(&self, worker: &str, limit: u32) -> Result<Vec<JobStatus>, Error> {
        let mut held: Vec<JobStatus> =
            list::held_by(&self.pool, worker, limit.into()).await?.into_iter().map(JobStatus::from).collect();
        held.sort_by_key(|job| job.started_at);
        Ok(held)
    }

    /// Asks a worker to stop: with its next heartbeat it stops claiming, and it ends when its jobs have ended. Returns
    /// `false` if there is no such worker.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn drain_worker(&self, worker: &str, order: &Order) -> Result<bool, Error> {
        let mut tx = self.queue.begin().await?;
        if !sql::drain(&mut *tx, worker).await? {
            return Ok(false);
        }
        audit::record(&mut *tx, order, "drain", worker, None, 1).await?;
        tx.commit().await?;
        Ok(true)
    }
}
