//! Checks of what is stored: size, dead rows, transaction ids.

use sqlx::Result;

use super::{
    context::Context,
    finding::Outcome,
    schema_list,
    store::storage as sql,
    words::{about, bytes, seconds},
};

/// The largest tables that are listed.
const LISTED: usize = 8;
/// Autovacuum that begins only at more dead rows makes claims slow.
const LATE_AUTOVACUUM_ROWS: f64 = 5_000_000.0;
/// From this age of the oldest transaction id on, the server is close to refusing writes, at 2.1 billion.
const WRAPAROUND_ERROR: f64 = 1_500_000_000.0;

fn tables() -> Vec<String> {
    schema_list::tables().map(str::to_owned).collect()
}

/// The size of the database and its largest tables.
pub(super) async fn size(context: &mut Context) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let total = sql::database_bytes(context.executor()).await?;
    outcome.fact(format!("the database has {}", bytes(total)));
    let mut sizes = sql::sizes(context.executor(), &tables()).await?;
    sizes.sort_by(|one, other| other.bytes.total_cmp(&one.bytes));
    for table in sizes.iter().take(LISTED) {
        let rows =
            if table.rows < 0.0 { "not counted yet".to_owned() } else { format!("about {} rows", about(table.rows)) };
        outcome.fact(format!("{}: {}, {rows}", table.name, bytes(table.bytes)));
    }
    Ok(outcome)
}

/// Dead rows, and autovacuum with its settings.
pub(super) async fn vacuum(context: &mut Context) -> Result<Outcome> {
    let limit = context.limits.dead_rows;
    let mut outcome = Outcome::default();
    let server = sql::autovacuum(context.executor()).await?;
    outcome.fact(format!("autovacuum: {} workers, every {}", server.workers, server.naptime));
    for (is_on, name, id) in
        [(server.is_on, "autovacuum", "autovacuum-off"), (server.counts, "track_counts", "track-counts-off")]
    {
        if !is_on {
            let text = format!("{name} is off: dead rows are never removed, and every claim becomes slower");
            outcome.error(id, text, format!("ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf();"));
        }
    }
    let mut tables = sql::vacuum(context.executor(), &tables()).await?;
    tables.sort_by(|one, other| other.dead.total_cmp(&one.dead));
    for (place, table) in tables.iter().enumerate() {
        let name = &table.name;
        let since =
            table.vacuumed_ago.map_or_else(|| "never vacuumed".into(), |ago| format!("vacuumed {} ago", seconds(ago)));
        let figures = format!(
            "{name}: {} dead and {} live rows, {since}, autovacuum begins at {} dead rows",
            about(table.dead),
            about(table.live),
            about(table.threshold)
        );
        if !table.is_enabled {
            let text = format!("autovacuum is off for {name}: its {} dead rows are never removed", about(table.dead));
            outcome.error("autovacuum-off-table", text, format!("ALTER TABLE {name} RESET (autovacuum_enabled);"));
        }
        if table.dead > limit && table.dead > 2.0 * table.threshold {
            outcome.warn("dead-rows", figures, format!("VACUUM (ANALYZE) {name};"));
        } else if place < LISTED && table.dead > 0.0 {
            outcome.fact(figures);
        }
        if table.threshold > LATE_AUTOVACUUM_ROWS {
            let text = format!("autovacuum of {name} begins only at {} dead rows", about(table.threshold));
            let fix = format!(
                "ALTER TABLE {name} SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);"
            );
            outcome.warn("autovacuum-late", text, fix);
        }
    }
    Ok(outcome)
}

/// How many transaction ids are used.
pub(super) async fn wraparound(context: &mut Context) -> Result<Outcome> {
    let ages = sql::ages(context.executor()).await?;
    let mut outcome = Outcome::default();
    for (what, age, freeze_at) in
        [("transaction", ages.transactions, ages.freeze_at), ("multixact", ages.multixacts, ages.freeze_multixacts_at)]
    {
        let text = format!("the oldest {what} id is {} ids old; writes are refused at 2.1 billion", about(age));
        let fix = format!("VACUUM (FREEZE, VERBOSE) {}; and end what the check of snapshots finds", ages.oldest_table);
        if age > WRAPAROUND_ERROR {
            outcome.error("wraparound", text, fix);
        } else if age > 2.0 * freeze_at {
            outcome.warn("wraparound", text, fix);
        } else {
            outcome.fact(text);
        }
    }
    Ok(outcome)
}
