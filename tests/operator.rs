//! The operator's commands, run like a person or a script would run them.

use std::time::Duration;

use serde_json::Value;

use crate::{
    harness::{
        database::{self, TestDatabase},
        eventually,
        process::{Process, start_worker},
    },
    operators::in_time,
};

const SOON: Duration = Duration::from_secs(20);
const REASON: [&str; 2] = ["--reason", "the processor is back"];

/// Runs a command. Returns whether it succeeded, and its output.
async fn run(database: &TestDatabase, arguments: &[&str]) -> (bool, String) {
    let (status, log) = in_time::run(&database.url, arguments).await;
    (status == Some(0), log)
}

/// Runs a command that must succeed, and returns its JSON.
async fn run_json(database: &TestDatabase, arguments: &[&str]) -> Value {
    let (succeeded, log) = run(database, &[arguments, &["--json"]].concat()).await;
    assert!(succeeded, "{arguments:?}: {log}");
    serde_json::from_str(&log).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {log}"))
}

/// Inserts a transaction and its job, due in an hour. Returns the id of the job.
async fn insert_transaction(pool: &sqlx::PgPool, name: &str) -> String {
    let id = uuid::Uuid::now_v7();
    let insert = "INSERT INTO transactions (id, transaction_id, source_account, destination_account, amount, currency,
                                            created_at, due_at) VALUES ($1, $2, 'a', 'b', 1, 'INR', now(), now())";
    sqlx::query(insert).bind(id).bind(name).execute(pool).await.unwrap();
    let insert = "INSERT INTO apalis.jobs (id, job_type, job, run_at)
                  VALUES ($1, 'process_transaction', convert_to($2, 'UTF8'), now() + interval '1 hour')";
    sqlx::query(insert).bind(name).bind(format!(r#"{{"id":"{id}"}}"#)).execute(pool).await.unwrap();
    name.to_owned()
}

async fn status(pool: &sqlx::PgPool, name: &str) -> (String, Option<String>) {
    let query = "SELECT status, error FROM transactions WHERE transaction_id = $1";
    sqlx::query_as(query).bind(name).fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn a_cancelled_transaction_fails_and_a_replayed_one_is_processed() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let (first, second) = (insert_transaction(&pool, "first").await, insert_transaction(&pool, "second").await);
    let listed = run_json(&database, &["jobs", "list", "--queue", "process_transaction", "--state", "waiting"]).await;
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
    assert_eq!((&listed[0]["id"], &listed[0]["state"]), (&Value::from("second"), &Value::from("waiting")));
    assert_eq!(run_json(&database, &["jobs", "show", &first]).await["why"], "no live worker runs its queue");

    let cancelled = run_json(&database, &[&["jobs", "cancel", &first, &second][..], &REASON].concat()).await;
    assert_eq!(cancelled[1]["result"], "cancelled");
    for job in [&first, &second] {
        assert_eq!(status(&pool, job).await, ("FAILED".into(), Some("cancelled by operator".into())), "{job}");
        assert_eq!(run_json(&database, &["jobs", "show", job]).await["state"], "cancelled");
    }
    let listed = run_json(&database, &["jobs", "list", "--state", "cancelled"]).await;
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
    let (succeeded, log) = run(&database, &[&["jobs", "cancel", &first, "unknown"][..], &REASON].concat()).await;
    assert!(!succeeded && log.contains("already ended") && log.contains("not found"), "{log}");

    let filter = ["jobs", "replay", "--queue", "process_transaction"];
    let all = [&filter[..], &REASON].concat();
    assert_eq!(run_json(&database, &all).await, Value::Array(Vec::new()), "a filter replays no cancelled jobs");
    assert_eq!(run_json(&database, &["jobs", "replay", &first, "--dry-run"]).await[0]["result"], "would be replayed");
    let replay_first = [&["jobs", "replay", &first][..], &REASON].concat();
    assert_eq!(run_json(&database, &replay_first).await[0]["result"], "replayed");
    let audit = run_json(&database, &["audit", "--target", &first]).await;
    let recorded: Vec<_> = audit.as_array().unwrap().iter().map(|act| (&act["action"], &act["reason"])).collect();
    let reason = Value::from(REASON[1]);
    assert_eq!(recorded, [(&"replay".into(), &reason), (&"cancel".into(), &reason)]);
    assert_eq!(status(&pool, &first).await, ("PROCESSING".into(), None), "the transaction is replayed with its job");
    assert_eq!(status(&pool, &second).await.0, "FAILED", "the other transaction is unchanged");
    // A job that died of an error is found by it.
    let died = "UPDATE apalis.jobs SET status = 'Killed', errors = '[{\"error\": \"connection refused\"}]'
                WHERE id = 'second'";
    sqlx::query(died).execute(&pool).await.unwrap();
    let filter = [&filter[..], &["--error", "refused"]].concat();
    let dry_run = run_json(&database, &[&filter[..], &["--dry-run"]].concat()).await;
    assert_eq!((&dry_run["count"], &dry_run["samples"][0]["id"]), (&1.into(), &Value::from(&*second)), "{dry_run}");
    assert_eq!(status(&pool, &second).await.0, "FAILED", "a dry run changes nothing");
    let replayed = run_json(&database, &[&filter[..], &REASON].concat()).await;
    assert_eq!((replayed.as_array().unwrap().len(), &replayed[0]["id"]), (1, &Value::from(&*second)));
    let (succeeded, log) = run(&database, &replay_first).await;
    assert!(!succeeded && log.contains("not dead"), "{log}");

    let _worker = start_worker(&database.url, &[]).await;
    for job in [&first, &second] {
        eventually("the transaction is processed", SOON, async || status(&pool, job).await.0 == "PROCESSED").await;
    }
}

#[tokio::test]
async fn a_bulk_dry_run_prints_the_number_and_five_samples() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    for (queue, status, replays) in [("waiting", "Pending", 0), ("dead", "Killed", 0), ("often", "Killed", 2)] {
        let insert = "INSERT INTO apalis.jobs (id, job_type, job, status, replays, run_at, done_at)
                      SELECT $1 || n, $1, '{}', $2, CASE WHEN n < 3 THEN $3 ELSE 0 END, now() + interval '1 hour',
                             CASE $2 WHEN 'Killed' THEN now() END
                      FROM generate_series(1, 7) AS n";
        sqlx::query(insert).bind(queue).bind(status).bind(replays).execute(&pool).await.unwrap();
    }
    for (arguments, selected, result) in [
        (["jobs", "cancel", "--queue", "waiting"], "7 jobs", "7 of them would be cancelled."),
        (["jobs", "replay", "--queue", "dead"], "7 dead jobs", "7 of them would be replayed."),
        (["jobs", "replay", "--queue", "often"], "7 dead jobs", "5 of them would be replayed."),
        (["dead", "replay", "--queue", "dead"], "7 dead letters", "Would replay 7 of them"),
        (["dead", "discard", "--queue", "dead"], "7 dead letters", "Would discard 7 of them."),
    ] {
        let dry_run = [&arguments[..], &["--dry-run"]].concat();
        let (succeeded, log) = run(&database, &dry_run).await;
        assert!(succeeded && log.starts_with(&format!("Selected: {selected}. The oldest:\n")), "{dry_run:?}: {log}");
        let samples = log.lines().filter(|line| line.starts_with(&format!("  {}", arguments[3]))).count();
        assert!(samples == 5 && log.contains(result), "{dry_run:?}: {log}");
        let counted = run_json(&database, &dry_run).await;
        assert_eq!((&counted["count"], counted["samples"].as_array().unwrap().len()), (&7.into(), 5), "{dry_run:?}");
    }
    let often = ["jobs", "replay", "--queue", "often", "--dry-run"];
    let (_, log) = run(&database, &often).await;
    assert!(log.contains("2 of them were already replayed twice or more"), "{log}");
    let (_, log) = run(&database, &[&often[..], &["--include-replayed"]].concat()).await;
    assert!(log.contains("7 of them would be replayed.") && !log.contains("twice"), "{log}");
    let (succeeded, log) = run(&database, &["jobs", "replay", "--queue", "unknown", "--dry-run"]).await;
    assert_eq!((succeeded, &*log), (true, "Selected: 0 dead jobs.\n0 of them would be replayed."));
    assert_eq!(run_json(&database, &["audit"]).await, Value::Array(Vec::new()), "a dry run changes nothing");
}

#[tokio::test]
async fn a_queue_is_paused_and_resumed() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let (_, log) = run(&database, &["queues"]).await;
    assert!(log.contains("There are no queues"), "{log}");
    let worker = start_worker(&database.url, &[]).await;
    // The thread of the heartbeat writes the row, perhaps after the worker's log line.
    eventually("the worker has a row", SOON, async || {
        sqlx::query_scalar("SELECT count(*) = 1 FROM apalis.workers").fetch_one(&pool).await.unwrap()
    })
    .await;
    let queue = "process_transaction";
    let paused = run_json(&database, &["queues", "pause", queue, "--reason", "the processor is down"]).await;
    assert_eq!((&paused[0]["reason"], &paused[0]["workers"]), (&"the processor is down".into(), &1.into()));
    let job = insert_transaction(&pool, "job").await;
    sqlx::query("UPDATE apalis.jobs SET run_at = now()").execute(&pool).await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(status(&pool, &job).await.0, "PROCESSING", "the worker polls every 250 ms, but must not claim");
    let (_, table) = run(&database, &["queues"]).await;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("QUEUE"), "{table}");
    let line = lines.iter().find(|line| line.starts_with(queue)).unwrap_or_else(|| panic!("no line: {table}"));
    assert!(line.contains("paused by ") && line.ends_with(": the processor is down"), "{table}");
    let resume = [&["queues", "resume", queue][..], &REASON].concat();
    assert!(run_json(&database, &resume).await[0]["reason"].is_null());
    eventually("the transaction is processed", SOON, async || status(&pool, &job).await.0 == "PROCESSED").await;
    let (succeeded, log) = run(&database, &resume).await;
    assert!(!succeeded && log.contains("was not paused"), "{log}");
    drop(worker);
}

/// Each result is printed at once, and Ctrl-C ends the run after the current job, so that the output is complete.
#[tokio::test]
async fn an_interrupted_replay_prints_its_progress() {
    const DEAD: usize = 50_000;
    let database = database::fresh().await;
    let pool = database.pool().await;
    let insert = format!(
        "INSERT INTO apalis.jobs (id, job_type, job, status, done_at)
         SELECT '01' || lpad(n::text, 24, '0'), 'another', '{{}}', 'Killed', now() FROM generate_series(1, {DEAD}) AS n"
    );
    sqlx::query(sqlx::AssertSqlSafe(insert)).execute(&pool).await.unwrap();
    let mut before = 0;
    for json in [false, true] {
        let arguments = ["jobs", "replay", "--queue", "another", "--reason", "r", "--json"];
        let arguments = if json { &arguments[..] } else { &arguments[..6] };
        let mut process = Process::start(arguments, &[("DATABASE_URL", &database.url)]);
        process.wait_for_line(if json { "\"replayed\"}" } else { "  replayed" }).await;
        process.signal(nix::sys::signal::Signal::SIGINT);
        assert!(!process.wait_for_exit(SOON).await.success());
        let log = process.log();
        let replayed = "SELECT count(*) FROM apalis.jobs WHERE status = 'Pending'";
        let replayed: i64 = sqlx::query_scalar(replayed).fetch_one(&pool).await.unwrap();
        let lines = log.lines().filter(|line| line.contains("01000") && line.contains("replayed")).count();
        assert_eq!(lines as i64, replayed - before, "exactly the replayed jobs are printed");
        assert!(lines < DEAD && log.contains(&format!("interrupted after {lines} of ")), "{lines}");
        if json {
            let array: String =
                log.lines().filter(|line| line.starts_with(['[', ']']) || line.starts_with("  {")).collect();
            let array: Value = serde_json::from_str(&array).unwrap_or_else(|error| panic!("{error}: {array}"));
            assert_eq!(array.as_array().unwrap().len(), lines);
        }
        before = replayed;
    }
}

#[tokio::test]
async fn the_third_replay_of_a_job_needs_a_confirmation() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let job = insert_transaction(&pool, "job").await;
    let replay = async |more: &[&str]| {
        let killed = "UPDATE apalis.jobs SET status = 'Killed', done_at = now()";
        sqlx::query(killed).execute(&pool).await.unwrap();
        run(&database, &[&["jobs", "replay", &*job][..], &REASON, more].concat()).await
    };
    assert!(replay(&[]).await.0 && replay(&[]).await.0);
    for more in [&[][..], &["--dry-run"]] {
        let (succeeded, log) = replay(more).await;
        assert!(!succeeded && log.contains("add --include-replayed"), "{log}");
    }
    assert!(replay(&["--include-replayed"]).await.0);
    let shown = run_json(&database, &["jobs", "show", &job]).await;
    let events = shown["events"].as_array().unwrap();
    let replayed: Vec<&Value> = events.iter().filter(|event| event["event"] == "replayed").collect();
    assert_eq!((&shown["replays"], replayed.len()), (&3.into(), 3), "{shown}");
    assert!(replayed[2]["text"].as_str().unwrap().ends_with(": the processor is back"), "{shown}");
}

#[tokio::test]
async fn a_payload_is_masked_until_it_is_opened() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let job = insert_transaction(&pool, "job").await;
    let (_, masked) = run(&database, &["jobs", "show", &job]).await;
    assert!(masked.contains("masked; --payload shows it") && !masked.contains(r#"{"id""#), "{masked}");
    assert!(run_json(&database, &["jobs", "show", &job]).await["payload"].is_null());
    assert_eq!(run_json(&database, &["audit"]).await, Value::Array(Vec::new()), "nothing was opened");
    let (_, opened) = run(&database, &["jobs", "show", &job, "--payload", "--reason", "a customer asks"]).await;
    assert!(opened.contains(r#"payload         {"id""#), "{opened}");
    let audit = run_json(&database, &["audit", "--target", &job]).await;
    assert_eq!((&audit[0]["action"], &audit[0]["reason"]), (&"open".into(), &"a customer asks".into()));
}

#[tokio::test]
async fn mistakes_are_reported() {
    let database = database::fresh().await;
    let (succeeded, log) = run(&database, &["jobs", "show", "unknown"]).await;
    assert!(!succeeded && log.contains("there is no job \"unknown\""), "{log}");
    let (succeeded, log) = run(&database, &["jobs", "list", "--state", "tired"]).await;
    assert!(!succeeded && log.contains("waiting, running, done, dead or cancelled"), "{log}");
    let mut process = Process::start(&["queues"], &[]);
    assert!(!process.wait_for_exit(SOON).await.success());
    assert!(process.log().contains("DATABASE_URL is unset, and no all-in-one keeps its data in"), "{}", process.log());
}
