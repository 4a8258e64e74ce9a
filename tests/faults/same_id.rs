//! One id, two hundred times at once, over two APIs: one row, one job, one settlement, and everybody is told the truth.

use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::task::JoinSet;

use super::{
    QUICK, SOON,
    clients::{History, send, webhook},
    settlements::{Settled, agree, all_settled, log_changes},
};
use crate::harness::{
    database::{self, TestDatabase},
    process::{Api, http_client, start_worker},
};

const POSTS: usize = 200;

/// What one of them was answered.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    New,
    Replayed,
    Conflict(String),
}

#[tokio::test]
async fn the_same_payload_is_new_once_and_replayed_otherwise() {
    let (database, pool, apis) = start().await;
    let answers = post_all(&apis, |_| webhook("txn_1")).await;
    let new = answers.iter().filter(|(_, answer)| *answer == Answer::New).count();
    let replayed = answers.iter().filter(|(_, answer)| *answer == Answer::Replayed).count();
    assert_eq!((new, replayed), (1, POSTS - 1));
    let settled = settle(&database, &pool).await;
    assert_eq!(settled.claimed_again, 0);
    println!("{POSTS} posts of one id over two APIs: 1 new, {replayed} replayed; {settled:?}");
}

#[tokio::test]
async fn of_two_payloads_the_first_stands_and_the_other_is_told_and_counted() {
    let (database, pool, apis) = start().await;
    let payload = |number: usize| {
        let mut webhook = webhook("txn_1");
        if number % 4 >= 2 {
            webhook["amount"] = json!(2000);
            webhook["currency"] = json!("EUR");
        }
        webhook
    };
    let answers = post_all(&apis, payload).await;
    let new: Vec<usize> =
        answers.iter().filter(|(_, answer)| *answer == Answer::New).map(|(number, _)| *number).collect();
    assert_eq!(new.len(), 1);
    let first = payload(new[0]);
    for (number, answer) in &answers {
        let same = payload(*number) == first;
        match answer {
            Answer::New | Answer::Replayed => assert!(same, "{number} was told that its payload stands"),
            Answer::Conflict(fields) => {
                assert!(!same, "{number} contradicts nothing");
                assert_eq!(fields, "amount, currency");
            }
        }
    }
    let stored = http_client().get(format!("{}/v1/transactions/txn_1", apis[1].url)).send().await.unwrap();
    let stored: Value = stored.json().await.unwrap();
    assert_eq!((&stored["amount"], &stored["currency"]), (&first["amount"], &first["currency"]));
    let kept =
        "SELECT sum(times)::bigint FROM webhook_conflicts HAVING count(*) = 1 AND min(fields) = '{amount,currency}'";
    let kept: i64 = sqlx::query_scalar(kept).fetch_one(&pool).await.expect("one row for one payload");
    assert_eq!(kept, 100);
    assert_eq!(counted(&apis[0]).await + counted(&apis[1]).await, 100);
    let settled = settle(&database, &pool).await;
    println!(
        "100 + 100 posts of one id with two payloads: the first stands, 100 conflicts told and counted; {settled:?}"
    );
}

async fn start() -> (TestDatabase, PgPool, [Api; 2]) {
    let database = database::fresh().await;
    let pool = database.pool().await;
    log_changes(&pool).await;
    let apis = [Api::start(&database.url, &QUICK).await, Api::start(&database.url, &QUICK).await];
    (database, pool, apis)
}

/// All at once, half of them to each API.
async fn post_all(apis: &[Api; 2], payload: impl Fn(usize) -> Value) -> Vec<(usize, Answer)> {
    let http = http_client();
    let mut posts = JoinSet::new();
    for number in 0..POSTS {
        let (http, url, webhook) = (http.clone(), apis[number % 2].url.clone(), payload(number));
        posts.spawn(async move { (number, send(&http, &url, &webhook).await.expect("an answer")) });
    }
    let mut answers = Vec::new();
    for (number, answer) in posts.join_all().await {
        assert_eq!(answer.status(), 202);
        let header = |name| answer.headers().get(name).map(|value| value.to_str().unwrap_or_default().to_owned());
        answers.push(match (header("idempotency-replayed"), header("idempotency-conflict")) {
            (None, None) => (number, Answer::New),
            (Some(_), None) => (number, Answer::Replayed),
            (_, Some(fields)) => (number, Answer::Conflict(fields)),
        });
    }
    answers
}

/// Lets the one transaction be processed.
async fn settle(database: &TestDatabase, pool: &PgPool) -> Settled {
    let _worker = start_worker(&database.url, &QUICK).await;
    all_settled(pool, SOON).await;
    let mut history = History::default();
    history.acknowledge("txn_1");
    let settled = agree(pool, &history).await;
    assert_eq!(settled.transactions, 1);
    settled
}

/// `millrace_webhook_conflicts_total` of an API.
async fn counted(api: &Api) -> u64 {
    let metrics = http_client().get(format!("{}/metrics", api.url)).send().await.unwrap().text().await.unwrap();
    let line = metrics.lines().find(|line| line.starts_with("millrace_webhook_conflicts_total")).expect("the counter");
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a count")
}
