//! How often one may try, and that a storm of logins is in nobody's way.

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

fn login(email: &str) -> String {
    json!({"email": email, "password": PASSWORD}).to_string()
}

/// Makes sure that this says when to come back.
fn assert_limited(answer: &HttpResponse, policy: &str, quota: u32) {
    let problem = answer.assert_problem(429, policy);
    assert_eq!(problem["detail"], "Too many requests, please try again later.");
    let seconds = answer.header("retry-after");
    assert!(seconds.parse().is_ok_and(|seconds: u64| (1..=60).contains(&seconds)), "{answer:?}");
    assert_eq!(answer.header("ratelimit-policy"), format!("\"{policy}\";q={quota};w=60"));
    assert_eq!(answer.header("ratelimit"), format!("\"{policy}\";r=0;t={seconds}"));
}

#[tokio::test]
async fn an_account_is_limited_from_wherever_it_is_tried() {
    let system = System::start(&[]).await;
    system.register("ada@example.com").await;
    let (here, there) = (client_at(1), client_at(2));
    let begun = Instant::now();
    let mut answers = Vec::new();
    for number in 0..60 {
        let client = if number % 2 == 0 { &here } else { &there };
        let email = if number % 3 == 0 { "ADA@example.com" } else { "ada@example.com" };
        answers.push(system.post_from(client, LOGIN, login(email)).await);
    }
    // A bucket of 30, which gets one every two seconds.
    let refilled = begun.elapsed().as_secs() / 2 + 1;
    let taken = answers.iter().filter(|answer| answer.status == 200).count() as u64;
    assert!((30..=30 + refilled).contains(&taken), "{taken} of 60 in {:?}", begun.elapsed());
    assert_limited(answers.iter().rfind(|answer| answer.status != 200).expect("a refusal"), "login-account", 30);
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 429)));
    let other = system.post_from(&here, LOGIN, login("other@example.com")).await;
    other.assert_problem(401, "another account is another matter");
    // A failure says what is left as well: it is who guesses or mistypes that needs it.
    assert!(other.header("ratelimit-policy").contains("\"login-account\";q=30;w=60"), "{other:?}");
    assert!(other.header("ratelimit").contains("\"login-account\";r=29;t="), "{other:?}");
    assert_eq!(system.post(REGISTER, &registration("bob@example.com")).await.status, 201, "so is a registration");
}

#[tokio::test]
async fn one_address_cannot_lock_an_account() {
    let Some(redis) = Redis::start().await else { return };
    for variables in [&[][..], &[("REDIS_URL", &*redis.url)]] {
        let system = System::start(variables).await;
        system.register("ada@example.com").await;
        let (attacker, owner) = (client_at(5), client_at(6));
        let guess = json!({"email": "ada@example.com", "password": "a wrong guess"}).to_string();
        let mut answers = Vec::new();
        for _ in 0..60 {
            answers.push(system.post_from(&attacker, LOGIN, guess.clone()).await);
        }
        assert!(answers[..10].iter().all(|answer| answer.status == 401), "{:?}", answers[..10].last());
        assert_limited(answers.last().expect("an answer"), "login-pair", 10);
        // More often than the pair may be wrong: what is right costs nothing.
        for _ in 0..15 {
            let answer = system.post_from(&owner, LOGIN, login("ada@example.com")).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        let other = system.post_from(&attacker, LOGIN, login("bob@example.com")).await;
        other.assert_problem(401, "refused guesses use up nothing of what the address has for other accounts");
    }
}

#[tokio::test]
async fn an_address_is_limited_whatever_it_says_of_itself() {
    let system = System::start(&[]).await;
    let client = client_at(3);
    let begun = Instant::now();
    let tries = (0..120).map(|number| {
        let body = registration(&format!("user-{number}@example.com")).to_string();
        let request = client.post(format!("{}{REGISTER}", system.api.url)).header("content-type", "application/json");
        let request = request.header("x-forwarded-for", format!("10.0.0.{number}"));
        send(request.header("forwarded", format!("for=10.0.0.{number}")).body(body))
    });
    let answers = join_all(tries).await;
    let refilled = begun.elapsed().as_secs() + 1;
    let limited: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    let taken = (answers.len() - limited.len()) as u64;
    assert!((60..=60 + refilled).contains(&taken), "{taken} of 120 in {:?}", begun.elapsed());
    assert_limited(limited[0], "register-address", 60);
    assert!(system.hashes().await <= taken, "what is refused costs no hash");
    let elsewhere = system.post_from(&client_at(4), REGISTER, registration("bob@example.com").to_string()).await;
    assert_ne!(elsewhere.status, 429, "{elsewhere:?}");
}

#[tokio::test]
async fn a_storm_of_logins_is_in_nobodys_way() {
    let system = System::start(&[]).await;
    // Each address below its limit, each account tried once; far more than can be hashed.
    let clients: Vec<_> = (10..20).map(client_at).collect();
    let storm = join_all((0..500).map(|number: usize| {
        let client = &clients[number % clients.len()];
        system.post_from(client, LOGIN, login(&format!("user-{number}@example.com")))
    }));
    let over = AtomicBool::new(false);
    let storming = async {
        let answers = storm.await;
        over.store(true, Ordering::Relaxed);
        answers
    };
    let answering = async {
        let mut times = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let asked = Instant::now();
            let answer = send(system.client.get(format!("{}/v1/transactions", system.api.url))).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            times.push(asked.elapsed());
        }
        times.sort_unstable();
        times
    };
    let (answers, times) = tokio::join!(storming, answering);
    assert!(times.len() >= 10, "answers all along, not after it: {}", times.len());
    let median = times[times.len() / 2];
    println!("{} look-ups meanwhile: median {median:?}, longest {:?}", times.len(), times[times.len() - 1]);
    assert!(median < Duration::from_millis(250), "median {median:?}");
    let with = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
    println!("{} hashed, {} told to come back", with(401), with(503));
    assert_eq!(with(401) + with(503), 500, "{:?}", answers.iter().map(|answer| answer.status).collect::<Vec<_>>());
    assert!(with(401) >= 33, "as many as can wait are served: {}", with(401));
    for answer in answers.iter().filter(|answer| answer.status == 503) {
        answer.assert_problem(503, "storm");
        assert_eq!(answer.header("retry-after"), "1");
    }
    assert_eq!(system.hashes().await, with(401) as u64, "who is turned away costs no hash");
    assert_eq!(system.login("user-0@example.com", PASSWORD).await.status, 401, "and then it is over");
}
