//! SQL of the fetches of each day.

use sqlx::{PgConnection, PgPool};
use time::{Date, OffsetDateTime};

use super::super::model::{AssetId, Source};
use crate::{
    boot::pooler::{on, repeatable, within},
    queue::JobId,
};

/// What one run has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Buckets that were not there.
    pub stored: u64,
    /// Buckets that the source has revised.
    pub revised: u64,
    /// Rows that were not believed.
    pub rejected: u64,
    /// What there is to say.
    pub note: Option<String>,
}

/// A fetch that is under way.
#[derive(Debug)]
pub struct Open {
    /// Since when it is asked for.
    pub enqueued_at: OffsetDateTime,
    pub now: OffsetDateTime,
}

/// How a day stands after one more of its fetches has ended.
#[derive(Debug, Default)]
pub struct Day {
    /// Fetches that have not ended.
    pub open: usize,
    pub fetches: usize,
    /// Those of assets that the provider does not have.
    pub not_offered: usize,
    /// Those that were given up.
    pub dead: usize,
}

/// Records that these are to be fetched; answers the jobs of those that were not already, or that had been given up. The
/// others have theirs.
pub async fn ask(tx: &mut PgConnection, day: Date, fetches: &[(AssetId, Source, JobId)]) -> sqlx::Result<Vec<String>> {
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
        &fetches.iter().map(|(_, source, _)| source.as_str().to_owned()).collect::<Vec<_>>(),
        &fetches.iter().map(|(.., id)| id.to_string()).collect::<Vec<_>>(),
    )
    .fetch_all(within(tx))
    .await
}

/// A fetch, unless it has ended.
pub async fn open(pool: &PgPool, day: Date, asset: &AssetId, source: Source) -> sqlx::Result<Option<Open>> {
    sqlx::query_as!(
        Open,
        r#"SELECT enqueued_at, now() AS "now!" FROM price_fetches
           WHERE day = $1 AND asset = $2 AND source = $3 AND finished_at IS NULL"#,
        day,
        asset.as_str(),
        source.as_str(),
    )
    .fetch_optional(repeatable(pool))
    .await
}

/// Adds what a run has come to that is not the last one.
pub async fn note(pool: &PgPool, day: Date, asset: &AssetId, source: Source, tally: &Tally) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE price_fetches SET stored = stored + $4, revised = revised + $5, rejected = $6, error = $7
         WHERE day = $1 AND asset = $2 AND source = $3 AND finished_at IS NULL",
        day,
        asset.as_str(),
        source.as_str(),
        count(tally.stored),
        count(tally.revised),
        count(tally.rejected),
        tally.note,
    )
    .execute(on(pool))
    .await?;
    Ok(())
}

/// Locks a day, so that of its fetches that end at once one is the last.
pub async fn hold_day(tx: &mut PgConnection, day: Date) -> sqlx::Result<()> {
    sqlx::query!("SELECT asset FROM price_fetches WHERE day = $1 ORDER BY asset, source FOR UPDATE", day)
        .fetch_all(within(tx))
        .await?;
    Ok(())
}

/// Ends a fetch; `false` when it has ended before.
pub async fn finish(
    tx: &mut PgConnection,
    day: Date,
    asset: &AssetId,
    source: Source,
    outcome: &str,
    tally: &Tally,
) -> sqlx::Result<bool> {
    let finished = sqlx::query!(
        "UPDATE price_fetches
         SET finished_at = now(), outcome = $4, stored = stored + $5, revised = revised + $6, rejected = $7, error = $8
         WHERE day = $1 AND asset = $2 AND source = $3 AND finished_at IS NULL",
        day,
        asset.as_str(),
        source.as_str(),
        outcome,
        count(tally.stored),
        count(tally.revised),
        count(tally.rejected),
        tally.note,
    );
    Ok(finished.execute(within(tx)).await?.rows_affected() == 1)
}

/// How a day stands.
pub async fn day(tx: &mut PgConnection, day: Date) -> sqlx::Result<Day> {
    let row = sqlx::query!(
        r#"SELECT count(*) AS "fetches!", count(*) FILTER (WHERE finished_at IS NULL) AS "open!",
                  count(*) FILTER (WHERE outcome = 'not_offered') AS "not_offered!",
                  count(*) FILTER (WHERE outcome = 'dead') AS "dead!"
           FROM price_fetches WHERE day = $1"#,
        day
    )
    .fetch_one(within(tx))
    .await?;
    let number = |count: i64| usize::try_from(count).unwrap_or_default();
    let (open, fetches) = (number(row.open), number(row.fetches));
    Ok(Day { open, fetches, not_offered: number(row.not_offered), dead: number(row.dead) })
}

/// Gives up a fetch; what its runs have stored stays told. `false` when it has ended before.
pub async fn give_up(
    tx: &mut PgConnection,
    day: Date,
    asset: &AssetId,
    source: Source,
    why: &str,
) -> sqlx::Result<bool> {
    let given_up = sqlx::query!(
        "UPDATE price_fetches SET finished_at = now(), outcome = 'dead', error = $4
         WHERE day = $1 AND asset = $2 AND source = $3 AND finished_at IS NULL",
        day,
        asset.as_str(),
        source.as_str(),
        why,
    );
    Ok(given_up.execute(within(tx)).await?.rows_affected() == 1)
}

/// Has a fetch go on that was given up.
pub async fn revive(tx: &mut PgConnection, day: Date, asset: &AssetId, source: Source) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE price_fetches SET finished_at = NULL, outcome = NULL, enqueued_at = now()
         WHERE day = $1 AND asset = $2 AND source = $3 AND outcome = 'dead'",
        day,
        asset.as_str(),
        source.as_str(),
    )
    .execute(within(tx))
    .await?;
    Ok(())
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
