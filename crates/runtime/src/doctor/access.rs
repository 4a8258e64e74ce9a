//! Checks of what this process may do: write, see, and receive notifications.

use std::time::{Duration, Instant};

use sqlx::{Result, postgres::PgListener};
use tokio::time::timeout;

use super::{
    context::Context,
    finding::{Outcome, Severity},
    schema_list,
    store::{access as sql, server::role_settings},
    words,
};
use crate::{db, settings};

/// The channel of the measurement, on which no process listens.
const CHANNEL: &str = "millrace_doctor";
/// A notification that takes longer delays the start of jobs.
const SLOW_NOTIFICATION: Duration = Duration::from_millis(250);
/// A notification that takes longer is lost.
const LOST_NOTIFICATION: Duration = Duration::from_millis(700);

/// Whether the server can be written to.
pub(super) async fn server(context: &mut Context) -> Result<Outcome> {
    let server = sql::server(context.executor()).await?;
    let mut outcome = Outcome::default();
    outcome.fact(format!("PostgreSQL {}, database {}, role {}", server.version, server.database, server.role));
    if context.session.server_version_num().is_some_and(|version| version < settings::OLDEST_SERVER) {
        let text = format!("the server is PostgreSQL {}, and Millrace needs 15 or newer", server.version);
        outcome.error("server-too-old", text, "upgrade the server");
    }
    if server.is_standby {
        let text = "the server is a standby, which only reads: no job is enqueued or claimed";
        outcome.error(
            "read-only",
            text,
            "name the primary in DATABASE_URL, or promote this server: SELECT pg_promote();",
        );
    } else if server.is_read_only {
        const SETTING: &str = "default_transaction_read_only";
        let set = role_settings(context.executor(), SETTING).await?;
        let fix = set.iter().find(|one| one.is_on()).map_or_else(
            || format!("ALTER SYSTEM RESET {SETTING}; SELECT pg_reload_conf();"),
            |one| one.reset(SETTING),
        );
        outcome.error("read-only", format!("{SETTING} is on: no job is enqueued or claimed"), fix);
    }
    Ok(outcome)
}

/// What the role may read and write.
pub(super) async fn role(context: &mut Context) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let tables: Vec<String> = schema_list::tables().map(str::to_owned).collect();
    let role = sql::role(context.executor(), &tables).await?;
    let name = words::name(&role.name);
    if !role.schemas.is_empty() {
        let schemas = role.schemas.join(", ");
        let text = format!("the role {} may not use {}: {schemas}", role.name, plural(role.schemas.len(), "schema"));
        outcome.error("privilege-missing", text, format!("GRANT USAGE ON SCHEMA {schemas} TO {name};"));
    }
    if !role.tables.is_empty() {
        let tables = role.tables.join(", ");
        let text =
            format!("the role {} may not read and write {}: {tables}", role.name, plural(role.tables.len(), "table"));
        let fix = format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {name};");
        outcome.error("privilege-missing", text, fix);
    }
    if !role.hiding_rows.is_empty() {
        let tables = role.hiding_rows.join(", ");
        let text = format!("row-level security hides rows of {tables} from the role {}", role.name);
        outcome.error("rows-hidden", text, format!("ALTER ROLE {name} BYPASSRLS;"));
    }
    if role.sees_all {
        outcome.fact(format!("the role {} sees the statements of all roles", role.name));
    } else {
        let text = format!("the role {} does not see what other roles run: it lacks pg_read_all_stats", role.name);
        outcome.find(Severity::Note, "statistics-hidden", text, format!("GRANT pg_read_all_stats TO {name};"));
    }
    Ok(outcome)
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// How long a notification takes.
pub(super) async fn notifications(context: &mut Context) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    if !context.database.has_sessions() {
        outcome.fact("notifications do not pass through the pooler: a job starts within the poll interval");
        return Ok(outcome);
    }
    // A pool, because sqlx's listener wants one.
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(1);
    let pool = pool.connect_lazy_with(context.database.session_options("doctor"));
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen(CHANNEL).await?;
    let payload = uuid::Uuid::now_v7().to_string();
    let begun = Instant::now();
    sql::notify(context.executor(), CHANNEL, &payload).await?;
    let arrived = timeout(LOST_NOTIFICATION, async {
        while listener.recv().await?.payload() != payload {}
        Ok::<_, sqlx::Error>(begun.elapsed())
    });
    let fix = "check the load of the server and the network; until then jobs start within the poll interval";
    match arrived.await {
        Ok(round_trip) => {
            let round_trip = round_trip?;
            let text = format!("a notification takes {}", words::seconds(round_trip.as_secs_f64()));
            if round_trip > SLOW_NOTIFICATION {
                outcome.warn("notifications-slow", text, fix);
            } else {
                outcome.fact(text);
            }
        }
        Err(_) => {
            let limit = words::seconds(LOST_NOTIFICATION.as_secs_f64());
            outcome.error("notifications-lost", format!("a notification has not arrived after {limit}"), fix);
        }
    }
    drop(listener);
    db::close(&pool).await;
    let used = sql::notification_queue(context.executor()).await?;
    if used > 0.25 {
        let text = format!("the queue of notifications is {:.0} % full: a listener does not read", used * 100.0);
        let fix = "end the oldest transaction that listens: SELECT pid, application_name, xact_start FROM pg_stat_activity \
                   WHERE xact_start IS NOT NULL ORDER BY xact_start;";
        outcome.error("notifications-full", text, fix);
    }
    Ok(outcome)
}
