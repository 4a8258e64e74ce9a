//! All SQL of schedules.

use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;

use super::catch_up::Fire;
use crate::ReadTime;
use runtime::pooler::{in_transaction, repeatable};

/// Where a schedule stands, by the database's clock.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    since: ReadTime,
    /// The latest nominal time that is decided and not after now. One after now was decided before the clock went back:
    /// it does not fire a second time, because it has its row, and what lies before it is not decided by it.
    latest: Option<ReadTime>,
    now: ReadTime,
}

impl Standing {
    /// Everything up to here is decided.
    pub fn decided(&self) -> OffsetDateTime {
        let since = self.since.into();
        self.latest.map_or(since, |latest| OffsetDateTime::from(latest).max(since))
    }

    /// The time.
    pub fn now(&self) -> OffsetDateTime {
        self.now.into()
    }

    /// The schedule was registered after now: the clock went back since.
    pub fn is_ahead(&self) -> bool {
        OffsetDateTime::from(self.since) > self.now()
    }
}

/// A fire as it is recorded.
#[derive(Debug)]
pub struct Recorded {
    pub schedule: String,
    pub fire_time: ReadTime,
    pub kind: String,
    pub fired_at: ReadTime,
    pub passed_over: i32,
    pub jobs: i32,
}

/// Records a schedule as this process has it. With another cron expression it begins anew: what that one did not fire
/// before now, it has not missed. So does one that was registered after now, before the clock went back.
pub async fn register(pool: &PgPool, name: &str, cron: &str, catch_up: &str) -> sqlx::Result<()> {
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

/// Where a schedule stands; `None` when it was never registered.
pub async fn standing(pool: &PgPool, name: &str) -> sqlx::Result<Option<Standing>> {
    sqlx::query_as!(
        Standing,
        r#"SELECT since AS "since: ReadTime",
                  (SELECT max(fire_time) FROM schedule_fires
                   WHERE schedule = name AND kind <> 'by_hand' AND fire_time <= clock_timestamp()) AS "latest: ReadTime",
                  clock_timestamp() AS "now!: ReadTime"
         FROM schedules WHERE name = $1"#,
        name,
    )
    .fetch_optional(repeatable(pool))
    .await
}

/// The same, once nobody else decides about its fires; for the rest of the transaction. `None` when it was never
/// registered.
pub async fn hold(tx: &mut PgConnection, name: &str) -> sqlx::Result<Option<Standing>> {
    sqlx::query!("SELECT name FROM schedules WHERE name = $1 FOR UPDATE", name)
        .fetch_optional(in_transaction(tx))
        .await?;
    // A statement of its own: the one that waited sees the ledger as it was before its wait.
    sqlx::query_as!(
        Standing,
        r#"SELECT since AS "since: ReadTime",
                  (SELECT max(fire_time) FROM schedule_fires
                   WHERE schedule = name AND kind <> 'by_hand' AND fire_time <= clock_timestamp()) AS "latest: ReadTime",
                  clock_timestamp() AS "now!: ReadTime"
         FROM schedules WHERE name = $1"#,
        name,
    )
    .fetch_optional(in_transaction(tx))
    .await
}

/// Records a fire; `false` when there is one of this time.
pub async fn insert(tx: &mut PgConnection, name: &str, fire: &Fire) -> sqlx::Result<bool> {
    let inserted = sqlx::query!(
        "INSERT INTO schedule_fires (schedule, fire_time, kind, passed_over) VALUES ($1, $2, $3, $4)
         ON CONFLICT (schedule, fire_time) DO NOTHING",
        name,
        fire.time,
        fire.kind.as_str(),
        i32::try_from(fire.passed_over).unwrap_or(i32::MAX),
    );
    Ok(inserted.execute(in_transaction(tx)).await?.rows_affected() == 1)
}

/// Notes how many jobs a fire has made.
pub async fn note_jobs(tx: &mut PgConnection, name: &str, fire_time: OffsetDateTime, jobs: usize) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE schedule_fires SET jobs = $3 WHERE schedule = $1 AND fire_time = $2",
        name,
        fire_time,
        i32::try_from(jobs).unwrap_or(i32::MAX),
    )
    .execute(in_transaction(tx))
    .await?;
    Ok(())
}

/// Forgets what was fired more than 90 days ago, but for the latest that is not after now: without it, all since then
/// would count as missed.
pub async fn forget(tx: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM schedule_fires WHERE schedule = $1 AND fired_at < now() - interval '90 days'
         AND fire_time <> (SELECT max(fire_time) FROM schedule_fires
                           WHERE schedule = $1 AND kind <> 'by_hand' AND fire_time <= now())",
        name
    )
    .execute(in_transaction(tx))
    .await?;
    Ok(())
}

/// The database's clock.
pub async fn now(tx: &mut PgConnection) -> sqlx::Result<OffsetDateTime> {
    sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#).fetch_one(in_transaction(tx)).await
}

/// The latest fires of one schedule or of all, newest first.
pub async fn fires(pool: &PgPool, name: Option<&str>, limit: i64) -> sqlx::Result<Vec<Recorded>> {
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

/// The database's clock, and the nominal times after it that have fired already, because the clock went back since.
pub async fn fired_ahead(pool: &PgPool, name: &str) -> sqlx::Result<(OffsetDateTime, Vec<OffsetDateTime>)> {
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
