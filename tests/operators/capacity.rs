//! How many workers are needed, and what happened in a queue over time: by command and over HTTP.

use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};

use super::in_time;
use crate::harness::{
    database::{self, TestDatabase},
    eventually,
    process::start_worker,
};

const SOON: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(90);
const QUEUE: &str = "process_transaction";

/// Runs a command to its end. Returns its exit status and its output.
async fn run(database: &TestDatabase, arguments: &[&str]) -> (Option<i32>, String) {
    in_time::run(&database.url, arguments).await
}

async fn json(database: &TestDatabase, arguments: &[&str]) -> Value {
    let (_, output) = run(database, &[arguments, &["--json"]].concat()).await;
    serde_json::from_str(&output).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {output}"))
}

async fn execute(pool: &PgPool, sql: &str) {
    sqlx::query(AssertSqlSafe(sql.to_owned())).execute(pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Inserts minutes of the queue: `came` jobs, as many runs of half a second each, all after a wait of at most 0.1 s.
async fn insert_minutes(pool: &PgPool, minutes_ago: &str, came: u32) {
    execute(
        pool,
        &format!(
            "INSERT INTO queue_minutes
             SELECT '{QUEUE}', date_trunc('minute', now()) - ago * interval '1 minute', 'w', {came}, {came}, {came}, 0, 0, 0, 0, 0, 0,
                    {came} * 500000, ARRAY[0, 0, 0, 0, {came}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], ARRAY[0, 0, 0, 0, 0, 0, {came}, 0, 0, 0, 0, 0, 0, 0, 0]
             FROM unnest(ARRAY[{minutes_ago}]) AS ago"
        ),
    )
    .await;
}

#[tokio::test]
async fn the_number_of_workers_follows_arrivals_backlog_and_objective() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let (status, text) = run(&database, &["scale"]).await;
    assert!(status == Some(0) && text.starts_with("0 workers needed, 0 live"), "{text}");

    // 40 jobs a second of half a second each: 20 at once. A worker of 10 slots is added by hand, so that it does not run.
    insert_minutes(&pool, "1, 2, 3, 4, 5, 6, 7, 8, 9, 10", 2400).await;
    execute(
        &pool,
        r#"INSERT INTO apalis.workers (id, worker_type, storage_name, layers, lease, last_seen, started_at, status)
           VALUES ('w', 'millrace', 'PostgreSQL', 'process_transaction', '1 hour', now(), now(),
                   '{"host": "h", "pid": 1, "version": "1", "listening": true, "draining": false,
                     "queues": {"process_transaction": {"slots": 10, "running": 0, "last_claim": null}}}')"#,
    )
    .await;
    let scale = json(&database, &["scale"]).await;
    let queue = scale["queues"].as_array().unwrap().iter().find(|queue| queue["queue"] == QUEUE).unwrap();
    // 25 slots for 80 % use: 3 workers. The minute that is not over makes the rate a little lower or higher.
    assert_eq!((&queue["workers_for_arrivals"], &scale["workers_needed"]), (&3.into(), &3.into()), "{scale}");
    assert_eq!((&scale["workers"], &queue["slots_per_worker"]), (&1.into(), &10.into()), "{scale}");
    let basis = queue["basis"].as_str().unwrap();
    assert!(basis.contains("× 0.500 s = ") && basis.ends_with("0 due, 10 slots a worker"), "{basis}");
    let (status, text) = run(&database, &["scale", "--queue", QUEUE]).await;
    assert!(status == Some(1) && text.starts_with("3 workers needed, 1 live"), "more are needed: {text}");

    execute(
        &pool,
        "INSERT INTO apalis.jobs (id, job_type, job, run_at)
         SELECT '01' || lpad(n::text, 24, '0'), 'process_transaction', '{}', now() FROM generate_series(1, 6000) AS n",
    )
    .await;
    let needed = async |arguments: &[&str]| {
        let scale = json(&database, &[&["scale"], arguments].concat()).await;
        scale["workers_needed"].as_u64().unwrap()
    };
    let (in_ten_minutes, in_one) = (needed(&[]).await, needed(&["--drain-in", "1m"]).await);
    assert!((3..=5).contains(&in_ten_minutes), "10 more a second are 6 slots: {in_ten_minutes}");
    assert!((8..=10).contains(&in_one), "100 more a second are 62 slots: {in_one}");
    run(&database, &["queues", "pause", QUEUE, "--reason", "the processor is down"]).await;
    assert_eq!(needed(&[]).await, 0, "a paused queue needs no worker");
    for wrong in [["--objective", "soon"], ["--drain-in", "0s"]] {
        assert_eq!(run(&database, &[&["scale"], &wrong[..]].concat()).await.0, Some(2), "{wrong:?}");
    }
    assert_eq!(run(&database, &["scale", "--queue", "unknown"]).await.0, Some(1));
}

#[tokio::test]
async fn an_idle_night_counts_in_the_rates_of_a_burst() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    insert_minutes(&pool, "0, 600", 900).await;
    let waiting =
        "INSERT INTO apalis.jobs (id, job_type, job, run_at) VALUES ('01', 'process_transaction', '{}', now())";
    execute(&pool, waiting).await;
    let overview = json(&database, &["status"]).await;
    // 900 jobs in the whole minutes of the last 15.
    let rate = overview["queues"][0]["in_per_second_15_min"].as_f64().unwrap();
    assert!((0.9..1.2).contains(&rate), "{overview}");
    let (_, text) = run(&database, &["scale"]).await;
    assert!(text.starts_with("1 worker needed, 0 live"), "{text}");
}

#[tokio::test]
async fn the_past_depth_stays_as_it_was_when_commands_cancel_and_replay() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    insert_minutes(&pool, "10", 5).await;
    execute(&pool, "UPDATE queue_minutes SET started = 0, done = 0, run_us = 0, waits = '{}', runs = '{}'").await;
    execute(
        &pool,
        "INSERT INTO apalis.jobs (id, job_type, job, run_at)
         SELECT '01' || lpad(n::text, 24, '0'), 'process_transaction', '{}', now() + interval '1 day' FROM generate_series(1, 5) AS n",
    )
    .await;
    // Five minutes ago, and now.
    let depths = async || {
        let trends = json(&database, &["trends", QUEUE]).await;
        [54, 59].map(|index: usize| trends["points"][index]["depth"].as_i64().unwrap())
    };
    assert_eq!(depths().await, [5, 5]);
    let cancel = ["jobs", "cancel", "--queue", QUEUE, "--limit", "3", "--reason", "they are not needed"];
    assert_eq!(run(&database, &cancel).await.0, Some(0));
    assert_eq!(depths().await, [5, 2]);
    let replay = ["jobs", "replay", "01000000000000000000000001", "--reason", "it is needed"];
    assert_eq!(run(&database, &replay).await.0, Some(0));
    assert_eq!(depths().await, [5, 3]);
}

#[tokio::test]
async fn trends_have_points_depth_and_marks() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    assert_eq!(run(&database, &["trends", QUEUE]).await.0, Some(1), "it is unknown");
    // Two hours ago 100 jobs came in without a run. 30 of them ended ten minutes ago.
    insert_minutes(&pool, "10", 30).await;
    execute(&pool, "UPDATE queue_minutes SET enqueued = 0").await;
    insert_minutes(&pool, "120", 100).await;
    let no_runs =
        "UPDATE queue_minutes SET started = 0, done = 0, run_us = 0, waits = '{}', runs = '{}' WHERE enqueued = 100";
    execute(&pool, no_runs).await;
    execute(
        &pool,
        "INSERT INTO apalis.jobs (id, job_type, job, run_at)
         SELECT '01' || lpad(n::text, 24, '0'), 'process_transaction', '{}', now() + interval '1 day' FROM generate_series(1, 70) AS n",
    )
    .await;
    for (window, step, count) in [("1h", 60, 60), ("24h", 600, 144), ("14d", 7200, 168)] {
        let trends = json(&database, &["trends", QUEUE, "--window", window]).await;
        let points = trends["points"].as_array().unwrap();
        assert_eq!((trends["step_seconds"].as_u64(), points.len()), (Some(step), count), "{window}");
        let sum = |field: &str| points.iter().map(|point| point[field].as_i64().unwrap()).sum::<i64>();
        assert_eq!((sum("came"), sum("started")), (if window == "1h" { 0 } else { 100 }, 30), "{window}");
        let depth = |index: usize| points[index]["depth"].as_i64().unwrap();
        assert_eq!((depth(count - 1), depth(0)), (70, if window == "1h" { 100 } else { 0 }), "{window}: {points:?}");
        let waits: Vec<&Value> =
            points.iter().map(|point| &point["wait_p99_seconds"]).filter(|wait| !wait.is_null()).collect();
        assert_eq!(waits, [&Value::from(0.1)], "{window}");
    }
    run(&database, &["queues", "pause", QUEUE, "--reason", "the processor is down"]).await;
    run(&database, &["queues", "resume", QUEUE, "--reason", "it is back"]).await;
    let marks = async || json(&database, &["trends", QUEUE]).await["marks"].clone();
    let (mut worker, mut started) = (start_worker(&database.url, &[]).await, Instant::now());
    // A worker has half a second to record its release, and tries it once. On a busy machine the next one may do it.
    eventually("the release is recorded", LONG, async || {
        let is_recorded = marks().await.as_array().is_some_and(|marks| marks.len() == 3);
        if !is_recorded && started.elapsed() > Duration::from_secs(10) {
            (worker, started) = (start_worker(&database.url, &[]).await, Instant::now());
        }
        is_recorded
    })
    .await;
    drop(worker);
    let workers =
        async || -> i64 { sqlx::query_scalar("SELECT count(*) FROM apalis.workers").fetch_one(&pool).await.unwrap() };
    let before = workers().await;
    let again = start_worker(&database.url, &[]).await;
    eventually("it has a lease", SOON, async || workers().await > before).await;
    drop(again);
    let dead = "INSERT INTO apalis.jobs (id, job_type, job, status, attempts, done_at, errors)
                VALUES ('01DEAD', 'process_transaction', '{}', 'Killed', 1, now(), '[]')";
    execute(&pool, dead).await;
    let replay = ["dead", "replay", "--queue", QUEUE, "--reason", "the processor is back"];
    assert_eq!(run(&database, &replay).await.0, Some(0));
    let marks = marks().await;
    let kinds: Vec<&str> = marks.as_array().unwrap().iter().map(|mark| mark["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["pause", "resume", "release", "replay"], "the same release is recorded once: {marks}");
    assert_eq!(marks[0]["text"], "paused by ada: the processor is down");
    assert_eq!(marks[3]["text"], "ada replays 1 dead letters: the processor is back");
    let (status, text) = run(&database, &["trends", QUEUE, "--window", "24h"]).await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(status, Some(0), "{text}");
    assert!(lines[2].starts_with("CAME") && lines[2].contains('█') && lines[2].ends_with("at most 100"), "{text}");
    assert!(lines[6].starts_with("WAIT P99") && lines[6].ends_with("at most 100 ms"), "{text}");
    assert!(text.contains("paused by ada: the processor is down") && text.contains("  release "), "{text}");
}
