//! A commit succeeds and its session ends before the response: the client cannot know the outcome.
//!
//! The test produces this reliably. A commit that waits for an absent standby is written, but neither confirmed nor
//! visible. Terminating its session makes it visible and gives the client an error.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{
    QUICK, SOON,
    clients::{History, post_webhook, post_webhooks, webhook},
    server,
    settlements::{assert_consistent, wait_until_settled},
};
use crate::harness::{
    eventually,
    process::{Api, http_client, start_worker},
    scratch::Scratch,
};

/// A long lease, so that no rescue helps: the process that lost a response must recover by itself.
const LEASE: (&str, &str) = ("QUEUE_LEASE_SECONDS", "300");
/// The jobs are not due before [`make_due`], however long it takes until commits are held.
const LATER: (&str, &str) = ("PROCESSING_DELAY_SECONDS", "3600");

#[tokio::test]
async fn a_worker_releases_a_claim_whose_response_is_lost() {
    const JOBS: usize = 20;
    let scratch = Scratch::new();
    let (cluster, url) = server::start(&scratch).await;
    let pool = server::prepare(&cluster, &url).await;
    let variables = [&QUICK[..], &[LEASE, LATER]].concat();
    let mut api = Api::start(&url, &variables).await;
    let mut worker = start_worker(&url, &variables).await;
    let ids: Vec<String> = (0..JOBS).map(|number| format!("txn_{number}")).collect();
    let history = post_webhooks(&http_client(), &api.url, &ids).await;

    hold_commits(&pool).await;
    make_due(&pool).await;
    lose_response(&pool, "millrace queue", "UPDATE apalis.jobs%'Running'%").await;
    let (lost, begun) = (count_claimed(&pool).await, Instant::now());
    release_commits(&pool).await;
    wait_until_settled(&pool, Duration::from_secs(15)).await;
    let took = begun.elapsed();

    let settled = assert_consistent(&pool, &history).await;
    assert!(lost > 0, "no claim was lost");
    assert_eq!(settled.claimed_again, lost);
    assert_eq!((settled.failures, settled.crashes), (0, 0));
    assert!(api.process.is_running() && worker.is_running());
    worker.wait_for_line("gave back jobs").await;
    println!("a claim of {lost} jobs without a response: all settled {took:.2?} later; {settled:?}");
}

/// The response is lost after the worker has begun to stop, so that it claims no more.
#[tokio::test]
async fn a_stopping_worker_releases_a_claim_whose_response_is_lost() {
    const JOBS: usize = 20;
    const CLAIM: &str = "UPDATE apalis.jobs%'Running'%";
    let scratch = Scratch::new();
    let (cluster, url) = server::start(&scratch).await;
    let pool = server::prepare(&cluster, &url).await;
    let variables = [&QUICK[..], &[LEASE, LATER]].concat();
    let api = Api::start(&url, &variables).await;
    let mut stopped = start_worker(&url, &variables).await;
    let ids: Vec<String> = (0..JOBS).map(|number| format!("txn_{number}")).collect();
    let history = post_webhooks(&http_client(), &api.url, &ids).await;

    hold_commits(&pool).await;
    make_due(&pool).await;
    eventually(CLAIM, SOON, async || !held_sessions(&pool, "millrace queue", CLAIM).await.is_empty()).await;
    stopped.signal(Signal::SIGTERM);
    stopped.wait_for_line("draining").await;
    lose_response(&pool, "millrace queue", CLAIM).await;
    let lost = count_claimed(&pool).await;
    release_commits(&pool).await;
    let begun = Instant::now();
    let status = stopped.wait_for_exit(SOON).await;
    let took = begun.elapsed();
    assert!(lost > 0, "no claim was lost");
    assert_eq!((status.code(), count_claimed(&pool).await), (Some(0), 0), "the stopped worker holds no job");

    let _next = start_worker(&url, &variables).await;
    wait_until_settled(&pool, SOON).await;
    let settled = assert_consistent(&pool, &history).await;
    assert_eq!((settled.claimed_again, settled.failures, settled.crashes), (lost, 0, 0));
    println!("a claim of {lost} jobs without a response at a stop: exit after {took:.2?}; {settled:?}");
}

#[tokio::test]
async fn a_webhook_whose_commit_response_is_lost_is_not_acknowledged_and_recorded_once() {
    let scratch = Scratch::new();
    let (cluster, url) = server::start(&scratch).await;
    let pool = server::prepare(&cluster, &url).await;
    let api = Api::start(&url, &QUICK).await;
    let http = http_client();

    hold_commits(&pool).await;
    let post = tokio::spawn({
        let (http, url) = (http.clone(), api.url.clone());
        async move { post_webhook(&http, &url, &webhook("txn_1")).await }
    });
    lose_response(&pool, "millrace api", "WITH first_half AS%").await;
    let response = post.await.unwrap().expect("a response");
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));

    // The webhook is recorded nevertheless, so that the second post is a replay.
    release_commits(&pool).await;
    let response = post_webhook(&http, &api.url, &webhook("txn_1")).await.expect("a response");
    assert_eq!((response.status().as_u16(), response.headers().contains_key("idempotency-replayed")), (202, true));
    let mut history = History::default();
    history.acknowledge("txn_1");
    let _worker = start_worker(&url, &QUICK).await;
    wait_until_settled(&pool, SOON).await;
    assert_eq!(assert_consistent(&pool, &history).await.transactions, 1);
}

#[tokio::test]
async fn a_rate_whose_commit_response_is_lost_is_unconfirmed_and_saved_once() {
    let scratch = Scratch::new();
    let (cluster, url) = server::start(&scratch).await;
    let pool = server::prepare(&cluster, &url).await;
    let api = Api::start(&url, &QUICK).await;
    assert_unconfirmed(&pool, &api).await;
    let again = submit_rate(&api.url).await;
    assert_eq!((again.status().as_u16(), again.headers().contains_key("idempotency-replayed")), (200, true));
    assert_eq!(count_rates(&pool).await, 1);
}

#[cfg(feature = "smart-contract")]
#[tokio::test]
async fn a_rate_for_a_chain_whose_commit_response_is_lost_is_unconfirmed_and_recorded_once() {
    let scratch = Scratch::new();
    let (cluster, url) = server::start(&scratch).await;
    let pool = server::prepare(&cluster, &url).await;
    // There is no node: a submission is recorded before a node is needed.
    let chain = [
        ("STORAGE_BACKEND", "smart_contract"),
        ("CHAIN_RPC_URL", "http://127.0.0.1:9"),
        ("CHAIN_PRIVATE_KEY", crate::harness::anvil::OWNER_KEY),
        ("CONTRACT_ADDRESS", "0x5FbDB2315678afecb367f032d93F642f64180aa3"),
    ];
    let api = Api::start(&url, &[&QUICK[..], &chain].concat()).await;
    assert_unconfirmed(&pool, &api).await;
    assert_eq!(count_rates(&pool).await, 1);
}

#[tokio::test]
async fn settlements_and_results_whose_responses_are_lost_count_once() {
    for (role, statement) in [
        // The run does not know that it settled the transaction. It runs again and finds it settled.
        ("millrace worker", "UPDATE transactions%"),
        // The worker writes the result again and finds it written.
        ("millrace queue", "UPDATE apalis.jobs%'Done'%"),
    ] {
        let scratch = Scratch::new();
        let (cluster, url) = server::start(&scratch).await;
        let pool = server::prepare(&cluster, &url).await;
        let variables = [&QUICK[..], &[LEASE, LATER]].concat();
        let api = Api::start(&url, &variables).await;
        let mut worker = start_worker(&url, &variables).await;
        let history = post_webhooks(&http_client(), &api.url, &["txn_1".into()]).await;

        hold_commits(&pool).await;
        make_due(&pool).await;
        eventually(statement, SOON, async || {
            release_other_commits(&pool, role, statement).await;
            !held_sessions(&pool, role, statement).await.is_empty()
        })
        .await;
        lose_response(&pool, role, statement).await;
        release_commits(&pool).await;
        wait_until_settled(&pool, SOON).await;
        let settled = assert_consistent(&pool, &history).await;
        assert_eq!((settled.failures, settled.crashes), (0, 0), "{statement}");
        assert!(worker.is_running());
        assert!(
            !worker.log().contains("result dropped"),
            "the worker mistook its own first write for another worker's"
        );
        let seen = http_client().get(format!("{}/v1/transactions/txn_1", api.url)).send().await.unwrap();
        assert_eq!(seen.json::<Value>().await.unwrap()["status"], "PROCESSED");
    }
}

/// Asserts that a submission whose commit has no response is not refused, but unconfirmed.
async fn assert_unconfirmed(pool: &PgPool, api: &Api) {
    hold_commits(pool).await;
    let submit = tokio::spawn({
        let url = api.url.clone();
        async move { submit_rate(&url).await }
    });
    lose_response(pool, "millrace api", "COMMIT").await;
    let response = submit.await.expect("a task");
    assert_eq!((response.status().as_u16(), response.headers().contains_key("retry-after")), (503, true));
    let problem: Value = response.json().await.expect("a problem");
    assert_eq!(problem["type"], "urn:millrace:problem:unconfirmed", "{problem}");
    release_commits(pool).await;
}

async fn submit_rate(api: &str) -> reqwest::Response {
    let request = http_client().post(format!("{api}/asset")).header("api_key", "your-secret-api-key-here");
    let request = request.header("idempotency-key", "one").json(&json!([{"id": "id-1", "interest_rate": 5}]));
    request.send().await.expect("a response")
}

async fn count_rates(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM interest_rates").fetch_one(pool).await.expect("a count")
}

/// Holds every further commit: it is written, but not confirmed.
async fn hold_commits(pool: &PgPool) {
    const PROBE: &str = "SELECT pg_logical_emit_message(true, 'probe', '') IS NULL";
    const RELEASE: &str = "SELECT count(pg_cancel_backend(pid)) > 0 FROM pg_stat_activity
                           WHERE wait_event = 'SyncRep' AND query = $1";
    configure(pool, "ALTER SYSTEM SET synchronous_standby_names = 'absent'", "absent").await;
    // The checkpointer puts the setting into effect, maybe later than a session has read it.
    eventually("a commit is held", SOON, async || {
        let mut probe = std::pin::pin!(sqlx::query(PROBE).execute(pool));
        let released = async {
            while !sqlx::query_scalar::<_, bool>(RELEASE).bind(PROBE).fetch_one(pool).await.expect("a result") {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            committed = &mut probe => {
                committed.expect("a commit");
                false
            }
            () = released => {
                probe.await.expect("a commit");
                true
            }
        }
    })
    .await;
}

/// Makes all jobs due in a second. This commit waits for no standby.
async fn make_due(pool: &PgPool) {
    let mut transaction = pool.begin().await.expect("a transaction");
    for statement in [
        "SET LOCAL synchronous_commit = local",
        "UPDATE apalis.jobs SET run_at = clock_timestamp() + interval '1 second'",
    ] {
        sqlx::query(statement).execute(&mut *transaction).await.expect("a change");
    }
    transaction.commit().await.expect("a commit");
}

async fn release_commits(pool: &PgPool) {
    configure(pool, "ALTER SYSTEM RESET synchronous_standby_names", "").await;
}

async fn configure(pool: &PgPool, change: &'static str, expected: &str) {
    sqlx::raw_sql(change).execute(pool).await.expect("a setting");
    sqlx::query("SELECT pg_reload_conf()").execute(pool).await.expect("a reload");
    eventually("the setting is active", SOON, async || {
        let now: String =
            sqlx::query_scalar("SHOW synchronous_standby_names").fetch_one(pool).await.expect("a setting");
        now == expected
    })
    .await;
}

/// Waits until such a statement is committed without a response, and terminates its session.
async fn lose_response(pool: &PgPool, role: &str, statement: &str) {
    eventually(statement, SOON, async || !held_sessions(pool, role, statement).await.is_empty()).await;
    for process in held_sessions(pool, role, statement).await {
        sqlx::query("SELECT pg_terminate_backend($1)").bind(process).execute(pool).await.expect("a terminated session");
        eventually("the session has ended", SOON, async || {
            let left = sqlx::query("SELECT FROM pg_stat_activity WHERE pid = $1").bind(process);
            left.fetch_optional(pool).await.expect("a result").is_none()
        })
        .await;
    }
}

/// The sessions whose commit of such a statement is held.
async fn held_sessions(pool: &PgPool, role: &str, statement: &str) -> Vec<i32> {
    let waiting = "SELECT pid FROM pg_stat_activity
                   WHERE wait_event = 'SyncRep' AND application_name = $1 AND query LIKE $2";
    sqlx::query_scalar(waiting).bind(role).bind(statement).fetch_all(pool).await.expect("a result")
}

/// Releases every other commit. Cancelling the wait of a commit does not cancel the commit.
async fn release_other_commits(pool: &PgPool, role: &str, statement: &str) {
    let others = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity
                  WHERE wait_event = 'SyncRep' AND NOT (application_name = $1 AND query LIKE $2)";
    sqlx::query(others).bind(role).bind(statement).execute(pool).await.expect("a result");
}

async fn count_claimed(pool: &PgPool) -> i64 {
    let running = "SELECT count(*) FROM apalis.jobs WHERE status = 'Running'";
    sqlx::query_scalar(running).fetch_one(pool).await.expect("a count")
}
