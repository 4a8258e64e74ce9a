//! No secret appears in a log: a complete session with recognisable secrets, at the most verbose log level.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use reqwest::{Method, RequestBuilder};
use serde_json::json;
use sha2::Sha256;
use time::OffsetDateTime;

use super::lines;
use crate::harness::{
    database, eventually,
    http::{HttpResponse, send},
    process::{self, Api, http_client},
    redis::Redis,
    scratch::Scratch,
};

const SOON: Duration = Duration::from_secs(30);

const API_KEY: &str = "secret-api-key-1f0c";
const ADMIN_KEY: &str = "secret-admin-key-2e1d";
const JWT_SECRET: &str = "secret-of-tokens-3d2e-32-bytes-long";
const WEBHOOK: &[u8] = b"secret-of-webhooks-4c3f-32-bytes";
const PASSWORD: &str = "secret-password-5b40";
const WRONG_PASSWORD: &str = "secret-mistyped-6a51";
const DATABASE_PASSWORD: &str = "secret-database-7962";
const REDIS_PASSWORD: &str = "not-to-be-printed";
const COINGECKO: &str = "CG-secret-coingecko-8873";
const CHAIN_KEY: &str = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";
const CHAIN_PASSWORD: &str = "secret-node-9784";
const PROCESSOR_PASSWORD: &str = "secret-processor-a695";
const ELASTIC_PASSWORD: &str = "secret-elastic-b5a6";
const COLLECTOR_PASSWORD: &str = "secret-of-the-collector";
const COLLECTOR_KEY: &str = "secret-key-of-exports";
const CALLBACK: &[u8] = b"secret-of-callbacks-9e5d-32-bytes";
const CALLBACK_TOKEN: &str = "secret-callback-token-8f1a";
const WRONG_KEY: &str = "secret-wrong-key-c4b7";
const WRONG_TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.secret-wrong-token-d3c8.x";

/// A client that sends valid and invalid requests of every kind.
struct Session<'a> {
    client: reqwest::Client,
    url: &'a str,
}

impl Session<'_> {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).timeout(Duration::from_secs(60))
    }

    async fn get(&self, path: &str, header: (&'static str, &str)) -> HttpResponse {
        send(self.request(Method::GET, path).header(header.0, header.1)).await
    }

    async fn post(&self, path: &str, header: (&'static str, &str), body: &str) -> HttpResponse {
        let request = self.request(Method::POST, path).header(header.0, header.1);
        send(request.header("content-type", "application/json").body(body.to_owned())).await
    }

    /// Sends registrations, logins and items; returns the token.
    async fn users(&self) -> String {
        const NONE: (&str, &str) = ("x-nothing", "");
        let user = |password: &str| json!({"email": "ada@example.com", "password": password, "full_name": "Ada"});
        let (register, login) = ("/api/v1/users/register", "/api/v1/users/login");
        assert_eq!(self.post(register, NONE, &user(PASSWORD).to_string()).await.status, 201);
        assert_eq!(self.post(register, NONE, &user(PASSWORD).to_string()).await.status, 409);
        assert_eq!(self.post(login, NONE, &user(WRONG_PASSWORD).to_string()).await.status, 401);
        // A password in wrong fields, in invalid JSON and in a query.
        let misplaced = json!({"email": PASSWORD, "password": [PASSWORD], "full_name": {"x": PASSWORD}}).to_string();
        assert_eq!(self.post(register, NONE, &misplaced).await.status, 422);
        assert_eq!(self.post(login, NONE, &format!("{{\"password\": \"{PASSWORD}\", ")).await.status, 400);
        assert_eq!(self.post(&format!("{login}?password={PASSWORD}"), NONE, "[]").await.status, 422);
        let logged_in = self.post(login, NONE, &user(PASSWORD).to_string()).await;
        let token = logged_in.json()["access_token"].as_str().expect("a token").to_owned();
        let bearer = format!("Bearer {token}");
        let items = "/api/v1/items";
        assert_eq!(self.post(items, ("authorization", &bearer), r#"{"title": "Kettle"}"#).await.status, 201);
        assert_eq!(self.post(items, ("authorization", &format!("Bearer {WRONG_TOKEN}")), "{}").await.status, 401);
        assert_eq!(self.get(&format!("{items}?token={token}"), ("authorization", &bearer)).await.status, 200);
        assert_eq!(self.get("/api/v1/items/1", ("authorization", &bearer)).await.status, 200);
        assert_eq!(self.get("/api/v1/search/items?q=kettle", NONE).await.status, 200);
        assert_eq!(self.get("/logs/export", ("authorization", &bearer)).await.status, 403);
        token
    }

    async fn webhooks(&self) -> Vec<String> {
        let body = json!({"transaction_id": "t", "source_account": "a", "destination_account": "b", "amount": 1, "currency": "EUR"});
        let (body, now) = (body.to_string(), OffsetDateTime::now_utc().unix_timestamp().to_string());
        let sign = |key: &[u8]| {
            let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key");
            mac.update(format!("m.{now}.{body}").as_bytes());
            STANDARD.encode(mac.finalize().into_bytes())
        };
        let (good, bad) = (sign(WEBHOOK), sign(b"another"));
        for (signature, status) in [(&good, 202), (&bad, 401)] {
            let request = self.request(Method::POST, "/v1/webhooks/transactions").header("webhook-id", "m");
            let request =
                request.header("webhook-timestamp", &now).header("webhook-signature", format!("v1,{signature}"));
            let response = send(request.header("content-type", "application/json").body(body.clone())).await;
            assert_eq!(response.status, status, "{response:?}");
        }
        vec![good, bad]
    }

    /// Sends right and wrong keys to routes with and without authentication.
    async fn keys(&self) {
        for name in ["api_key", "x-api-key", "authorization"] {
            for key in [API_KEY, ADMIN_KEY, WRONG_KEY] {
                for path in ["/interest_rate", "/logs/export?from=x", "/v1/transactions", "/metrics", "/nowhere"] {
                    self.get(
                        &format!("{path}{}api_key={key}", if path.contains('?') { '&' } else { '?' }),
                        (name, key),
                    )
                    .await;
                }
            }
        }
        // The Ethereum node is down.
        let assets = r#"[{"id": "id-1", "interest_rate": 100}]"#;
        assert_eq!(self.post("/asset", ("api_key", API_KEY), assets).await.status, 503);
        assert_eq!(self.post("/asset", ("api_key", WRONG_KEY), assets).await.status, 403);
    }
}

#[tokio::test]
async fn no_secret_is_in_any_log() {
    let Some(mut redis) = Redis::start().await else { return };
    assert!(redis.url.contains(REDIS_PASSWORD));
    let (database, folder) = (database::fresh().await, Scratch::new());
    let url = format!("{}&password={DATABASE_PASSWORD}", database.url);
    let whsec = format!("whsec_{}", STANDARD.encode(WEBHOOK));
    // Nothing listens on port 1, because errors produce the most log output.
    let node = format!("http://operator:{CHAIN_PASSWORD}@127.0.0.1:1/");
    let processor = format!("http://operator:{PROCESSOR_PASSWORD}@127.0.0.1:1/charge");
    let collector = format!("http://operator:{COLLECTOR_PASSWORD}@127.0.0.1:1");
    let headers = format!("x-api-key={COLLECTOR_KEY}");
    let elastic = format!("http://elastic:{ELASTIC_PASSWORD}@127.0.0.1:1");
    let callback_secret = format!("whsec_{}", STANDARD.encode(CALLBACK));
    let callback_url = format!("http://127.0.0.1:1/{CALLBACK_TOKEN}?key={CALLBACK_TOKEN}");
    let mut variables = vec![
        ("RUST_LOG", "debug,api=trace,jobs=trace,queue=trace,runtime=trace,worker=trace,millrace=trace"),
        ("LOG_DIR", folder.to_str().expect("UTF-8")),
        ("API_KEY", API_KEY),
        ("ADMIN_API_KEY", ADMIN_KEY),
        ("JWT_SECRET", JWT_SECRET),
        ("WEBHOOK_SECRET", &whsec),
        ("CALLBACK_URL", &callback_url),
        ("CALLBACK_SECRET", &callback_secret),
        ("CALLBACK_ALLOW_PRIVATE", "true"),
        ("REDIS_URL", &redis.url),
        ("PROCESSOR_URL", &processor),
        ("PROCESSOR_ATTEMPTS", "2"),
        ("ELASTICSEARCH_URL", &elastic),
        ("COINGECKO_API_KEY", COINGECKO),
        ("COINGECKO_URL", "http://127.0.0.1:1/"),
        ("QUEUE_POLL_SECONDS", "0.1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector),
        ("OTEL_EXPORTER_OTLP_HEADERS", &headers),
    ];
    if cfg!(feature = "smart-contract") {
        let contract = "0x5FbDB2315678afecb367f032d93F642f64180aa3";
        variables.extend([("STORAGE_BACKEND", "smart_contract"), ("CONTRACT_ADDRESS", contract)]);
        variables.extend([("CHAIN_RPC_URL", &*node), ("CHAIN_PRIVATE_KEY", CHAIN_KEY)]);
    }
    let api = Api::start(&url, &variables).await;
    let worker = process::start_worker(&url, &variables).await;
    let session = Session { client: http_client(), url: &api.url };
    let token = session.users().await;
    let signatures = session.webhooks().await;
    if cfg!(feature = "smart-contract") {
        session.keys().await;
    }
    let settled = async || session.get("/v1/transactions/t", ("x-nothing", "")).await.json()["status"] == "FAILED";
    eventually("the processor is given up", SOON, settled).await;
    let tried = async || worker.log().contains("callback receiver cannot be reached");
    eventually("the callback has failed", SOON, tried).await;
    let killed = redis.url.clone();
    redis.kill().await;
    assert_eq!(session.get("/api/v1/items/1", ("x-nothing", "")).await.status, 200);
    let export = session.get("/logs/export", ("x-api-key", ADMIN_KEY)).await;
    assert_eq!(export.status, 200, "{export:?}");
    let metrics = session.get("/metrics", ("x-nothing", "")).await.text;

    let files: String = lines(&folder).await.into_iter().map(|(_, line)| line + "\n").collect();
    let logs = [
        ("the API's output", api.process.log()),
        ("the worker's output", worker.log()),
        ("the files", files),
        ("the export", export.text),
        ("the metrics", metrics),
    ];
    for (place, text) in &logs {
        // The log must contain debug lines; otherwise the test proves nothing.
        assert!(*place == "the metrics" || text.contains(r#""level":"debug""#), "{place}");
        assert!(text.len() > 10_000, "{place} has {} bytes", text.len());
        let key = &CHAIN_KEY[2..];
        let webhook = std::str::from_utf8(WEBHOOK).expect("ASCII");
        for secret in [
            API_KEY,
            ADMIN_KEY,
            JWT_SECRET,
            webhook,
            &whsec[6..],
            PASSWORD,
            WRONG_PASSWORD,
            DATABASE_PASSWORD,
            REDIS_PASSWORD,
            COINGECKO,
            key,
            CHAIN_PASSWORD,
            PROCESSOR_PASSWORD,
            CALLBACK_TOKEN,
            &callback_secret[6..],
            ELASTIC_PASSWORD,
            COLLECTOR_PASSWORD,
            COLLECTOR_KEY,
            WRONG_KEY,
            "secret-wrong-token",
            &token,
            &signatures[0],
            &signatures[1],
            &killed,
            "$argon2",
        ] {
            let line = text.lines().find(|line| line.to_ascii_lowercase().contains(&secret.to_ascii_lowercase()));
            assert!(line.is_none(), "{secret:?} is in {place}: {}", line.unwrap_or_default());
        }
    }
}
