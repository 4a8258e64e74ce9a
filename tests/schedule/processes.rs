//! Tests of schedules in real processes: killed workers, concurrent admin requests and the operator's commands.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};

use super::SOON;
use crate::harness::{
    database, eventually,
    http::send,
    process::{Api, Process, http_client, start_worker},
};

const ADMIN: &str = "the admin key of the tests";
/// An address without a listener: no test may call a real provider.
const NOWHERE: &str = "http://127.0.0.1:9";
const PROVIDERS: [(&str, &str); 4] =
    [("COINGECKO_URL", NOWHERE), ("KRAKEN_URL", NOWHERE), ("COINBASE_URL", NOWHERE), ("BINANCE_URL", NOWHERE)];
/// Three assets from four providers.
const FETCHES: usize = 12;

/// The variables of a process without real providers.
fn with_providers<'a>(variables: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&PROVIDERS[..], variables].concat()
}

async fn count(pool: &PgPool, query: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {query}"))).fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn a_days_fetch_exists_once_for_all_schedulers_and_admins() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let api = Api::start(&database.url, &with_providers(&[("ADMIN_API_KEY", ADMIN)])).await;
    let days = "SELECT count(DISTINCT day) FROM price_fetches";
    let often = with_providers(&[("CRYPTO_FETCH_CRON", "*/2 * * * * *")]);
    let starting = join_all((0..2).map(|_| start_worker(&database.url, &often)));
    let client = http_client();
    let requesting = join_all(
        (0..5).map(|_| send(client.post(format!("{}/admin/prices/fetch", api.url)).header("x-api-key", ADMIN))),
    );
    let (workers, responses) = tokio::join!(starting, requesting);
    let fires = "schedule_fires WHERE kind = 'on_time'";
    eventually("the workers have fired", SOON, async || count(&pool, fires).await >= 3).await;
    drop(workers);

    let days: i64 = sqlx::query_scalar(days).fetch_one(&pool).await.unwrap();
    let all = days * FETCHES as i64;
    assert_eq!(count(&pool, "price_fetches").await, all, "each fetch of a day exists once");
    assert_eq!(count(&pool, "apalis.jobs WHERE job_type = 'fetch_prices'").await, all, "each fetch has one job");
    let mut enqueued = 0;
    for response in &responses {
        assert_eq!(response.status, 202, "{response:?}");
        let body = response.json();
        assert!(body["day"].as_str().is_some_and(|day| day.len() == 10 && day.starts_with("20")), "{body}");
        assert_eq!(body["enqueued"].as_u64().unwrap() + body["already"].as_u64().unwrap(), FETCHES as u64, "{body}");
        enqueued += body["enqueued"].as_i64().unwrap();
    }
    assert!(enqueued <= all, "{responses:?}");
    let fired: i64 = sqlx::query_scalar("SELECT sum(jobs) FROM schedule_fires").fetch_one(&pool).await.unwrap();
    assert_eq!(enqueued + fired, all);
}

#[tokio::test]
async fn only_an_admin_may_request_a_fetch_at_a_limited_rate() {
    let database = database::fresh().await;
    let api = Api::start(&database.url, &with_providers(&[("ADMIN_API_KEY", ADMIN), ("API_KEY", "another")])).await;
    let client = http_client();
    let post = || client.post(format!("{}/admin/prices/fetch", api.url));
    send(post()).await.assert_problem(403, "no key");
    send(post().header("x-api-key", "another")).await.assert_problem(403, "the private key");
    send(post().header("x-api-key", "guess")).await.assert_problem(403, "a wrong key");
    send(post().bearer_auth("x.y.z")).await.assert_problem(401, "a bad token");
    let admin = || post().header("x-api-key", ADMIN);
    assert_eq!(send(admin().body("{}")).await.json()["enqueued"], FETCHES);
    let again = send(admin()).await.json();
    assert_eq!((&again["enqueued"], &again["already"]), (&Value::from(0), &Value::from(FETCHES)));
    let recorded = "operator_actions WHERE actor = 'admin key' AND via = 'http' AND action = 'fetch'
                    AND target = 'daily_prices' AND reason = 'a fetch at once'";
    assert_eq!(count(&database.pool().await, recorded).await, 2, "each granted request, and no refused one");
    let responses = join_all((0..70).map(|_| send(admin()))).await;
    let limited = responses.iter().find(|response| response.status == 429).expect("a limit");
    limited.assert_problem(429, "too often");
    assert!(limited.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds >= 1), "{limited:?}");
}

#[tokio::test]
async fn fires_missed_by_a_killed_worker_are_made_up_and_a_stop_is_quick() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let often = with_providers(&[("CRYPTO_FETCH_CRON", "0 * * * * *"), ("CRYPTO_FETCH_CATCH_UP", "latest")]);
    let killed = start_worker(&database.url, &often).await;
    eventually("the schedule is registered", SOON, async || count(&pool, "schedules").await == 1).await;
    drop(killed);
    // The first worker may have fired, if a minute began meanwhile.
    for table in ["price_fetches", "schedule_fires", "apalis.jobs"] {
        sqlx::query(AssertSqlSafe(format!("DELETE FROM {table}"))).execute(&pool).await.unwrap();
    }
    let earlier = "UPDATE schedules SET since = since - interval '3 hours'";
    sqlx::query(earlier).execute(&pool).await.unwrap();
    let variables = [&often[..], &[("WORKER_HEALTH_PORT", "0")]].concat();
    let mut worker = start_worker(&database.url, &variables).await;
    // Only the last minute of the three hours fires. It counts as on time if it is less than 90 s ago.
    let fired = "schedule_fires WHERE jobs > 0 AND passed_over >= 170 AND fire_time > now() - interval '3 minutes'";
    eventually("the missed fire is made up", SOON, async || count(&pool, fired).await == 1).await;
    let fetches = format!("price_fetches WHERE day = (SELECT (fire_time AT TIME ZONE 'UTC')::date FROM {fired})");
    assert_eq!(count(&pool, &fetches).await, FETCHES as i64);
    worker.wait_for_line("a schedule missed fires").await;

    let line: Value = serde_json::from_str(&worker.wait_for_line("health and metrics").await).unwrap();
    let url = format!("http://{}/metrics", line["address"].as_str().unwrap());
    // Just after midnight the first minute of the new day fires as well. The lag is measured just after the log line.
    let mut metrics = String::new();
    eventually("each enqueued job is counted, and the lag is measured", SOON, async || {
        let jobs = count(&pool, "apalis.jobs WHERE job_type = 'fetch_prices'").await;
        let enqueued = format!("millrace_jobs_enqueued_total{{queue=\"fetch_prices\"}} {jobs}\n");
        metrics = send(http_client().get(&url)).await.text;
        metrics.contains(&enqueued) && metrics.contains("millrace_cron_lag_seconds{schedule=\"daily_prices\"}")
    })
    .await;
    for series in [
        "millrace_prices_stored_total{provider=\"kraken\"} 0",
        "millrace_daily_price_fetches_total{provider=\"binance\",outcome=\"done\"} 0",
    ] {
        assert!(metrics.contains(series), "{series}: {metrics}");
    }
    assert!(!metrics.contains("\nmillrace_prices_last_success_timestamp_seconds"), "no fetch has finished: {metrics}");
    let begun = Instant::now();
    worker.signal(Signal::SIGTERM);
    assert!(worker.wait_for_exit(SOON).await.success());
    assert!(begun.elapsed() < Duration::from_secs(28), "{:?}", begun.elapsed());
}

/// Runs a command. Returns whether it succeeded, and its output.
async fn run(database: &str, arguments: &[&str], variables: &[(&str, &str)]) -> (bool, String) {
    let mut process = Process::start(arguments, &[&[("DATABASE_URL", database)], variables].concat());
    let succeeded = process.wait_for_exit(SOON).await.success();
    (succeeded, process.log())
}

#[tokio::test]
async fn an_operator_lists_schedules_and_fires_one() {
    let database = database::fresh().await;
    let run = async |arguments: &[&str]| run(&database.url, arguments, &[]).await;
    let (good, listed) = run(&["schedules"]).await;
    assert!(good && listed.contains("daily_prices  0 15 0 * * *  latest"), "{listed}");
    let fire = ["schedules", "fire", "daily_prices", "--json"];
    let (good, refused) = run(&fire).await;
    assert!(!good && refused.contains("--reason"), "{refused}");
    let (good, fired) = run(&[&fire[..], &["--reason", "yesterday's prices are wrong"]].concat()).await;
    let fired: Value = serde_json::from_str(&fired).unwrap_or_else(|_| panic!("{good}: {fired}"));
    assert_eq!((&fired[0]["kind"], &fired[0]["jobs"]), (&Value::from("by_hand"), &Value::from(FETCHES)));
    let (good, fires) = run(&["schedules", "fires"]).await;
    assert!(good && fires.contains("by hand"), "{fires}");
    let (_, listed) = run(&["schedules", "--json"]).await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert!(listed[0]["next"].as_str().is_some_and(|next| next.ends_with("T00:15:00Z")), "{listed}");
    let skip = ["schedules", "skip-next", "daily_prices"];
    let (good, refused) = run(&skip).await;
    assert!(!good && refused.contains("--reason"), "{refused}");
    let skip = [&skip[..], &["--reason", "the provider is down"]].concat();
    let (good, skipped) = run(&skip).await;
    assert!(good && skipped.contains("skipped") && skipped.contains("no jobs"), "{skipped}");
    let (good, refused) = run(&skip).await;
    assert!(!good && refused.contains("the next fire of \"daily_prices\", at "), "{refused}");
    let (good, shown) = run(&["schedules"]).await;
    assert!(good && shown.contains("  skipped by ") && shown.contains("waiting"), "{shown}");
    for command in [&["fire", "nothing", "--reason", "r"][..], &["fires", "nothing"]] {
        let (good, problem) = run(&[&["schedules"], command].concat()).await;
        let expected = "there is no schedule \"nothing\"; the schedules are: daily_prices";
        assert!(!good && problem.contains(expected), "{problem}");
    }
}

#[tokio::test]
async fn wrong_settings_prevent_the_start() {
    let wrong = [("CRYPTO_FETCH_CRON", "15 0 * * *"), ("CRYPTO_FETCH_CATCH_UP", "sometimes")];
    let (good, problems) = run("postgres:///x", &["worker"], &wrong).await;
    assert!(!good);
    for line in [
        "CRYPTO_FETCH_CRON: must be a cron expression of six fields, seconds first and in UTC, such as 0 15 0 * * *",
        "CRYPTO_FETCH_CATCH_UP: must be skip, latest or all, such as latest",
    ] {
        assert!(problems.contains(line), "{problems}");
    }
}
