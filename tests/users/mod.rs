//! Users from outside: registration, login, and what a storm of either leaves of the rest.

mod limits;
mod login;
mod proxies;
mod registration;
mod writings;

use std::net::Ipv4Addr;

use reqwest::Client;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::harness::{
    database::{self, TestDatabase},
    http::{HttpResponse, send},
    process::{self, Api},
};

const REGISTER: &str = "/api/v1/users/register";
const LOGIN: &str = "/api/v1/users/login";
const PASSWORD: &str = "correct horse battery";
/// Every hash that was computed.
const HASHES: &str = "millrace_password_hashes_total";

/// An API process over a database of its own.
struct System {
    api: Api,
    client: Client,
    database: TestDatabase,
}

impl System {
    async fn start(variables: &[(&str, &str)]) -> Self {
        let database = database::fresh().await;
        Self { api: Api::start(&database.url, variables).await, client: process::http_client(), database }
    }

    async fn post(&self, path: &str, body: &Value) -> HttpResponse {
        self.post_text(path, body.to_string()).await
    }

    async fn post_text(&self, path: &str, body: String) -> HttpResponse {
        self.post_from(&self.client, path, body).await
    }

    async fn post_from(&self, client: &Client, path: &str, body: String) -> HttpResponse {
        let request = client.post(format!("{}{path}", self.api.url)).header("content-type", "application/json");
        send(request.body(body)).await
    }

    /// Registers a user that must be new.
    async fn register(&self, email: &str) -> Value {
        let answer = self.post(REGISTER, &registration(email)).await;
        assert_eq!(answer.status, 201, "{email}: {answer:?}");
        answer.json()
    }

    async fn login(&self, email: &str, password: &str) -> HttpResponse {
        self.post(LOGIN, &json!({"email": email, "password": password})).await
    }

    /// How many hashes it has computed.
    async fn hashes(&self) -> u64 {
        let metrics = send(self.client.get(format!("{}/metrics", self.api.url))).await.text;
        let line = metrics.lines().find_map(|line| line.strip_prefix(HASHES)).unwrap_or_else(|| panic!("{metrics}"));
        line.trim().parse().expect("a number")
    }

    /// The one number that this question is answered with.
    async fn count(&self, question: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(question.to_owned())).fetch_one(&self.database.pool().await).await.unwrap()
    }
}

/// A registration that is as it should be.
fn registration(email: &str) -> Value {
    json!({"email": email, "password": PASSWORD, "full_name": "Ada Lovelace"})
}

/// A client with an address of its own: on Linux, all of 127/8 is this machine.
fn client_at(number: u8) -> Client {
    // It sets TLS up, once for the whole test run.
    drop(process::http_client());
    let builder = Client::builder().no_proxy().local_address(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 1, number)));
    builder.build().expect("a client")
}
