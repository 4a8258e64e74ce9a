//! Two hundred concurrent posts of one id over two APIs: one row, one job, one settlement, and correct responses.

use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::task::JoinSet;

use super::{
    QUICK, SOON,
    clients::{History, post_webhook, webhook},
    settlements::{Settlements, assert_consistent, log_changes, wait_until_settled},
};
use crate::harness::{
    database::{self, TestDatabase},
    process::{Api, http_client, start_worker},
};

const POSTS: usize = 200;

/// The outcome of one post, by its response headers.
#[derive(Debug, PartialEq, Eq)]
enum PostOutcome {
    New,
    Replayed,
    Conflict(String),
}

#[tokio::test]
async fn the_same_payload_is_new_once_and_replayed_otherwise() {
    let (database, pool, apis) = start().await;
    let outcomes = post_all(&apis, |_| webhook("txn_1")).await;
    let new = outcomes.iter().filter(|(_, outcome)| *outcome == PostOutcome::New).count();
    let replayed = outcomes.iter().filter(|(_, outcome)| *outcome == PostOutcome::Replayed).count();
    assert_eq!((new, replayed), (1, POSTS - 1));
    let settled = settle(&database, &pool).await;
    assert_eq!(settled.claimed_again, 0);
    println!("{POSTS} posts of one id over two APIs: 1 new, {replayed} replayed; {settled:?}");
}

#[tokio::test]
async fn of_two_payloads_the_first_stands_and_the_conflicts_are_reported_and_counted() {
    let (database, pool, apis) = start().await;
    let payload = |number: usize| {
        let mut webhook = webhook("txn_1");
        if number % 4 >= 2 {
            webhook["amount"] = json!(2000);
            webhook["currency"] = json!("EUR");
        }
        webhook
    };
    let outcomes = post_all(&apis, payload).await;
    let new: Vec<usize> =
        outcomes.iter().filter(|(_, outcome)| *outcome == PostOutcome::New).map(|(number, _)| *number).collect();
    assert_eq!(new.len(), 1);
    let first = payload(new[0]);
    for (number, outcome) in &outcomes {
        let same = payload(*number) == first;
        match outcome {
            PostOutcome::New | PostOutcome::Replayed => {
                assert!(same, "{number}: the response claims that its payload stands")
            }
            PostOutcome::Conflict(fields) => {
                assert!(!same, "{number}: the response reports a conflict of equal payloads");
                assert_eq!(fields, "amount, currency");
            }
        }
    }
    let stored = http_client().get(format!("{}/v1/transactions/txn_1", apis[1].url)).send().await.unwrap();
    let stored: Value = stored.json().await.unwrap();
    assert_eq!((&stored["amount"], &stored["currency"]), (&first["amount"], &first["currency"]));
    let recorded =
        "SELECT sum(times)::bigint FROM webhook_conflicts HAVING count(*) = 1 AND min(fields) = '{amount,currency}'";
    let recorded: i64 = sqlx::query_scalar(recorded).fetch_one(&pool).await.expect("one row for one payload");
    assert_eq!(recorded, 100);
    assert_eq!(conflicts_total(&apis[0]).await + conflicts_total(&apis[1]).await, 100);
    let settled = settle(&database, &pool).await;
    println!(
        "100 + 100 posts of one id with two payloads: the first stands, 100 conflicts reported and counted; {settled:?}"
    );
}

async fn start() -> (TestDatabase, PgPool, [Api; 2]) {
    let database = database::fresh().await;
    let pool = database.pool().await;
    log_changes(&pool).await;
    let apis = [Api::start(&database.url, &QUICK).await, Api::start(&database.url, &QUICK).await];
    (database, pool, apis)
}

/// Posts [`POSTS`] webhooks concurrently, half of them to each API.
async fn post_all(apis: &[Api; 2], payload: impl Fn(usize) -> Value) -> Vec<(usize, PostOutcome)> {
    let http = http_client();
    let mut posts = JoinSet::new();
    for number in 0..POSTS {
        let (http, url, webhook) = (http.clone(), apis[number % 2].url.clone(), payload(number));
        posts.spawn(async move { (number, post_webhook(&http, &url, &webhook).await.expect("a response")) });
    }
    let mut outcomes = Vec::new();
    for (number, response) in posts.join_all().await {
        assert_eq!(response.status(), 202);
        let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap_or_default().to_owned());
        outcomes.push(match (header("idempotency-replayed"), header("idempotency-conflict")) {
            (None, None) => (number, PostOutcome::New),
            (Some(_), None) => (number, PostOutcome::Replayed),
            (_, Some(fields)) => (number, PostOutcome::Conflict(fields)),
        });
    }
    outcomes
}

/// Starts a worker and waits until the transaction is settled.
async fn settle(database: &TestDatabase, pool: &PgPool) -> Settlements {
    let _worker = start_worker(&database.url, &QUICK).await;
    wait_until_settled(pool, SOON).await;
    let mut history = History::default();
    history.acknowledge("txn_1");
    let settled = assert_consistent(pool, &history).await;
    assert_eq!(settled.transactions, 1);
    settled
}

/// `millrace_webhook_conflicts_total` of an API.
async fn conflicts_total(api: &Api) -> u64 {
    let metrics = http_client().get(format!("{}/metrics", api.url)).send().await.unwrap().text().await.unwrap();
    let line = metrics.lines().find(|line| line.starts_with("millrace_webhook_conflicts_total")).expect("the counter");
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a count")
}
