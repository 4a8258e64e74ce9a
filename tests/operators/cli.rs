//! The command line of operators: what is wrong, why, and what to do; each command as a person or a script runs it.

use std::time::Duration;

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};

use super::in_time;
use crate::harness::{
    database::{self, TestDatabase},
    eventually,
    process::{Process, start_worker},
};

const SOON: Duration = Duration::from_secs(30);
const QUEUE: &str = "process_transaction";
const REASON: [&str; 2] = ["--reason", "the processor is back"];

/// The result of a command.
struct Output {
    status: Option<i32>,
    text: String,
}

impl Output {
    fn json(&self) -> Value {
        let json: String = self.text.lines().filter(|line| !line.starts_with("note: ")).collect();
        serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

/// Runs a command as ada, to its end.
async fn run(database: &TestDatabase, arguments: &[&str]) -> Output {
    let (status, text) = in_time::run(&database.url, arguments).await;
    Output { status, text }
}

/// Runs a command that must succeed, and returns its output.
async fn succeed(database: &TestDatabase, arguments: &[&str]) -> String {
    let output = run(database, arguments).await;
    assert_eq!(output.status, Some(0), "{arguments:?}: {}", output.text);
    output.text
}

async fn json(database: &TestDatabase, arguments: &[&str]) -> Value {
    run(database, &[arguments, &["--json"]].concat()).await.json()
}

async fn execute(pool: &PgPool, sql: &str) {
    sqlx::query(AssertSqlSafe(sql.to_owned())).execute(pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Inserts a transaction that is due now with its job. Returns the id of the job.
async fn insert_transaction(pool: &PgPool, name: &str) -> String {
    let id = uuid::Uuid::now_v7();
    let insert = "INSERT INTO transactions (id, transaction_id, source_account, destination_account, amount, currency,
                                            created_at, due_at) VALUES ($1, $2, 'a', 'b', 1, 'INR', now(), now())";
    sqlx::query(insert).bind(id).bind(name).execute(pool).await.unwrap();
    let job = queue::JobId::from(id).to_string();
    let insert = "INSERT INTO apalis.jobs (id, job_type, job, run_at)
                  VALUES ($1, 'process_transaction', convert_to($2, 'UTF8'), now())";
    sqlx::query(insert).bind(&job).bind(format!(r#"{{"id":"{id}"}}"#)).execute(pool).await.unwrap();
    job
}

/// Makes the first `count` jobs of this queue dead letters with this error.
async fn insert_dead(pool: &PgPool, queue: &str, first: u32, count: u32, group: &str, error: &str) {
    let errors = serde_json::json!([{ "at": "2026-01-01T00:00:00Z", "run": 3, "worker": "w", "error": error }]);
    let insert = format!(
        "INSERT INTO apalis.jobs (id, job_type, job, status, attempts, done_at, error_group, errors)
         SELECT '01' || lpad(n::text, 24, '0'), '{queue}', '{{}}', 'Killed', 3, now(), '{group}', '{errors}'
         FROM generate_series({first}, {first} + {count} - 1) AS n"
    );
    execute(pool, &insert).await;
}

#[tokio::test]
async fn status_begins_with_the_verdict_and_its_exit_status_is_the_verdict() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let healthy = succeed(&database, &["status"]).await;
    assert!(healthy.starts_with("Healthy") && healthy.contains("There are no queues"), "{healthy}");

    insert_transaction(&pool, "waiting").await;
    let ill = run(&database, &["status"]).await;
    assert_eq!(ill.status, Some(1), "{}", ill.text);
    let lines: Vec<&str> = ill.text.lines().collect();
    assert!(lines[0].starts_with("1 problem"), "{}", ill.text);
    assert!(lines[1].contains("✘ process_transaction has due jobs and no live worker"), "{}", ill.text);
    assert!(lines[2].contains("millrace queues show process_transaction"), "{}", ill.text);
    assert!(lines[4].starts_with("QUEUE") && lines[4].contains("DRAINED IN"), "{}", ill.text);
    assert!(!ill.text.contains('\u{1b}'), "no colours in a pipe: {:?}", ill.text);

    let pause = ["queues", "pause", QUEUE, "--until", "2h", "--reason", "the processor is down"];
    succeed(&database, &pause).await;
    let overview = json(&database, &["status"]).await;
    let problem = overview["problems"][0]["text"].as_str().unwrap();
    assert!(problem.contains("has been paused for") && problem.ends_with("by ada: the processor is down"), "{problem}");
    let paused = &overview["problems"][0];
    assert_eq!((&paused["kind"], &paused["link"]), (&"paused".into(), &"/board/queues/process_transaction".into()));
    let queue = overview["queues"].as_array().unwrap().iter().find(|queue| queue["name"] == QUEUE).unwrap();
    assert_eq!((&queue["due"], &queue["paused_by"]), (&1.into(), &"ada".into()));
    let table = run(&database, &["status"]).await.text;
    assert!(table.contains("OUT 15M") && table.contains("▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁"), "{table}");
    assert!(table.contains("not while paused") && table.contains("by ada: the processor is down (until "), "{table}");
}

#[tokio::test]
async fn watching_prints_the_view_again_until_it_is_stopped() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let mut watched = Process::start(&["status", "--watch", "--json"], &[("DATABASE_URL", &database.url)]);
    watched.wait_for_line(r#""queues":[]"#).await;
    insert_transaction(&pool, "waiting").await;
    watched.wait_for_line("has due jobs and no live worker").await;
    watched.signal(nix::sys::signal::Signal::SIGINT);
    watched.wait_for_exit(SOON).await;
}

#[tokio::test]
async fn why_explains_a_waiting_job_with_the_fix_and_succeeds_when_it_is_done() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let job = insert_transaction(&pool, "txn_1").await;
    let by_job = run(&database, &["why", &job]).await;
    assert_eq!(by_job.status, Some(1), "{}", by_job.text);
    assert!(by_job.text.contains("  ✔ its queue is not paused"), "{}", by_job.text);
    assert!(by_job.text.contains("  ✘ no worker is alive\n      start a worker: millrace worker"), "{}", by_job.text);
    let by_transaction = json(&database, &["why", "txn_1"]).await;
    assert_eq!((&by_transaction["job"]["id"], &by_transaction["verdict"]), (&job.into(), &"no worker is alive".into()));

    succeed(&database, &["queues", "pause", QUEUE, "--reason", "the processor is down"]).await;
    let paused = run(&database, &["why", "txn_1"]).await.text;
    assert!(paused.contains("✘ its queue is paused by ada: the processor is down"), "{paused}");
    assert!(paused.contains("millrace queues resume process_transaction --reason"), "{paused}");
    succeed(&database, &["queues", "resume", QUEUE, "--reason", "it is back"]).await;

    let worker = start_worker(&database.url, &[("PROCESSING_DELAY_SECONDS", "0")]).await;
    eventually("the job is done", SOON, async || run(&database, &["why", "txn_1"]).await.status == Some(0)).await;
    let done = succeed(&database, &["why", "txn_1"]).await;
    assert!(done.contains("✔ it is done") && !done.contains('✘'), "{done}");
    drop(worker);

    let Output { status, text } = run(&database, &["why", "no such id"]).await;
    assert!(status == Some(1) && text.contains("there is no job and no transaction"), "{text}");
    let unknown = run(&database, &["queues", "resume", "unknown", "--reason", "it is back"]).await.text;
    assert!(unknown.contains("there is no queue \"unknown\""), "{unknown}");
}

#[tokio::test]
async fn a_transaction_is_found_by_every_id_and_its_timeline_is_in_order() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let job = insert_transaction(&pool, "txn_1").await;
    let id: uuid::Uuid = sqlx::query_scalar("SELECT id FROM transactions").fetch_one(&pool).await.unwrap();
    for text in ["txn_1", &job, &id.to_string()] {
        let found = json(&database, &["find", text]).await;
        assert!(found.as_array().is_some_and(|found| !found.is_empty()), "{text}: {found}");
    }
    let table = succeed(&database, &["find", "txn_1"]).await;
    assert!(table.contains("millrace transaction txn_1"), "{table}");
    let nothing = run(&database, &["find", "txn_2"]).await;
    assert!(nothing.status == Some(1) && nothing.text.contains("has this id"), "{}", nothing.text);

    succeed(&database, &["jobs", "cancel", &job, "--reason", "sent twice"]).await;
    let timeline = json(&database, &["transaction", "txn_1"]).await;
    let events: Vec<&str> =
        timeline["events"].as_array().unwrap().iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(events.first(), Some(&"accepted"), "{timeline}");
    assert!(events.contains(&"operator") && events.contains(&"failed"), "{timeline}");
    let text = succeed(&database, &["transaction", "txn_1"]).await;
    assert!(text.starts_with("txn_1: FAILED\n") && text.contains("cancel by ada: sent twice"), "{text}");
    let unknown = run(&database, &["transaction", "txn_2"]).await;
    assert!(unknown.status == Some(1) && unknown.text.contains("there is no transaction"), "{}", unknown.text);
}

#[tokio::test]
async fn dead_letters_are_grouped_and_a_group_is_replayed_at_a_rate() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    assert_eq!(succeed(&database, &["dead"]).await, "There are no dead letters.");
    insert_dead(&pool, "another", 1, 30, "refused", "connection refused\u{1b}[31m\nby the host").await;
    insert_dead(&pool, "another", 100, 10, "timeout", "timed out").await;
    let table = succeed(&database, &["dead"]).await;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("QUEUE") && lines[1].starts_with("another  refused") && lines[1].contains("75 %"));
    assert_eq!(lines[2], "    connection refused [31m by the host", "control characters are not printed: {table:?}");
    let groups = json(&database, &["dead", "--queue", "another"]).await;
    assert_eq!((&groups[0]["count"], &groups[1]["group"]), (&30.into(), &"timeout".into()), "{groups}");

    let replay = ["dead", "replay", "--queue", "another", "--group", "refused"];
    let dry_run = succeed(&database, &[&replay[..], &["--dry-run", "--limit", "20"]].concat()).await;
    assert!(
        dry_run.contains("Selected: 30 dead letters") && dry_run.contains("Would replay 20 of them in 1 s"),
        "{dry_run}"
    );
    assert!(dry_run.contains("the first 10, then") && dry_run.contains("more than 20 % have died"), "{dry_run}");
    let selected = json(&database, &[&replay[..], &["--dry-run"]].concat()).await;
    assert_eq!((&selected["count"], selected["samples"].as_array().unwrap().len()), (&30.into(), 5));
    assert_eq!(json(&database, &["replays"]).await, Value::Array(Vec::new()), "a dry run starts nothing");

    let started = run(&database, &[&replay[..], &REASON, &["--json"]].concat()).await;
    assert!(started.status == Some(0) && started.text.contains("no live worker runs replays"), "{}", started.text);
    let listed = json(&database, &["replays"]).await;
    assert_eq!(
        (&listed[0]["state"], &listed[0]["rate"], &listed[0]["max_jobs"]),
        (&"running".into(), &20.0.into(), &100_000.into())
    );
    let none = run(&database, &["dead", "replay", "--queue", "unknown", "--dry-run"]).await;
    assert!(none.status == Some(1) && none.text.contains("there is no dead letter in the queue"), "{}", none.text);

    execute(
        &pool,
        "UPDATE apalis.jobs SET replays = 2 WHERE id = (SELECT min(id) FROM apalis.jobs WHERE status = 'Killed')",
    )
    .await;
    let dry_run = succeed(&database, &[&replay[..], &["--dry-run"]].concat()).await;
    assert!(dry_run.contains("1 of the selected jobs were already replayed twice or more"), "{dry_run}");
    let refused = run(&database, &[&replay[..], &REASON].concat()).await;
    assert!(refused.status == Some(1) && refused.text.contains("add --include-replayed"), "{}", refused.text);
    succeed(&database, &[&replay[..], &["--include-replayed"], &REASON].concat()).await;
}

#[tokio::test]
async fn a_replay_is_paused_resumed_and_stopped_with_a_reason() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    insert_dead(&pool, "another", 1, 3, "refused", "connection refused").await;
    succeed(&database, &[&["dead", "replay", "--queue", "another"][..], &REASON].concat()).await;
    let id = json(&database, &["replays"]).await[0]["id"].as_str().unwrap().to_owned();
    let change = async |action: &str| run(&database, &[&["replays", action, &id][..], &REASON].concat()).await;
    assert_eq!(change("pause").await.status, Some(0));
    let again = change("pause").await;
    assert!(again.status == Some(1) && again.text.contains("is paused: only a running replay can be paused"));
    assert_eq!(change("resume").await.status, Some(0));
    assert_eq!(change("stop").await.status, Some(0));
    let shown = succeed(&database, &["replays", "show", &id]).await;
    assert!(shown.contains("stopped: ada: the processor is back"), "{shown}");
    let waited = run(&database, &["replays", "show", &id, "--wait"]).await;
    assert_eq!(waited.status, Some(1), "a stopped replay is a failure: {}", waited.text);
    let actions = json(&database, &["audit", "--target", &id]).await;
    let actions: Vec<&Value> = actions.as_array().unwrap().iter().map(|action| &action["action"]).collect();
    assert_eq!(actions, ["stop_replay", "resume_replay", "pause_replay", "replay"]);
    let unknown = run(&database, &["replays", "show", "00000000-0000-0000-0000-000000000000"]).await;
    assert!(unknown.status == Some(1) && unknown.text.contains("there is no replay"), "{}", unknown.text);
}

#[tokio::test]
async fn waiting_for_a_replay_ends_with_it() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let jobs = [insert_transaction(&pool, "txn_1").await, insert_transaction(&pool, "txn_2").await];
    execute(&pool, "UPDATE apalis.jobs SET status = 'Killed', done_at = now(), errors = '[{\"error\": \"refused\"}]'")
        .await;
    execute(&pool, "UPDATE transactions SET status = 'FAILED', error = 'x', processed_at = now()").await;
    let _worker = start_worker(&database.url, &[("PROCESSING_DELAY_SECONDS", "0")]).await;
    let replay = ["dead", "replay", "--queue", QUEUE, "--error", "refused", "--rate", "600/min", "--wait"];
    let done = succeed(&database, &[&replay[..], &REASON].concat()).await;
    assert!(done.contains("state     done") && done.contains("2 of at most 100000"), "{done}");
    for job in &jobs {
        eventually("the job is done", SOON, async || run(&database, &["why", job]).await.status == Some(0)).await;
    }
}

#[tokio::test]
async fn a_replay_whose_canary_dies_stops_and_fails_the_command() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    for number in 1..=4 {
        insert_transaction(&pool, &format!("txn_{number}")).await;
    }
    execute(&pool, "UPDATE apalis.jobs SET status = 'Killed', done_at = now(), errors = '[{\"error\": \"refused\"}]'")
        .await;
    execute(&pool, "UPDATE transactions SET status = 'FAILED', error = 'x', processed_at = now()").await;
    // No server listens on the port of discard.
    let down = [("PROCESSOR_URL", "http://127.0.0.1:9/"), ("PROCESSOR_ATTEMPTS", "1")];
    let _worker = start_worker(&database.url, &down).await;
    let replay = ["dead", "replay", "--queue", QUEUE, "--canary", "2", "--wait"];
    let stopped = run(&database, &[&replay[..], &REASON].concat()).await;
    assert_eq!(stopped.status, Some(1), "{}", stopped.text);
    assert!(stopped.text.contains("2 of 2 jobs died again, more than 20 %"), "{}", stopped.text);
    assert_eq!(json(&database, &["replays"]).await[0]["replayed"], 2, "the others were not replayed");
    let dead = json(&database, &["jobs", "list", "--state", "dead"]).await;
    assert_eq!(dead.as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn discarded_dead_letters_are_cancelled_and_no_filter_takes_them_again() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    insert_dead(&pool, "another", 1, 5, "refused", "connection refused").await;
    let discard = ["dead", "discard", "--queue", "another", "--error", "refused", "--limit", "3"];
    let dry_run = succeed(&database, &[&discard[..], &["--dry-run"]].concat()).await;
    assert!(dry_run.contains("Would discard 3 of them"), "{dry_run}");
    assert_eq!(json(&database, &[&discard[..], &REASON].concat()).await["discarded"], 3);
    assert_eq!(json(&database, &["jobs", "list", "--state", "cancelled"]).await.as_array().unwrap().len(), 3);
    assert_eq!(json(&database, &["jobs", "list", "--state", "dead"]).await.as_array().unwrap().len(), 2);
    let without_reason = run(&database, &discard).await;
    assert!(without_reason.status == Some(2) && without_reason.text.contains("--reason"), "{}", without_reason.text);
}

#[tokio::test]
async fn workers_show_what_they_run_and_one_is_drained() {
    let database = database::fresh().await;
    assert!(succeed(&database, &["workers"]).await.contains("There are no workers"));
    let mut worker = start_worker(&database.url, &[("QUEUE_HEARTBEAT_SECONDS", "0.2")]).await;
    // Its row is written by the first heartbeat, perhaps after its log line.
    eventually("the worker reports", SOON, async || !json(&database, &["workers"]).await[0]["report"].is_null()).await;
    let id = json(&database, &["workers"]).await[0]["id"].as_str().unwrap().to_owned();
    let table = succeed(&database, &["workers"]).await;
    assert!(table.starts_with("WORKER") && table.contains(&id) && table.contains("live"), "{table}");
    let shown = succeed(&database, &["workers", "show", &id]).await;
    assert!(shown.contains(QUEUE) && shown.contains("It holds no job."), "{shown}");
    let unknown = run(&database, &["workers", "show", "unknown"]).await;
    assert!(unknown.status == Some(1) && unknown.text.contains("there is no worker"), "{}", unknown.text);

    let drained = succeed(&database, &["workers", "drain", &id, "--reason", "its host is replaced"]).await;
    assert!(drained.contains("stops claiming") || drained.contains("has stopped"), "without jobs, both: {drained}");
    assert!(worker.wait_for_exit(SOON).await.success(), "a drained worker ends in good order");
}

#[tokio::test]
async fn a_queue_shows_its_history_and_the_audit_has_pages() {
    let database = database::fresh().await;
    for reason in ["first", "second"] {
        succeed(&database, &["queues", "pause", QUEUE, "--reason", reason]).await;
    }
    let shown = succeed(&database, &["queues", "show", QUEUE]).await;
    assert!(shown.contains("by ada: second") && shown.contains("Actions of operators"), "{shown}");
    assert!(shown.contains("  ✘ it is paused by ada: second\n      millrace queues resume"), "{shown}");
    assert_eq!(json(&database, &["queues", "show", QUEUE]).await["actions"][1]["reason"], "first");
    let newest = json(&database, &["audit", "--limit", "1"]).await;
    assert_eq!(
        (&newest[0]["actor"], &newest[0]["via"], &newest[0]["reason"]),
        (&"ada".into(), &"cli".into(), &"second".into())
    );
    let older = json(&database, &["audit", "--before", &newest[0]["id"].to_string()]).await;
    assert_eq!(older[0]["reason"], "first");
    let unknown = run(&database, &["queues", "show", "unknown"]).await;
    assert!(unknown.status == Some(1) && unknown.text.contains("there is no queue"), "{}", unknown.text);

    succeed(&database, &["schedules", "fire", "daily_prices", "--reason", "the prices are wrong"]).await;
    let fired = json(&database, &["audit", "--target", "daily_prices"]).await;
    assert_eq!((&fired[0]["action"], &fired[0]["reason"]), (&"fire".into(), &"the prices are wrong".into()));
}

#[tokio::test]
async fn jobs_are_listed_in_the_named_columns_and_cancelled_by_a_filter() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let job = insert_transaction(&pool, "txn_1").await;
    let table = succeed(&database, &["jobs", "list", "--columns", "state,id"]).await;
    assert_eq!(table, format!("STATE    ID\nwaiting  {job}"));
    let wrong = run(&database, &["jobs", "list", "--columns", "state,colour"]).await;
    assert!(wrong.status == Some(2) && wrong.text.contains("failures"), "the columns are named: {}", wrong.text);
    let cancel = ["jobs", "cancel", "--queue", QUEUE];
    let dry_run = succeed(&database, &[&cancel[..], &["--dry-run"]].concat()).await;
    assert!(dry_run.contains("Selected: 1 jobs.") && dry_run.contains("1 of them would be cancelled."), "{dry_run}");
    let counted = json(&database, &[&cancel[..], &["--attempts", "1", "--dry-run"]].concat()).await;
    assert_eq!((&counted["count"], &counted["samples"]), (&0.into(), &Value::Array(Vec::new())));
    let none =
        succeed(&database, &["jobs", "list", "--older-than", "1d", "--key", "k", "--worker", "w", "--group", "g"])
            .await;
    assert!(none.starts_with("ID ") && !none.contains(&job), "{none}");
    let wrong = run(&database, &["jobs", "list", "--older-than", "1w"]).await;
    assert!(wrong.status == Some(2) && wrong.text.contains("must be a duration such as 30m"), "{}", wrong.text);
    let wrong = run(&database, &["jobs", "cancel", &job, "--key", "k", "--dry-run"]).await;
    assert!(wrong.status == Some(1) && wrong.text.contains("a condition needs --queue"), "{}", wrong.text);
    assert_eq!(json(&database, &[&cancel[..], &REASON].concat()).await[0]["result"], "cancelled");
    assert_eq!(json(&database, &["jobs", "list", "--state", "waiting"]).await, Value::Array(Vec::new()));
    let recorded = json(&database, &["audit", "--target", QUEUE]).await;
    assert_eq!((&recorded[0]["action"], &recorded[0]["count"]), (&"cancel".into(), &1.into()));
    assert_eq!(recorded[0]["reason"], REASON[1]);
}

#[tokio::test]
async fn wrong_options_are_named_with_what_would_be_right() {
    let database = database::fresh().await;
    let replay = ["dead", "replay", "--queue", "q", "--dry-run"];
    for (arguments, problem) in [
        (&[&replay[..], &["--rate", "fast"]].concat()[..], "must be a rate above 0 and at most 10000/s, such as 20/s"),
        (&[&replay[..], &["--stop-if-dead", "120%"]].concat(), "must be a share from 0% to 100%, such as 20%"),
        (&[&replay[..], &["--limit", "0"]].concat(), "0 is not in 1.."),
        (&["dead", "replay", "--queue", "q"], "--reason"),
        (&["jobs", "cancel", "x"], "--reason"),
        (&["jobs", "replay", "x"], "--reason"),
        (&["queues", "resume", "q"], "--reason"),
        (&["queues", "pause", "q", "--reason", " "], "reason must not be empty"),
        (&["queues", "pause", "q", "--reason", "r", "--until", "soon"], "must be a time such as"),
        (&["replays", "stop", "17", "--reason", "r"], "<ID>"),
        (&["audit", "--before", "x"], "--before"),
    ] {
        let output = run(&database, arguments).await;
        assert_eq!(output.status, Some(2), "{arguments:?}: {}", output.text);
        assert!(output.text.contains(problem), "{arguments:?}: {}", output.text);
    }
}
