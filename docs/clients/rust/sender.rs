//! Sends transactions to Millrace and waits for their settlement. Copy what you need.
//!
//! ```text
//! webhook_sender send FILE    sends the transactions of a file: one a line, as JSON
//! webhook_sender poll ID...   waits until each transaction is settled, and prints its status
//! ```
//!
//! Variables: MILLRACE_URL; WEBHOOK_SECRET to send; MILLRACE_API_KEY to poll, if the server wants a key for reading.

use std::{env, fs, time::Duration};

use anyhow::{Context, Error, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use reqwest::{Client, RequestBuilder, StatusCode, header::HeaderMap};
use serde_json::Value;
use sha2::Sha256;
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

/// They take about three minutes, and longer if the server asks for it.
const ATTEMPTS: u32 = 12;

fn read_secret(secret: &str) -> Result<Vec<u8>> {
    let key = STANDARD.decode(secret.trim().trim_start_matches("whsec_"))?;
    ensure!(key.len() >= 24, "a secret is whsec_ and at least 24 bytes in base64");
    Ok(key)
}

fn sign(key: &[u8], id: &str, timestamp: &str, body: &[u8]) -> Result<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(Error::msg)?;
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    Ok(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

/// Encodes an id for a URL and for a header.
fn encode(id: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    id.bytes().map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// The time that a `Retry-After` header asks for, at most a day. It is a number of seconds or a date.
fn retry_after(value: &str) -> Duration {
    let asked = if let Ok(seconds) = value.parse() {
        Duration::from_secs(seconds)
    } else if let Ok(date) = OffsetDateTime::parse(value, &Rfc2822) {
        Duration::try_from(date - OffsetDateTime::now_utc()).unwrap_or_default()
    } else {
        Duration::from_secs(5)
    };
    asked.min(Duration::from_secs(86_400))
}

/// A header as text; `None` if it is missing.
fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

async fn try_once(request: RequestBuilder) -> reqwest::Result<(StatusCode, HeaderMap, String)> {
    let response = request.timeout(Duration::from_secs(90)).send().await?;
    Ok((response.status(), response.headers().clone(), response.text().await?))
}

/// Tries a request until its response is final. `make` makes it again for each try, because a signature expires.
async fn retry(make: impl Fn() -> Result<RequestBuilder>) -> Result<(HeaderMap, String)> {
    let (mut pause, mut problem) = (Duration::ZERO, String::new());
    for attempt in 0..ATTEMPTS {
        tokio::time::sleep(pause).await;
        match try_once(make()?).await {
            Ok((status, headers, text)) if status.is_success() => return Ok((headers, text)),
            Ok((status, headers, text)) => {
                problem = format!("status {status}: {text}");
                let is_temporary = status.is_server_error() || [408, 425, 429].contains(&status.as_u16());
                ensure!(is_temporary, "failed: {problem}");
                pause = header(&headers, "retry-after").map_or(Duration::ZERO, retry_after);
            }
            // The server may have the request nevertheless.
            Err(error) => (problem, pause) = (format!("no response: {error:?}"), Duration::ZERO),
        }
        // Backoff with full jitter, after the pause that the server asks for.
        let ceiling = Duration::from_millis(500_u64 << attempt).min(Duration::from_secs(60));
        pause += ceiling.mul_f64(fastrand::f64());
    }
    bail!("failed: {ATTEMPTS} tries, the last one with {problem}")
}

/// Sends a transaction. However often it is sent, the server records it once: its id is the key.
async fn send(client: &Client, url: &str, key: &[u8], body: &str) -> Result<String> {
    let transaction: Value = serde_json::from_str(body)?;
    let id = transaction["transaction_id"].as_str().context("a transaction without an id")?;
    let message_id = encode(id);
    let (headers, _) = retry(|| {
        let timestamp = OffsetDateTime::now_utc().unix_timestamp().to_string();
        let signature = sign(key, &message_id, &timestamp, body.as_bytes())?;
        let request = client.post(format!("{url}/v1/webhooks/transactions")).body(body.to_owned());
        let request = request.header("content-type", "application/json").header("webhook-id", &message_id);
        Ok(request.header("webhook-timestamp", timestamp).header("webhook-signature", signature))
    })
    .await?;
    if let Some(fields) = header(&headers, "idempotency-conflict") {
        bail!("failed: {id} is recorded before with another {fields}; the first one stands");
    }
    let is_replayed = headers.contains_key("idempotency-replayed");
    Ok(format!("{id} {}", if is_replayed { "replayed" } else { "accepted" }))
}

/// Returns a transaction once it is PROCESSED or FAILED. The server holds each response for up to 60 s.
async fn wait_until_settled(client: &Client, url: &str, api_key: &str, id: &str) -> Result<Value> {
    let path = format!("{url}/v1/transactions/{}?wait=60", encode(id));
    loop {
        let (_, text) = retry(|| {
            let request = client.get(&path);
            Ok(if api_key.is_empty() { request } else { request.header("x-api-key", api_key) })
        })
        .await?;
        // Its numbers are floats, which changes some amounts: read the amount from `text`.
        let transaction: Value = serde_json::from_str(&text)?;
        if transaction["status"] != "PROCESSING" {
            return Ok(transaction);
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(500..1500))).await;
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    // With reqwest's default features leave this out: then it has a TLS provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::default();
    let url = env::var("MILLRACE_URL").unwrap_or_else(|_| "http://127.0.0.1:8000".into());
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.split_first() {
        Some((command, [file])) if command == "send" => {
            let key = read_secret(&env::var("WEBHOOK_SECRET").context("WEBHOOK_SECRET")?)?;
            for line in fs::read_to_string(file)?.lines().filter(|line| !line.trim().is_empty()) {
                println!("{}", send(&client, &url, &key, line).await?);
            }
        }
        Some((command, ids)) if command == "poll" => {
            let api_key = env::var("MILLRACE_API_KEY").unwrap_or_default();
            for id in ids {
                let transaction = wait_until_settled(&client, &url, &api_key, id).await?;
                println!("{id} {}", transaction["status"].as_str().unwrap_or_default());
            }
        }
        _ => bail!("usage: send FILE, or poll ID..."),
    }
    Ok(())
}
