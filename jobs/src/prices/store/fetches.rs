//! The SQL of the daily fetches.

use time::{Date, OffsetDateTime};

use super::super::model::{AssetId, ProviderId};
use queue::JobId;
use runtime::{
    db::Pool,
    executor::{Transaction, repeatable, transactional},
};

/// The counts of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// New buckets.
    pub stored: u64,
    /// Buckets that the provider has revised.
    pub revised: u64,
    /// Rows that broke an invariant.
    pub rejected: u64,
    /// A note for operators.
    pub note: Option<String>,
}

/// A fetch that has not ended.
#[derive(Debug)]
pub struct OpenFetch {
    /// When it was enqueued.
    pub enqueued_at: OffsetDateTime,
    pub now: OffsetDateTime,
}

/// The state of a day after one of its fetches has ended.
#[derive(Debug, Default)]
pub struct DayState {
    /// Fetches that have not ended.
    pub open: usize,
    pub fetches: usize,
    /// Fetches of assets that the provider does not offer.
    pub not_offered: usize,
    /// Fetches that were given up.
    pub dead: usize,
}

/// Inserts these fetches. Returns the job ids of those that are new or were given up; the others already have a job.
pub async fn insert_missing(
    tx: &mut Transaction,
    day: Date,
    fetches: &[(AssetId, ProviderId, JobId)],
) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        "INSERT INTO price_fetches (day, asset, source, job_id)
         SELECT $1, asset, source, job_id FROM unnest($2::text[], $3::text[], $4::text[]) AS asked (asset, source, job_id)
         ORDER BY asset, source
         ON CONFLICT (day, asset, source) DO UPDATE
         SET job_id = EXCLUDED.job_id, enqueued_at = now(), finished_at = NULL, outcome = NULL
         WHERE price_fetches.outcome = 'dead'
         RETURNING job_id",
        day,
        &fetches.iter().map(|(asset, ..)| asset.as_str().to_owned()).collect::<Vec<_>>(),
        &fetches.iter().map(|(_, provider, _)| provider.as_str().to_owned()).collect::<Vec<_>>(),
        &fetches.iter().map(|(.., id)| id.to_string()).collect::<Vec<_>>(),
    )
    .fetch_all(&mut *tx)
    .await
}

/// Finds a fetch that has not ended.
pub async fn find_open(
    pool: &Pool,
    day: Date,
    asset: &AssetId,
    provider: ProviderId,
) -> sqlx::Result<Option<OpenFetch>> {
    sqlx::query_as!(
        OpenFetch,
        r#"SELECT enqueued_at, now() AS "now!" FROM price_fetches
           WHERE day = $1 AND asset = $2 AND source = $3 AND finished_at IS NULL"#,
        day,
        asset.as_str(),
        provider.as_str(),
    )
    .fetch_optional(repeatable(pool))
    .await
}

/// Adds the counts of a run that is not the last one of its fetch.
pub async fn add_counts(
    pool: &Pool,
    day: Date,
    asset: &AssetId,
    provider: ProviderId,
    tally: &Tally,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE price_fetches SET stored = stored + $4, revised = revised + $5, rejected = $6, error = $7
         WHERE day = $1 AND asset = $2 AND source = $3 AND finished_at IS NULL",
        day,
        asset.as_str(),
        provider.as_str(),
        to_i64(tally.stored),
        to_i64(tally.revised),
        to_i64(tally.rejected),
        tally.note,
    )
    .execute(transactional(pool))
    .await?;
    Ok(())
}

/// Locks a day, so that exactly one of several fetches that end at once is the last.
pub async fn lock_day(tx: &mut Transaction, day: Date) -> sqlx::Result<()> {
    sqlx::query!("SELECT asset FROM price_fetches WHERE day = $1 ORDER BY asset, source FOR UPDATE", day)
        .fetch_all(&mut *tx)
        .await?;
    Ok(())
}

/// Ends a fetch. Returns `false` when it had already ended.
pub async fn finish(
    tx: &mut Transaction,
    day: Date,
    asset: &AssetId,
    provider: ProviderId,
    outcome: &str,
    tally: &Tally,
) -> sqlx::Result<bool> {
    let finished = sqlx::query!(
        "UPDATE price_fetches
         SET finished_at = now(), outcome = $4, stored = stored + $5, revised = revised + $6, rejected = $7, error = $8
         WHERE day = $1 AND asset = $2 AND source = $3 AND finished_at IS NULL",
        day,
        asset.as_str(),
        provider.as_str(),
        outcome,
        to_i64(tally.stored),
        to_i64(tally.revised),
        to_i64(tally.rejected),
        tally.note,
    );
    Ok(finished.execute(&mut *tx).await?.rows_affected() == 1)
}

/// Counts the fetches of a day.
pub async fn day_state(tx: &mut Transaction, day: Date) -> sqlx::Result<DayState> {
    let row = sqlx::query!(
        r#"SELECT count(*) AS "fetches!", count(*) FILTER (WHERE finished_at IS NULL) AS "open!",
                  count(*) FILTER (WHERE outcome = 'not_offered') AS "not_offered!",
                  count(*) FILTER (WHERE outcome = 'dead') AS "dead!"
           FROM price_fetches WHERE day = $1"#,
        day
    )
    .fetch_one(&mut *tx)
    .await?;
    let number = |count: i64| usize::try_from(count).unwrap_or_default();
    let (open, fetches) = (number(row.open), number(row.fetches));
    Ok(DayState { open, fetches, not_offered: number(row.not_offered), dead: number(row.dead) })
}

/// Gives up a fetch; the counts of its runs stay. Returns `false` when it had already ended.
pub async fn give_up(
    tx: &mut Transaction,
    day: Date,
    asset: &AssetId,
    provider: ProviderId,
    reason: &str,
) -> sqlx::Result<bool> {
    let given_up = sqlx::query!(
        "UPDATE price_fetches SET finished_at = now(), outcome = 'dead', error = $4
         WHERE day = $1 AND asset = $2 AND source = $3 AND finished_at IS NULL",
        day,
        asset.as_str(),
        provider.as_str(),
        reason,
    );
    Ok(given_up.execute(&mut *tx).await?.rows_affected() == 1)
}

/// Reopens a fetch that was given up.
pub async fn reopen(tx: &mut Transaction, day: Date, asset: &AssetId, provider: ProviderId) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE price_fetches SET finished_at = NULL, outcome = NULL, enqueued_at = now()
         WHERE day = $1 AND asset = $2 AND source = $3 AND outcome = 'dead'",
        day,
        asset.as_str(),
        provider.as_str(),
    )
    .execute(&mut *tx)
    .await?;
    Ok(())
}

fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
