//! The SQL of schedules.

use sqlx::PgExecutor;
use time::OffsetDateTime;

use super::catch_up::Fire;
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
    pub passed_over: i32,
    pub jobs: i32,
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
pub(super) async fn insert(tx: &mut Transaction, name: &str, fire: &Fire) -> sqlx::Result<bool> {
    let inserted = sqlx::query!(
        "INSERT INTO schedule_fires (schedule, fire_time, kind, passed_over) VALUES ($1, $2, $3, $4)
         ON CONFLICT (schedule, fire_time) DO NOTHING",
        name,
        fire.time,
        fire.kind.as_str(),
        i32::try_from(fire.passed_over).unwrap_or(i32::MAX),
    );
    Ok(inserted.execute(&mut *tx).await?.rows_affected() == 1)
}

/// Records the number of jobs of a fire.
pub(super) async fn record_jobs(
    tx: &mut Transaction,
    name: &str,
    fire_time: OffsetDateTime,
    jobs: usize,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE schedule_fires SET jobs = $3 WHERE schedule = $1 AND fire_time = $2",
        name,
        fire_time,
        i32::try_from(jobs).unwrap_or(i32::MAX),
    )
    .execute(&mut *tx)
    .await?;
    Ok(())
}

/// Deletes fires older than 90 days, except the latest one that is not after now: without it, all nominal times since
/// would count as missed.
pub(super) async fn delete_old_fires(tx: &mut Transaction, name: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM schedule_fires WHERE schedule = $1 AND fired_at < now() - interval '90 days'
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

/// Returns the latest fires of one schedule or of all, newest first.
pub(super) async fn fires(pool: &Pool, name: Option<&str>, limit: i64) -> sqlx::Result<Vec<Recorded>> {
    sqlx::query_as!(
        Recorded,
        r#"SELECT schedule, fire_time AS "fire_time: ReadTime", kind, fired_at AS "fired_at: ReadTime", passed_over, jobs
           FROM schedule_fires
           WHERE $1::text IS NULL OR schedule = $1 ORDER BY fire_time DESC, schedule LIMIT $2"#,
        name,
        limit,
    )
    .fetch_all(repeatable(pool))
    .await
}

/// Returns the database's clock, and the later nominal times that have fired already, because the clock has gone back
/// since.
pub(super) async fn fired_ahead(pool: &Pool, name: &str) -> sqlx::Result<(OffsetDateTime, Vec<OffsetDateTime>)> {
    let row = sqlx::query!(
        r#"SELECT clock_timestamp() AS "now!: ReadTime",
                  ARRAY(SELECT fire_time FROM schedule_fires
                        WHERE schedule = $1 AND kind <> 'by_hand' AND fire_time > clock_timestamp()
                        ORDER BY fire_time LIMIT 100000) AS "ahead!: Vec<ReadTime>""#,
        name,
    );
    let row = row.fetch_one(repeatable(pool)).await?;
    Ok((row.now.into(), row.ahead.into_iter().map(OffsetDateTime::from).collect()))
}
