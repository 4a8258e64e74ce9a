//! The SQL of results: every statement here applies only under a fencing token.

use std::time::Duration;

use sqlx::{PgExecutor, Result};

use crate::{
    error_group::error_group,
    storable::{StorableText, wait_seconds},
};
#[cfg(feature = "sabotage")]
use runtime::sabotage::{self, Bug};
use runtime::{
    db::Pool,
    executor::{Transaction, repeatable},
};

/// Marks runs as done, each under its token. Returns the number of tokens that still matched.
///
/// The state says that the run is done, so there is no `last_result`: each byte of it would be written to the log for every job.
///
/// Only the primary key is written so that an index fits. With an indexable condition on `lock_by` or `status`, and
/// statistics that do not know this worker yet, 500 rows took 182 ms instead of 6.
pub(crate) async fn finish(executor: impl PgExecutor<'_>, worker: &str, ids: &[String], tokens: &[i32]) -> Result<u64> {
    #[cfg(feature = "sabotage")]
    {
        let of_any_worker = sabotage::planted(Bug::FenceDropped);
        if of_any_worker || sabotage::planted(Bug::ResultWithoutToken) {
            return finish_without_token(executor, (!of_any_worker).then_some(worker), ids).await;
        }
    }
    let finished = sqlx::query!(
        "UPDATE apalis.jobs AS job
         SET status = 'Done', done_at = now(), last_result = NULL
         FROM unnest($2::text[], $3::int4[]) AS ended (id, token)
         WHERE job.id = ended.id AND job.attempts = ended.token
           AND job.lock_by IS NOT DISTINCT FROM $1 AND job.status || '' = 'Running'",
        worker,
        ids,
        tokens,
    );
    Ok(finished.execute(executor).await?.rows_affected())
}

/// A bug: marks jobs as done whose present run is another one; with a worker only if that worker holds them.
#[cfg(feature = "sabotage")]
async fn finish_without_token(executor: impl PgExecutor<'_>, worker: Option<&str>, ids: &[String]) -> Result<u64> {
    let finish = "UPDATE apalis.jobs SET status = 'Done', done_at = now(), last_result = NULL
                  WHERE id = ANY($1) AND status = 'Running' AND lock_by = coalesce($2, lock_by)";
    Ok(sqlx::query(finish).bind(ids).bind(worker).execute(executor).await?.rows_affected())
}

/// Returns the ids of those of these runs that are marked as done.
pub(crate) async fn find_finished(
    executor: impl PgExecutor<'_>,
    worker: &str,
    ids: &[String],
    tokens: &[i32],
) -> Result<Vec<String>> {
    sqlx::query_scalar!(
        "SELECT job.id FROM apalis.jobs AS job JOIN unnest($2::text[], $3::int4[]) AS ended (id, token) USING (id)
         WHERE job.attempts = ended.token AND job.lock_by IS NOT DISTINCT FROM $1 AND job.status = 'Done'",
        worker,
        ids,
        tokens,
    )
    .fetch_all(executor)
    .await
}

/// Returns the ids of those of these runs that still hold their jobs. Takes no lock and waits for none.
pub(crate) async fn find_held(pool: &Pool, worker: &str, ids: &[String], tokens: &[i32]) -> Result<Vec<String>> {
    sqlx::query_scalar!(
        "SELECT job.id FROM apalis.jobs AS job JOIN unnest($2::text[], $3::int4[]) AS ended (id, token) USING (id)
         WHERE job.attempts = ended.token AND job.lock_by IS NOT DISTINCT FROM $1 AND job.status || '' = 'Running'",
        worker,
        ids,
        tokens,
    )
    .fetch_all(repeatable(pool))
    .await
}

/// Locks those of these jobs that no other session has locked, and returns their ids.
pub(crate) async fn lock_free(transaction: &mut Transaction, ids: &[String]) -> Result<Vec<String>> {
    sqlx::query_scalar!("SELECT id FROM apalis.jobs WHERE id = ANY($1) FOR UPDATE SKIP LOCKED", ids)
        .fetch_all(&mut *transaction)
        .await
}

/// The new state of a job whose run is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next<'a> {
    /// It waits for this long. `error` is set after a failure, `reason` after a snooze.
    Wait { wait: Duration, error: Option<&'a StorableText>, reason: Option<&'a StorableText> },
    /// It waits again; its due time does not change.
    GiveBack,
    /// It becomes a dead letter.
    Dead { error: &'a StorableText },
    /// An operator has cancelled it.
    Cancelled { error: &'a StorableText },
}

/// Runs that are not done, column by column. [`Unfinished::push`] is the only way to add one, so that every value can
/// be stored by PostgreSQL.
#[derive(Debug, Default)]
pub(crate) struct Unfinished {
    ids: Vec<String>,
    tokens: Vec<i32>,
    statuses: Vec<String>,
    /// Seconds until the job is due again; `None` leaves its due time unchanged.
    delays: Vec<Option<f64>>,
    errors: Vec<Option<String>>,
    /// The groups of the errors.
    groups: Vec<Option<String>>,
    reasons: Vec<Option<String>>,
    /// The run ended without a crash, so the job's consecutive crashes are reset.
    survived: Vec<bool>,
    /// The limit of failures that applied; operators see it.
    attempts: Vec<i32>,
}

impl Unfinished {
    /// Adds a run.
    pub(crate) fn push(&mut self, id: &str, token: i32, attempts: i32, survived: bool, next: Next<'_>) {
        let (status, delay, error, reason) = match next {
            Next::Wait { wait, error, reason } => ("Pending", Some(wait_seconds(wait)), error, reason),
            Next::GiveBack => ("Pending", None, None, None),
            Next::Dead { error } => ("Killed", None, Some(error), None),
            Next::Cancelled { error } => ("Cancelled", None, Some(error), None),
        };
        let text = |text: &StorableText| text.as_str().to_owned();
        self.ids.push(id.to_owned());
        self.tokens.push(token);
        self.attempts.push(attempts);
        self.survived.push(survived);
        self.statuses.push(status.to_owned());
        self.delays.push(delay);
        self.errors.push(error.map(text));
        self.groups.push(error.map(|error| error_group(error.as_str())));
        self.reasons.push(reason.map(text));
    }
}

/// The number of errors that are kept with a job, the newest ones.
pub(super) const ERRORS_KEPT: i32 = 10;
/// The number of other events that are kept with a job, the newest ones.
pub(super) const EVENTS_KEPT: i32 = 20;

/// Writes the results of runs that are not done: state, due time and error in one statement, each under its token. Also
/// counts the cancelled ones, and returns the ids that were written.
///
/// Odd values that another program left in a row fail nothing: `errors` that is no array is replaced, and counts end at
/// the largest number.
///
/// Snoozes and runs that were given back are events, because the next run overwrites what the row says about them. A
/// snooze for the same reason as the one before replaces it and is counted: a job that polls every second has one event.
pub(crate) async fn put_back(executor: impl PgExecutor<'_>, worker: &str, runs: &Unfinished) -> Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"WITH written AS (
               UPDATE apalis.jobs AS job
               SET status = ended.status,
                   done_at = CASE WHEN ended.status <> 'Pending' THEN now() END,
                   run_at = coalesce(clock_timestamp() + make_interval(secs => ended.delay),
                                     least(job.run_at, clock_timestamp())),
                   failures = CASE WHEN ended.error IS NULL THEN job.failures
                                   ELSE least(greatest(job.failures, 0), 2147483646) + 1 END,
                   crashes = CASE WHEN ended.survived THEN 0 ELSE job.crashes END,
                   max_attempts = ended.attempts,
                   error_group = coalesce(ended.error_group, job.error_group),
                   last_result = CASE WHEN ended.error IS NOT NULL THEN jsonb_build_object('Err', ended.error)
                                      WHEN ended.delay IS NOT NULL THEN jsonb_build_object('Snoozed', ended.reason)
                                      ELSE job.last_result END,
                   errors = CASE WHEN ended.error IS NULL THEN job.errors ELSE
                       CASE WHEN jsonb_typeof(job.errors) IS DISTINCT FROM 'array' THEN '[]'
                            WHEN jsonb_array_length(job.errors) >= $10 THEN job.errors - 0 ELSE job.errors END
                       || jsonb_build_object('at', now(), 'run', ended.token, 'worker', $1::text, 'due', job.run_at,
                                             'started', job.lock_at, 'error', ended.error) END,
                   events = CASE WHEN ended.status <> 'Pending' OR ended.error IS NOT NULL THEN job.events ELSE
                       CASE WHEN jsonb_typeof(job.events) IS DISTINCT FROM 'array' THEN '[]'
                            WHEN ended.delay IS NOT NULL AND job.events -> -1 ->> 'event' = 'snoozed'
                                 AND job.events -> -1 ->> 'reason' IS NOT DISTINCT FROM ended.reason THEN job.events - -1
                            WHEN jsonb_array_length(job.events) >= $12 THEN job.events - 0 ELSE job.events END
                       || (jsonb_strip_nulls(jsonb_build_object(
                               'at', now(), 'event', CASE WHEN ended.delay IS NULL THEN 'given_back' ELSE 'snoozed' END,
                               'run', ended.token, 'worker', $1::text, 'due', job.run_at, 'started', job.lock_at,
                               'until', clock_timestamp() + make_interval(secs => ended.delay), 'reason', ended.reason))
                           || CASE WHEN ended.delay IS NOT NULL AND job.events -> -1 ->> 'event' = 'snoozed'
                                        AND job.events -> -1 ->> 'reason' IS NOT DISTINCT FROM ended.reason
                                   THEN jsonb_build_object(
                                       'first_at', coalesce(job.events -> -1 -> 'first_at', job.events -> -1 -> 'at'),
                                       'times', 1 + CASE jsonb_typeof(job.events -> -1 -> 'times')
                                           WHEN 'number' THEN greatest(1, least(2147483646,
                                               (job.events -> -1 ->> 'times')::numeric))::int
                                           ELSE 1 END)
                                   ELSE '{}' END) END
               FROM unnest($2::text[], $3::int4[], $4::text[], $5::float8[], $6::text[], $7::text[], $8::bool[], $9::int4[], $11::text[])
                    AS ended (id, token, status, delay, error, reason, survived, attempts, error_group)
               WHERE job.id = ended.id AND job.attempts = ended.token
                 AND job.lock_by IS NOT DISTINCT FROM $1 AND job.status || '' = 'Running'
               RETURNING job.id, job.job_type, job.status
           ), counted AS (
               INSERT INTO queues (name, cancelled)
               SELECT job_type, count(*) FROM written WHERE status = 'Cancelled' GROUP BY job_type ORDER BY job_type
               ON CONFLICT (name) DO UPDATE SET cancelled = queues.cancelled + EXCLUDED.cancelled
           )
           SELECT id FROM written"#,
        worker,
        &runs.ids,
        &runs.tokens,
        &runs.statuses,
        &runs.delays as &[Option<f64>],
        &runs.errors as &[Option<String>],
        &runs.reasons as &[Option<String>],
        &runs.survived,
        &runs.attempts,
        ERRORS_KEPT,
        &runs.groups as &[Option<String>],
        EVENTS_KEPT,
    )
    .fetch_all(executor)
    .await
}
