//! Users over HTTP: registration, login, their rate limits, and the load that they put on the API.

mod login;
mod proxies;
mod rate_limits;
mod registration;
mod spellings;

use reqwest::Client;
use serde_json::{Value, json};

use crate::harness::{
    http::{HttpResponse, send},
    process::client_at,
    system::System,
};

const REGISTER: &str = "/api/v1/users/register";
const LOGIN: &str = "/api/v1/users/login";
const PASSWORD: &str = "correct horse battery";

impl System {
    async fn post_json(&self, path: &str, body: &Value) -> HttpResponse {
        self.post_text(path, body.to_string()).await
    }

    async fn post_text(&self, path: &str, body: String) -> HttpResponse {
        self.post_from(&self.client, path, body).await
    }

    async fn post_from(&self, client: &Client, path: &str, body: String) -> HttpResponse {
        let request = client.post(format!("{}{path}", self.api.url)).header("content-type", "application/json");
        send(request.body(body)).await
    }

    /// Registers a user, which must be new.
    async fn register(&self, email: &str) -> Value {
        let response = self.post_json(REGISTER, &registration(email)).await;
        assert_eq!(response.status, 201, "{email}: {response:?}");
        response.json()
    }

    async fn login(&self, email: &str, password: &str) -> HttpResponse {
        self.post_json(LOGIN, &json!({"email": email, "password": password})).await
    }

    /// How many password hashes the process has computed.
    async fn count_hashes(&self) -> u64 {
        self.metric("millrace_password_hashes_total").await
    }
}

/// The body of a valid registration.
fn registration(email: &str) -> Value {
    json!({"email": email, "password": PASSWORD, "full_name": "Ada Lovelace"})
}
