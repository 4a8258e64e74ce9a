//! Access to the interest rates: the API key, a second credential, and the rate limits.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::{KEY, one_asset, start};
use crate::harness::{eventually, http::send, redis::Redis};

const ROUTES: [(Method, &str); 3] =
    [(Method::POST, "/asset"), (Method::GET, "/interest_rate"), (Method::GET, "/interest_rate/history")];

#[tokio::test]
async fn interest_rates_need_the_api_key() {
    let system = start(&[]).await;
    for (method, path) in ROUTES {
        let call = || system.request(method.clone(), path).json(&one_asset(1));
        for (request, detail) in [
            (call(), "No API key provided"),
            (call().header("api_key", ""), "No API key provided"),
            (call().header("x-api-key", KEY), "No API key provided"),
            (call().header("api_key", "wrong"), "Invalid API key"),
            (call().header("api_key", KEY.to_uppercase()), "Invalid API key"),
            (call().header("api_key", KEY).header("api_key", KEY), "Invalid API key"),
        ] {
            let refused = send(request).await;
            assert_eq!(refused.assert_problem(403, path)["detail"], detail, "{path}");
            assert!(!refused.text.contains(KEY), "{refused:?}");
        }
    }
    assert_eq!(system.history(10).await, [""; 0], "no rate is saved");
    // Of two credentials, both must be valid.
    for (method, path) in ROUTES {
        for bad in ["Bearer garbage", "Bearer x.y.z", "Bearer", "Basic YTpi"] {
            let call = system.request(method.clone(), path).json(&one_asset(1));
            let refused = send(call.header("api_key", KEY).header("authorization", bad)).await;
            refused.assert_problem(401, &format!("{bad} for {path}"));
            assert_eq!(refused.header("www-authenticate"), "Bearer", "{path}");
        }
    }
    assert_eq!(system.history(10).await, [""; 0], "no rate is saved");
}

#[tokio::test]
async fn submissions_are_rate_limited() {
    let system = start(&[]).await;
    assert_eq!(system.submit(one_asset(1)).await.status, 200);
    // A list without assets counts as well, and writes nothing: a slow machine sends it faster than the limit refills.
    let mut refused = None;
    for _ in 0..30 {
        let responses = futures_util::future::join_all((0..100).map(|_| system.submit(json!([])))).await;
        refused = responses.into_iter().find(|response| response.status != 422);
        if refused.is_some() {
            break;
        }
    }
    let refused = refused.expect("a limit");
    refused.assert_problem(429, "more than 1,200 a minute");
    assert!(refused.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds >= 1), "{refused:?}");
    assert_eq!(refused.header("ratelimit-policy"), "\"asset\";q=1200;w=60");
    assert!(refused.header("ratelimit").starts_with("\"asset\";r=0;t="), "{refused:?}");
    assert_eq!(system.current_rate().await, "1.0", "reading has its own limit");
}

#[tokio::test]
async fn interest_rate_limits_are_shared_through_redis() {
    let Some(redis) = Redis::start().await else { return };
    let system = start(&[("REDIS_URL", &*redis.url)]).await;
    // On these routes, only the rate limiter runs scripts in Redis.
    let count_scripts = async || {
        let statistics = redis.command("INFO commandstats").await.unwrap_or_default();
        let calls =
            statistics.split("cmdstat_eval:calls=").nth(1).and_then(|rest| rest.split(',').next()?.parse().ok());
        calls.unwrap_or(0_u32)
    };
    for (method, path) in ROUTES {
        let before = count_scripts().await;
        // On a busy machine a process may count locally for a while, because Redis responds too late.
        eventually(path, Duration::from_secs(20), async || {
            let request = system.request(method.clone(), path);
            let response = send(request.header("api_key", KEY).json(&one_asset(1))).await;
            assert_eq!(response.status, 200, "{path}: {response:?}");
            count_scripts().await > before
        })
        .await;
    }
}
