//! PostgreSQL is away for longer than the lease, or hangs: what runs goes on, and every process can still be stopped.

use std::{
    fs,
    time::{Duration, Instant},
};

use jobs::boot::postgres::{Cluster, Running};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    SOON,
    clients::{send, send_all, webhook},
    processor::Processor,
    server,
    settlements::{agree, all_settled},
    with_processor,
};
use crate::harness::{
    eventually,
    process::{Api, http_client, start_worker},
    scratch::Scratch,
};

/// A stop takes no longer, whatever hangs.
const STOP: Duration = Duration::from_secs(30);
const RUNS: usize = 40;

fn ids() -> Vec<String> {
    (0..RUNS).map(|number| format!("txn_{number}")).collect()
}

#[tokio::test]
async fn an_outage_longer_than_the_lease_repeats_no_run_of_a_living_worker() {
    let scratch = Scratch::new();
    let (cluster, url) = server::start(&scratch).await;
    let pool = server::prepare(&cluster, &url).await;
    let processor = Processor::start(Duration::from_secs(6)).await;
    // Workers try to come back every tenth of a heartbeat: far enough apart here for the first to find the others dead.
    let timing = [("QUEUE_LEASE_SECONDS", "2"), ("QUEUE_HEARTBEAT_SECONDS", "1")];
    let variables = [&with_processor(&processor.url)[..], &timing].concat();
    let api = Api::start(&url, &variables).await;
    let mut workers = [
        start_worker(&url, &variables).await,
        start_worker(&url, &variables).await,
        start_worker(&url, &variables).await,
    ];
    let history = send_all(&http_client(), &api.url, &ids()).await;
    eventually("all are under way", SOON, async || processor.calls() == RUNS).await;

    crash(&cluster, &scratch).await;
    drop(cluster);
    // Not a wait for something: the length of the outage, beyond the lease of 2 s.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let (cluster, _) = server::start(&scratch).await;
    all_settled(&pool, SOON).await;
    let settled = agree(&pool, &history).await;
    assert_eq!((processor.repeated(), settled.claimed_again, settled.crashes), (0, 0, 0));
    assert!(workers.iter_mut().all(|worker| worker.is_running()));
    println!("an outage beyond the lease with {RUNS} runs on three workers: none repeated; {settled:?}");
    drop((api, workers));
    pool.close().await;
    cluster.stop().await.expect("a stop");
}

#[tokio::test]
async fn processes_can_be_stopped_while_the_database_is_away() {
    let scratch = Scratch::new();
    let (cluster, url) = server::start(&scratch).await;
    let pool = server::prepare(&cluster, &url).await;
    let processor = Processor::start(Duration::from_secs(1)).await;
    let variables = with_processor(&processor.url);
    let mut api = Api::start(&url, &variables).await;
    let mut stopped = start_worker(&url, &variables).await;
    let history = send_all(&http_client(), &api.url, &ids()).await;
    eventually("all are under way", SOON, async || processor.calls() == RUNS).await;
    crash(&cluster, &scratch).await;
    drop(cluster);

    let begun = Instant::now();
    stopped.signal(Signal::SIGTERM);
    api.process.signal(Signal::SIGTERM);
    assert_eq!(api.process.wait_for_exit(STOP).await.code(), Some(0));
    let api_took = begun.elapsed();
    assert_eq!(stopped.wait_for_exit(STOP).await.code(), Some(0));
    let worker_took = begun.elapsed();

    // What it could not write down is run again, and takes effect once.
    let (cluster, _) = server::start(&scratch).await;
    let other = start_worker(&url, &variables).await;
    all_settled(&pool, SOON).await;
    let settled = agree(&pool, &history).await;
    println!(
        "SIGTERM without a database: the API ends after {api_took:.1?}, the worker after {worker_took:.1?}; {settled:?}"
    );
    drop((api, other));
    pool.close().await;
    cluster.stop().await.expect("a stop");
}

#[tokio::test]
async fn a_database_that_hangs_is_answered_by_503_and_keeps_nobody_from_stopping() {
    let scratch = Scratch::new();
    let (cluster, url) = server::start(&scratch).await;
    let pool = server::prepare(&cluster, &url).await;
    let processor = Processor::start(Duration::from_secs(1)).await;
    let variables = with_processor(&processor.url);
    let mut api = Api::start(&url, &variables).await;
    let mut stopped = start_worker(&url, &variables).await;
    let http = http_client();
    let history = send_all(&http, &api.url, &ids()).await;
    eventually("all are under way", SOON, async || processor.calls() == RUNS).await;

    let server = Stopped::all(cluster.pid());
    eventually("all wait to be settled", SOON, async || processor.answered() == RUNS).await;
    let begun = Instant::now();
    let late = webhook("txn_while_it_hangs");
    let answer =
        tokio::time::timeout(STOP, send(&http, &api.url, &late)).await.expect("an answer in time").expect("an answer");
    let answered = begun.elapsed();
    assert_eq!(answer.status(), 503);
    let begun = Instant::now();
    api.process.signal(Signal::SIGTERM);
    stopped.signal(Signal::SIGTERM);
    stopped.wait_for_line("draining").await;
    // The runs have the whole grace otherwise.
    stopped.signal(Signal::SIGTERM);
    assert_eq!(api.process.wait_for_exit(STOP).await.code(), Some(0));
    let api_took = begun.elapsed();
    assert_eq!(stopped.wait_for_exit(STOP).await.code(), Some(0));
    let worker_took = begun.elapsed();
    drop(server);

    processor.answer_after(Duration::ZERO);
    let other = start_worker(&url, &variables).await;
    all_settled(&pool, SOON).await;
    let settled = agree(&pool, &history).await;
    println!(
        "a database that hangs: 503 after {answered:.1?}; SIGTERM ends the API after {api_took:.1?}, the worker after \
         {worker_took:.1?}; {settled:?}"
    );
    drop((api, other));
    pool.close().await;
    cluster.stop().await.expect("a stop");
}

async fn crash(cluster: &Cluster, scratch: &Scratch) {
    kill(Pid::from_raw(cluster.pid().cast_signed()), Signal::SIGQUIT).expect("a server to signal");
    eventually("the server is gone", SOON, async || Running::find(scratch).is_none()).await;
}

/// Processes that stand still until this is dropped.
struct Stopped(Vec<Pid>);

impl Stopped {
    /// A server and all its sessions; the server first, so that no session is added meanwhile.
    fn all(server: u32) -> Self {
        let pid = |pid: u32| Pid::from_raw(pid.cast_signed());
        kill(pid(server), Signal::SIGSTOP).expect("a server to stop");
        let mut all = vec![pid(server)];
        let children = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
            let child: u32 = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read_to_string(entry.path().join("stat")).ok()?;
            // State and parent follow the name in brackets.
            let parent: u32 = line.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            (parent == server).then_some(pid(child))
        });
        for child in children {
            if kill(child, Signal::SIGSTOP).is_ok() {
                all.push(child);
            }
        }
        Self(all)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for process in &self.0 {
            let _ = kill(*process, Signal::SIGCONT);
        }
    }
}
