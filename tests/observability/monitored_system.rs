//! A monitored system: an API and a worker that serve metrics, and traffic for every dashboard panel.

use std::time::Duration;

use jobs::users::{Role, UserId, token::Tokens};
use reqwest::Client;
use serde_json::{Value, json};

use crate::harness::{
    database::{self, TestDatabase},
    eventually,
    http::{HttpResponse, send},
    process::{self, Api, Process},
};

const SECRET: &str = "a secret of the tests, 32 bytes long or more";
/// A closed port: no test may call a real price provider.
const CLOSED_PORT: &str = "http://127.0.0.1:9";
/// The default response to another payload under a known id: the first payload is kept.
const CONFLICT: u16 = 202;
const SOON: Duration = Duration::from_secs(30);

pub(super) struct MonitoredSystem {
    pub api_address: String,
    pub worker_address: String,
    pub worker: Process,
    pub database: TestDatabase,
    api: Api,
    client: Client,
    token: String,
    user: i64,
}

impl MonitoredSystem {
    pub(super) async fn start(more: &[(&str, &str)]) -> Self {
        let database = database::fresh().await;
        let variables = [
            ("JWT_SECRET", SECRET),
            ("PROCESSING_DELAY_SECONDS", "0.1"),
            ("WORKER_HEALTH_PORT", "0"),
            ("COINGECKO_URL", CLOSED_PORT),
            ("KRAKEN_URL", CLOSED_PORT),
            ("COINBASE_URL", CLOSED_PORT),
            ("BINANCE_URL", CLOSED_PORT),
        ];
        let variables = [&variables[..], more].concat();
        let api = Api::start(&database.url, &variables).await;
        let mut worker = process::start_worker(&database.url, &variables).await;
        let line: Value = serde_json::from_str(&worker.wait_for_line("health and metrics").await).expect("a JSON line");
        let user = "INSERT INTO users (email, full_name, password_hash) VALUES ('a@example.com', 'A', '$argon2id$')
                    RETURNING id";
        let user = sqlx::query_scalar(user).fetch_one(&database.pool().await).await.expect("a user");
        Self {
            api_address: api.url.trim_start_matches("http://").to_owned(),
            worker_address: line["address"].as_str().expect("an address").to_owned(),
            token: Tokens::new(SECRET.as_bytes()).issue(UserId(user), Role::User).expect("a token"),
            client: process::http_client(),
            user,
            worker,
            database,
            api,
        }
    }

    /// The metrics of the API and of the worker.
    pub(super) async fn metrics(&self) -> [String; 2] {
        let get = async |address| send(self.client.get(format!("http://{address}/metrics"))).await.text;
        [get(&self.api_address).await, get(&self.worker_address).await]
    }

    /// Whether the metrics of the API contain this line. The worker is not asked: it may be stopped.
    pub(super) async fn api_has_metric(&self, line: &str) -> bool {
        let metrics = send(self.client.get(format!("{}/metrics", self.api.url))).await.text;
        metrics.lines().any(|metric| metric == line)
    }

    /// Lists all probes, which needs a database session; returns the status.
    pub(super) async fn list_probes(&self) -> u16 {
        send(self.client.get(format!("{}/api/v1/check", self.api.url))).await.status
    }

    async fn webhook(&self, id: &str, amount: u32) -> HttpResponse {
        let body = json!({
            "transaction_id": id, "source_account": "a", "destination_account": "b", "amount": amount,
            "currency": "INR",
        });
        send(self.client.post(format!("{}/v1/webhooks/transactions", self.api.url)).json(&body)).await
    }

    /// Sends one round of traffic: a new, a replayed, a conflicting and an invalid webhook; an item, written and read twice.
    /// Returns when the webhook is settled.
    pub(super) async fn traffic(&self, round: u32) {
        let id = format!("txn_{round}");
        for _ in 0..2 {
            assert_eq!(self.webhook(&id, 1500).await.status, 202);
        }
        assert_eq!(self.webhook(&id, 1501).await.status, CONFLICT);
        assert_eq!(self.webhook("", 1500).await.status, 422);
        let item = json!({"title": "Lamp", "description": "Red", "price_cents": 500, "owner_id": self.user});
        let items = format!("{}/api/v1/items", self.api.url);
        let created = self.client.post(&items).bearer_auth(&self.token).json(&item);
        let created = send(created).await;
        assert_eq!(created.status, 201, "{created:?}");
        for _ in 0..2 {
            let item = format!("{items}/{}", created.json()["id"]);
            assert_eq!(send(self.client.get(item).bearer_auth(&self.token)).await.status, 200);
        }
        eventually("the webhook is settled", SOON, async || {
            let url = format!("{}/v1/transactions/{id}", self.api.url);
            send(self.client.get(url)).await.json()["status"] == "PROCESSED"
        })
        .await;
    }
}
