//! PostgreSQL is down for longer than the lease, or hangs: running jobs continue, and every process can be stopped.

use std::{
    fs,
    time::{Duration, Instant},
};

use embedded_postgres::{Cluster, RunningServer};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    SOON,
    clients::{post_webhook, post_webhooks, webhook},
    processor::{Processor, UNTIL_RELEASED},
    server,
    settlements::{assert_consistent, wait_until_settled},
    with_processor,
};
use crate::harness::{
    eventually,
    process::{Api, http_client, start_worker},
    scratch::Scratch,
};

/// The longest time of a stop, even if everything hangs.
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
    let processor = Processor::start(UNTIL_RELEASED).await;
    // Workers try to reconnect every tenth of a heartbeat. These times let the first worker see the others as dead. One
    // that stalls, or reconnects some seconds after the others, keeps its lease.
    let settings =
        [("QUEUE_LEASE_SECONDS", "8"), ("QUEUE_HEARTBEAT_SECONDS", "2"), ("PROCESSOR_TIMEOUT_SECONDS", "120")];
    let variables = [&with_processor(&processor.url)[..], &settings].concat();
    let api = Api::start(&url, &variables).await;
    let mut workers = [
        start_worker(&url, &variables).await,
        start_worker(&url, &variables).await,
        start_worker(&url, &variables).await,
    ];
    let history = post_webhooks(&http_client(), &api.url, &ids()).await;
    eventually("all jobs are running", SOON, async || processor.calls() == RUNS).await;

    crash(&cluster, &scratch).await;
    drop(cluster);
    // The length of the outage, which is longer than the lease of 8 s.
    tokio::time::sleep(Duration::from_millis(8500)).await;
    let (cluster, _) = server::start(&scratch).await;
    // Each worker checks the others right after its first heartbeat. No run ends before.
    let renewed = "SELECT count(*) = 3 FROM apalis.workers WHERE last_seen > pg_postmaster_start_time()";
    eventually("every worker has renewed its lease", SOON, async || {
        sqlx::query_scalar(renewed).fetch_one(&pool).await.unwrap_or(false)
    })
    .await;
    processor.release();
    wait_until_settled(&pool, SOON).await;
    let settled = assert_consistent(&pool, &history).await;
    assert_eq!((processor.repeated_calls(), settled.claimed_again, settled.crashes), (0, 0, 0));
    assert!(workers.iter_mut().all(|worker| worker.is_running()));
    println!("an outage beyond the lease with {RUNS} runs on three workers: none repeated; {settled:?}");
    drop((api, workers));
    pool.close().await;
    cluster.stop().await.expect("a stop");
}

#[tokio::test]
async fn processes_can_be_stopped_while_the_database_is_down() {
    let scratch = Scratch::new();
    let (cluster, url) = server::start(&scratch).await;
    let pool = server::prepare(&cluster, &url).await;
    let processor = Processor::start(Duration::from_secs(1)).await;
    let variables = with_processor(&processor.url);
    let mut api = Api::start(&url, &variables).await;
    let mut stopped = start_worker(&url, &variables).await;
    let history = post_webhooks(&http_client(), &api.url, &ids()).await;
    eventually("all jobs are running", SOON, async || processor.calls() == RUNS).await;
    crash(&cluster, &scratch).await;
    drop(cluster);

    let begun = Instant::now();
    stopped.signal(Signal::SIGTERM);
    api.process.signal(Signal::SIGTERM);
    assert_eq!(api.process.wait_for_exit(STOP).await.code(), Some(0));
    let api_took = begun.elapsed();
    assert_eq!(stopped.wait_for_exit(STOP).await.code(), Some(0));
    let worker_took = begun.elapsed();

    // Jobs whose results could not be written run again, and take effect once.
    let (cluster, _) = server::start(&scratch).await;
    let other = start_worker(&url, &variables).await;
    wait_until_settled(&pool, SOON).await;
    let settled = assert_consistent(&pool, &history).await;
    println!(
        "SIGTERM without a database: the API ends after {api_took:.1?}, the worker after {worker_took:.1?}; {settled:?}"
    );
    drop((api, other));
    pool.close().await;
    cluster.stop().await.expect("a stop");
}

#[tokio::test]
async fn with_a_hanging_database_clients_get_503_and_processes_can_be_stopped() {
    let scratch = Scratch::new();
    let (cluster, url) = server::start(&scratch).await;
    let pool = server::prepare(&cluster, &url).await;
    let processor = Processor::start(Duration::from_secs(1)).await;
    let variables = with_processor(&processor.url);
    let mut api = Api::start(&url, &variables).await;
    let mut stopped = start_worker(&url, &variables).await;
    let http = http_client();
    let history = post_webhooks(&http, &api.url, &ids()).await;
    eventually("all jobs are running", SOON, async || processor.calls() == RUNS).await;

    let server = FrozenServer::freeze(cluster.pid());
    eventually("the processor has responded to all calls", SOON, async || processor.completed_calls() == RUNS).await;
    let begun = Instant::now();
    let late = webhook("txn_while_it_hangs");
    let response = tokio::time::timeout(STOP, post_webhook(&http, &api.url, &late))
        .await
        .expect("a response in time")
        .expect("a response");
    let response_time = begun.elapsed();
    assert_eq!(response.status(), 503);
    let begun = Instant::now();
    api.process.signal(Signal::SIGTERM);
    stopped.signal(Signal::SIGTERM);
    stopped.wait_for_line("draining").await;
    // The second signal ends the grace period of the running jobs.
    stopped.signal(Signal::SIGTERM);
    assert_eq!(api.process.wait_for_exit(STOP).await.code(), Some(0));
    let api_took = begun.elapsed();
    assert_eq!(stopped.wait_for_exit(STOP).await.code(), Some(0));
    let worker_took = begun.elapsed();
    drop(server);

    processor.set_delay(Duration::ZERO);
    let other = start_worker(&url, &variables).await;
    wait_until_settled(&pool, SOON).await;
    let settled = assert_consistent(&pool, &history).await;
    println!(
        "a database that hangs: 503 after {response_time:.1?}; SIGTERM ends the API after {api_took:.1?}, the worker after \
         {worker_took:.1?}; {settled:?}"
    );
    drop((api, other));
    pool.close().await;
    cluster.stop().await.expect("a stop");
}

async fn crash(cluster: &Cluster, scratch: &Scratch) {
    kill(Pid::from_raw(cluster.pid().cast_signed()), Signal::SIGQUIT).expect("a running server");
    eventually("the server is gone", SOON, async || RunningServer::find(scratch).is_none()).await;
}

/// A server whose processes are frozen until this value is dropped.
struct FrozenServer(Vec<Pid>);

impl FrozenServer {
    /// Freezes a server and all its sessions. The server comes first, so that no session is added meanwhile.
    fn freeze(server: u32) -> Self {
        let pid = |pid: u32| Pid::from_raw(pid.cast_signed());
        kill(pid(server), Signal::SIGSTOP).expect("a running server");
        let mut all = vec![pid(server)];
        let children = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
            let child: u32 = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read_to_string(entry.path().join("stat")).ok()?;
            // State and parent id follow the name in brackets.
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

impl Drop for FrozenServer {
    fn drop(&mut self) {
        for process in &self.0 {
            let _ = kill(*process, Signal::SIGCONT);
        }
    }
}
