//! Who may submit and read, and how often.

use std::time::Duration;

use reqwest::Method;

use super::{KEY, System, one};
use crate::harness::{eventually, http::send, redis::Redis};

const ROUTES: [(Method, &str); 3] =
    [(Method::POST, "/asset"), (Method::GET, "/interest_rate"), (Method::GET, "/interest_rate/history")];

#[tokio::test]
async fn without_the_key_nothing_is_told() {
    let system = System::start(&[]).await;
    for (method, path) in ROUTES {
        let call = || system.client.request(method.clone(), format!("{}{path}", system.api.url)).json(&one(1));
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
    assert_eq!(system.history(10).await, [""; 0], "nothing was saved");
    // Of two credentials both must be good.
    for (method, path) in ROUTES {
        for bad in ["Bearer garbage", "Bearer x.y.z", "Bearer", "Basic YTpi"] {
            let call = system.client.request(method.clone(), format!("{}{path}", system.api.url)).json(&one(1));
            let refused = send(call.header("api_key", KEY).header("authorization", bad)).await;
            refused.assert_problem(401, &format!("{bad} for {path}"));
            assert_eq!(refused.header("www-authenticate"), "Bearer", "{path}");
        }
    }
    assert_eq!(system.history(10).await, [""; 0], "nothing was saved");
}

#[tokio::test]
async fn a_loop_is_slowed_down() {
    let system = System::start(&[]).await;
    let mut refused = None;
    for _ in 0..30 {
        let answers = futures_util::future::join_all((0..100).map(|_| system.submit(one(1)))).await;
        refused = answers.into_iter().find(|answer| answer.status != 200);
        if refused.is_some() {
            break;
        }
    }
    let refused = refused.expect("a limit");
    refused.assert_problem(429, "more than 1,200 a minute");
    assert!(refused.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds >= 1), "{refused:?}");
    assert_eq!(refused.header("ratelimit-policy"), "\"asset\";q=1200;w=60");
    assert!(refused.header("ratelimit").starts_with("\"asset\";r=0;t="), "{refused:?}");
    assert_eq!(system.current().await, "1.0", "reading has a limit of its own");
}

#[tokio::test]
async fn processes_with_one_redis_share_the_limits() {
    let Some(redis) = Redis::start().await else { return };
    let system = System::start(&[("REDIS_URL", &*redis.url)]).await;
    // The scripts that take a token are the only ones on these routes.
    let scripts = async || {
        let statistics = redis.command("INFO commandstats").await.unwrap_or_default();
        let calls =
            statistics.split("cmdstat_eval:calls=").nth(1).and_then(|rest| rest.split(',').next()?.parse().ok());
        calls.unwrap_or(0_u32)
    };
    for (method, path) in ROUTES {
        let before = scripts().await;
        // On a busy machine a process counts for itself for a while.
        eventually(path, Duration::from_secs(20), async || {
            let request = system.client.request(method.clone(), format!("{}{path}", system.api.url));
            let answer = send(request.header("api_key", KEY).json(&one(1))).await;
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            scripts().await > before
        })
        .await;
    }
}
