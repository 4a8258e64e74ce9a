//! SIGTERM with `DRAIN_DELAY_SECONDS`: who routes requests here learns of the end before it comes.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::io::AsyncWriteExt;

use super::{SOON, System, WEBHOOKS, one_answer, post, webhook};
use crate::harness::{eventually, http::send, process::Process};

#[tokio::test]
async fn it_says_that_it_is_not_ready_and_serves_until_the_delay_is_over() {
    let mut system = System::start(&[("DRAIN_DELAY_SECONDS", "6")]).await;
    let mut idle = system.sent(post("before", "").as_bytes()).await;
    assert!(one_answer(&mut idle).await.starts_with("HTTP/1.1 202"));

    let began = Instant::now();
    system.api.process.signal(Signal::SIGTERM);
    eventually("/readyz says so", Duration::from_secs(3), async || {
        send(system.call(reqwest::Method::GET, "/readyz")).await.status == 503
    })
    .await;
    assert_eq!(send(system.call(reqwest::Method::GET, "/livez")).await.status, 200);
    // New connections and one that rested.
    let sent = send(system.call(reqwest::Method::POST, WEBHOOKS).json(&webhook("new"))).await;
    assert_eq!((sent.status, sent.header("connection")), (202, "close"), "{sent:?}");
    idle.write_all(post("rested", "").as_bytes()).await.unwrap();
    let answer = one_answer(&mut idle).await;
    assert!(answer.starts_with("HTTP/1.1 202") && answer.contains("connection: close"), "{answer}");
    // A wait would outlast the process.
    let waited = send(system.call(reqwest::Method::GET, "/v1/transactions/new?wait=60")).await;
    assert_eq!(waited.status, 200);
    assert!(began.elapsed() < Duration::from_secs(6), "the delay is over: {:?}", began.elapsed());

    assert!(system.api.process.wait_for_exit(SOON).await.success(), "{}", system.api.process.log());
    assert!(began.elapsed() >= Duration::from_secs(6), "{:?}", began.elapsed());
    assert_eq!(system.recorded().await, 3);
}

#[tokio::test]
async fn a_second_signal_ends_the_delay_and_a_wrong_one_is_named() {
    let mut system = System::start(&[("DRAIN_DELAY_SECONDS", "15")]).await;
    system.api.process.signal(Signal::SIGTERM);
    system.api.process.wait_for_line("draining").await;
    system.api.process.signal(Signal::SIGTERM);
    let began = Instant::now();
    system.api.process.wait_for_exit(Duration::from_secs(10)).await;
    println!("a second signal ended a delay of 15 s after {:.2?}", began.elapsed());

    for wrong in ["-1", "16", "soon"] {
        let mut process = Process::start(&["api"], &[("DATABASE_URL", "postgres://x"), ("DRAIN_DELAY_SECONDS", wrong)]);
        assert!(!process.wait_for_exit(SOON).await.success(), "{wrong}");
        assert!(process.log().contains("DRAIN_DELAY_SECONDS: must be a number from 0 to 15"), "{}", process.log());
    }
}
