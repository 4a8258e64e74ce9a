//! Quotas: what a sender may send in a window.

use std::time::Duration;

use serde_json::json;
use time::OffsetDateTime;

use super::{
    System,
    signatures::{headers, secret, sign},
    webhook,
};
use crate::harness::{
    eventually,
    http::{HttpResponse, send},
    process::{Api, client_at},
    redis::Redis,
    system::WEBHOOKS,
};

const SOON: Duration = Duration::from_secs(20);
const ACME: &[u8] = b"the secret of acme, for acme only";
const BETA: &[u8] = b"the secret of beta, for beta only";
const PLAIN: &[u8] = b"a secret that has no sender's name";

async fn post_signed(system: &System, url: &str, key: &[u8], id: &str) -> HttpResponse {
    let (body, now) = (webhook(id).to_string(), OffsetDateTime::now_utc().unix_timestamp().to_string());
    let request = system.client.post(format!("{url}{WEBHOOKS}")).header("content-type", "application/json");
    let signed = headers(id, &now, &sign(key, id, &now, &body));
    send(signed.iter().fold(request.body(body), |request, (name, value)| request.header(*name, value))).await
}

#[tokio::test]
async fn each_signing_sender_has_its_own_quota() {
    let secrets = format!("acme:{},beta:{},{}", secret(ACME), secret(BETA), secret(PLAIN));
    let system = System::start(&[("WEBHOOK_SECRET", &secrets), ("WEBHOOK_QUOTA", "3/1h")]).await;
    for (sender, key) in [("acme", ACME), ("beta", BETA), ("plain", PLAIN)] {
        for n in 0..3 {
            let response = post_signed(&system, &system.api.url, key, &format!("{sender}-{n}")).await;
            assert_eq!(response.status, 202, "{sender} {n}: {response:?}");
            assert_eq!(response.header("ratelimit-policy"), "\"webhooks\";q=3;w=3600");
        }
        let refused = post_signed(&system, &system.api.url, key, &format!("{sender}-3")).await;
        refused.assert_problem(429, sender);
        let seconds: u32 = refused.header("retry-after").parse().expect("seconds");
        assert!((1..=1200).contains(&seconds), "{sender}: a third of an hour, {seconds}");
    }
    let recorded = "SELECT count(*) FROM transactions";
    assert_eq!(system.count(recorded).await, 9);
    assert_eq!(system.count("SELECT count(*) FROM transactions WHERE sender = 'beta'").await, 3);
    assert_eq!(system.count("SELECT count(*) FROM transactions WHERE sender IS NULL").await, 3);
    // A wrong signature is refused before it counts.
    assert_eq!(post_signed(&system, &system.api.url, b"another", "x").await.status, 401);
}

/// Within the queue, `queue::fairness` tests what the keys of jobs do.
#[tokio::test]
async fn the_jobs_of_each_sender_have_its_own_fair_key() {
    let secrets = format!("acme:{},beta:{},{}", secret(ACME), secret(BETA), secret(PLAIN));
    let variables = [("WEBHOOK_SECRET", &*secrets), ("QUEUE_FAIR_BY", "sender"), ("PROCESSING_DELAY_SECONDS", "0")];
    let system = System::start(&variables).await;
    for (sender, key) in [("acme", ACME), ("beta", BETA), ("plain", PLAIN)] {
        for n in 0..3 {
            assert_eq!(post_signed(&system, &system.api.url, key, &format!("{sender}-{n}")).await.status, 202);
        }
    }
    let keys = "SELECT count(DISTINCT fair_key) FROM apalis.jobs WHERE job_type = 'process_transaction'";
    assert_eq!(system.count(keys).await, 3);
    let _worker = system.start_worker(&variables).await;
    let processed = "SELECT count(*) FROM transactions WHERE status = 'PROCESSED'";
    eventually("all are processed", SOON, async || system.count(processed).await == 9).await;

    let unshared = System::start(&[]).await;
    unshared.send_webhook("t").await;
    let with_key = "SELECT count(*) FROM apalis.jobs WHERE fair_key IS NOT NULL";
    assert_eq!(unshared.count(with_key).await, 0, "without the variable no job pays for it");
}

#[tokio::test]
async fn without_signatures_each_address_has_its_own_quota() {
    let system = System::start(&[("WEBHOOK_QUOTA", "2/1h")]).await;
    let post = async |address: u8, id: &str| {
        let request = client_at(address).post(format!("{}{WEBHOOKS}", system.api.url));
        send(request.header("content-type", "application/json").body(webhook(id).to_string())).await.status
    };
    for address in [1, 2] {
        for (n, expected) in [(0, 202), (1, 202), (2, 429)] {
            assert_eq!(post(address, &format!("t-{address}-{n}")).await, expected, "{address} {n}");
        }
    }
    // What needs no quota still works.
    assert_eq!(send(system.get("/v1/transactions/t-1-0")).await.status, 200);
}

/// Sends a batch of new webhooks.
async fn post_batch(system: &System, from: u32, rows: u32) -> HttpResponse {
    let rows: Vec<_> = (from..from + rows).map(|n| webhook(&format!("t-{n}"))).collect();
    let request = system.request(reqwest::Method::POST, &format!("{WEBHOOKS}/batch"));
    send(request.header("content-type", "application/json").body(json!(rows).to_string())).await
}

#[tokio::test]
async fn a_batch_counts_as_its_rows() {
    let system = System::start(&[("WEBHOOK_QUOTA", "10/1h")]).await;
    let post = async |from, rows| post_batch(&system, from, rows).await;
    assert_eq!(post(0, 6).await.status, 200);
    let refused = post(6, 5).await;
    refused.assert_problem(429, "four are left");
    assert!(refused.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds <= 360), "{refused:?}");
    assert_eq!(post(6, 4).await.status, 200);
    assert_eq!(post(10, 1).await.status, 429);
    assert_eq!(system.count("SELECT count(*) FROM transactions").await, 10);
}

/// `rate_limit::a_redis_bucket_refuses_more_than_its_quota_until_it_is_full` tests the same of the buckets in Redis.
#[tokio::test]
async fn a_batch_larger_than_the_quota_must_be_split() {
    let system = System::start(&[("WEBHOOK_QUOTA", "3/3h")]).await;
    let refused = async |rows: u32| {
        let refused = post_batch(&system, 0, rows).await;
        let detail = refused.assert_problem(429, "more than the quota")["detail"].clone();
        let split = format!("The batch has {rows} rows and the quota allows at most 3 at once, so it must be split.");
        assert_eq!(detail, split);
        assert_eq!(refused.header("ratelimit-policy"), "\"webhooks\";q=3;w=10800");
        let seconds = refused.header("retry-after").parse::<u32>().expect("seconds");
        (seconds, refused.header("ratelimit").to_owned())
    };
    assert_eq!(refused(4).await, (1, "\"webhooks\";r=3;t=1".into()), "the whole quota is free");
    assert_eq!(post_batch(&system, 0, 1).await.status, 200);
    let (seconds, state) = refused(1000).await;
    assert!((1..=3600).contains(&seconds), "the one that is missing refills in an hour: {seconds}");
    assert_eq!(state, format!("\"webhooks\";r=2;t={seconds}"));
    assert_eq!(post_batch(&system, 1, 2).await.status, 200, "a refused batch uses up nothing");
    let (seconds, _) = refused(4).await;
    assert!((3601..=10_800).contains(&seconds), "all three are missing: {seconds}");
    assert_eq!(system.count("SELECT count(*) FROM transactions").await, 3);
}

#[tokio::test]
async fn webhooks_that_are_refused_for_the_moment_do_not_count() {
    let system = System::start(&[("WEBHOOK_QUOTA", "4/1h")]).await;
    let pool = system.database.pool().await;
    let mut other = pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE transactions IN ACCESS EXCLUSIVE MODE").execute(&mut *other).await.unwrap();
    send(system.post_webhook(webhook("t-0").to_string())).await.assert_problem(503, "one");
    post_batch(&system, 1, 3).await.assert_problem(503, "a batch");
    other.rollback().await.unwrap();
    assert_eq!(post_batch(&system, 0, 4).await.status, 200, "the same ones again");
    assert_eq!(post_batch(&system, 4, 1).await.status, 429);
    assert_eq!(system.count("SELECT count(*) FROM transactions").await, 4);
}

/// Waits until this process counts webhooks in Redis, which runs a script for each. A process for which Redis has
/// responded too late counts by itself for a second.
async fn wait_for_redis(system: &System, url: &str, redis: &Redis) {
    let count_scripts = async || {
        let statistics = redis.command("INFO commandstats").await.unwrap_or_default();
        let calls =
            statistics.split("cmdstat_eval:calls=").nth(1).and_then(|rest| rest.split(',').next()?.parse().ok());
        calls.unwrap_or(0_u32)
    };
    eventually("the process counts in Redis", SOON, async || {
        let before = count_scripts().await;
        post_signed(system, url, BETA, "beta").await;
        count_scripts().await > before
    })
    .await;
}

#[tokio::test]
async fn processes_share_a_quota_through_redis() {
    let Some(redis) = Redis::start().await else { return };
    // Each attempt has a sender of its own: on a busy machine a process may count by itself during the first one.
    let keys: Vec<Vec<u8>> = (0..20).map(|n| format!("the secret of the sender {n:02}").into_bytes()).collect();
    let named = keys.iter().enumerate().map(|(n, key)| format!(",s-{n}:{}", secret(key)));
    let secrets = format!("beta:{}", secret(BETA)) + &named.collect::<String>();
    let variables = [("WEBHOOK_SECRET", &*secrets), ("WEBHOOK_QUOTA", "6/1h"), ("REDIS_URL", &*redis.url)];
    let system = System::start(&variables).await;
    let other = Api::start(&system.database.url, &variables).await;
    let urls = [&*system.api.url, &*other.url];
    let mut senders = keys.iter().enumerate();
    eventually("both processes refuse what they have granted together", 3 * SOON, async || {
        let (sender, key) = senders.next().expect("a sender for another attempt");
        for url in urls {
            wait_for_redis(&system, url, &redis).await;
        }
        for n in 0..6 {
            let id = format!("t-{sender}-{n}");
            assert_eq!(post_signed(&system, urls[n % 2], key, &id).await.status, 202, "{id}");
        }
        let first = post_signed(&system, urls[0], key, "more").await.status;
        let second = post_signed(&system, urls[1], key, "more").await.status;
        (first, second) == (429, 429)
    })
    .await;
}
