//! Who may submit and read, and how often.

use reqwest::Method;

use super::{KEY, System, api, one};
use crate::harness::{http::ask, redis::Redis};

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
            let refused = ask(request).await;
            assert_eq!(refused.assert_problem(403, path)["detail"], detail, "{path}");
            assert!(!refused.text.contains(KEY), "{refused:?}");
        }
    }
    assert_eq!(system.history(10).await, [""; 0], "nothing was saved");
    // Of two credentials both must be good.
    for (method, path) in ROUTES {
        for bad in ["Bearer garbage", "Bearer x.y.z", "Bearer", "Basic YTpi"] {
            let call = system.client.request(method.clone(), format!("{}{path}", system.api.url)).json(&one(1));
            let refused = ask(call.header("api_key", KEY).header("authorization", bad)).await;
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
    let variables = [("REDIS_URL", &*redis.url)];
    let system = System::start(&variables).await;
    let other = api(&system.database, &variables).await;
    let post = |url: &str| {
        let request = system.client.post(format!("{url}/asset")).header("api_key", KEY).json(&one(1));
        async move { ask(request).await.status }
    };
    let drain = async |url: &str, most: usize| {
        let mut granted = 0;
        while granted < most {
            let statuses = futures_util::future::join_all((0..100).map(|_| post(url))).await;
            granted += statuses.iter().filter(|status| **status == 200).count();
            if statuses.contains(&429) {
                break;
            }
        }
        granted
    };
    let granted = drain(&system.api.url, 3000).await;
    assert!((1200..3000).contains(&granted), "{granted} at the first process");
    // Twenty a second come back meanwhile.
    let granted = drain(&other.url, 1200).await;
    assert!(granted < 1000, "the first process has used up what the second one may: {granted}");
}
