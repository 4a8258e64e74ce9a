//! A database: writes rows of the model into its tables, runs a statement, and compares every row with the model's.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use runtime::{
    db::{Database, Pool},
    executor::{Transaction, begin, once},
};
use sqlx::Row as _;

use super::{
    rewriter::{Change, Rewriter},
    server::{LIMIT, Server, pool},
};
use crate::model::row::{Due, Ended, Job, Name, Status};

/// The queue of most rows.
pub(super) const QUEUE: &str = "queue";
/// A queue that no statement under test names.
pub(super) const OTHER: &str = "other";
/// The rows of the two workers of the model.
pub(super) const NAMES: [&str; 2] = ["worker-a", "worker-b"];

pub(super) fn worker(name: Name) -> &'static str {
    NAMES[usize::from(name)]
}

/// A row of `apalis.jobs` before a statement.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// Its place in the test's list of parameters.
    pub number: usize,
    pub id: String,
    pub queue: &'static str,
    pub job: Job,
    pub key: Option<String>,
    pub priority: i32,
    pub fair_key: Option<i64>,
    /// How many seconds earlier than usual it is due. This orders rows that the model does not distinguish.
    pub earlier: f64,
    pub error: &'static str,
    pub group: &'static str,
}

impl Row {
    /// A row with a number as its id, and a key of its own if the job has one.
    pub(super) fn new(number: usize, job: Job) -> Self {
        let id = format!("job-{number:06}");
        let key = job.has_key.then(|| format!("key of {id}"));
        Self {
            number,
            id,
            queue: QUEUE,
            job,
            key,
            priority: 0,
            fair_key: None,
            earlier: 0.0,
            error: "broken",
            group: "broken",
        }
    }
}

/// What a statement should do to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// Every column stays.
    Unchanged,
    Job(Job),
    Deleted,
}

impl From<Option<Job>> for Expected {
    fn from(changed: Option<Job>) -> Self {
        changed.map_or(Self::Unchanged, Self::Job)
    }
}

/// A row of `apalis.jobs` as it was read.
struct Found {
    job: Job,
    /// Seconds until it is due, from the time before the statement.
    due_in: f64,
    /// Every column.
    text: String,
}

/// A database with the queue's tables.
pub(super) struct World {
    /// For the store's statements.
    pub subject: Pool,
    /// For everything else.
    pub direct: Pool,
    pub rewriter: Rewriter,
    proxied: String,
    _server: Arc<Server>,
}

impl World {
    /// Creates a database. The statements of [`World::subject`] pass through a [`Rewriter`].
    pub(super) async fn create() -> Self {
        let server = Server::shared().await;
        let url = server.create_database().await;
        let shown = Database::parse(&url).expect("the server's URL").to_string();
        let host = shown.split(['=', '&']).nth(1).expect("the folder of the sockets").to_owned();
        let name = shown.split(['/', '?']).nth(3).expect("the name of the database");
        let rewriter = Rewriter::start(Path::new(&host), name);
        let folder = rewriter.folder().display().to_string();
        let proxied = format!("{}&sslmode=disable", shown.replace(&host, &folder));
        Self { subject: pool(&proxied, LIMIT), direct: pool(&url, LIMIT), rewriter, proxied, _server: server }
    }

    /// Changes the store's statements from now on, and limits their time.
    pub(super) async fn rewrite(&mut self, change: Option<Change>, limit: Duration) {
        self.rewriter.set(change);
        // A session that has prepared a statement would not prepare it again.
        std::mem::replace(&mut self.subject, pool(&self.proxied, limit)).close().await;
    }

    /// Begins a transaction for a statement of the store.
    pub(super) async fn begin(&self) -> Transaction {
        begin(&self.subject).await.expect("a transaction")
    }

    /// Runs a statement of a test without parameters.
    pub(super) async fn execute(&self, statement: &'static str) {
        sqlx::query(statement).execute(once(&self.direct)).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    /// Empties all tables and writes these rows.
    pub(super) async fn write(&self, rows: &[Row]) {
        for table in ["apalis.jobs", "apalis.workers", "cancellations", "queues"] {
            let delete = sqlx::query(sqlx::AssertSqlSafe(format!("TRUNCATE {table}")));
            delete.execute(once(&self.direct)).await.expect("an empty table");
        }
        let column = |value: fn(&Row) -> i32| rows.iter().map(value).collect::<Vec<i32>>();
        let ids: Vec<&str> = rows.iter().map(|row| &*row.id).collect();
        sqlx::query(
            "INSERT INTO apalis.jobs (id, job_type, job, status, lock_by, lock_at, attempts, failures, crashes, replays,
                                      run_at, done_at, idempotency_key, priority, errors, error_group,
                                      fair_key)
             SELECT id, queue, '{}', status, holder, now(), attempts, failures, crashes, replays,
                    now() + make_interval(secs => due_in), now() - make_interval(secs => ended_ago), key, priority,
                    jsonb_build_array(jsonb_build_object('error', error)), error_group, fair_key
             FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::int4[], $6::int4[], $7::int4[], $8::int4[],
                         $9::float8[], $10::float8[], $11::text[], $12::int4[], $13::text[], $14::text[], $15::int8[])
                  AS new (id, queue, status, holder, attempts, failures, crashes, replays, due_in, ended_ago, key, priority,
                          error, error_group, fair_key)",
        )
        .bind(&ids)
        .bind(rows.iter().map(|row| row.queue).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| status_text(row.job.status)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.job.holder.map(worker)).collect::<Vec<_>>())
        .bind(column(|row| row.job.attempts.into()))
        .bind(column(|row| row.job.failures.into()))
        .bind(column(|row| row.job.crashes.into()))
        .bind(column(|row| row.job.replays.into()))
        .bind(rows.iter().map(|row| due_in(row.job.due) - row.earlier).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| ended_ago(&row.job)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.key.as_deref()).collect::<Vec<_>>())
        .bind(column(|row| row.priority))
        .bind(rows.iter().map(|row| row.error).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.group).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.fair_key).collect::<Vec<_>>())
        .execute(once(&self.direct))
        .await
        .expect("rows of jobs");
        let requested: Vec<&str> = rows.iter().filter(|row| row.job.cancel_requested).map(|row| &*row.id).collect();
        let request = sqlx::query("INSERT INTO cancellations (job_id) SELECT unnest($1::text[])").bind(requested);
        request.execute(once(&self.direct)).await.expect("requests to cancel");
        sqlx::query("INSERT INTO apalis.workers (id, worker_type, storage_name) SELECT unnest($1::text[]), 'a', 'b'")
            .bind(NAMES.as_slice())
            .execute(once(&self.direct))
            .await
            .expect("rows of workers");
    }

    /// Returns the differences between the rows and what is expected of them. `statement` says what it returned, or how
    /// it failed.
    pub(super) async fn check(
        &self,
        rows: &[Row],
        expected: impl Fn(&Row) -> Expected,
        statement: impl AsyncFnOnce() -> sqlx::Result<Vec<String>>,
    ) -> Vec<String> {
        let (before, start) = self.read(None).await;
        let mut differences = match statement().await {
            Ok(differences) => differences,
            Err(error) => return vec![format!("the statement failed: {error}")],
        };
        let (after, end) = self.read(Some(start)).await;
        for row in rows {
            let expected = expected(row);
            let found = after.get(&row.id);
            let is_same = match (expected, found) {
                (Expected::Deleted, None) => true,
                (Expected::Unchanged, Some(found)) => before.get(&row.id).is_some_and(|old| old.text == found.text),
                (Expected::Job(job), Some(found)) => is_job(job, found, end - start),
                _ => false,
            };
            if !is_same {
                let found = found.map(|found| found.job);
                differences.push(format!("{:?} should be {expected:?}, and is {found:?}", row.job));
            }
        }
        differences
    }

    /// Runs a statement after another session has locked these jobs and run `change` on them. The other session commits once
    /// the statement waits for its lock. Returns the result, and whether the statement waited.
    pub(super) async fn while_locked<T>(
        &self,
        ids: &[&str],
        change: Option<&'static str>,
        statement: impl Future<Output = sqlx::Result<T>>,
    ) -> sqlx::Result<(T, bool)> {
        let mut other = begin(&self.direct).await?;
        let lock = sqlx::query("SELECT FROM apalis.jobs WHERE id = ANY($1) FOR UPDATE").bind(ids);
        lock.fetch_all(&mut other).await?;
        if let Some(change) = change {
            sqlx::query(change).bind(ids).execute(&mut other).await?;
        }
        let mut statement = std::pin::pin!(statement);
        tokio::select! {
            result = &mut statement => {
                // A dropped transaction would hold its locks until its session is used again.
                other.commit().await?;
                Ok((result?, false))
            }
            () = self.wait_for_blocked_session() => {
                other.commit().await?;
                Ok((statement.await?, true))
            }
        }
    }

    /// Waits until a session of this database waits for a lock.
    async fn wait_for_blocked_session(&self) {
        let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity
                                    WHERE datname = current_database() AND wait_event_type = 'Lock')";
        while !sqlx::query_scalar(waits).fetch_one(once(&self.direct)).await.unwrap_or(false) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Reads all jobs, and the database's clock in seconds.
    async fn read(&self, start: Option<f64>) -> (HashMap<String, Found>, f64) {
        let clock: f64 = sqlx::query_scalar("SELECT extract(epoch FROM clock_timestamp())::float8")
            .fetch_one(once(&self.direct))
            .await
            .expect("the clock");
        let rows = sqlx::query(
            "SELECT id, status, lock_by, attempts, failures, crashes, coalesce(replays, 0) AS replays,
                    (extract(epoch FROM run_at) - $1)::float8 AS due_in,
                    ($1 - extract(epoch FROM done_at))::float8 AS ended_ago,
                    idempotency_key IS NOT NULL AS has_key,
                    EXISTS (SELECT FROM cancellations WHERE job_id = id) AS requested, to_jsonb(jobs)::text AS text
             FROM apalis.jobs",
        )
        .bind(start.unwrap_or(clock))
        .fetch_all(once(&self.direct))
        .await
        .expect("rows of jobs");
        (rows.iter().map(|row| (row.get("id"), read_row(row))).collect(), clock)
    }
}

fn read_row(row: &sqlx::postgres::PgRow) -> Found {
    let number = |column: &str| u8::try_from(row.get::<i32, _>(column)).unwrap_or(u8::MAX);
    let holder: Option<&str> = row.get("lock_by");
    let (due_in, ended_ago): (f64, Option<f64>) = (row.get("due_in"), row.get("ended_ago"));
    let requested: bool = row.get("requested");
    let text: &str = row.get("status");
    let (status, _) = STATUSES.into_iter().find(|(_, known)| *known == text).expect("a status of the model");
    let job = Job {
        status,
        holder: holder.map(|holder| NAMES.iter().position(|name| *name == holder).map_or(Name::MAX, |at| at as Name)),
        attempts: number("attempts"),
        failures: number("failures"),
        crashes: number("crashes"),
        replays: number("replays"),
        due: if due_in <= 0.0 { Due::Now } else { Due::Later },
        ended: read_ended(status, ended_ago),
        has_key: row.get("has_key"),
        cancel_requested: requested,
    };
    Found { job, due_in, text: format!("{requested} {}", row.get::<&str, _>("text")) }
}

/// Whether the row is this job. Times count from the start of the statement, which took `seconds`: a due time that it set may
/// be later by that.
fn is_job(job: Job, found: &Found, seconds: f64) -> bool {
    let is_due = match job.due {
        Due::Now => found.due_in <= seconds,
        Due::Soon => found.due_in > 0.0 && found.due_in <= seconds + 2.5,
        Due::Later => found.due_in > seconds + 2.5,
    };
    is_due && Job { due: found.job.due, ..job } == found.job
}

const STATUSES: [(Status, &str); 5] = [
    (Status::Pending, "Pending"),
    (Status::Running, "Running"),
    (Status::Done, "Done"),
    (Status::Killed, "Killed"),
    (Status::Cancelled, "Cancelled"),
];

fn status_text(status: Status) -> &'static str {
    STATUSES.iter().find(|(one, _)| *one == status).map_or("", |(_, text)| text)
}

const HOUR: f64 = 3600.0;
const DAY: f64 = 24.0 * HOUR;
/// The retentions that tests use, in seconds.
pub(super) const RETENTION: [f64; 2] = [DAY, 30.0 * DAY];

fn due_in(due: Due) -> f64 {
    match due {
        Due::Now => -60.0,
        Due::Soon => 1.0,
        Due::Later => HOUR,
    }
}

/// Seconds since the end of a job. Long ago is just longer than the retention of its status.
fn ended_ago(job: &Job) -> Option<f64> {
    let [done, dead] = RETENTION;
    match job.ended {
        Ended::No => None,
        // Longer ago than a job that is done is kept.
        Ended::Recently if matches!(job.status, Status::Killed | Status::Cancelled) => Some(done + HOUR),
        Ended::Recently => Some(60.0),
        Ended::LongAgo if job.status == Status::Done => Some(done + HOUR),
        Ended::LongAgo => Some(dead + HOUR),
    }
}

fn read_ended(status: Status, ended_ago: Option<f64>) -> Ended {
    let [done, dead] = RETENTION;
    let retention = if status == Status::Done { done } else { dead };
    ended_ago.map_or(Ended::No, |ago| if ago < retention { Ended::Recently } else { Ended::LongAgo })
}
