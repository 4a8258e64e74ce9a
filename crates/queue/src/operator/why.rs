//! Why a job is not running: ordered checks, each with its result and, if it fails, what to do.

use serde::Serialize;

use super::{
    Operator,
    demand::Window,
    overview::NOW_SECONDS,
    workers::{QueueReport, WorkerInfo},
};
use crate::{
    fair,
    status::{JobDetails, JobEvent, JobStatus, State, format_duration},
    store::operator::{
        minutes::last_hour,
        why::{self as sql, Facts},
    },
};
use runtime::error::Error;

/// What to do while no worker runs the queue.
const START_WORKER: &str = "start a worker: millrace worker";

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
    pub(super) fn ok(text: impl Into<String>) -> Self {
        Self { ok: true, text: text.into(), fix: None }
    }

    pub(super) fn failed(text: impl Into<String>, fix: Option<String>) -> Self {
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
        let has_turns = details.job.state == State::Waiting && is_shared_by_keys(&details.job, &facts, &workers);
        let due_keys = if has_turns { fair::count_due_keys(&self.pool, &details.job.queue).await? } else { 0 };
        let is_due = details.job.state == State::Waiting && details.job.due_in_seconds <= 0.0;
        // Keys have their turns, so the jobs ahead say little about the start.
        let starts = if is_due && !has_turns { self.starts_per_second(&details.job.queue).await? } else { 0.0 };
        let mut checks = checks(&details.job, &facts, &workers, due_keys);
        if facts.paused.is_none() && is_due && is_full(&details.job, &facts, &workers) {
            checks.extend(estimated_start(facts.ahead, starts));
        }
        let verdict = match checks.iter().find(|check| !check.ok) {
            Some(failed) => failed.text.clone(),
            None if details.job.state == State::Running => "it is running".into(),
            None => details.why.clone(),
        };
        Ok(Some(Why { job: details.job.clone(), verdict, checks, events: details.events.clone() }))
    }

    /// The runs of a queue that started each second, over the last three minutes.
    async fn starts_per_second(&self, queue: &str) -> Result<f64, Error> {
        let minutes = last_hour(&self.pool, Some(queue)).await?;
        let window = Window::of(&minutes.iter().collect::<Vec<_>>(), NOW_SECONDS);
        Ok(window.rate(window.started))
    }
}

/// Whether all slots of the job's queue are in use.
fn is_full(job: &JobStatus, facts: &Facts, workers: &[WorkerInfo]) -> bool {
    let live = live_workers(facts, workers);
    let queues = queue_reports(job, &live);
    !queues.is_empty() && queues.iter().map(|q| q.running).sum::<u32>() >= queues.iter().map(|q| q.slots).sum::<u32>()
}

/// When a job starts that has so many jobs ahead of it; `None` while no run starts.
// At most 1,000 jobs are counted.
#[allow(clippy::cast_precision_loss)]
fn estimated_start(ahead: i64, starts_per_second: f64) -> Option<Check> {
    (starts_per_second > 0.0).then(|| {
        let at_least = if ahead >= sql::MAX_AHEAD { "at least " } else { "" };
        let wait = format_duration((ahead + 1) as f64 / starts_per_second);
        Check::ok(format!("its estimated start is in {at_least}{wait}, at {starts_per_second:.2} starts a second"))
    })
}

/// The live workers with a row that run the job's queue.
fn live_workers<'w>(facts: &Facts, workers: &'w [WorkerInfo]) -> Vec<&'w WorkerInfo> {
    workers.iter().filter(|worker| worker.live && facts.workers.contains(&worker.id)).collect()
}

/// What workers report about the job's queue.
fn queue_reports<'w>(job: &JobStatus, workers: &[&'w WorkerInfo]) -> Vec<&'w QueueReport> {
    let reports = workers.iter().filter_map(|worker| worker.report.as_ref());
    reports.filter_map(|report| report.queues.get(&job.queue)).collect()
}

/// Whether the job has a key, and a live worker claims jobs of its queue by keys.
fn is_shared_by_keys(job: &JobStatus, facts: &Facts, workers: &[WorkerInfo]) -> bool {
    let queues = queue_reports(job, &live_workers(facts, workers));
    facts.fair_key.is_some() && queues.iter().any(|queue| queue.fair || queue.per_key.is_some())
}

/// `due_keys` is the number of keys that share the slots of the queue; 0 if it has no such key.
fn checks(job: &JobStatus, facts: &Facts, workers: &[WorkerInfo], due_keys: usize) -> Vec<Check> {
    let mut checks = vec![Check::ok(format!("the job exists in the queue {}", job.queue))];
    let by_id = |command: &str| Some(format!("millrace jobs {command} {} --reason '…'", job.id));
    match job.state {
        State::Done => return with(checks, Check::failed("it is done", None)),
        State::Dead => {
            let error = job.last_error.as_deref().unwrap_or("no error is recorded");
            checks.push(Check::failed(format!("it is a dead letter: {error}"), by_id("replay")));
            checks.extend(held_key(facts));
            return checks;
        }
        State::Cancelled => {
            checks.push(Check::failed("an operator cancelled it", by_id("replay")));
            checks.extend(held_key(facts));
            return checks;
        }
        State::Unknown => {
            return with(checks, Check::failed("Millrace does not know its state: another program wrote it", None));
        }
        State::Running => return with(checks, running(job, facts, workers)),
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
        checks.push(Check::ok(format!("it has been due for {:.0} s", -job.due_in_seconds)));
    }
    checks.push(match &facts.paused {
        Some(reason) => {
            let by = facts.paused_by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
            let fix = format!("millrace queues resume {} --reason '…'", job.queue);
            Check::failed(format!("its queue is paused{by}: {reason}"), Some(fix))
        }
        None => Check::ok("its queue is not paused"),
    });
    checks.extend(claims(job, facts, workers, due_keys));
    checks
}

/// The check of a job that cannot be replayed now, because another one has its unique key.
fn held_key(facts: &Facts) -> Option<Check> {
    let holder = facts.key_holder.as_ref()?;
    let text = format!("its key is held by the job {holder}: it can be replayed when that has ended");
    Some(Check::failed(text, Some(format!("millrace why {holder}"))))
}

fn with(mut checks: Vec<Check>, last: Check) -> Vec<Check> {
    checks.push(last);
    checks
}

/// The check of a running job: whether its worker lives, or which one takes the job over.
fn running(job: &JobStatus, facts: &Facts, workers: &[WorkerInfo]) -> Check {
    let name = job.worker.as_deref().unwrap_or("an unknown worker");
    let has_successor = live_workers(facts, workers).iter().any(|worker| Some(&worker.id) != job.worker.as_ref());
    let fix = || (!has_successor).then(|| START_WORKER.to_owned());
    let next = if has_successor { "another worker takes the job over" } else { "no live worker can take the job over" };
    match workers.iter().find(|worker| Some(&worker.id) == job.worker.as_ref()) {
        Some(worker) if worker.live && worker.silent_seconds > worker.lease_seconds / 2.0 => Check::failed(
            format!(
                "worker {name} holds it, but has been silent for {:.0} s: if it is frozen, {next} {:.0} s after its last \
                 heartbeat",
                worker.silent_seconds, worker.lease_seconds
            ),
            fix(),
        ),
        Some(worker) if worker.live => Check::ok(format!("worker {name} runs it")),
        Some(worker) => {
            let silence = worker.silent_seconds;
            Check::failed(format!("its worker {name} has been silent for {silence:.0} s: {next}"), fix())
        }
        None => Check::failed(format!("its worker {name} is gone: {next}"), fix()),
    }
}

/// The checks of the workers that could claim the job.
fn claims(job: &JobStatus, facts: &Facts, workers: &[WorkerInfo], due_keys: usize) -> Vec<Check> {
    let mut checks = Vec::new();
    let live = live_workers(facts, workers);
    if live.is_empty() {
        let others = workers.iter().filter(|worker| worker.live).count();
        let text = match others {
            0 => "no worker is alive".to_owned(),
            others => format!("{others} workers are alive, and none of them runs the queue {}", job.queue),
        };
        return vec![Check::failed(text, Some(START_WORKER.into()))];
    }
    let silent = live.iter().filter(|worker| worker.silent_seconds > worker.lease_seconds / 2.0).count();
    if silent == live.len() {
        let text = format!("all {silent} workers of its queue have been silent for more than half of their lease");
        checks.push(Check::failed(text, None));
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
        checks.push(Check::failed("all of them are stopping", Some(START_WORKER.into())));
    }
    if !reports.is_empty() && reports.iter().all(|report| !report.listening) {
        checks.push(Check::ok("none of them receives notifications; they poll instead"));
    }
    let queues = queue_reports(job, &live);
    // All workers have the same limit, except during an upgrade. Then the greatest one lets the job run.
    let limit = queues.iter().filter_map(|queue| queue.per_key).max().filter(|_| facts.fair_key.is_some());
    if let Some(limit) = limit {
        checks.push(check_limit(job, facts, limit));
    }
    let (slots, running): (u32, u32) = (queues.iter().map(|q| q.slots).sum(), queues.iter().map(|q| q.running).sum());
    if !queues.is_empty() && job.due_in_seconds <= 0.0 {
        if running >= slots {
            let text = match due_keys {
                0 => format!("all {slots} slots are in use, and {} jobs are ahead of it", counted(facts.ahead)),
                keys => format!(
                    "all {slots} slots are in use; keys with due jobs get them in turn: {keys}; {} jobs of its key are \
                     ahead of it",
                    counted(facts.ahead_of_key)
                ),
            };
            checks.push(Check::failed(text, Some("start another worker: millrace worker".into())));
        } else {
            checks.push(Check::ok(format!("{} of {slots} slots are free", slots - running)));
        }
    }
    checks
}

/// The check of a queue in which a key may have `limit` running jobs.
fn check_limit(job: &JobStatus, facts: &Facts, limit: u32) -> Check {
    let running = facts.running_of_key;
    if running < i64::from(limit) {
        return Check::ok(format!("{running} jobs of {} run for its key, of at most {limit}", job.queue));
    }
    let ahead = counted(facts.ahead_of_key);
    let full = format!("its key is at its limit: {running} jobs of {} run for it, of at most {limit}", job.queue);
    Check::failed(format!("{full}; {ahead} jobs of its key are ahead of it"), None)
}

/// A number of jobs that is counted up to [`sql::MAX_AHEAD`].
fn counted(jobs: i64) -> String {
    if jobs >= sql::MAX_AHEAD { format!("at least {jobs}") } else { jobs.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_estimated_from_the_jobs_ahead_and_the_present_rate() {
        let text = |ahead, rate| estimated_start(ahead, rate).map(|check| check.text);
        assert_eq!(text(3, 0.0), None, "no run starts");
        let expected = "its estimated start is in 16 s, at 0.25 starts a second";
        assert_eq!(text(3, 0.25).as_deref(), Some(expected));
        let expected = "its estimated start is in at least 17 min, at 1.00 starts a second";
        assert_eq!(text(sql::MAX_AHEAD, 1.0).as_deref(), Some(expected));
    }
}
