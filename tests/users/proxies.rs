//! `TRUSTED_PROXIES`: each client behind a proxy is limited and logged by its own address, which it cannot forge.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Client;

use super::{LOGIN, PASSWORD, System, client_at};
use crate::harness::{eventually, http::send};

/// The address of the trusted proxy.
const PROXY: u8 = 30;

/// Tries to log an unknown account in, from this peer and with these headers. Returns the status.
async fn login(system: &System, peer: &Client, account: usize, headers: &[(&'static str, &str)]) -> u16 {
    let body = serde_json::json!({"email": format!("user-{account}@example.com"), "password": PASSWORD}).to_string();
    let request = peer.post(format!("{}{LOGIN}", system.api.url)).header("content-type", "application/json");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    send(request.body(body)).await.status
}

/// The client addresses of all logins in the log.
fn logged_addresses(system: &System) -> Vec<String> {
    let lines = system.api.process.log();
    let lines = lines.lines().filter(|line| line.contains("COMPLETED_REQUEST") && line.contains(LOGIN));
    let address = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("a JSON line");
        line["client_address"].as_str().expect("an address").to_owned()
    };
    lines.map(address).collect()
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_are_logged_by_address() {
    let system = System::start(&[("TRUSTED_PROXIES", "127.0.1.30, 10.0.0.0/8")]).await;
    let (proxy, stranger) = (client_at(PROXY), client_at(31));
    let mut expected = Vec::new();
    for (account, (peer, headers, address)) in [
        (&proxy, vec![("x-forwarded-for", "203.0.113.7")], "203.0.113.7"),
        (&proxy, vec![("x-forwarded-for", "6.6.6.6, 203.0.113.7, 10.0.0.2")], "203.0.113.7"),
        (&proxy, vec![("forwarded", "for=6.6.6.6, for=\"[2001:db8::7]:4711\";proto=https")], "2001:db8::7"),
        (&proxy, vec![("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "203.0.113.7")], "127.0.1.30"),
        (&proxy, vec![], "127.0.1.30"),
        (&stranger, vec![("x-forwarded-for", "203.0.113.7")], "127.0.1.31"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(login(&system, peer, account, &headers).await, 401, "{headers:?}");
        expected.push(address.to_owned());
    }
    eventually("the log has six logins", Duration::from_secs(20), async || logged_addresses(&system).len() == 6).await;
    assert_eq!(logged_addresses(&system), expected);
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_are_limited_separately() {
    let system = System::start(&[("TRUSTED_PROXIES", "127.0.1.30")]).await;
    let proxy = client_at(PROXY);
    // The client puts a new forged address in front of the one that the proxy adds. All requests run at once, because the
    // bucket refills over time.
    let begun = Instant::now();
    let forged: Vec<_> = (0..120).map(|number| format!("6.6.6.{number}, 203.0.113.7")).collect();
    let attempts = forged
        .iter()
        .enumerate()
        .map(async |(number, forged)| login(&system, &proxy, number, &[("x-forwarded-for", forged)]).await);
    let statuses = join_all(attempts).await;
    let counted = statuses.iter().filter(|status| **status != 429).count() as u64;
    let refilled = begun.elapsed().as_secs() + 1;
    assert!((60..=60 + refilled).contains(&counted), "{counted} in {:?}: {statuses:?}", begun.elapsed());
    let status = login(&system, &proxy, 999, &[("x-forwarded-for", "203.0.113.8")]).await;
    assert_ne!(status, 429, "another client of the same proxy has its own limit");
}
