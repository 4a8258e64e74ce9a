//! The SQL of schedules.

use sqlx::PgExecutor;
use time::OffsetDateTime;

use super::{catch_up::Fire, position::FirePosition};
use crate::ReadTime;
use runtime::{
    db::Pool,
    executor::{Transaction, repeatable},
};

/// The state of a schedule, by the database's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScheduleState {
    since: ReadTime,
    /// The latest nominal time in the ledger that is not after now. A later one was fired before the clock went back:
    /// its row prevents a second fire, and it decides nothing about the nominal times before it.
    latest: Option<ReadTime>,
    now: ReadTime,
}

impl ScheduleState {
    /// All nominal times up to this one are decided.
    pub(super) fn decided_until(&self) -> OffsetDateTime {
        let since = self.since.into();
        self.latest.map_or(since, |latest| OffsetDateTime::from(latest).max(since))
    }

    /// The database's clock.
    pub(super) fn now(&self) -> OffsetDateTime {
        self.now.into()
    }

    /// Whether the schedule was registered after now, because the clock has gone back since.
    pub(super) fn is_ahead(&self) -> bool {
        OffsetDateTime::from(self.since) > self.now()
    }
}

/// A row of the ledger.
#[derive(Debug)]
pub(super) struct Recorded {
    pub schedule: String,
    pub fire_time: ReadTime,
    pub kind: String,
    pub fired_at: ReadTime,
    pub fired_by: Option<String>,
    pub passed_over: i32,
    pub jobs: i32,
    pub first_job: Option<String>,
    pub last_job: Option<String>,
    pub waiting: i64,
    pub retried: i64,
    pub running: i64,
    pub done: i64,
    pub dead: i64,
    pub cancelled: i64,
}

/// A schedule as a worker has registered it last; without an expression if none has.
#[derive(Debug)]
pub(super) struct Registered {
    pub name: String,
    pub cron: Option<String>,
    pub catch_up: Option<String>,
    /// The database's clock.
    pub now: ReadTime,
}

/// A nominal time after now that will not fire.
#[derive(Debug)]
pub(super) struct Ahead {
    pub schedule: String,
    pub fire_time: ReadTime,
    /// The operator who skips it; `None` if it fired before the clock went back.
    pub fired_by: Option<String>,
}

/// Registers a schedule with this process's cron expression and policy. With a new cron expression it restarts: nominal
/// times before now are not missed. It also restarts if it was registered after now, before the clock went back.
pub(super) async fn register(pool: &Pool, name: &str, cron: &str, catch_up: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO schedules (name, cron, catch_up) VALUES ($1, $2, $3)
         ON CONFLICT (name) DO UPDATE
         SET cron = EXCLUDED.cron, catch_up = EXCLUDED.catch_up,
             since = CASE WHEN schedules.cron = EXCLUDED.cron THEN least(schedules.since, now()) ELSE now() END
         WHERE (schedules.cron, schedules.catch_up) <> (EXCLUDED.cron, EXCLUDED.catch_up) OR schedules.since > now()",
        name,
        cron,
        catch_up,
    )
    .execute(repeatable(pool))
    .await?;
    Ok(())
}

/// Registers a schedule, unless it is registered: then the expression and the policy of the workers stay.
pub(super) async fn register_new(pool: &Pool, name: &str, cron: &str, catch_up: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO schedules (name, cron, catch_up) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING",
        name,
        cron,
        catch_up,
    )
    .execute(repeatable(pool))
    .await?;
    Ok(())
}

/// Returns the state of a schedule; `None` if it is not registered.
pub(super) async fn state(executor: impl PgExecutor<'_>, name: &str) -> sqlx::Result<Option<ScheduleState>> {
    sqlx::query_as!(
        ScheduleState,
        r#"SELECT since AS "since: ReadTime",
                  (SELECT max(fire_time) FROM schedule_fires
                   WHERE schedule = name AND kind <> 'by_hand' AND fire_time <= clock_timestamp()) AS "latest: ReadTime",
                  clock_timestamp() AS "now!: ReadTime"
         FROM schedules WHERE name = $1"#,
        name,
    )
    .fetch_optional(executor)
    .await
}

/// Locks a schedule until the end of the transaction, so that only this transaction fires it. Returns its state; `None`
/// if it is not registered.
pub(super) async fn lock(tx: &mut Transaction, name: &str) -> sqlx::Result<Option<ScheduleState>> {
    sqlx::query!("SELECT name FROM schedules WHERE name = $1 FOR UPDATE", name).fetch_optional(&mut *tx).await?;
    // A separate statement, because the one that waits for the lock sees the ledger as it was before the wait.
    state(&mut *tx, name).await
}

/// Records a fire. Returns `false` if the ledger has one at this time already.
pub(super) async fn insert(tx: &mut Transaction, name: &str, fire: &Fire, by: Option<&str>) -> sqlx::Result<bool> {
    let inserted = sqlx::query!(
        "INSERT INTO schedule_fires (schedule, fire_time, kind, passed_over, fired_by) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (schedule, fire_time) DO NOTHING",
        name,
        fire.time,
        fire.kind.as_str(),
        i32::try_from(fire.passed_over).unwrap_or(i32::MAX),
        by,
    );
    Ok(inserted.execute(&mut *tx).await?.rows_affected() == 1)
}

/// Records the number of jobs of a fire, with the ids of the first and the last.
pub(super) async fn record_jobs(
    tx: &mut Transaction,
    name: &str,
    fire_time: OffsetDateTime,
    jobs: usize,
    ids: Option<[String; 2]>,
) -> sqlx::Result<()> {
    let (first, last) = ids.map(|[first, last]| (first, last)).unzip();
    sqlx::query!(
        "UPDATE schedule_fires SET jobs = $3, first_job = $4, last_job = $5 WHERE schedule = $1 AND fire_time = $2",
        name,
        fire_time,
        i32::try_from(jobs).unwrap_or(i32::MAX),
        first,
        last,
    )
    .execute(&mut *tx)
    .await?;
    Ok(())
}

/// Deletes fires older than 90 days, except the latest one that is not after now: without it, all nominal times since
/// would count as missed. A fire that an operator skips is kept until its time, which may be a year away.
pub(super) async fn delete_old_fires(tx: &mut Transaction, name: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM schedule_fires WHERE schedule = $1 AND fired_at < now() - interval '90 days' AND fire_time <= now()
         AND fire_time <> (SELECT max(fire_time) FROM schedule_fires
                           WHERE schedule = $1 AND kind <> 'by_hand' AND fire_time <= now())",
        name
    )
    .execute(&mut *tx)
    .await?;
    Ok(())
}

/// Returns the database's clock.
pub(super) async fn now(tx: &mut Transaction) -> sqlx::Result<OffsetDateTime> {
    sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#).fetch_one(&mut *tx).await
}

/// Returns the names of all schedules that were ever registered.
pub(super) async fn names(pool: &Pool) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!("SELECT name FROM schedules ORDER BY name").fetch_all(repeatable(pool)).await
}

/// Returns these schedules as they are registered, in any order.
pub(super) async fn registered(pool: &Pool, names: &[String]) -> sqlx::Result<Vec<Registered>> {
    sqlx::query_as!(
        Registered,
        r#"SELECT known.name AS "name!", cron AS "cron?", catch_up AS "catch_up?", clock_timestamp() AS "now!: ReadTime"
           FROM unnest($1::text[]) AS known (name) LEFT JOIN schedules USING (name)"#,
        names,
    )
    .fetch_all(repeatable(pool))
    .await
}

/// Returns the latest fires of these schedules that follow a position, newest first, at most `limit` of each; with `past`
/// only those that are not after now. Each schedule is a range of the primary key. The states of a fire's jobs come from the
/// ids between its first and its last job, at most 1,000. Other jobs in between have another correlation id.
pub(super) async fn fires(
    pool: &Pool,
    names: &[String],
    past: bool,
    after: Option<&FirePosition>,
    limit: i64,
) -> sqlx::Result<Vec<Recorded>> {
    sqlx::query_as!(
        Recorded,
        r#"SELECT fire.schedule AS "schedule!", fire.fire_time AS "fire_time!: ReadTime", fire.kind AS "kind!",
                  fire.fired_at AS "fired_at!: ReadTime", fire.fired_by, fire.passed_over AS "passed_over!",
                  fire.jobs AS "jobs!", fire.first_job, fire.last_job, states.waiting AS "waiting!",
                  states.retried AS "retried!", states.running AS "running!", states.done AS "done!",
                  states.dead AS "dead!", states.cancelled AS "cancelled!"
           FROM (SELECT name, coalesce($4::timestamptz - CASE WHEN name COLLATE "C" > $5::text THEN interval '0 seconds'
                                                              ELSE interval '1 microsecond' END, 'infinity') AS newest
                 FROM unnest($1::text[]) AS names (name)) AS known
           CROSS JOIN LATERAL (
               SELECT *, schedule || '@' || to_char(fire_time AT TIME ZONE 'UTC',
                          CASE kind WHEN 'by_hand' THEN 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"' ELSE 'YYYY-MM-DD"T"HH24:MI:SS"Z"' END)
                      AS correlation_id
               FROM schedule_fires
               WHERE schedule = known.name AND fire_time <= known.newest AND (NOT $2 OR fire_time <= clock_timestamp())
               ORDER BY fire_time DESC LIMIT $3
           ) AS fire
           CROSS JOIN LATERAL (
               SELECT count(*) FILTER (WHERE status = 'Pending' AND failures = 0) AS waiting,
                      count(*) FILTER (WHERE status = 'Pending' AND failures > 0) AS retried,
                      count(*) FILTER (WHERE status = 'Running') AS running, count(*) FILTER (WHERE status = 'Done') AS done,
                      count(*) FILTER (WHERE status = 'Killed') AS dead,
                      count(*) FILTER (WHERE status = 'Cancelled') AS cancelled
               FROM (SELECT status, failures, metadata FROM apalis.jobs WHERE id BETWEEN fire.first_job AND fire.last_job
                     ORDER BY id LIMIT 1000) AS job
               WHERE metadata -> 'correlation_id' = fire.correlation_id
           ) AS states"#,
        names,
        past,
        limit,
        after.map(|position| position.time),
        after.and_then(|position| position.schedule.as_deref()),
    )
    .fetch_all(repeatable(pool))
    .await
}

/// Returns the nominal times of these schedules that are after now and will not fire.
pub(super) async fn ahead(executor: impl PgExecutor<'_>, names: &[String]) -> sqlx::Result<Vec<Ahead>> {
    sqlx::query_as!(
        Ahead,
        r#"SELECT ahead.schedule AS "schedule!", ahead.fire_time AS "fire_time!: ReadTime", ahead.fired_by
           FROM unnest($1::text[]) AS known (name)
           CROSS JOIN LATERAL (
               SELECT schedule, fire_time, CASE kind WHEN 'skipped' THEN fired_by END AS fired_by
               FROM schedule_fires
               WHERE schedule = known.name AND kind <> 'by_hand' AND fire_time > clock_timestamp()
               ORDER BY fire_time LIMIT 100000
           ) AS ahead"#,
        names,
    )
    .fetch_all(executor)
    .await
}
