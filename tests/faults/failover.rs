//! Failover: a standby is promoted, and the database's host name points to the old primary for ten more seconds.
//! The old primary still runs, but is read-only.

use std::{
    process::{Command, Stdio},
    str::FromStr,
    time::{Duration, Instant},
};

use embedded_postgres::Cluster;
use prove::proxy::{Proxy, Target};
use sqlx::{PgPool, postgres::PgConnectOptions};

use super::{
    SOON,
    clients::{post_webhook, post_webhooks, webhook},
    processor::Processor,
    server,
    settlements::{assert_consistent, wait_until_settled},
};
use crate::harness::{
    eventually, needs,
    process::{Api, Process, http_client, start_worker},
    scratch::Scratch,
};

const RUNS: usize = 20;
/// How long the host name points to the old primary.
const STALE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn after_a_failover_every_process_reconnects_and_a_healthy_worker_takes_over() {
    let Some(backup) = needs::program("pg_basebackup") else { return };
    let (scratch, copy) = (Scratch::new(), Scratch::new());
    let (old, url) = server::start(&scratch).await;
    let old_pool = server::prepare(&old, &url).await;
    let (new, new_url) = start_standby(&backup, &url, &copy).await;
    let new_pool = PgPool::connect(&new_url).await.expect("a readable standby");
    let processor = Processor::start(Duration::from_secs(45)).await;

    // The API and the first worker use a host name that changes late, the second worker one that changes at once.
    let (late, prompt) = (start_proxy(&url).await, start_proxy(&url).await);
    let variables =
        [("PROCESSOR_URL", &*processor.url), ("PROCESSOR_TIMEOUT_SECONDS", "120"), ("WORKER_HEALTH_PORT", "0")];
    let through_late = url_through(&late, &url);
    let api = Api::start(&through_late, &[]).await;
    let mut stuck = start_worker(&through_late, &variables).await;
    let ids: Vec<String> = (0..RUNS).map(|number| format!("txn_{number}")).collect();
    // This sender's transactions are due at once.
    let no_delay = [("PROCESSING_DELAY_SECONDS", "0")];
    let sender = Api::start(&through_late, &no_delay).await;
    let mut history = post_webhooks(&http_client(), &sender.url, &ids).await;
    eventually("the first worker runs them all", SOON, async || processor.calls() == RUNS).await;
    drop(sender);
    let healthy = start_worker(&url_through(&prompt, &url), &variables).await;
    let readiness = [format!("{}/readyz", api.url), readiness_url(&mut stuck).await];
    eventually("all processes are ready", SOON, async || {
        let states = futures_util::future::join_all(readiness.iter().map(|url| get_status(url))).await;
        states.into_iter().all(|status| status == 200)
    })
    .await;
    eventually("the standby has every job", SOON, async || count_running(&new_pool).await == RUNS as i64).await;

    make_read_only(&old_pool).await;
    let failover = Instant::now();
    assert!(sqlx::query_scalar("SELECT pg_promote()").fetch_one::<_>(&new_pool).await.unwrap_or(false), "promoted");
    prompt.connect_to(socket(&new_url));
    prompt.silence_open();

    for url in &readiness {
        eventually("the process is not ready", Duration::from_secs(6), async || get_status(url).await == 503).await;
    }
    let not_ready = failover.elapsed();
    // By design after 17 s: the lease and one check. The rest of the deadline is for a busy machine.
    let taken = "SELECT count(*) = $1 FROM apalis.jobs WHERE status = 'Running' AND attempts = 2";
    eventually("the healthy worker has taken over", Duration::from_secs(25), async || {
        sqlx::query_scalar(taken).bind(RUNS as i64).fetch_one(&new_pool).await.expect("a result")
    })
    .await;
    let took_over = failover.elapsed();
    assert_readiness(&readiness, 503, "while the host name is stale").await;
    if let Some(left) = STALE.checked_sub(failover.elapsed()) {
        tokio::time::sleep(left).await;
    }

    late.connect_to(socket(&new_url));
    let moved = Instant::now();
    let http = http_client();
    for url in &readiness {
        eventually("the process is ready again", Duration::from_secs(10), async || get_status(url).await == 200).await;
    }
    eventually("webhooks are acknowledged", Duration::from_secs(10), async || {
        post_webhook(&http, &api.url, &webhook("txn_after")).await.is_ok_and(|response| response.status() == 202)
    })
    .await;
    history.acknowledge("txn_after");
    let listening = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'millrace listener'";
    eventually("every process listens to the new primary", Duration::from_secs(10), async || {
        sqlx::query_scalar::<_, i64>(listening).fetch_one(&new_pool).await.expect("a result") == 3
    })
    .await;
    let followed = moved.elapsed();
    assert!(followed < Duration::from_secs(10), "{followed:?}");

    processor.set_delay(Duration::ZERO);
    wait_until_settled(&new_pool, Duration::from_secs(90)).await;
    let settled = assert_consistent(&new_pool, &history).await;
    println!(
        "failover: not ready after {not_ready:.1?}, taken over after {took_over:.1?}, all reconnected {followed:.1?} after the \
         name moved; {settled:?}"
    );
    drop((api, stuck, healthy));
    for (pool, cluster) in [(new_pool, new), (old_pool, old)] {
        pool.close().await;
        cluster.stop().await.expect("a stop");
    }
}

/// Makes the old primary read-only. From then on both servers have the same data.
async fn make_read_only(pool: &PgPool) {
    sqlx::raw_sql("ALTER SYSTEM SET default_transaction_read_only = on").execute(pool).await.expect("a setting");
    sqlx::raw_sql("SELECT pg_reload_conf()").execute(pool).await.expect("a reload");
}

async fn assert_readiness(urls: &[String], expected: u16, when: &str) {
    for url in urls {
        assert_eq!(get_status(url).await, expected, "{url} {when}");
    }
}

/// Copies a server and starts the copy as its standby.
async fn start_standby(backup: &std::path::Path, url: &str, home: &std::path::Path) -> (Cluster, String) {
    let primary = PgConnectOptions::from_str(url).expect("the harness's URL");
    let mut command = Command::new(backup);
    command.args(["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]);
    command.arg("--pgdata").arg(home.join("data"));
    command.arg("--host").arg(primary.get_socket().expect("a socket"));
    command.args(["--port", &primary.get_port().to_string(), "--username", primary.get_username()]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let status = tokio::task::spawn_blocking(move || command.status()).await.expect("a thread").expect("pg_basebackup");
    assert!(status.success(), "pg_basebackup: {status}");
    server::start(home).await
}

/// The Unix socket of a server.
fn socket(url: &str) -> Target {
    let server = PgConnectOptions::from_str(url).expect("the harness's URL");
    Target::Socket(server.get_socket().expect("a socket").join(format!(".s.PGSQL.{}", server.get_port())))
}

/// Starts a proxy of a server.
pub(super) async fn start_proxy(url: &str) -> Proxy {
    Proxy::start(socket(url)).await.expect("a free port")
}

/// The database URL with the proxy's address.
pub(super) fn url_through(proxy: &Proxy, url: &str) -> String {
    let server = PgConnectOptions::from_str(url).expect("the harness's URL");
    let (user, database) = (server.get_username(), server.get_database().expect("a database"));
    format!("postgres://{user}@{}/{database}?sslmode=disable", proxy.address)
}

/// The readiness URL of a worker.
async fn readiness_url(worker: &mut Process) -> String {
    let line: serde_json::Value =
        serde_json::from_str(&worker.wait_for_line("health and metrics").await).expect("a JSON line");
    format!("http://{}/readyz", line["address"].as_str().expect("an address"))
}

async fn get_status(url: &str) -> u16 {
    http_client().get(url).send().await.map_or(0, |response| response.status().as_u16())
}

async fn count_running(pool: &PgPool) -> i64 {
    let running = "SELECT count(*) FROM apalis.jobs WHERE status = 'Running'";
    sqlx::query_scalar(running).fetch_one(pool).await.expect("a count")
}
