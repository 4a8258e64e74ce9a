//! Interference with our database sessions: they are terminated, get other defaults, lose rows or are used up.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use reqwest::{Client, Method};
use runtime::{
    db::{Database, Pool, SessionCounts},
    executor::{begin, repeatable},
};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tokio::task::JoinSet;

use super::{SOON, run};
use crate::{
    faults::{post_same_id, webhook},
    harness::{
        database::{self, TestDatabase},
        eventually,
        http::{HttpResponse, send},
        port::Port,
        process::{Api, Process, http_client, start_worker},
    },
};

const KEY: &str = "sessions";
/// The time limit of a check of readiness. One that takes longer fails, also with a live session.
const CHECK_LIMIT: Duration = Duration::from_secs(2);

/// Sends every kind of request that needs the database: reads, and writes that must not be repeated. Returns each
/// response with its time.
async fn send_every_request(http: &Client, api: &str, round: usize) -> Vec<(String, HttpResponse, Duration)> {
    let user =
        json!({"email": format!("ada{round}@example.com"), "password": "correct horse battery", "full_name": "Ada"});
    let requests: Vec<(Method, String, Option<Value>)> = vec![
        (Method::POST, "/v1/webhooks/transactions".into(), Some(webhook(&format!("txn_{round}")))),
        (Method::GET, "/v1/transactions/txn_0".into(), None),
        (Method::GET, "/v1/transactions?limit=10".into(), None),
        (Method::POST, "/api/v1/users/register".into(), Some(user.clone())),
        (Method::POST, "/api/v1/users/login".into(), Some(user)),
        (Method::POST, "/api/v1/setup".into(), Some(json!({"x": 5, "y": 5, "direction": "NORTH"}))),
        (Method::GET, "/api/v1/check?limit=10".into(), None),
        (Method::GET, "/api/v1/items".into(), None),
        (Method::GET, "/api/v1/items/1".into(), None),
        (Method::GET, "/api/v1/search/items?q=red".into(), None),
        (Method::POST, "/asset".into(), Some(json!([{"id": "a", "interest_rate": round}]))),
        (Method::GET, "/interest_rate/history".into(), None),
        (Method::GET, "/readyz".into(), None),
    ];
    let sent = requests.into_iter().map(|(method, path, body)| {
        let request = http.request(method.clone(), format!("{api}{path}")).header("api_key", KEY);
        let request = body.iter().fold(request, |request, body| request.json(body));
        async move {
            let begun = Instant::now();
            (format!("{method} {path}"), send(request).await, begun.elapsed())
        }
    });
    sent.collect::<JoinSet<_>>().join_all().await
}

/// Asserts that no request fails because of its session.
async fn assert_served(http: &Client, api: &Api, round: usize) {
    for (request, response, took) in send_every_request(http, &api.url, round).await {
        let is_slow_check = request == "GET /readyz" && took >= CHECK_LIMIT;
        let is_served = response.status < 500 || is_slow_check;
        assert!(is_served, "round {round}, {request}, {took:?}: {response:?}\n{}", api.process.log());
    }
}

const API: [(&str, &str); 2] = [("API_KEY", KEY), ("RATE_LIMIT", "100000/60s")];

#[tokio::test]
async fn terminated_idle_sessions_fail_no_request() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let api = Api::start(&database.url, &API).await;
    let http = http_client();
    let terminate = "SELECT count(pg_terminate_backend(pid, 1000)) FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name = 'millrace api'";
    let mut terminated = 0;
    for round in 0..20 {
        assert_served(&http, &api, round).await;
        // Uses every session, so that none is pinged before its next use.
        let reads = (0..12).map(|_| send(http.get(format!("{}/v1/transactions?limit=1", api.url))));
        reads.collect::<JoinSet<_>>().join_all().await;
        terminated += sqlx::query_scalar::<_, i64>(terminate).fetch_one(&pool).await.expect("the test's own session");
    }
    assert!(terminated > 40, "only {terminated} sessions terminated; each round must terminate several");
}

#[tokio::test]
async fn a_time_limit_for_idle_sessions_fails_no_request() {
    let database = database::fresh().await;
    alter_database(&database, "SET idle_session_timeout = '400ms'").await;
    let api = Api::start(&database.url, &API).await;
    let http = http_client();
    for round in 0..6 {
        assert_served(&http, &api, round).await;
        // Longer than the limit.
        tokio::time::sleep(Duration::from_millis(450)).await;
    }
}

/// The process of the server that runs a statement of this pool.
async fn backend(pool: &Pool) -> i32 {
    let query = sqlx::query_scalar("SELECT pg_backend_pid() FROM pg_sleep(0.01)");
    query.fetch_one(repeatable(pool)).await.expect("a session")
}

#[tokio::test]
async fn the_session_that_was_used_last_is_used_next() {
    const SESSIONS: u32 = 3;
    let database = database::fresh().await;
    let pool = Database::parse(&database.url).expect("a URL").pool("test", SESSIONS);
    let run = |count: usize| join_all((0..count).map(|_| backend(&pool)));
    let opened: HashSet<i32> = run(30).await.into_iter().collect();
    assert_eq!(opened.len(), SESSIONS as usize, "callers wait for one of the sessions");
    let mut last = backend(&pool).await;
    for _ in 0..3 {
        assert_eq!(backend(&pool).await, last);
        let failed = sqlx::query("SELECT 1 / 0").execute(repeatable(&pool)).await;
        assert!(failed.is_err(), "{failed:?}");
        let dropped = begin(&pool).await.expect("a transaction");
        drop(dropped);
        last = backend(&pool).await;
        assert!(opened.contains(&last), "neither a refused statement nor a rollback costs a session");
    }
    let all_idle = SessionCounts { used: 0, idle: SESSIONS };
    eventually("all sessions are idle", SOON, async || pool.session_counts() == all_idle).await;
}

#[tokio::test]
async fn a_closed_pool_ends_its_sessions_and_all_waits() {
    let database = database::fresh().await;
    let pool = Database::parse(&database.url).expect("a URL").pool("closing", 2);
    join_all([backend(&pool), backend(&pool)]).await;
    let transactions = [begin(&pool).await.expect("a transaction"), begin(&pool).await.expect("a transaction")];
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { begin(&pool).await.map(drop).map_err(|error| error.to_string()) }
    });
    let closing = tokio::spawn({
        let pool = pool.clone();
        async move { pool.close().await }
    });
    let refused = waiting.await.expect("no panic").expect_err("a closed pool");
    assert!(refused.contains("closed"), "{refused}");
    drop(transactions);
    closing.await.expect("no panic");
    let count = "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name = 'millrace closing'";
    let watcher = database.pool().await;
    let is_none_open = async || sqlx::query_scalar::<_, i64>(count).fetch_one(&watcher).await.expect("a count") == 0;
    eventually("all sessions are closed", SOON, is_none_open).await;
}

/// Runs `ALTER DATABASE` with this change.
async fn alter_database(database: &TestDatabase, change: &str) {
    let statement = AssertSqlSafe(format!("ALTER DATABASE {} {change}", database.name));
    sqlx::raw_sql(statement).execute(&database.pool().await).await.expect("a change");
}

async fn current_setting(pool: &Pool, name: &str) -> String {
    let query = sqlx::query_scalar("SELECT current_setting($1)").bind(name);
    query.fetch_one(repeatable(pool)).await.expect("a setting")
}

#[tokio::test]
async fn defaults_of_the_database_change_none_of_our_settings() {
    let database = database::fresh().await;
    let settings = [
        ("search_path", "elsewhere", "public"),
        ("synchronous_commit", "off", "on"),
        ("default_transaction_isolation", "serializable", "read committed"),
        ("plan_cache_mode", "force_custom_plan", "force_generic_plan"),
        ("enable_seqscan", "on", "off"),
        ("jit", "on", "off"),
        ("row_security", "on", "off"),
        ("statement_timeout", "9s", "5s"),
        ("lock_timeout", "9s", "0"),
        ("idle_in_transaction_session_timeout", "9s", "15s"),
        ("idle_session_timeout", "9s", "0"),
        ("timezone", "Asia/Kathmandu", "UTC"),
    ];
    for (name, default, _) in settings {
        alter_database(&database, &format!("SET {name} = '{default}'")).await;
        let pool = Database::parse(&database.url).expect("a URL").pool("test", 1);
        for (name, _, value) in settings {
            assert_eq!(current_setting(&pool, name).await, value, "{name}");
        }
        pool.close().await;
        alter_database(&database, &format!("RESET {name}")).await;
    }
}

#[tokio::test]
async fn stricter_isolation_by_default_fails_no_sender() {
    for level in ["repeatable read", "serializable"] {
        let database = database::fresh().await;
        alter_database(&database, &format!("SET default_transaction_isolation = '{level}'")).await;
        let api = Api::start(&database.url, &[]).await;
        let statuses = post_same_id(&api.url, 200).await;
        assert!(statuses.iter().all(|status| *status == 202), "{level}: {statuses:?}");
    }
}

#[tokio::test]
async fn processes_follow_a_database_that_becomes_read_only_and_back() {
    let database = database::fresh().await;
    let api = Api::start(&database.url, &[]).await;
    let mut worker = start_worker(&database.url, &[("WORKER_HEALTH_PORT", "0")]).await;
    let line: Value = serde_json::from_str(&worker.wait_for_line("health and metrics").await).expect("a JSON line");
    let health = format!("http://{}/readyz", line["address"].as_str().expect("an address"));
    let http = http_client();
    let post = async |id: &str| {
        send(http.post(format!("{}/v1/webhooks/transactions", api.url)).json(&webhook(id))).await.status
    };
    assert_eq!(post("txn_1").await, 202);
    for (round, rounds) in [("one", 1), ("two", 2)] {
        alter_database(&database, "SET default_transaction_read_only = on").await;
        // Open sessions keep their setting, so they are terminated.
        terminate_our_sessions(&database).await;
        eventually("webhooks are refused", SOON, async || post(round).await == 503).await;
        for url in [format!("{}/readyz", api.url), health.clone()] {
            eventually("the process is not ready", SOON, async || send(http.get(&url)).await.status == 503).await;
        }
        let is_reason = |line: &str| line.contains(r#""event":"not ready""#) && line.contains("read-only");
        let is_logged = async || {
            send(http.get(&health)).await;
            worker.log().lines().filter(|line| is_reason(line)).count() >= rounds
        };
        eventually("the reason is logged", SOON, is_logged).await;
        assert_eq!(send(http.get(format!("{}/v1/transactions/txn_1", api.url))).await.status, 200, "reads still work");
        let admin = Database::parse(&database.url).expect("a URL");
        let mut session = admin.connect("admin").await.expect("a session");
        for statement in [
            "SET default_transaction_read_only = off".to_owned(),
            format!("ALTER DATABASE {} RESET default_transaction_read_only", database.name),
        ] {
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut session).await.expect("a change");
        }
        drop(session);
        eventually("webhooks are acknowledged again", SOON, async || post(&format!("after {round}")).await == 202)
            .await;
        for url in [format!("{}/readyz", api.url), health.clone()] {
            eventually("the process is ready again", SOON, async || send(http.get(&url)).await.status == 200).await;
        }
    }
}

async fn terminate_our_sessions(database: &TestDatabase) {
    let terminate = "SELECT count(pg_terminate_backend(pid, 1000)) FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name LIKE 'millrace %'";
    sqlx::query(terminate).execute(&database.pool().await).await.expect("terminated sessions");
}

/// Creates a role that owns no tables, but has the rights that a process needs. Drops it after `run`.
async fn with_role(database: &TestDatabase, options: &str, run: impl AsyncFnOnce(String)) {
    let (pool, role) = (database.pool().await, format!("role_{}", database.name));
    let create = format!(
        "CREATE ROLE {role} LOGIN {options};
         GRANT USAGE ON SCHEMA apalis, public TO {role};
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA apalis, public TO {role};
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA apalis, public TO {role}"
    );
    sqlx::raw_sql(AssertSqlSafe(create)).execute(&pool).await.expect("a role");
    let (prefix, rest) = database.url.split_once("user=").expect("a user");
    let (_, rest) = rest.split_once('&').expect("more than a user");
    run(format!("{prefix}user={role}&{rest}")).await;
    let drop = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    sqlx::raw_sql(AssertSqlSafe(drop)).execute(&pool).await.expect("no role");
}

#[tokio::test]
async fn rows_hidden_by_row_level_security_are_reported_at_the_start_and_by_readiness() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    with_role(&database, "", async |url| {
        let api = Api::start(&url, &[]).await;
        let http = http_client();
        api.wait_until_ready().await;
        for table in ["apalis.jobs", "transactions"] {
            let enable = AssertSqlSafe(format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"));
            sqlx::raw_sql(enable).execute(&pool).await.expect("a change");
            let response = send(http.get(format!("{}/readyz", api.url))).await;
            assert_eq!(response.status, 503, "{table}: {response:?}");
            for command in ["api", "worker"] {
                let (succeeded, log) = run(&[command], &[("DATABASE_URL", &url), ("PORT", "0")]).await;
                let reported = log.contains("row-level security hides rows of") && log.contains(table);
                assert!(!succeeded && reported, "{command}, {table}: {log}");
            }
            let disable = AssertSqlSafe(format!("ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"));
            sqlx::raw_sql(disable).execute(&pool).await.expect("a change");
        }
        // The owner of a table sees every row.
        let enable = "ALTER TABLE apalis.jobs ENABLE ROW LEVEL SECURITY";
        sqlx::raw_sql(enable).execute(&pool).await.expect("a change");
        drop(Api::start(&database.url, &[]).await);
    })
    .await;
}

#[tokio::test]
async fn the_reason_for_a_missing_session_is_reported() {
    let database = database::fresh().await;
    with_role(&database, "CONNECTION LIMIT 0", async |url| {
        let pool = Database::parse(&url).expect("a URL").pool("test", 2);
        wait_for_error(&pool, &["no database session within 5 s", "too many connections"]).await;
        pool.close().await;
    })
    .await;
    let busy = Database::parse(&database.url).expect("a URL").pool("test", 1);
    let transaction = begin(&busy).await.expect("the only session");
    wait_for_error(&busy, &["all 1 sessions of this process are in use"]).await;
    drop(transaction);
    let closed = Port::free();
    let mut worker = Process::start(&["worker"], &[("DATABASE_URL", &format!("postgres://me@127.0.0.1:{closed}/x"))]);
    let line = worker.wait_for_line("waiting for the database").await;
    assert!(line.contains("Connection refused"), "{line}");
}

/// Waits for this error of a pool without a free session. A busy machine may wait longer, or find the cause too late.
async fn wait_for_error(pool: &Pool, texts: &[&str]) {
    let mut error = String::new();
    for _ in 0..5 {
        error = begin(pool).await.expect_err("no session").to_string();
        if texts.iter().all(|text| error.contains(text)) {
            return;
        }
    }
    panic!("{texts:?}: {error}");
}

#[tokio::test]
async fn savepoints_undo_a_part_and_a_drop_undoes_everything() {
    let database = database::fresh().await;
    let pool = Database::parse(&database.url).unwrap().pool("savepoints", 1);
    let insert = |name: &'static str| sqlx::query("INSERT INTO queues (name) VALUES ($1)").bind(name);
    let mut transaction = begin(&pool).await.unwrap();
    insert("before").execute(&mut transaction).await.unwrap();
    transaction.savepoint().await.unwrap();
    insert("undone").execute(&mut transaction).await.unwrap();
    sqlx::query("SELECT 1 / 0").execute(&mut transaction).await.expect_err("it fails");
    transaction.undo().await.unwrap();
    transaction.savepoint().await.unwrap();
    insert("released").execute(&mut transaction).await.unwrap();
    transaction.release().await.unwrap();
    transaction.commit().await.unwrap();

    let mut dropped = begin(&pool).await.unwrap();
    insert("dropped").execute(&mut dropped).await.unwrap();
    dropped.savepoint().await.unwrap();
    drop(dropped);
    // The pool has one session. If its transaction were still open, this would be written to it and never committed.
    insert("later").execute(repeatable(&pool)).await.unwrap();
    let names = sqlx::query_scalar::<_, String>("SELECT name FROM queues ORDER BY name");
    assert_eq!(names.fetch_all(&database.pool().await).await.unwrap(), ["before", "later", "released"]);
}

#[tokio::test]
async fn a_server_error_is_logged_unchanged_and_with_advice() {
    let database = database::fresh().await;
    let nowhere = database.url.replace(&database.name, "nowhere");
    let unknown = database.url.replace("user=", "user=unknown_");
    for (url, advice) in [(nowhere, "create it"), (unknown, "refuses the user or the password")] {
        let mut worker = Process::start(&["worker"], &[("DATABASE_URL", &url)]);
        let line = worker.wait_for_line("waiting for the database").await;
        assert!(line.contains("does not exist") && !line.contains(" at line "), "{line}");
        assert!(line.contains(advice), "the advice is missing: {line}");
        assert!(worker.is_running(), "the worker continues");
    }
}
