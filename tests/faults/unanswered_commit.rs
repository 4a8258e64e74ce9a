//! A commit happens and its session ends before it is answered: the one outcome that nobody can know.
//!
//! Made at will, not by luck: a commit that waits for a standby which never comes is written, but not yet answered nor
//! visible; terminating its session then makes it visible and leaves its sender with an error.

use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::PgPool;

use super::{
    QUICK, SOON,
    clients::{History, send, send_all, webhook},
    server,
    settlements::{agree, all_settled},
};
use crate::harness::{
    eventually,
    process::{Api, http_client, start_worker},
    scratch::Scratch,
};

/// Long, so that no rescue helps: whoever lost an answer must help itself.
const LEASE: (&str, &str) = ("QUEUE_LEASE_SECONDS", "300");

#[tokio::test]
async fn a_claim_whose_answer_is_lost_is_given_back_by_the_worker_itself() {
    const JOBS: usize = 20;
    let scratch = Scratch::new();
    let (cluster, url) = server::start(&scratch).await;
    let pool = server::prepare(&cluster, &url).await;
    // Due when the trap is set.
    let variables = [&QUICK[..], &[LEASE, ("PROCESSING_DELAY_SECONDS", "2")]].concat();
    let mut api = Api::start(&url, &variables).await;
    let mut worker = start_worker(&url, &variables).await;
    let ids: Vec<String> = (0..JOBS).map(|number| format!("txn_{number}")).collect();
    let history = send_all(&http_client(), &api.url, &ids).await;

    answer_no_commit(&pool).await;
    lose_the_answer(&pool, "millrace queue", "UPDATE apalis.jobs%'Running'%").await;
    let (lost, begun) = (claimed(&pool).await, Instant::now());
    answer_commits(&pool).await;
    all_settled(&pool, Duration::from_secs(15)).await;
    let took = begun.elapsed();

    let settled = agree(&pool, &history).await;
    assert!(lost > 0, "no claim was lost");
    assert_eq!(settled.claimed_again, lost);
    assert_eq!((settled.failures, settled.crashes), (0, 0));
    assert!(api.process.is_running() && worker.is_running());
    worker.wait_for_line("gave back jobs").await;
    println!("a claim of {lost} jobs answered to nobody: all settled {took:.2?} later; {settled:?}");
}

#[tokio::test]
async fn a_webhook_whose_commit_is_not_answered_is_not_acknowledged_and_recorded_once() {
    let scratch = Scratch::new();
    let (cluster, url) = server::start(&scratch).await;
    let pool = server::prepare(&cluster, &url).await;
    let api = Api::start(&url, &QUICK).await;
    let http = http_client();

    answer_no_commit(&pool).await;
    let post = tokio::spawn({
        let (http, url) = (http.clone(), api.url.clone());
        async move { send(&http, &url, &webhook("txn_1")).await }
    });
    lose_the_answer(&pool, "millrace api", "COMMIT").await;
    let answer = post.await.unwrap().expect("an answer");
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));

    // It is there all the same, so the repetition is one.
    answer_commits(&pool).await;
    let answer = send(&http, &api.url, &webhook("txn_1")).await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.headers().contains_key("idempotency-replayed")), (202, true));
    let mut history = History::default();
    history.acknowledge("txn_1");
    let _worker = start_worker(&url, &QUICK).await;
    all_settled(&pool, SOON).await;
    assert_eq!(agree(&pool, &history).await.transactions, 1);
}

#[tokio::test]
async fn a_settlement_and_a_result_whose_answers_are_lost_count_once() {
    for (role, statement) in [
        // The run does not know that it settled, comes back, and finds it settled.
        ("millrace worker", "UPDATE transactions%"),
        // The result is written again, and found to be there.
        ("millrace queue", "UPDATE apalis.jobs%'Done'%"),
    ] {
        let scratch = Scratch::new();
        let (cluster, url) = server::start(&scratch).await;
        let pool = server::prepare(&cluster, &url).await;
        let variables = [&QUICK[..], &[LEASE, ("PROCESSING_DELAY_SECONDS", "2")]].concat();
        let api = Api::start(&url, &variables).await;
        let mut worker = start_worker(&url, &variables).await;
        let history = send_all(&http_client(), &api.url, &["txn_1".into()]).await;

        answer_no_commit(&pool).await;
        eventually(statement, SOON, async || {
            answer_all_but(&pool, role, statement).await;
            !waiting(&pool, role, statement).await.is_empty()
        })
        .await;
        lose_the_answer(&pool, role, statement).await;
        answer_commits(&pool).await;
        all_settled(&pool, SOON).await;
        let settled = agree(&pool, &history).await;
        assert_eq!((settled.failures, settled.crashes), (0, 0), "{statement}");
        assert!(worker.is_running());
        assert!(!worker.log().contains("result dropped"), "our own first write was taken for somebody else's");
        let seen = http_client().get(format!("{}/v1/transactions/txn_1", api.url)).send().await.unwrap();
        assert_eq!(seen.json::<Value>().await.unwrap()["status"], "PROCESSED");
    }
}

async fn answer_no_commit(pool: &PgPool) {
    configure(pool, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "nobody").await;
}

async fn answer_commits(pool: &PgPool) {
    configure(pool, "ALTER SYSTEM RESET synchronous_standby_names", "").await;
}

async fn configure(pool: &PgPool, change: &'static str, expected: &str) {
    sqlx::raw_sql(change).execute(pool).await.expect("a setting");
    sqlx::query("SELECT pg_reload_conf()").execute(pool).await.expect("a reload");
    eventually("the setting holds", SOON, async || {
        let now: String =
            sqlx::query_scalar("SHOW synchronous_standby_names").fetch_one(pool).await.expect("a setting");
        now == expected
    })
    .await;
}

/// Waits until such a statement is committed and not answered, and ends its session.
async fn lose_the_answer(pool: &PgPool, role: &str, statement: &str) {
    eventually(statement, SOON, async || !waiting(pool, role, statement).await.is_empty()).await;
    for process in waiting(pool, role, statement).await {
        sqlx::query("SELECT pg_terminate_backend($1)").bind(process).execute(pool).await.expect("an end");
        eventually("its session has ended", SOON, async || {
            let left = sqlx::query("SELECT FROM pg_stat_activity WHERE pid = $1").bind(process);
            left.fetch_optional(pool).await.expect("an answer").is_none()
        })
        .await;
    }
}

async fn waiting(pool: &PgPool, role: &str, statement: &str) -> Vec<i32> {
    let waiting = "SELECT pid FROM pg_stat_activity
                   WHERE wait_event = 'SyncRep' AND application_name = $1 AND query LIKE $2";
    sqlx::query_scalar(waiting).bind(role).bind(statement).fetch_all(pool).await.expect("an answer")
}

/// Lets every other commit be answered: cancelling its wait does not cancel it.
async fn answer_all_but(pool: &PgPool, role: &str, statement: &str) {
    let others = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity
                  WHERE wait_event = 'SyncRep' AND NOT (application_name = $1 AND query LIKE $2)";
    sqlx::query(others).bind(role).bind(statement).execute(pool).await.expect("an answer");
}

async fn claimed(pool: &PgPool) -> i64 {
    let running = "SELECT count(*) FROM apalis.jobs WHERE status = 'Running'";
    sqlx::query_scalar(running).fetch_one(pool).await.expect("a count")
}
