//! Clients that post one webhook after the other, each until it is acknowledged, and write down what they were told.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{SOON, random};
use crate::harness::process::http_client;

/// Between two requests of one client.
const PACE: Duration = Duration::from_millis(20);

/// A running crowd of clients.
pub struct Clients {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    http: Client,
    urls: Mutex<Vec<String>>,
    history: Mutex<History>,
    enough: AtomicBool,
}

/// What the clients were told.
#[derive(Debug, Default, Clone)]
pub struct History {
    /// Answered by 202; with what was last seen of it: status and `processed_at`.
    pub acknowledged: HashMap<String, (String, Value)>,
    /// Acknowledged as a repetition: an earlier try was recorded and its answer lost.
    pub replayed: usize,
    /// Answers 503 with `Retry-After`.
    pub unavailable: usize,
    /// Requests without any answer.
    pub unanswered: usize,
    /// Whatever must not happen.
    pub wrong: Vec<String>,
}

/// The webhook with this id.
pub fn webhook(transaction_id: &str) -> Value {
    json!({
        "transaction_id": transaction_id, "source_account": "acc_user_1", "destination_account": "acc_merchant_1",
        "amount": 1500, "currency": "INR",
    })
}

/// Posts one webhook.
pub async fn send(http: &Client, api: &str, webhook: &Value) -> reqwest::Result<Response> {
    http.post(format!("{api}/v1/webhooks/transactions")).json(webhook).send().await
}

/// Posts one webhook so many times at once; the statuses of the answers.
pub async fn answers_to_one_id(api: &str, posts: usize) -> Vec<u16> {
    let http = http_client();
    let posts = (0..posts).map(|_| {
        let (http, api, webhook) = (http.clone(), api.to_owned(), webhook("txn_1"));
        async move { send(&http, &api, &webhook).await.expect("an answer").status().as_u16() }
    });
    posts.collect::<JoinSet<_>>().join_all().await
}

/// Posts webhooks with these ids, all at once, each of which must be taken.
pub async fn send_all(http: &Client, api: &str, ids: &[String]) -> History {
    let mut history = History::default();
    let posts = ids.iter().map(|id| {
        let (http, api, webhook) = (http.clone(), api.to_owned(), webhook(id));
        async move { send(&http, &api, &webhook).await.expect("an answer").status() }
    });
    assert!(posts.collect::<JoinSet<_>>().join_all().await.iter().all(|status| *status == 202));
    ids.iter().for_each(|id| history.acknowledge(id));
    history
}

impl History {
    /// Notes a 202.
    pub fn acknowledge(&mut self, id: &str) {
        self.acknowledged.insert(id.to_owned(), ("PROCESSING".into(), Value::Null));
    }
}

impl Clients {
    /// Starts so many clients of these APIs.
    pub fn start(urls: &[&str], number: usize) -> Self {
        let urls = Mutex::new(urls.iter().map(|url| (*url).to_owned()).collect());
        let shared =
            Arc::new(Shared { http: http_client(), urls, history: Mutex::default(), enough: AtomicBool::new(false) });
        let mut tasks = JoinSet::new();
        for number in 0..number {
            tasks.spawn(shared.clone().go_on(number));
        }
        Self { shared, tasks }
    }

    /// From now on these are the APIs.
    pub fn redirect(&self, url: &str) {
        *self.shared.urls.lock().unwrap() = vec![url.to_owned()];
    }

    /// What they were told so far.
    pub fn history(&self) -> History {
        self.shared.history.lock().unwrap().clone()
    }

    /// Webhooks acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.shared.history.lock().unwrap().acknowledged.len()
    }

    /// Lets each client finish its last webhook, and answers what all were told.
    ///
    /// # Panics
    /// They were told something that must not happen.
    pub async fn finish(mut self) -> History {
        self.shared.enough.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a client");
        }
        let history = self.history();
        assert!(history.wrong.is_empty(), "{:#?}", history.wrong);
        assert!(!history.acknowledged.is_empty(), "no webhook was acknowledged");
        history
    }
}

impl Shared {
    async fn go_on(self: Arc<Self>, client: usize) {
        let mut own = Vec::new();
        while !self.enough.load(Ordering::Relaxed) {
            let id = format!("txn_{client}_{}", own.len());
            self.post(&id).await;
            own.push(id);
            let at = random(0..own.len() as u64) as usize;
            self.look(&own[at]).await;
            tokio::time::sleep(PACE).await;
        }
    }

    fn url(&self) -> String {
        let urls = self.urls.lock().unwrap();
        urls[random(0..urls.len() as u64) as usize].clone()
    }

    fn note(&self, note: impl FnOnce(&mut History)) {
        note(&mut self.history.lock().unwrap());
    }

    /// Posts a webhook until it is acknowledged.
    async fn post(&self, id: &str) {
        let begun = Instant::now();
        while begun.elapsed() < SOON {
            match send(&self.http, &self.url(), &webhook(id)).await {
                Ok(answer) if answer.status() == 202 => {
                    let replayed = answer.headers().contains_key("idempotency-replayed");
                    // Acknowledged by its status, whatever becomes of the body.
                    self.note(|history| {
                        history.acknowledge(id);
                        history.replayed += usize::from(replayed);
                    });
                    if let Ok(seen) = answer.json().await {
                        self.see(id, &seen);
                    }
                    return;
                }
                answer => self.unsuccessful("POST", id, answer),
            }
            tokio::time::sleep(PACE).await;
        }
        self.note(|history| history.wrong.push(format!("{id} was not acknowledged within {SOON:?}")));
    }

    /// Looks at an acknowledged transaction: it must be there.
    async fn look(&self, id: &str) {
        match self.http.get(format!("{}/v1/transactions/{id}", self.url())).send().await {
            Ok(answer) if answer.status() == 200 => {
                if let Ok(seen) = answer.json().await {
                    self.see(id, &seen);
                }
            }
            answer => self.unsuccessful("GET", id, answer),
        }
    }

    fn unsuccessful(&self, method: &str, id: &str, answer: reqwest::Result<Response>) {
        self.note(|history| match answer {
            Ok(answer) if answer.status() == 503 => {
                history.unavailable += 1;
                let again = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
                if again.is_none_or(|seconds: u64| seconds == 0) {
                    history.wrong.push(format!("{method} {id}: 503 without Retry-After"));
                }
            }
            Ok(answer) => history.wrong.push(format!("{method} {id}: {}", answer.status())),
            Err(_) => history.unanswered += 1,
        });
    }

    /// Compares with what was seen before: settled is settled, with the same time. A client asks one thing at a time.
    fn see(&self, id: &str, seen: &Value) {
        let seen = (seen["status"].as_str().unwrap_or_default().to_owned(), seen["processed_at"].clone());
        self.note(|history| {
            let before = history.acknowledged.insert(id.to_owned(), seen.clone());
            if let Some(before) = before.filter(|before| before.0 != "PROCESSING" && *before != seen) {
                history.wrong.push(format!("{id}: {before:?}, then {seen:?}"));
            }
        });
    }
}
