//! Rate limits of login and registration, and other requests during a burst of logins.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::json;

use super::{LOGIN, PASSWORD, REGISTER, System, client_at, registration};
use crate::harness::{
    http::{HttpResponse, send},
    redis::Redis,
};

fn login_body(email: &str) -> String {
    json!({"email": email, "password": PASSWORD}).to_string()
}

/// Asserts a 429 that names this policy and when to retry.
fn assert_limited(response: &HttpResponse, policy: &str, quota: u32) {
    let problem = response.assert_problem(429, policy);
    assert_eq!(problem["detail"], "Too many requests, please try again later.");
    let seconds = response.header("retry-after");
    assert!(seconds.parse().is_ok_and(|seconds: u64| (1..=60).contains(&seconds)), "{response:?}");
    assert_eq!(response.header("ratelimit-policy"), format!("\"{policy}\";q={quota};w=60"));
    assert_eq!(response.header("ratelimit"), format!("\"{policy}\";r=0;t={seconds}"));
}

#[tokio::test]
async fn login_limits_apply_to_an_account_from_every_address() {
    let system = System::start(&[]).await;
    system.register("ada@example.com").await;
    let (first, second) = (client_at(1), client_at(2));
    let begun = Instant::now();
    let mut responses = Vec::<HttpResponse>::new();
    // More on a slow machine, on which much of the quota refills meanwhile.
    while responses.len() < 60 || responses.len() < 300 && responses.iter().all(|response| response.status == 200) {
        let number = responses.len();
        let client = if number.is_multiple_of(2) { &first } else { &second };
        let email = if number.is_multiple_of(3) { "ADA@example.com" } else { "ada@example.com" };
        responses.push(system.post_from(client, LOGIN, login_body(email)).await);
    }
    // A bucket of 30 tokens, refilled by one every two seconds.
    let refilled = begun.elapsed().as_secs() / 2 + 1;
    let accepted = responses.iter().filter(|response| response.status == 200).count() as u64;
    let sent = responses.len();
    assert!((30..=30 + refilled).contains(&accepted), "{accepted} of {sent} in {:?}", begun.elapsed());
    assert_limited(responses.iter().rfind(|response| response.status != 200).expect("a refusal"), "login-account", 30);
    assert!(responses.iter().all(|response| matches!(response.status, 200 | 429)));
    let other = system.post_from(&first, LOGIN, login_body("other@example.com")).await;
    other.assert_problem(401, "another account has its own limit");
    // A failed login states the remaining quota too, because the clients that fail are the ones that need it.
    assert!(other.header("ratelimit-policy").contains("\"login-account\";q=30;w=60"), "{other:?}");
    assert!(other.header("ratelimit").contains("\"login-account\";r=29;t="), "{other:?}");
    assert_eq!(
        system.post_json(REGISTER, &registration("bob@example.com")).await.status,
        201,
        "registration has its own limit"
    );
}

#[tokio::test]
async fn one_address_cannot_lock_an_account_for_others() {
    let Some(redis) = Redis::start().await else { return };
    for variables in [&[][..], &[("REDIS_URL", &*redis.url)]] {
        let system = System::start(variables).await;
        system.register("ada@example.com").await;
        let (attacker, owner) = (client_at(5), client_at(6));
        let guess = json!({"email": "ada@example.com", "password": "a wrong guess"}).to_string();
        let mut responses = Vec::new();
        for _ in 0..60 {
            responses.push(system.post_from(&attacker, LOGIN, guess.clone()).await);
        }
        assert!(responses[..10].iter().all(|response| response.status == 401), "{:?}", responses[..10].last());
        // The quota refills by one every six seconds, so each of the other guesses may be counted, also the last one.
        let refused: Vec<_> = responses.iter().filter(|response| response.status == 429).collect();
        assert!(refused.len() >= 30, "{} of 60 guesses are refused", refused.len());
        assert_limited(refused[refused.len() - 1], "login-pair", 10);
        // More often than the pair of address and account may fail: a correct login uses no quota.
        for _ in 0..15 {
            let response = system.post_from(&owner, LOGIN, login_body("ada@example.com")).await;
            assert_eq!(response.status, 200, "{response:?}");
        }
        let other = system.post_from(&attacker, LOGIN, login_body("bob@example.com")).await;
        other.assert_problem(401, "refused guesses leave the address its quota for other accounts");
    }
}

#[tokio::test]
async fn forwarded_headers_of_untrusted_clients_do_not_avoid_the_limit() {
    let system = System::start(&[]).await;
    let client = client_at(3);
    let begun = Instant::now();
    let attempts = (0..120).map(|number| {
        let body = registration(&format!("user-{number}@example.com")).to_string();
        let request = client.post(format!("{}{REGISTER}", system.api.url)).header("content-type", "application/json");
        let request = request.header("x-forwarded-for", format!("10.0.0.{number}"));
        send(request.header("forwarded", format!("for=10.0.0.{number}")).body(body))
    });
    let responses = join_all(attempts).await;
    let refilled = begun.elapsed().as_secs() + 1;
    let limited: Vec<_> = responses.iter().filter(|response| response.status == 429).collect();
    let accepted = (responses.len() - limited.len()) as u64;
    assert!((60..=60 + refilled).contains(&accepted), "{accepted} of 120 in {:?}", begun.elapsed());
    assert_limited(limited[0], "register-address", 60);
    assert!(system.count_hashes().await <= accepted, "a refused registration costs no hash");
    let elsewhere = system.post_from(&client_at(4), REGISTER, registration("bob@example.com").to_string()).await;
    assert_ne!(elsewhere.status, 429, "{elsewhere:?}");
}

#[tokio::test]
async fn a_burst_of_logins_does_not_slow_other_requests() {
    let system = System::start(&[]).await;
    // Each address stays below its limit and each account is tried once. Together they exceed the hashing capacity.
    let clients: Vec<_> = (10..20).map(client_at).collect();
    let logins = join_all((0..500).map(|number: usize| {
        let client = &clients[number % clients.len()];
        system.post_from(client, LOGIN, login_body(&format!("user-{number}@example.com")))
    }));
    let finished = AtomicBool::new(false);
    let burst = async {
        let responses = logins.await;
        finished.store(true, Ordering::Relaxed);
        responses
    };
    let other_requests = async {
        let mut times = Vec::new();
        while !finished.load(Ordering::Relaxed) {
            let sent = Instant::now();
            let response = send(system.client.get(format!("{}/v1/transactions", system.api.url))).await;
            assert_eq!(response.status, 200, "{response:?}");
            times.push(sent.elapsed());
        }
        times.sort_unstable();
        times
    };
    let (responses, times) = tokio::join!(burst, other_requests);
    assert!(times.len() >= 10, "responses come during the burst: {}", times.len());
    let median = times[times.len() / 2];
    println!("{} look-ups meanwhile: median {median:?}, longest {:?}", times.len(), times[times.len() - 1]);
    assert!(median < Duration::from_millis(250), "median {median:?}");
    let with = |status: u16| responses.iter().filter(|response| response.status == status).count();
    println!("{} hashed, {} refused with 503", with(401), with(503));
    assert_eq!(
        with(401) + with(503),
        500,
        "{:?}",
        responses.iter().map(|response| response.status).collect::<Vec<_>>()
    );
    assert!(with(401) >= 33, "the queue of logins is served: {}", with(401));
    for response in responses.iter().filter(|response| response.status == 503) {
        response.assert_problem(503, "a login beyond the queue");
        assert_eq!(response.header("retry-after"), "1");
    }
    assert_eq!(system.count_hashes().await, with(401) as u64, "a refused login costs no hash");
    assert_eq!(system.login("user-0@example.com", PASSWORD).await.status, 401, "logins work after the burst");
}
