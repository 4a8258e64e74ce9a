//! What became of runs: every statement that holds only under a fencing token.

use std::time::Duration;

use sqlx::{PgConnection, PgExecutor, PgPool, Result};

use crate::storable::{StorableText, wait_seconds};
use runtime::pooler::{in_transaction, repeatable};

/// Marks runs as done, each under its token; answers how many tokens still held.
///
/// Everything in the condition but the primary key is written so that no index fits it: with a usable condition on
/// `lock_by` or `status` and statistics that do not know this worker yet, 500 rows took 182 ms instead of 6.
pub async fn finish(executor: impl PgExecutor<'_>, worker: &str, ids: &[String], tokens: &[i32]) -> Result<u64> {
    let finished = sqlx::query!(
        r#"UPDATE apalis.jobs AS job
           SET status = 'Done', done_at = now(), last_result = '{"Ok": null}'
           FROM unnest($2::text[], $3::int4[]) AS ended (id, token)
           WHERE job.id = ended.id AND job.attempts = ended.token
             AND job.lock_by IS NOT DISTINCT FROM $1 AND job.status || '' = 'Running'"#,
        worker,
        ids,
        tokens,
    );
    Ok(finished.execute(executor).await?.rows_affected())
}

/// Those of these runs that are marked as done.
pub async fn finished(
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

/// Those of these runs that still hold their jobs. Nothing is locked and no lock is waited for.
pub async fn held(pool: &PgPool, worker: &str, ids: &[String], tokens: &[i32]) -> Result<Vec<String>> {
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
pub async fn lock_free(transaction: &mut PgConnection, ids: &[String]) -> Result<Vec<String>> {
    sqlx::query_scalar!("SELECT id FROM apalis.jobs WHERE id = ANY($1) FOR UPDATE SKIP LOCKED", ids)
        .fetch_all(in_transaction(transaction))
        .await
}

/// What becomes of a job whose run did not end well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next<'a> {
    /// It waits for this long; an error says that the run failed, a reason why it put itself off.
    Wait { wait: Duration, error: Option<&'a StorableText>, reason: Option<&'a StorableText> },
    /// It waits, due as it was.
    GiveBack,
    /// It becomes a dead letter.
    Dead { error: &'a StorableText },
    /// It was cancelled by an operator.
    Cancelled { error: &'a StorableText },
}

/// Runs that did not end well, column by column. [`Unfinished::push`] is the only way in, so that nothing reaches the
/// statement that PostgreSQL cannot store.
#[derive(Debug, Default)]
pub struct Unfinished {
    ids: Vec<String>,
    tokens: Vec<i32>,
    statuses: Vec<String>,
    /// Seconds until it is due again; `None` leaves the due time as it was.
    delays: Vec<Option<f64>>,
    errors: Vec<Option<String>>,
    reasons: Vec<Option<String>>,
    /// The run came to an end of its own: its worker did not die, so deaths are counted anew.
    survived: Vec<bool>,
    /// The limit that applied, shown to operators.
    attempts: Vec<i32>,
}

impl Unfinished {
    /// Adds a run.
    pub fn push(&mut self, id: &str, token: i32, attempts: i32, survived: bool, next: Next<'_>) {
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
        self.reasons.push(reason.map(text));
    }
}

/// Errors kept with a job, the newest ones.
pub(super) const ERRORS_KEPT: i32 = 10;

/// Writes the results of runs that did not end well: state, due time and error in one statement, each under its token;
/// counts those that were cancelled. Values that another program left in a row fail nothing: `errors` that is no array
/// is replaced, counts end at the largest number.
pub async fn put_back(executor: impl PgExecutor<'_>, worker: &str, runs: &Unfinished) -> Result<Vec<String>> {
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
                   last_result = CASE WHEN ended.error IS NOT NULL THEN jsonb_build_object('Err', ended.error)
                                      WHEN ended.delay IS NOT NULL THEN jsonb_build_object('Snoozed', ended.reason)
                                      ELSE job.last_result END,
                   errors = CASE WHEN ended.error IS NULL THEN job.errors ELSE
                       CASE WHEN jsonb_typeof(job.errors) IS DISTINCT FROM 'array' THEN '[]'
                            WHEN jsonb_array_length(job.errors) >= $10 THEN job.errors - 0 ELSE job.errors END
                       || jsonb_build_object('at', now(), 'run', ended.token, 'worker', $1::text, 'error', ended.error) END
               FROM unnest($2::text[], $3::int4[], $4::text[], $5::float8[], $6::text[], $7::text[], $8::bool[], $9::int4[])
                    AS ended (id, token, status, delay, error, reason, survived, attempts)
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
    )
    .fetch_all(executor)
    .await
}
