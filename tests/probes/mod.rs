//! Probes at the levels that are not pure: the feature against the database, and the endpoints over HTTP.
//!
//! The pure level is `jobs/src/mars_probes/grid/tests.rs`.

mod chain;
mod database;
mod listing;
mod logged;
mod over_http;

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::harness::{
    database::{self as databases, TestDatabase},
    http::{HttpResponse, send},
    process::{self, Api},
};

/// API processes over one database.
struct System {
    apis: Vec<Api>,
    client: Client,
    database: TestDatabase,
}

impl System {
    async fn start(processes: usize) -> Self {
        let database = databases::fresh().await;
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

    async fn setup(&self, body: Value) -> HttpResponse {
        self.send(Method::POST, "/api/v1/setup", body.to_string()).await
    }

    /// The id of a new probe on a grid of this size.
    async fn probe(&self, x: i32, y: i32, direction: &str) -> String {
        let answer = self.setup(json!({"x": x, "y": y, "direction": direction})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["id"].as_str().expect("an id").to_owned()
    }

    async fn order(&self, id: &str, command: &str) -> HttpResponse {
        self.send(Method::PATCH, "/api/v1/move", json!({"id": id, "command": command}).to_string()).await
    }

    async fn check(&self, query: &str) -> HttpResponse {
        self.send(Method::GET, &format!("/api/v1/check{query}"), "").await
    }

    /// The value of a counter.
    async fn counted(&self, name: &str) -> u64 {
        let text = self.send(Method::GET, "/metrics", "").await.text;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("{name}:\n{text}")).trim().parse().expect("a number")
    }
}
