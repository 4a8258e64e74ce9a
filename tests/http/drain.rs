//! SIGTERM with `DRAIN_DELAY_SECONDS`: `/readyz` fails first, so that load balancers stop routing here before the end.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::io::AsyncWriteExt;

use super::{SOON, raw_webhook, read_one_response};
use crate::harness::{
    eventually,
    http::send,
    process::Process,
    system::{System, webhook},
};

#[tokio::test]
async fn a_draining_api_is_unready_but_serves_until_its_delay_ends() {
    // The longest delay: all requests below have their responses within it, also on a machine that stalls for seconds.
    const DELAY: Duration = Duration::from_secs(15);
    let mut system = System::start(&[("DRAIN_DELAY_SECONDS", "15")]).await;
    let mut idle = system.send_bytes(raw_webhook("before").as_bytes()).await;
    assert!(read_one_response(&mut idle).await.starts_with("HTTP/1.1 202"));

    let began = Instant::now();
    system.api.process.signal(Signal::SIGTERM);
    eventually("/readyz returns 503", SOON, async || send(system.get("/readyz")).await.status == 503).await;
    assert_eq!(send(system.get("/livez")).await.status, 200);
    // A new connection and an idle one are both served.
    let sent = send(system.post_webhook(webhook("new").to_string())).await;
    assert_eq!((sent.status, sent.header("connection")), (202, "close"), "{sent:?}");
    idle.write_all(raw_webhook("idle").as_bytes()).await.unwrap();
    let response = read_one_response(&mut idle).await;
    assert!(response.starts_with("HTTP/1.1 202") && response.contains("connection: close"), "{response}");
    // A long poll would outlast the process, so it returns at once.
    let waited = send(system.get("/v1/transactions/new?wait=60")).await;
    assert_eq!(waited.status, 200);
    assert!(began.elapsed() < DELAY, "the responses took longer than the delay: {:?}", began.elapsed());

    assert!(system.api.process.wait_for_exit(DELAY + SOON).await.success(), "{}", system.api.process.log());
    assert!(began.elapsed() >= DELAY, "the delay ended too early: {:?}", began.elapsed());
    assert_eq!(system.count_transactions().await, 3);
}

#[tokio::test]
async fn a_second_signal_ends_the_drain_delay() {
    let mut system = System::start(&[("DRAIN_DELAY_SECONDS", "15")]).await;
    system.api.process.signal(Signal::SIGTERM);
    system.api.process.wait_for_line("draining").await;
    system.api.process.signal(Signal::SIGTERM);
    let began = Instant::now();
    system.api.process.wait_for_exit(Duration::from_secs(10)).await;
    println!("a second signal ended a delay of 15 s after {:.2?}", began.elapsed());
}

#[tokio::test]
async fn an_invalid_drain_delay_stops_the_start() {
    for delay in ["-1", "16", "soon"] {
        let mut process = Process::start(&["api"], &[("DATABASE_URL", "postgres://x"), ("DRAIN_DELAY_SECONDS", delay)]);
        assert!(!process.wait_for_exit(SOON).await.success(), "{delay}");
        assert!(process.log().contains("DRAIN_DELAY_SECONDS: must be a number from 0 to 15"), "{}", process.log());
    }
}
