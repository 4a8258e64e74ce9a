//! The SQL of the daily fetches.

use time::{Date, OffsetDateTime};

use super::super::model::FetchPrices;
use queue::JobId;
use runtime::{
    db::Pool,
    error::Error,
    executor::{Transaction, repeatable, transactional},
};

/// The counts of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
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
pub(crate) struct OpenFetch {
    /// When it was enqueued.
    pub enqueued_at: OffsetDateTime,
    pub now: OffsetDateTime,
}

/// The state of a day after one of its fetches has ended.
#[derive(Debug, Default)]
pub(crate) struct DayState {
    /// Fetches that have not ended.
    pub open: i64,
    pub fetches: i64,
    /// Fetches of assets that the provider does not offer.
    pub not_offered: i64,
    /// Fetches that were given up.
    pub dead: i64,
}

/// Inserts these fetches. Returns the job ids of those that are new or were given up; the others already have a job.
pub(crate) async fn insert_missing(
    tx: &mut Transaction,
    day: Date,
    fetches: &[(FetchPrices, JobId)],
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
        &fetches.iter().map(|(fetch, _)| fetch.asset.as_str().to_owned()).collect::<Vec<_>>(),
        &fetches.iter().map(|(fetch, _)| fetch.provider.as_str().to_owned()).collect::<Vec<_>>(),
        &fetches.iter().map(|(_, id)| id.to_string()).collect::<Vec<_>>(),
    )
    .fetch_all(&mut *tx)
    .await
}

/// Finds a fetch that has not ended.
pub(crate) async fn find_open(pool: &Pool, fetch: &FetchPrices) -> Result<Option<OpenFetch>, Error> {
    let open = sqlx::query_as!(
        OpenFetch,
        r#"SELECT enqueued_at, now() AS "now!" FROM price_fetches
           WHERE day = $1 AND asset = $2 AND source = $3 AND finished_at IS NULL"#,
        fetch.day,
        fetch.asset.as_str(),
        fetch.provider.as_str(),
    );
    Ok(open.fetch_optional(repeatable(pool)).await?)
}

/// Adds the counts of a run that is not the last one of its fetch.
pub(crate) async fn add_counts(pool: &Pool, fetch: &FetchPrices, tally: &Tally) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE price_fetches SET stored = stored + $4, revised = revised + $5, rejected = $6, error = $7
         WHERE day = $1 AND asset = $2 AND source = $3 AND finished_at IS NULL",
        fetch.day,
        fetch.asset.as_str(),
        fetch.provider.as_str(),
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
pub(crate) async fn lock_day(tx: &mut Transaction, day: Date) -> sqlx::Result<()> {
    sqlx::query!("SELECT asset FROM price_fetches WHERE day = $1 ORDER BY asset, source FOR UPDATE", day)
        .fetch_all(&mut *tx)
        .await?;
    Ok(())
}

/// Ends a fetch. Returns `false` when it had already ended.
pub(crate) async fn finish(
    tx: &mut Transaction,
    fetch: &FetchPrices,
    outcome: &str,
    tally: &Tally,
) -> sqlx::Result<bool> {
    let finished = sqlx::query!(
        "UPDATE price_fetches
         SET finished_at = now(), outcome = $4, stored = stored + $5, revised = revised + $6, rejected = $7, error = $8
         WHERE day = $1 AND asset = $2 AND source = $3 AND finished_at IS NULL",
        fetch.day,
        fetch.asset.as_str(),
        fetch.provider.as_str(),
        outcome,
        to_i64(tally.stored),
        to_i64(tally.revised),
        to_i64(tally.rejected),
        tally.note,
    );
    Ok(finished.execute(&mut *tx).await?.rows_affected() == 1)
}

/// Counts the fetches of a day.
pub(crate) async fn day_state(tx: &mut Transaction, day: Date) -> sqlx::Result<DayState> {
    sqlx::query_as!(
        DayState,
        r#"SELECT count(*) AS "fetches!", count(*) FILTER (WHERE finished_at IS NULL) AS "open!",
                  count(*) FILTER (WHERE outcome = 'not_offered') AS "not_offered!",
                  count(*) FILTER (WHERE outcome = 'dead') AS "dead!"
           FROM price_fetches WHERE day = $1"#,
        day
    )
    .fetch_one(&mut *tx)
    .await
}

/// Gives up a fetch; the counts of its runs stay. Returns `false` when it had already ended.
pub(crate) async fn give_up(tx: &mut Transaction, fetch: &FetchPrices, reason: &str) -> sqlx::Result<bool> {
    let given_up = sqlx::query!(
        "UPDATE price_fetches SET finished_at = now(), outcome = 'dead', error = $4
         WHERE day = $1 AND asset = $2 AND source = $3 AND finished_at IS NULL",
        fetch.day,
        fetch.asset.as_str(),
        fetch.provider.as_str(),
        reason,
    );
    Ok(given_up.execute(&mut *tx).await?.rows_affected() == 1)
}

/// Reopens a fetch that was given up.
pub(crate) async fn reopen(tx: &mut Transaction, fetch: &FetchPrices) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE price_fetches SET finished_at = NULL, outcome = NULL, enqueued_at = now()
         WHERE day = $1 AND asset = $2 AND source = $3 AND outcome = 'dead'",
        fetch.day,
        fetch.asset.as_str(),
        fetch.provider.as_str(),
    )
    .execute(&mut *tx)
    .await?;
    Ok(())
}

fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
