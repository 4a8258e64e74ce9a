//! Clients that post webhooks one after the other, each until it is acknowledged, and record every response.

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

/// The pause between two requests of one client.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a client repeats a post: longer than the longest outage of a test, which has three times [`SOON`] to begin.
const PERSISTENCE: Duration = Duration::from_secs(5 * SOON.as_secs());

/// A group of running clients.
pub(super) struct Clients {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    http: Client,
    urls: Mutex<Vec<String>>,
    history: Mutex<History>,
    stop: AtomicBool,
}

/// What the clients observed.
#[derive(Debug, Default, Clone)]
pub(super) struct History {
    /// Webhooks with a 202, with the state that was seen last: `status` and `processed_at`.
    pub acknowledged: HashMap<String, (String, Value)>,
    /// Webhooks acknowledged as replays: an earlier attempt was recorded, and its response was lost.
    pub replayed: usize,
    /// Responses 503 with `Retry-After`.
    pub unavailable: usize,
    /// Requests without a response.
    pub without_response: usize,
    /// Broken promises.
    pub violations: Vec<String>,
}

/// The webhook with this id.
pub(crate) fn webhook(transaction_id: &str) -> Value {
    json!({
        "transaction_id": transaction_id, "source_account": "acc_user_1", "destination_account": "acc_merchant_1",
        "amount": 1500, "currency": "INR",
    })
}

/// Posts one webhook.
pub(super) async fn post_webhook(http: &Client, api: &str, webhook: &Value) -> reqwest::Result<Response> {
    http.post(format!("{api}/v1/webhooks/transactions")).json(webhook).send().await
}

/// Posts one webhook `posts` times concurrently. Returns the statuses.
pub(crate) async fn post_same_id(api: &str, posts: usize) -> Vec<u16> {
    let http = http_client();
    let posts = (0..posts).map(|_| {
        let (http, api, webhook) = (http.clone(), api.to_owned(), webhook("txn_1"));
        async move { post_webhook(&http, &api, &webhook).await.expect("a response").status().as_u16() }
    });
    posts.collect::<JoinSet<_>>().join_all().await
}

/// Posts webhooks with these ids concurrently. Each must get a 202.
pub(super) async fn post_webhooks(http: &Client, api: &str, ids: &[String]) -> History {
    let mut history = History::default();
    let posts = ids.iter().map(|id| {
        let (http, api, webhook) = (http.clone(), api.to_owned(), webhook(id));
        async move { post_webhook(&http, &api, &webhook).await.expect("a response").status() }
    });
    assert!(posts.collect::<JoinSet<_>>().join_all().await.iter().all(|status| *status == 202));
    ids.iter().for_each(|id| history.acknowledge(id));
    history
}

impl History {
    /// Records a 202.
    pub(super) fn acknowledge(&mut self, id: &str) {
        self.acknowledged.insert(id.to_owned(), ("PROCESSING".into(), Value::Null));
    }
}

impl Clients {
    /// Starts `number` clients of these APIs.
    pub(super) fn start(urls: &[&str], number: usize) -> Self {
        let urls = Mutex::new(urls.iter().map(|url| (*url).to_owned()).collect());
        let shared =
            Arc::new(Shared { http: http_client(), urls, history: Mutex::default(), stop: AtomicBool::new(false) });
        let mut tasks = JoinSet::new();
        for number in 0..number {
            tasks.spawn(shared.clone().run(number));
        }
        Self { shared, tasks }
    }

    /// Sends all further requests to this API.
    pub(super) fn redirect(&self, url: &str) {
        *self.shared.urls.lock().unwrap() = vec![url.to_owned()];
    }

    /// The history so far.
    pub(super) fn history(&self) -> History {
        self.shared.history.lock().unwrap().clone()
    }

    /// The number of webhooks acknowledged so far.
    pub(super) fn acknowledged(&self) -> usize {
        self.shared.history.lock().unwrap().acknowledged.len()
    }

    /// Waits until each client has finished its current webhook, and returns the history.
    ///
    /// # Panics
    /// If a client observed a broken promise.
    pub(super) async fn finish(mut self) -> History {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a client");
        }
        let history = self.history();
        assert!(history.violations.is_empty(), "{:#?}", history.violations);
        assert!(!history.acknowledged.is_empty(), "no webhook was acknowledged");
        history
    }
}

impl Shared {
    async fn run(self: Arc<Self>, client: usize) {
        let mut own = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let id = format!("txn_{client}_{}", own.len());
            self.post(&id).await;
            own.push(id);
            let at = random(0..own.len() as u64) as usize;
            self.get(&own[at]).await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn url(&self) -> String {
        let urls = self.urls.lock().unwrap();
        urls[random(0..urls.len() as u64) as usize].clone()
    }

    fn update_history(&self, update: impl FnOnce(&mut History)) {
        update(&mut self.history.lock().unwrap());
    }

    /// Posts a webhook until it is acknowledged.
    async fn post(&self, id: &str) {
        let begun = Instant::now();
        while begun.elapsed() < PERSISTENCE {
            match post_webhook(&self.http, &self.url(), &webhook(id)).await {
                Ok(response) if response.status() == 202 => {
                    let replayed = response.headers().contains_key("idempotency-replayed");
                    // The status alone acknowledges the webhook, even if the body is lost.
                    self.update_history(|history| {
                        history.acknowledge(id);
                        history.replayed += usize::from(replayed);
                    });
                    if let Ok(seen) = response.json().await {
                        self.record_state(id, &seen);
                    }
                    return;
                }
                result => self.record_failure("POST", id, result),
            }
            tokio::time::sleep(PAUSE).await;
        }
        let violation = format!("{id} was not acknowledged within {PERSISTENCE:?}");
        self.update_history(|history| history.violations.push(violation));
    }

    /// Gets an acknowledged transaction, which must exist.
    async fn get(&self, id: &str) {
        match self.http.get(format!("{}/v1/transactions/{id}", self.url())).send().await {
            Ok(response) if response.status() == 200 => {
                if let Ok(seen) = response.json().await {
                    self.record_state(id, &seen);
                }
            }
            result => self.record_failure("GET", id, result),
        }
    }

    fn record_failure(&self, method: &str, id: &str, result: reqwest::Result<Response>) {
        self.update_history(|history| match result {
            Ok(response) if response.status() == 503 => {
                history.unavailable += 1;
                let retry_after =
                    response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
                if retry_after.is_none_or(|seconds: u64| seconds == 0) {
                    history.violations.push(format!("{method} {id}: 503 without Retry-After"));
                }
            }
            Ok(response) => history.violations.push(format!("{method} {id}: {}", response.status())),
            Err(_) => history.without_response += 1,
        });
    }

    /// Records a state and compares it with the previous one: a settled state must not change. A client sends one request
    /// at a time, so states arrive in order.
    fn record_state(&self, id: &str, seen: &Value) {
        let seen = (seen["status"].as_str().unwrap_or_default().to_owned(), seen["processed_at"].clone());
        self.update_history(|history| {
            let before = history.acknowledged.insert(id.to_owned(), seen.clone());
            if let Some(before) = before.filter(|before| before.0 != "PROCESSING" && *before != seen) {
                history.violations.push(format!("{id}: {before:?}, then {seen:?}"));
            }
        });
    }
}
