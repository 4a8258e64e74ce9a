//! Checks of what other sessions do: old snapshots, connections, locks.

use sqlx::Result;

use super::{
    context::Context,
    finding::{Outcome, Severity},
    store::sessions as sql,
    words::{self, about, seconds},
};

/// The applications that are listed.
const LISTED: usize = 6;

/// Says how many sessions the role does not see.
fn hide(outcome: &mut Outcome, hidden: i64, what: &str) {
    if hidden > 0 {
        let sessions = if hidden == 1 { "session" } else { "sessions" };
        outcome.hide(format!("{what} of {hidden} {sessions} of other roles: pg_read_all_stats is not granted"));
    }
}

/// What keeps dead rows from being removed: sessions, prepared transactions, slots and standbys.
pub(super) async fn snapshots(context: &mut Context) -> Result<Outcome> {
    let limits = context.limits.clone();
    let mut outcome = Outcome::default();
    let snapshots = sql::snapshots(context.executor()).await?;
    hide(&mut outcome, sql::hidden_sessions(context.executor()).await?, "the snapshots");
    let old = limits.snapshot.as_secs_f64();
    for (place, snapshot) in snapshots.iter().enumerate() {
        let who = &snapshot.who;
        let query = snapshot.query.as_deref().map(|query| format!(": {}", words::one_line(query))).unwrap_or_default();
        let (text, id, fix) = match snapshot.kind.as_str() {
            "session" => (
                format!("the session {} of {who} has a transaction", snapshot.id),
                "snapshot-session",
                format!("SELECT pg_terminate_backend({});", snapshot.id),
            ),
            "prepared" => (
                format!("the prepared transaction {} of {who} is open", words::literal(&snapshot.id)),
                "snapshot-prepared",
                format!("ROLLBACK PREPARED {};", words::literal(&snapshot.id)),
            ),
            "slot" => (
                format!("the replication slot {} has a snapshot", snapshot.id),
                "snapshot-slot",
                format!("SELECT pg_drop_replication_slot({});", words::literal(&snapshot.id)),
            ),
            _ => (
                format!("the standby {who} reports a snapshot"),
                "snapshot-standby",
                "end its long query, or set hot_standby_feedback = off there".to_owned(),
            ),
        };
        let (text, severity) = match snapshot.seconds {
            Some(age) => {
                let severity = if age > 12.0 * old { Some(Severity::Error) } else { None };
                (format!("{text} for {}{query}", seconds(age)), severity.or((age > old).then_some(Severity::Warning)))
            }
            None => {
                #[allow(clippy::cast_precision_loss, reason = "ids are below 2^32")]
                let age = snapshot.transactions as f64;
                let is_old = snapshot.transactions > limits.snapshot_transactions;
                (format!("{text} that is {} transactions old", about(age)), is_old.then_some(Severity::Warning))
            }
        };
        match severity {
            Some(severity) => {
                outcome.find(severity, id, format!("{text}. Dead rows since then cannot be removed"), fix);
            }
            None if place == 0 => outcome.fact(format!("the oldest: {text}")),
            None => {}
        }
    }
    if snapshots.is_empty() {
        outcome.fact("no other transaction is open");
    }
    Ok(outcome)
}

/// Sessions against the limits of the server, the database and the role.
pub(super) async fn connections(context: &mut Context) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let counts = sql::connections(context.executor()).await?;
    let applications = sql::applications(context.executor()).await?;
    hide(&mut outcome, sql::hidden_sessions(context.executor()).await?, "the applications");
    let listed: Vec<String> =
        applications.iter().take(LISTED).map(|one| format!("{} {}", one.name, one.sessions)).collect();
    let listed = listed.join(", ");
    let (database, role) = (words::name(&counts.database), words::name(&counts.role));
    for (id, of, used, limit, fix) in [
        (
            "connections-server",
            "the server",
            counts.on_server,
            counts.server_limit,
            "raise max_connections and restart the server, or run fewer processes".to_owned(),
        ),
        (
            "connections-database",
            "the database",
            counts.in_database,
            counts.database_limit,
            format!("ALTER DATABASE {database} CONNECTION LIMIT {};", counts.database_limit.saturating_mul(2)),
        ),
        (
            "connections-role",
            "the role",
            counts.of_role,
            counts.role_limit,
            format!("ALTER ROLE {role} CONNECTION LIMIT {};", counts.role_limit.saturating_mul(2)),
        ),
    ] {
        if limit < 0 {
            continue;
        }
        let text = format!("{used} of {limit} sessions of {of} are open: {listed}");
        // At 80 % and 95 %.
        if used * 20 >= limit * 19 {
            outcome.error(id, text, fix);
        } else if used * 5 >= limit * 4 {
            outcome.warn(id, text, fix);
        } else {
            outcome.fact(text);
        }
    }
    Ok(outcome)
}

/// Statements that wait for locks.
pub(super) async fn locks(context: &mut Context) -> Result<Outcome> {
    let limit = context.limits.lock_wait.as_secs_f64();
    let mut outcome = Outcome::default();
    let waits = sql::lock_waits(context.executor()).await?;
    hide(&mut outcome, sql::hidden_sessions(context.executor()).await?, "the statements");
    let Some(longest) = waits.first().filter(|wait| wait.seconds >= limit) else {
        outcome.fact(format!("{} statements wait for locks, none for over {}", waits.len(), seconds(limit)));
        return Ok(outcome);
    };
    let blocker = format!(
        "{} (pid {}, {}): {}",
        longest.blocker,
        longest.blocker_pid,
        longest.blocker_state,
        words::one_line(&longest.blocker_query)
    );
    let waiting =
        if waits.len() == 1 { "1 statement waits".into() } else { format!("{} statements wait", waits.len()) };
    let text = format!(
        "{waiting} for locks, the longest for {}: {} (pid {}) waits for {blocker}",
        seconds(longest.seconds),
        longest.waiter,
        longest.pid
    );
    let severity = if longest.seconds >= 30.0 * limit { Severity::Error } else { Severity::Warning };
    outcome.find(severity, "lock-wait", text, format!("SELECT pg_terminate_backend({});", longest.blocker_pid));
    Ok(outcome)
}
