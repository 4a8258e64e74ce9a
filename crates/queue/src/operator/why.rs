//! Why a job is not running: ordered checks, each with its result and, if it fails, what to do.

use serde::Serialize;

use super::{Operator, workers::WorkerInfo};
use crate::{
    status::{JobDetails, JobEvent, JobStatus, State},
    store::operator::why::{self as sql, Facts},
};
use runtime::error::Error;

/// Why a job is not running.
#[derive(Debug, Clone, Serialize)]
pub struct Why {
    pub job: JobStatus,
    /// One sentence: the first check that fails, or that it runs.
    pub verdict: String,
    /// In the order in which they decide.
    pub checks: Vec<Check>,
    /// What happened to the job, oldest first: the newest 20 events.
    pub events: Vec<JobEvent>,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub ok: bool,
    /// What was found.
    pub text: String,
    /// A command that corrects it.
    pub fix: Option<String>,
}

impl Check {
    fn ok(text: impl Into<String>) -> Self {
        Self { ok: true, text: text.into(), fix: None }
    }

    fn failed(text: impl Into<String>, fix: Option<String>) -> Self {
        Self { ok: false, text: text.into(), fix }
    }
}

impl Operator {
    /// Explains why a job is not running; `None` if it does not exist.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn why(&self, id: &str) -> Result<Option<Why>, Error> {
        let Some(details) = self.show(id).await? else { return Ok(None) };
        self.why_of(&details).await
    }

    /// Explains why the job with these details is not running; `None` if it does not exist any more.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn why_of(&self, details: &JobDetails) -> Result<Option<Why>, Error> {
        let Some(facts) = sql::facts(&self.pool, &details.job.id).await? else { return Ok(None) };
        let workers = self.workers().await?;
        let checks = checks(&details.job, &facts, &workers);
        let verdict = match checks.iter().find(|check| !check.ok) {
            Some(failed) => failed.text.clone(),
            None if details.job.state == State::Running => "it is running".into(),
            None => details.why.clone(),
        };
        Ok(Some(Why { job: details.job.clone(), verdict, checks, events: details.events.clone() }))
    }
}

fn checks(job: &JobStatus, facts: &Facts, workers: &[WorkerInfo]) -> Vec<Check> {
    let mut checks = vec![Check::ok(format!("the job exists in the queue {}", job.queue))];
    let by_id = |command: &str| Some(format!("millrace jobs {command} {}", job.id));
    match job.state {
        State::Done => return with(checks, Check::failed("it is done", None)),
        State::Dead => {
            let error = job.last_error.as_deref().unwrap_or("no error is recorded");
            return with(checks, Check::failed(format!("it is a dead letter: {error}"), by_id("replay")));
        }
        State::Cancelled => {
            return with(checks, Check::failed("an operator cancelled it", by_id("replay")));
        }
        State::Unknown => {
            return with(checks, Check::failed("Millrace does not know its state: another program wrote it", None));
        }
        State::Running => return with(checks, running(job, workers)),
        State::Waiting => checks.push(Check::ok("it waits")),
    }
    if job.due_in_seconds > 0.0 {
        let wait = format!("it is due in {:.0} s", job.due_in_seconds);
        let because = match (&facts.snoozed, job.failures) {
            (Some(reason), _) if reason.is_empty() => "its last run snoozed it".into(),
            (Some(reason), _) => format!("its last run snoozed it: {reason}"),
            (None, failures) if failures > 0 => {
                format!("it waits for attempt {} of {}", failures + 1, facts.max_attempts.unwrap_or(failures + 1))
            }
            (None, _) => "it was enqueued for that time".into(),
        };
        checks.push(Check::failed(format!("{wait}: {because}"), None));
    } else {
        checks.push(Check::ok(format!("it is due for {:.0} s", -job.due_in_seconds)));
    }
    checks.push(match &facts.paused {
        Some(reason) => {
            let by = facts.paused_by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
            let fix = format!("millrace queues resume {} --reason '…'", job.queue);
            Check::failed(format!("its queue is paused{by}: {reason}"), Some(fix))
        }
        None => Check::ok("its queue is not paused"),
    });
    checks.extend(claims(job, facts, workers));
    checks
}

fn with(mut checks: Vec<Check>, last: Check) -> Vec<Check> {
    checks.push(last);
    checks
}

/// The check of a running job: whether its worker lives.
fn running(job: &JobStatus, workers: &[WorkerInfo]) -> Check {
    let name = job.worker.as_deref().unwrap_or("an unknown worker");
    match workers.iter().find(|worker| Some(&worker.id) == job.worker.as_ref()) {
        Some(worker) if worker.live && worker.silent_seconds > worker.lease_seconds / 2.0 => Check::failed(
            format!(
                "worker {name} holds it, but is silent for {:.0} s: if it is frozen, another worker takes the job over {:.0} s \
                 after its last heartbeat",
                worker.silent_seconds, worker.lease_seconds
            ),
            None,
        ),
        Some(worker) if worker.live => Check::ok(format!("worker {name} runs it")),
        Some(worker) => Check::failed(
            format!(
                "its worker {name} is silent for {:.0} s: another worker takes the job over",
                worker.silent_seconds
            ),
            None,
        ),
        None => Check::failed(format!("its worker {name} is gone: another worker takes the job over"), None),
    }
}

/// The checks of the workers that could claim the job.
fn claims(job: &JobStatus, facts: &Facts, workers: &[WorkerInfo]) -> Vec<Check> {
    let mut checks = Vec::new();
    let live: Vec<&WorkerInfo> =
        workers.iter().filter(|worker| worker.live && facts.workers.contains(&worker.id)).collect();
    if live.is_empty() {
        let others = workers.iter().filter(|worker| worker.live).count();
        let text = match others {
            0 => "no worker is alive".to_owned(),
            others => format!("{others} workers are alive, and none of them runs the queue {}", job.queue),
        };
        return vec![Check::failed(text, Some("start a worker: millrace worker".into()))];
    }
    let silent = live.iter().filter(|worker| worker.silent_seconds > worker.lease_seconds / 2.0).count();
    if silent == live.len() {
        checks
            .push(Check::failed(format!("all {silent} workers of its queue are silent for half of their lease"), None));
    } else {
        checks.push(Check::ok(format!("workers that run its queue: {} live", live.len())));
    }
    let failing: Vec<_> = live.iter().filter_map(|worker| worker.claim_errors.get(&job.queue)).collect();
    match failing.first() {
        Some(error) if failing.len() == live.len() => {
            checks.push(Check::failed(format!("all their claims fail in the database: {}", error.error), None));
        }
        Some(error) => checks.push(Check::ok(format!("claims of {} of them fail: {}", failing.len(), error.error))),
        None => checks.push(Check::ok("their claims succeed")),
    }
    let reports: Vec<_> = live.iter().filter_map(|worker| worker.report.as_ref()).collect();
    if !reports.is_empty() && reports.iter().all(|report| report.draining) {
        checks.push(Check::failed("all of them are stopping", Some("start a worker: millrace worker".into())));
    }
    if !reports.is_empty() && reports.iter().all(|report| !report.listening) {
        checks.push(Check::ok("none of them receives notifications; they poll instead"));
    }
    let queues: Vec<_> = reports.iter().filter_map(|report| report.queues.get(&job.queue)).collect();
    let (slots, running): (u32, u32) = (queues.iter().map(|q| q.slots).sum(), queues.iter().map(|q| q.running).sum());
    if !queues.is_empty() && job.due_in_seconds <= 0.0 {
        if running >= slots {
            let ahead = if facts.ahead >= sql::MAX_AHEAD { "at least " } else { "" };
            let text = format!("all {slots} slots are in use, and {ahead}{} jobs are ahead of it", facts.ahead);
            checks.push(Check::failed(text, Some("start another worker: millrace worker".into())));
        } else {
            checks.push(Check::ok(format!("{} of {slots} slots are free", slots - running)));
        }
    }
    checks
}
