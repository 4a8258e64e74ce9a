//! Checks of the server: settings, clock, durability, encoding, collation, replication slots.

use std::time::{Instant, SystemTime};

use sqlx::Result;

use super::{
    context::Context,
    finding::{Finding, Outcome, Severity},
    store::server as sql,
    words,
};
use crate::settings;

/// A difference of the clocks above this is a finding.
const SKEW_SECONDS: f64 = 2.0;
/// A difference above this is an error: every token is refused or never expires.
const SKEW_ERROR_SECONDS: f64 = 300.0;
/// PostgreSQL 17 ends transactions after `transaction_timeout`. Our longest ones take so many milliseconds.
const LONGEST_TRANSACTION_MS: i64 = 20_000;

/// The settings of our sessions.
pub(super) async fn settings(context: &mut Context) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let names = settings::SETTINGS.map(|(name, _)| name.to_owned());
    let in_force = sql::settings(context.executor(), &names).await?;
    let wrong: Vec<String> = settings::SETTINGS
        .into_iter()
        .filter_map(|(name, expected)| {
            let found = in_force.iter().find(|one| one.name == name).map_or("", |one| one.value.as_str());
            (found != expected).then(|| format!("{name} is {found:?} instead of {expected:?}"))
        })
        .collect();
    if wrong.is_empty() {
        let limit = in_force.iter().find(|one| one.name == "statement_timeout").map_or("", |one| one.value.as_str());
        outcome.fact(format!("{} settings are in force, such as statement_timeout {limit}", in_force.len()));
    } else {
        let fix = "for a PgBouncer in transaction mode, set DATABASE_POOLER=transaction";
        outcome.error("settings-lost", format!("settings of our sessions are lost: {}", wrong.join(", ")), fix);
    }
    let (marker, arrived) = settings::MARKER;
    if !context.database.has_sessions() {
        outcome.fact("DATABASE_POOLER=transaction: every statement runs in its own transaction");
    } else if sql::custom_setting(context.executor(), marker).await?.as_deref() != Some(arrived) {
        let text = "a pooler drops the start-up options of our sessions; a statement sets them again, which works only with \
                    session pooling";
        let fix = "for a PgBouncer in transaction mode, set DATABASE_POOLER=transaction";
        outcome.warn("pooler-options", text, fix);
    }
    if let Some(limit) = sql::transaction_timeout(context.executor()).await?.filter(|limit| *limit > 0)
        && limit < LONGEST_TRANSACTION_MS
    {
        let text = format!("transaction_timeout ends transactions after {limit} ms, before our statement limit does");
        let set = sql::role_settings(context.executor(), "transaction_timeout").await?;
        let fix = set.first().map_or_else(
            || "ALTER SYSTEM RESET transaction_timeout; SELECT pg_reload_conf();".to_owned(),
            |one| one.reset("transaction_timeout"),
        );
        outcome.error("transaction-timeout", text, fix);
    }
    Ok(outcome)
}

/// The clocks of the database and of this process.
pub(super) async fn clock(context: &mut Context) -> Result<Outcome> {
    let before = Instant::now();
    let database = sql::clock(context.executor()).await?;
    let round_trip = before.elapsed().as_secs_f64();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let skew = database - (now - round_trip / 2.0);
    let mut outcome = Outcome::default();
    match judge_clock(skew, round_trip / 2.0) {
        Some(finding) => outcome.findings.push(finding),
        None => outcome.fact(format!(
            "the clocks differ by {}, measured within ±{}",
            words::seconds(skew.abs()),
            words::seconds(round_trip / 2.0)
        )),
    }
    Ok(outcome)
}

fn judge_clock(skew: f64, uncertain: f64) -> Option<Finding> {
    let least = skew.abs() - uncertain;
    let severity = match least {
        least if least > SKEW_ERROR_SECONDS => Severity::Error,
        least if least > SKEW_SECONDS => Severity::Warning,
        _ => return None,
    };
    let direction = if skew > 0.0 { "ahead of" } else { "behind" };
    let text = format!(
        "the database's clock is {} {direction} the clock of this process: due times are those of the database",
        words::seconds(skew.abs())
    );
    Some(Finding { id: "clock-skew", severity, text, fix: "synchronise both clocks: chronyc tracking".into() })
}

/// Whether a confirmed commit survives a crash.
pub(super) async fn durability(context: &mut Context) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let names = ["fsync", "full_page_writes"].map(str::to_owned);
    for setting in sql::settings(context.executor(), &names).await? {
        if setting.value == "off" {
            let text = format!("{} is off: a crash of the machine can destroy the database", setting.name);
            let fix = format!("ALTER SYSTEM SET {} = on; SELECT pg_reload_conf();", setting.name);
            outcome.error(if setting.name == "fsync" { "fsync-off" } else { "full-page-writes-off" }, text, fix);
        } else {
            outcome.fact(format!("{} is {}", setting.name, setting.value));
        }
    }
    const COMMIT: &str = "synchronous_commit";
    for set in sql::role_settings(context.executor(), COMMIT).await?.iter().filter(|one| one.is_off()) {
        let text = format!(
            "{COMMIT} is off {}: a crash loses commits of other programs that were confirmed; our own sessions set it to on",
            set.scope()
        );
        outcome.warn("synchronous-commit-off", text, set.reset(COMMIT));
    }
    Ok(outcome)
}

/// Whether the database stores every text.
pub(super) async fn encoding(context: &mut Context) -> Result<Outcome> {
    let database = sql::encoding(context.executor()).await?;
    let mut outcome = Outcome::default();
    if database.encoding == "UTF8" {
        outcome.fact("encoding UTF8");
    } else {
        let text = format!(
            "the database {} has the encoding {}, and Millrace needs UTF8: api, worker and migrate do not start",
            database.name, database.encoding
        );
        let fix = "CREATE DATABASE millrace ENCODING 'UTF8' TEMPLATE template0; then name it in DATABASE_URL";
        outcome.error("encoding-not-utf8", text, fix);
    }
    Ok(outcome)
}

/// Whether text is sorted as when the indexes were built.
pub(super) async fn collation(context: &mut Context) -> Result<Outcome> {
    let collation = sql::collation(context.executor()).await?;
    let mut outcome = Outcome::default();
    match (&collation.recorded, &collation.actual) {
        (Some(recorded), actual) if Some(recorded) != actual.as_ref() => {
            let actual = actual.as_deref().unwrap_or("unknown");
            let text = format!(
                "indexes were built with version {recorded} of the collation {}, and the server has {actual}: searches can miss rows",
                collation.name
            );
            let database = words::name(&collation.database);
            let fix = format!("REINDEX DATABASE {database}; ALTER DATABASE {database} REFRESH COLLATION VERSION;");
            outcome.error("collation-version", text, fix);
        }
        (recorded, _) => {
            let version = recorded.as_deref().unwrap_or("none");
            outcome.fact(format!("collation {}, version {version}", collation.name));
        }
    }
    Ok(outcome)
}

/// Replication slots that keep log files.
pub(super) async fn slots(context: &mut Context) -> Result<Outcome> {
    let limit = context.limits.slot_bytes;
    let slots = sql::slots(context.executor()).await?;
    let mut outcome = Outcome::default();
    outcome.fact(match slots.len() {
        0 => "no replication slots".to_owned(),
        count => format!("{count} replication slots; max_slot_wal_keep_size is {}", slots[0].keep_size),
    });
    for slot in slots {
        let kept = slot.kept_bytes.unwrap_or(0.0);
        let state = if slot.active { "in use" } else { "not in use" };
        let text = format!("the replication slot {}, {state}, keeps {} of log files", slot.name, words::bytes(kept));
        let drop = format!("SELECT pg_drop_replication_slot({});", words::literal(&slot.name));
        match slot.wal_status.as_deref() {
            Some("lost" | "unreserved") => {
                let text = format!("the replication slot {} has lost log files that its standby needs", slot.name);
                outcome.warn("slot-lost", text, drop);
            }
            _ if !slot.active && kept >= limit => outcome.warn("slot-keeps-log", text, drop),
            _ if slot.active && kept >= limit * 16.0 => {
                let fix = "find out why its standby or subscriber is behind: SELECT * FROM pg_stat_replication;";
                outcome.warn("slot-keeps-log", text, fix);
            }
            _ => outcome.fact(text),
        }
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_are_found_unless_the_measurement_is_too_slow() {
        let severity = |skew, uncertain| judge_clock(skew, uncertain).map(|finding| finding.severity);
        for (skew, uncertain, expected) in [
            (0.0, 0.001, None),
            (1.9, 0.001, None),
            (-2.5, 0.001, Some(Severity::Warning)),
            (2.5, 1.0, None),
            (3600.0, 0.1, Some(Severity::Error)),
        ] {
            assert_eq!(severity(skew, uncertain), expected, "{skew} ± {uncertain}");
        }
        assert!(judge_clock(-60.0, 0.0).is_some_and(|finding| finding.text.contains("60 s behind")));
    }
}
