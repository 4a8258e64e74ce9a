//! `kill -9` of workers at random moments: their jobs run elsewhere and take effect once.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sqlx::PgPool;
use time::OffsetDateTime;

use super::{
    QUICK, SOON,
    clients::{Clients, History, post_webhooks},
    processor::Processor,
    random,
    settlements::{assert_consistent, log_changes, wait_until_settled},
    with_processor,
};
use crate::harness::{
    database::{self, TestDatabase},
    eventually,
    process::{Api, Process, http_client, start_worker},
};

const KILLS: usize = 8;

#[tokio::test]
async fn killing_workers_loses_nothing_and_repeats_no_effect() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    log_changes(&pool).await;
    let processor = Processor::start(Duration::from_millis(200)).await;
    // A worker that lives keeps its lease through a short stall. Otherwise a job could see its third crash.
    let variables = [&with_processor(&processor.url)[..], &[("QUEUE_LEASE_SECONDS", "3")]].concat();
    let mut api = Api::start(&database.url, &variables).await;
    let mut workers = [start_worker(&database.url, &variables).await, start_worker(&database.url, &variables).await];
    let clients = Clients::start(&[&api.url], 6);

    let mut killed = Instant::now();
    for kill in 1..=KILLS {
        let before = processor.calls();
        eventually("jobs are running", SOON, async || processor.calls() >= before + 5).await;
        super::random_delay(0..300).await;
        eventually("no job has seen two workers die", SOON, async || !has_two_crashes(&pool).await).await;
        let victim = &mut workers[random(0..2) as usize];
        victim.signal(Signal::SIGKILL);
        killed = Instant::now();
        victim.wait_for_exit(SOON).await;
        if kill < KILLS {
            *victim = start_worker(&database.url, &variables).await;
        }
    }
    let history = clients.finish().await;
    wait_until_settled(&pool, SOON).await;
    let recovery = killed.elapsed();

    let settled = assert_consistent(&pool, &history).await;
    assert!(
        history.acknowledged.keys().all(|id| processor.was_called_for(id)),
        "settled without a call of the processor"
    );
    assert!(settled.most_crashes <= 2, "{settled:?}");
    assert!(settled.crashes > 0, "no worker was killed during a run: {settled:?}");
    assert!(processor.repeated_calls() > 0, "no run was repeated");
    assert_eq!(workers.iter_mut().filter_map(|worker| worker.is_running().then_some(())).count(), 1);
    assert!(api.process.is_running());
    println!(
        "{KILLS} kills of a worker: {} acknowledged, all settled {recovery:.1?} after the last kill; {} calls of the \
         processor repeated; {settled:?}",
        history.acknowledged.len(),
        processor.repeated_calls(),
    );
}

/// Runs that end only after a minute, held by a worker that is about to be killed.
struct Held {
    pool: PgPool,
    processor: Processor,
    victim: Process,
    /// The worker that rescues them.
    other: Process,
    history: History,
    _api: Api,
    _database: TestDatabase,
}

impl Held {
    /// Starts this many runs in a worker with these settings, and then another worker. Later runs end at once.
    async fn start(runs: usize, settings: &[(&str, &str)]) -> Self {
        let database = database::fresh().await;
        let pool = database.pool().await;
        log_changes(&pool).await;
        let processor = Processor::start(Duration::from_secs(60)).await;
        let calls = [("PROCESSOR_URL", &*processor.url), ("PROCESSOR_TIMEOUT_SECONDS", "120")];
        let variables = [settings, &calls[..]].concat();
        let api = Api::start(&database.url, &variables).await;
        let victim = start_worker(&database.url, &variables).await;
        let ids: Vec<String> = (0..runs).map(|number| format!("txn_{number}")).collect();
        let history = post_webhooks(&http_client(), &api.url, &ids).await;
        eventually("the first worker runs them all", SOON, async || processor.calls() == runs).await;
        let other = start_worker(&database.url, &variables).await;
        processor.set_delay(Duration::ZERO);
        Self { pool, processor, victim, other, history, _api: api, _database: database }
    }

    /// Kills the worker, and returns the time until all run elsewhere.
    async fn kill(&mut self) -> Duration {
        let (killed, calls) = (Instant::now(), self.processor.calls());
        self.victim.signal(Signal::SIGKILL);
        self.victim.wait_for_exit(SOON).await;
        eventually("all run elsewhere", SOON, async || self.processor.calls() == 2 * calls).await;
        killed.elapsed()
    }
}

/// The only test with the shipped lease, heartbeat and poll interval. They promise twenty seconds.
#[tokio::test]
async fn with_the_shipped_settings_a_dead_workers_jobs_run_elsewhere_within_twenty_seconds() {
    const RUNS: usize = 20;
    let mut held = Held::start(RUNS, &[]).await;
    let pool = held.pool.clone();
    // The worst moment: right after a heartbeat, when the whole lease is left.
    let seen = "SELECT max(last_seen) FROM apalis.workers WHERE id = (SELECT min(lock_by) FROM apalis.jobs)";
    let last_seen = async || sqlx::query_scalar::<_, OffsetDateTime>(seen).fetch_one(&pool).await.expect("a time");
    let before = last_seen().await;
    eventually("the worker has just renewed its lease", SOON, async || last_seen().await > before).await;

    let elsewhere = held.kill().await;
    wait_until_settled(&pool, SOON).await;
    let settled = assert_consistent(&pool, &held.history).await;
    assert!(elsewhere < Duration::from_secs(20), "{elsewhere:?}");
    assert_eq!((settled.claimed_again, settled.crashes), (RUNS as i64, RUNS as i64));
    assert!(held.other.is_running());
    println!("shipped settings: {RUNS} jobs of a killed worker run elsewhere after {elsewhere:.1?}; {settled:?}");
}

/// A migration or an operator may lock a table that only operators read.
#[tokio::test]
async fn a_lock_on_the_counts_delays_no_rescue() {
    const RUNS: usize = 10;
    // Both workers run for a moment. The first one must not lose its lease before it is killed.
    let settings = [&QUICK[..], &[("QUEUE_LEASE_SECONDS", "5")]].concat();
    let mut held = Held::start(RUNS, &settings).await;
    let pool = held.pool.clone();
    let mut lock = pool.begin().await.expect("a transaction");
    sqlx::query("LOCK TABLE queue_minutes IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.expect("a lock");

    let elsewhere = held.kill().await;
    lock.rollback().await.expect("no lock");
    wait_until_settled(&pool, SOON).await;
    let settled = assert_consistent(&pool, &held.history).await;
    assert_eq!(settled.crashes, RUNS as i64);
    assert!(held.other.is_running());
    println!("counts locked: {RUNS} jobs of a killed worker run elsewhere after {elsewhere:.1?}; {settled:?}");
}

/// Whether an unfinished job has seen two crashes. A third one would quarantine it.
async fn has_two_crashes(pool: &PgPool) -> bool {
    let query = "SELECT EXISTS (SELECT FROM apalis.jobs WHERE crashes >= 2 AND status <> 'Done')";
    sqlx::query_scalar(query).fetch_one(pool).await.expect("a result")
}
