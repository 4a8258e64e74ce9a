//! Mars probes: the feature against the database, and the endpoints over HTTP.
//!
//! The pure rules are tested in `jobs/src/probes/grid/tests.rs`.

mod chain;
mod database;
mod listing;
mod logged;
mod over_http;

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::harness::{
    database::{TestDatabase, fresh},
    http::{HttpResponse, send},
    process::{self, Api},
};

/// API processes over one database.
struct ProbeHarness {
    apis: Vec<Api>,
    client: Client,
    database: TestDatabase,
}

impl ProbeHarness {
    async fn start(processes: usize) -> Self {
        let database = fresh().await;
        let mut apis = Vec::new();
        for _ in 0..processes {
            apis.push(Api::start(&database.url, &[]).await);
        }
        Self { apis, client: process::http_client(), database }
    }

    fn url(&self) -> &str {
        &self.apis[0].url
    }

    async fn send(&self, method: Method, path: &str, body: impl Into<String>) -> HttpResponse {
        send(self.client.request(method, format!("{}{path}", self.url())).body(body.into())).await
    }

    async fn set_up(&self, body: Value) -> HttpResponse {
        self.send(Method::POST, "/api/v1/setup", body.to_string()).await
    }

    /// Creates a probe on a grid of this size. Returns its id.
    async fn create_probe(&self, x: i32, y: i32, direction: &str) -> String {
        let response = self.set_up(json!({"x": x, "y": y, "direction": direction})).await;
        assert_eq!(response.status, 200, "{response:?}");
        response.json()["id"].as_str().expect("an id").to_owned()
    }

    async fn move_probe(&self, id: &str, command: &str) -> HttpResponse {
        self.send(Method::PATCH, "/api/v1/move", json!({"id": id, "command": command}).to_string()).await
    }

    async fn list_probes(&self, query: &str) -> HttpResponse {
        self.send(Method::GET, &format!("/api/v1/check{query}"), "").await
    }

    /// The value of a counter on `/metrics`.
    async fn counter_value(&self, name: &str) -> u64 {
        let text = self.send(Method::GET, "/metrics", "").await.text;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("{name}:\n{text}")).trim().parse().expect("a number")
    }
}
