//! SQL of probes.

use uuid::Uuid;

use super::grid::{Grid, ListedProbe, Position, Probe};
use runtime::{
    db::Pool,
    error::Error,
    executor::{Transaction, repeatable, transactional},
};

/// Inserts a probe.
pub(super) async fn insert(pool: &Pool, probe: &Probe, grid_id: Uuid) -> Result<(), Error> {
    let Probe { id, grid, position } = probe;
    sqlx::query!(
        "INSERT INTO probes (id, grid_id, grid_x, grid_y, x, y, direction) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        id,
        grid_id,
        grid.x,
        grid.y,
        position.x,
        position.y,
        position.direction.into_str(),
    )
    .execute(transactional(pool))
    .await?;
    Ok(())
}

/// Whether the probe exists.
pub(super) async fn exists(pool: &Pool, id: Uuid) -> Result<bool, Error> {
    let known = sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM probes WHERE id = $1) AS "known!""#, id)
        .fetch_one(repeatable(pool))
        .await?;
    Ok(known)
}

/// Reads a probe and locks its row until the transaction ends.
pub(super) async fn lock(tx: &mut Transaction, id: Uuid) -> Result<Option<Probe>, Error> {
    let row = sqlx::query!("SELECT grid_x, grid_y, x, y, direction FROM probes WHERE id = $1 FOR UPDATE", id)
        .fetch_optional(&mut *tx)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let position = parse_position(row.x, row.y, &row.direction)?;
    Ok(Some(Probe { id, grid: Grid { x: row.grid_x, y: row.grid_y }, position }))
}

/// Updates the position of a locked probe.
pub(super) async fn set_position(tx: &mut Transaction, id: Uuid, to: Position) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE probes SET x = $2, y = $3, direction = $4 WHERE id = $1",
        id,
        to.x,
        to.y,
        to.direction.into_str()
    )
    .execute(&mut *tx)
    .await?;
    Ok(())
}

/// Reads at most `limit` probes after the number `after` and up to `last`, oldest first.
pub(super) async fn page(pool: &Pool, after: i64, last: i64, limit: i64) -> Result<Vec<ListedProbe>, Error> {
    let rows = sqlx::query!(
        "SELECT number, id, x, y, direction FROM probes WHERE number > $1 AND number <= $2 ORDER BY number LIMIT $3",
        after,
        last,
        limit,
    )
    .fetch_all(repeatable(pool))
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(ListedProbe { number: row.number, id: row.id, position: parse_position(row.x, row.y, &row.direction)? })
        })
        .collect()
}

/// The number of the newest probe; 0 if there are no probes.
pub(super) async fn newest_number(pool: &Pool) -> Result<i64, Error> {
    let newest = sqlx::query_scalar!("SELECT max(number) FROM probes").fetch_one(repeatable(pool)).await?;
    Ok(newest.unwrap_or(0))
}

fn parse_position(x: i32, y: i32, direction: &str) -> Result<Position, Error> {
    // The table's constraint allows the same four names.
    let direction = direction.parse().map_err(|_| Error::Internal("a probe without a direction".into()))?;
    Ok(Position { x, y, direction })
}
