//! The examination of the database: it finds every defect of a table, and nothing in a new database.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use embedded_postgres::{Cluster, Settings};
use runtime::{
    db::Database,
    doctor::{self, Limits, Report, Severity, examine},
    migrate,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use super::in_time;
use crate::harness::{cluster, eventually, scratch::Scratch};

const SOON: Duration = Duration::from_secs(30);
/// The limit of all examinations until one is wanted. One takes up to 6 s.
const LONG: Duration = Duration::from_secs(120);
/// What the load of this machine causes.
const OF_LOAD: [&str; 4] = ["clock-skew", "notifications-lost", "notifications-slow", "unreachable"];
const TEMPLATE: &str = "migrated";

/// A server with the settings of a new installation, for defects of the whole server, and a migrated database.
struct Server {
    cluster: Cluster,
    _scratch: Scratch,
}

impl Server {
    async fn start() -> Self {
        let scratch = Scratch::new();
        let extra = [
            // For slots and prepared transactions. Autovacuum is on, and does not run during the test.
            ("wal_level", "logical"),
            ("max_replication_slots", "4"),
            ("max_prepared_transactions", "4"),
            ("autovacuum_naptime", "1d"),
        ];
        let settings = Settings {
            durable: true,
            max_connections: 60,
            extra: extra.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            ..cluster::settings(&scratch)
        };
        let cluster = Cluster::start(settings).await.expect("a server");
        cluster.ensure_database(TEMPLATE).await.expect("a database");
        let pool = PgPool::connect(&cluster.url(TEMPLATE)).await.expect("a connection");
        migrate::run(&pool.clone().into()).await.expect("the schema");
        pool.close().await;
        Self { cluster, _scratch: scratch }
    }

    /// A new database of this name. Returns its URL.
    async fn create(&self, name: &str) -> String {
        let mut postgres = PgConnection::connect(&self.cluster.url("postgres")).await.expect("a session");
        run(&mut postgres, &format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}")).await;
        postgres.close().await.expect("closed");
        self.cluster.url(name)
    }
}

async fn run(session: &mut PgConnection, statement: &str) {
    let done = sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(session).await;
    done.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

fn database(url: &str) -> Database {
    Database::parse(url).expect("a URL")
}

/// The ids of all findings that are not notes.
fn found(report: &Report) -> BTreeSet<&'static str> {
    let findings = report.checks.iter().flat_map(|check| &check.findings);
    findings.filter(|finding| finding.severity > Severity::Note).map(|finding| finding.id).collect()
}

/// The checks without a result, with the reasons.
fn unknown(report: &Report) -> Vec<(&'static str, &str)> {
    report.checks.iter().filter_map(|check| Some((check.name, check.not_known.as_deref()?))).collect()
}

/// Whether the load of this machine has not changed the result: each check has a second, and a notification 0.25 s.
fn is_undisturbed(report: &Report) -> bool {
    let is_complete = unknown(report).iter().all(|(_, reason)| !reason.starts_with("not known now"));
    is_complete && OF_LOAD.iter().all(|id| !found(report).contains(id))
}

/// Examines a database until the report is wanted. Returns the last report in any case.
async fn examine_until(url: &str, limits: &Limits, is_wanted: impl Fn(&Report) -> bool) -> Report {
    let begun = Instant::now();
    loop {
        let report = examine(&database(url), limits).await;
        if is_wanted(&report) || begun.elapsed() > LONG {
            return report;
        }
    }
}

/// The limits at which everything that can be old or large is a finding.
fn low() -> Limits {
    Limits {
        snapshot: Duration::ZERO,
        snapshot_transactions: -1,
        lock_wait: Duration::from_millis(100),
        slot_bytes: 0.0,
        ..Limits::default()
    }
}

/// Each defect: the id of its finding, the statements that cause it, and those that end what concerns the whole server.
const DEFECTS: &[(&str, &[&str], &[&str])] = &[
    ("migration-missing", &["DELETE FROM _sqlx_migrations WHERE version = (SELECT max(version) FROM _sqlx_migrations)"], &[]),
    ("migration-unknown", &["INSERT INTO _sqlx_migrations VALUES (29990101000000, 'later', now(), true, '\\x00', 1)"], &[]),
    ("migration-changed", &["UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 20261121090000"], &[]),
    ("migration-unfinished", &["UPDATE _sqlx_migrations SET success = false WHERE version = 20261121090000"], &[]),
    ("index-missing", &["DROP INDEX apalis.jobs_dead_by_error"], &[]),
    ("index-changed", &["DROP INDEX apalis.jobs_cancelled", "CREATE INDEX jobs_cancelled ON apalis.jobs (job_type)"], &[]),
    ("index-invalid", &["UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'apalis.jobs_cancelled'::regclass"], &[]),
    ("index-unused", &["CREATE INDEX of_an_operator ON apalis.jobs (attempts)"], &[]),
    ("schema-missing", &["ALTER TABLE apalis.workers DROP COLUMN drain"], &[]),
    ("schema-missing", &["ALTER TABLE transactions DROP CONSTRAINT transactions_settled_once"], &[]),
    ("schema-missing", &["DROP TABLE replayed_jobs"], &[]),
    ("schema-changed", &["ALTER TABLE apalis.jobs ALTER COLUMN failures DROP DEFAULT"], &[]),
    ("schema-changed", &["ALTER TABLE queue_minutes SET UNLOGGED"], &[]),
    ("schema-changed", &["CREATE OR REPLACE FUNCTION uuid_v7() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()'"], &[]),
    ("schema-extra", &["ALTER TABLE apalis.jobs ADD CONSTRAINT of_an_operator CHECK (attempts < 100)"], &[]),
    (
        "schema-extra",
        &["CREATE TRIGGER slow BEFORE UPDATE ON apalis.jobs FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"],
        &[],
    ),
    ("autovacuum-off-table", &["ALTER TABLE apalis.jobs SET (autovacuum_enabled = off)"], &[]),
    ("autovacuum-late", &["ALTER TABLE apalis.jobs SET (autovacuum_vacuum_threshold = 100000000)"], &[]),
    (
        "dead-rows",
        &[
            "INSERT INTO apalis.jobs (id, job_type, job, run_at)
             SELECT '01' || lpad(n::text, 24, '0'), 'q', '{}', now() FROM generate_series(1, 12000) AS n",
            "DELETE FROM apalis.jobs",
            "SELECT pg_stat_force_next_flush()",
        ],
        &[],
    ),
    ("collation-version", &["UPDATE pg_database SET datcollversion = '0' WHERE datname = current_database()"], &[]),
    (
        "wraparound",
        &["UPDATE pg_database SET datfrozenxid = ((pg_current_xact_id()::text::bigint + 2694967296) % 4294967296)::text::xid
           WHERE datname = current_database()"],
        &["UPDATE pg_database SET datfrozenxid = (SELECT datfrozenxid FROM pg_database WHERE datname = 'migrated')
           WHERE datname = current_database()"],
    ),
    ("read-only", &["ALTER DATABASE :name SET default_transaction_read_only = on"], &[]),
    ("synchronous-commit-off", &["ALTER DATABASE :name SET synchronous_commit = off"], &[]),
    ("track-counts-off", &["ALTER DATABASE :name SET track_counts = off"], &[]),
    // The session of this test and that of the doctor.
    ("connections-database", &["ALTER DATABASE :name CONNECTION LIMIT 2"], &[]),
    ("slot-keeps-log", &["SELECT pg_create_physical_replication_slot('kept', true)"], &["SELECT pg_drop_replication_slot('kept')"]),
    (
        "snapshot-slot",
        &["SELECT pg_create_logical_replication_slot('logical', 'pgoutput')"],
        &["SELECT pg_drop_replication_slot('logical')"],
    ),
    (
        "snapshot-prepared",
        &["BEGIN", "INSERT INTO queues (name) VALUES ('q')", "PREPARE TRANSACTION 'forgotten'"],
        &["ROLLBACK PREPARED 'forgotten'"],
    ),
    (
        "autovacuum-off",
        &["ALTER SYSTEM SET autovacuum = off", "SELECT pg_reload_conf()"],
        &["ALTER SYSTEM RESET autovacuum", "SELECT pg_reload_conf()"],
    ),
];

#[tokio::test]
async fn every_defect_is_found_and_a_new_database_has_none() {
    let server = Server::start().await;
    let fresh = server.create("fresh").await;
    let report = examine_until(&fresh, &Limits::default(), is_undisturbed).await;
    assert_eq!((report.worst(), found(&report)), (None, BTreeSet::new()), "{report:#?}");
    assert!(report.checks.iter().all(|check| !check.facts.is_empty()), "every check has a figure: {report:#?}");

    for (number, (id, defect, undo)) in DEFECTS.iter().enumerate() {
        let name = format!("defect_{number}");
        let url = server.create(&name).await;
        let mut session = PgConnection::connect(&url).await.expect("a session");
        for statement in *defect {
            run(&mut session, &statement.replace(":name", &name)).await;
        }
        let is_of_limits = ["snapshot-prepared", "snapshot-slot", "slot-keeps-log"].contains(id);
        let limits = if is_of_limits { low() } else { Limits::default() };
        // A changed file of settings is read some time later.
        let is_wanted = |report: &Report| is_undisturbed(report) && found(report).contains(id);
        let report = examine_until(&url, &limits, is_wanted).await;
        let mut others = found(&report);
        assert!(others.remove(id), "{id}: {report:#?}");
        // A slot keeps log and has a snapshot.
        others.retain(|other| !is_of_limits || !other.starts_with("slot-keeps"));
        assert_eq!(others, BTreeSet::new(), "{id}: {report:#?}");
        let fixes = report.checks.iter().flat_map(|check| &check.findings).filter(|finding| finding.id == *id);
        assert!(
            fixes.clone().count() == 1 && fixes.clone().all(|finding| !finding.fix.is_empty()),
            "{id}: {report:#?}"
        );
        for statement in *undo {
            run(&mut session, statement).await;
        }
        session.close().await.expect("closed");
    }
    the_exit_status_is_the_worst_finding(&fresh).await;
    // The server that the tests share loses everything in a crash.
    let shared = crate::harness::database::fresh().await;
    let report = examine_until(&shared.url, &Limits::default(), is_undisturbed).await;
    let expected = ["autovacuum-off", "fsync-off", "full-page-writes-off"];
    assert_eq!(found(&report), BTreeSet::from(expected), "{report:#?}");
}

async fn the_exit_status_is_the_worst_finding(url: &str) {
    let mut session = PgConnection::connect(url).await.expect("a session");
    for (defect, status, text) in [
        ("SELECT 1", 0, "Healthy"),
        ("CREATE INDEX of_an_operator ON apalis.jobs (attempts)", 1, "index-unused: the index apalis.of_an_operator"),
        ("DROP INDEX apalis.jobs_dead_by_error", 2, "fix: CREATE INDEX CONCURRENTLY jobs_dead_by_error ON apalis.jobs"),
    ] {
        run(&mut session, defect).await;
        // The setting that was changed before is perhaps not read yet.
        let is_wanted = |found: Option<i32>, printed: &str| found == Some(status) && printed.contains(text);
        let (_, printed) = in_time::run_until(url, &["doctor"], is_wanted).await;
        assert!(!printed.contains('\u{1b}'), "{defect}: {printed}");
    }
    let (_, printed) = in_time::run_until(url, &["doctor", "--json"], |found, _| found == Some(2)).await;
    let report: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    let indexes = report["checks"].as_array().expect("checks").iter().find(|check| check["name"] == "indexes");
    let findings = &indexes.expect("the check")["findings"];
    assert_eq!((&findings[0]["id"], &findings[0]["severity"]), (&"index-missing".into(), &"error".into()));
}

#[tokio::test]
async fn an_encoding_other_than_utf8_is_an_error() {
    let options = "ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'";
    let ascii = crate::harness::database::create(options).await;
    let expected = format!("encoding-not-utf8: the database {} has the encoding SQL_ASCII", ascii.name);
    let is_wanted = |status: Option<i32>, printed: &str| status == Some(2) && printed.contains(&expected);
    let (_, printed) = in_time::run_until(&ascii.url, &["doctor"], is_wanted).await;
    let fix = "fix: CREATE DATABASE millrace ENCODING 'UTF8' TEMPLATE template0";
    assert!(printed.contains(fix), "{printed}");
}

#[tokio::test]
async fn what_other_sessions_do_is_found() {
    let server = Server::start().await;
    let url = server.create("busy").await;
    let mut holder = PgConnection::connect(&format!("{url}&application_name=report")).await.expect("a session");
    run(&mut holder, "BEGIN").await;
    run(&mut holder, "LOCK TABLE items IN ACCESS EXCLUSIVE MODE").await;
    run(&mut holder, "SELECT pg_current_xact_id()").await;
    let mut waiter = PgConnection::connect(&format!("{url}&application_name=waiter")).await.expect("a session");
    let waiting = tokio::spawn(async move { sqlx::raw_sql("SELECT FROM items").execute(&mut waiter).await.map(drop) });
    // Size and definitions of a locked table are not known, and everything else is.
    let not_known = ["schema", "indexes", "size"].map(|name| (name, "not known now (1 s)"));
    let is_wanted = |report: &Report| found(report).contains("lock-wait") && unknown(report) == not_known;
    let report = examine_until(&url, &low(), is_wanted).await;
    let text = |id: &str| {
        let mut findings = report.checks.iter().flat_map(|check| &check.findings);
        findings.find(|finding| finding.id == id).map(|finding| format!("{} {}", finding.text, finding.fix)).expect(id)
    };
    assert!(
        text("lock-wait").contains("waiter (pid ") && text("lock-wait").contains(" waits for report (pid "),
        "{report:#?}"
    );
    let snapshot = text("snapshot-session");
    assert!(snapshot.contains("of report") && snapshot.contains("pg_terminate_backend("), "{snapshot}");
    assert_eq!(unknown(&report), not_known);
    run(&mut holder, "ROLLBACK").await;
    waiting.await.expect("no panic").expect("the lock is free");
}

#[tokio::test]
async fn what_a_role_may_not_do_or_see_is_found() {
    let server = Server::start().await;
    let url = server.create("owned").await;
    let mut session = PgConnection::connect(&url).await.expect("a session");
    let script = include_str!("../../deploy/postgres/roles.sql");
    run(&mut session, script).await;
    let options: sqlx::postgres::PgConnectOptions = url.parse().expect("a URL");
    let folder = options.get_socket().expect("a socket").display().to_string();
    let limited = format!("postgres://millrace_runtime@/owned?host={folder}&port={}", options.get_port());
    let report = examine_until(&limited, &Limits::default(), is_undisturbed).await;
    assert_eq!(found(&report), BTreeSet::new(), "the documented rights are enough: {report:#?}");
    let ids = |report: &Report| -> Vec<&'static str> {
        report.checks.iter().flat_map(|check| &check.findings).map(|finding| finding.id).collect()
    };
    assert_eq!((ids(&report), report.worst()), (vec!["statistics-hidden"], None));
    let hidden: Vec<_> =
        report.checks.iter().filter(|check| !check.hidden.is_empty()).map(|check| check.name).collect();
    assert_eq!(hidden, ["snapshots", "connections", "locks"], "{report:#?}");

    run(&mut session, "REVOKE UPDATE ON items FROM millrace_runtime").await;
    run(&mut session, "ALTER TABLE users ENABLE ROW LEVEL SECURITY").await;
    run(&mut session, "ALTER ROLE millrace_runtime CONNECTION LIMIT 7").await;
    // The server ends the sessions of the examination some time later. They count as well.
    eventually("the examination has no session", SOON, async || {
        let sessions = sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE usename = 'millrace_runtime'");
        let sessions: i64 = sessions.fetch_one(&mut session).await.expect("a number");
        sessions == 0
    })
    .await;
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(database(&limited).connect("test").await.expect("a session"));
    }
    let expected = BTreeSet::from(["connections-role", "privilege-missing", "rows-hidden"]);
    let report = examine_until(&limited, &Limits::default(), |report| found(report) == expected).await;
    assert_eq!(found(&report), expected, "{report:#?}");

    let missing = url.replace("/owned", "/missing");
    let report = examine(&database(&missing), &Limits::default()).await;
    assert_eq!(
        (report.worst(), found(&report)),
        (Some(Severity::Error), BTreeSet::from(["unreachable"])),
        "{report:#?}"
    );
}

#[tokio::test]
async fn the_list_of_the_schema_is_that_of_the_migrations() {
    let fresh = crate::harness::database::fresh().await;
    let list = doctor::schema_list(&database(&fresh.url)).await.expect("a list");
    let file = include_str!("../../crates/runtime/src/doctor/schema.txt");
    let only = |some: &str, other: &str| -> Vec<String> {
        some.lines().filter(|line| !other.lines().any(|one| one == *line)).map(str::to_owned).collect()
    };
    let command = "cargo run -q -p runtime --example schema > target/schema.txt && \
                   mv target/schema.txt crates/runtime/src/doctor/";
    assert!(
        list == file,
        "the migrations have changed the schema: {command}\n  new: {:#?}\n  gone: {:#?}",
        only(&list, file),
        only(file, &list)
    );
}
