//! A standby is promoted, and the name of the database points at the old primary for ten seconds longer. That one lives on
//! and only reads.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    str::FromStr,
    time::{Duration, Instant},
};

use jobs::boot::postgres::Cluster;
use sqlx::{PgPool, postgres::PgConnectOptions};

use super::{
    SOON,
    clients::{send, send_all, webhook},
    processor::Processor,
    server,
    settlements::{agree, all_settled},
};
use crate::harness::{
    eventually, needs,
    process::{Api, Process, http_client, start_worker},
    proxy::Proxy,
    scratch::Scratch,
};

const RUNS: usize = 20;
/// How long the name points at the old primary.
const STALE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn after_a_failover_all_follow_and_a_healthy_worker_takes_over() {
    let Some(backup) = needs::program("pg_basebackup") else { return };
    let (scratch, copy) = (Scratch::new(), Scratch::new());
    let (old, url) = server::start(&scratch).await;
    let old_pool = server::prepare(&old, &url).await;
    let (new, new_url) = follow(&backup, &url, &copy).await;
    let new_pool = PgPool::connect(&new_url).await.expect("a standby that can be read");
    let processor = Processor::start(Duration::from_secs(45)).await;

    // The first worker and the API go by the name that is late, the second worker by one that is not.
    let (late, prompt) = (Proxy::start(socket(&url)).await, Proxy::start(socket(&url)).await);
    let variables =
        [("PROCESSOR_URL", &*processor.url), ("PROCESSOR_TIMEOUT_SECONDS", "120"), ("WORKER_HEALTH_PORT", "0")];
    let through_late = through(&late, &url);
    let api = Api::start(&through_late, &[]).await;
    let mut stuck = start_worker(&through_late, &variables).await;
    let ids: Vec<String> = (0..RUNS).map(|number| format!("txn_{number}")).collect();
    // Due at once.
    let hurry = [("PROCESSING_DELAY_SECONDS", "0")];
    let sender = Api::start(&through_late, &hurry).await;
    let mut history = send_all(&http_client(), &sender.url, &ids).await;
    eventually("the first worker runs them all", SOON, async || processor.calls() == RUNS).await;
    drop(sender);
    let healthy = start_worker(&through(&prompt, &url), &variables).await;
    let readiness = [format!("{}/readyz", api.url), health(&mut stuck).await];
    for url in &readiness {
        assert_eq!(status(url).await, 200, "{url} before the failover");
    }
    eventually("the standby has it all", SOON, async || counted(&new_pool).await == RUNS as i64).await;

    // From here on the old one only reads; what it holds and what the new one has is the same.
    sqlx::raw_sql("ALTER SYSTEM SET default_transaction_read_only = on").execute(&old_pool).await.expect("a setting");
    sqlx::raw_sql("SELECT pg_reload_conf()").execute(&old_pool).await.expect("a reload");
    let failover = Instant::now();
    assert!(sqlx::query_scalar("SELECT pg_promote()").fetch_one::<_>(&new_pool).await.unwrap_or(false), "promoted");
    prompt.set_target(socket(&new_url));
    prompt.drop_traffic();

    for url in &readiness {
        eventually("it says that it cannot write", Duration::from_secs(6), async || status(url).await == 503).await;
        let reason = http_client().get(url).send().await.expect("an answer").text().await.expect("a body");
        assert!(url.contains(&api.url) || reason.contains("read-only"), "{url}: {reason}");
    }
    let not_ready = failover.elapsed();
    // Longer than the name is late: the point is what happens meanwhile.
    let taken = "SELECT count(*) = $1 FROM apalis.jobs WHERE status = 'Running' AND attempts = 2";
    eventually("the healthy worker has taken over", Duration::from_secs(25), async || {
        sqlx::query_scalar(taken).bind(RUNS as i64).fetch_one(&new_pool).await.expect("an answer")
    })
    .await;
    let took_over = failover.elapsed();
    assert!(took_over < Duration::from_secs(20), "{took_over:?}");
    for url in &readiness {
        assert_eq!(status(url).await, 503, "{url} while the name is late");
    }
    if let Some(left) = STALE.checked_sub(failover.elapsed()) {
        tokio::time::sleep(left).await;
    }

    late.set_target(socket(&new_url));
    let moved = Instant::now();
    let http = http_client();
    for url in &readiness {
        eventually("it is ready again", Duration::from_secs(10), async || status(url).await == 200).await;
    }
    eventually("webhooks are acknowledged", Duration::from_secs(10), async || {
        send(&http, &api.url, &webhook("txn_after")).await.is_ok_and(|answer| answer.status() == 202)
    })
    .await;
    history.acknowledge("txn_after");
    let listening = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'millrace listener'";
    eventually("every process listens to the new primary", Duration::from_secs(10), async || {
        sqlx::query_scalar::<_, i64>(listening).fetch_one(&new_pool).await.expect("an answer") == 3
    })
    .await;
    let followed = moved.elapsed();
    assert!(followed < Duration::from_secs(10), "{followed:?}");

    processor.answer_after(Duration::ZERO);
    all_settled(&new_pool, Duration::from_secs(90)).await;
    let settled = agree(&new_pool, &history).await;
    println!(
        "failover: not ready after {not_ready:.1?}, taken over after {took_over:.1?}, all follow {followed:.1?} after the \
         name moved; {settled:?}"
    );
    drop((api, stuck, healthy));
    for (pool, cluster) in [(new_pool, new), (old_pool, old)] {
        pool.close().await;
        cluster.stop().await.expect("a stop");
    }
}

/// Copies a server and starts the copy as its standby.
async fn follow(backup: &std::path::Path, url: &str, home: &std::path::Path) -> (Cluster, String) {
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

pub(super) fn socket(url: &str) -> PathBuf {
    let server = PgConnectOptions::from_str(url).expect("the harness's URL");
    server.get_socket().expect("a socket").join(format!(".s.PGSQL.{}", server.get_port()))
}

pub(super) fn through(proxy: &Proxy, url: &str) -> String {
    let server = PgConnectOptions::from_str(url).expect("the harness's URL");
    let (user, database) = (server.get_username(), server.get_database().expect("a database"));
    format!("postgres://{user}@{}/{database}?sslmode=disable", proxy.address)
}

/// Where a worker tells whether it is ready.
async fn health(worker: &mut Process) -> String {
    let line: serde_json::Value =
        serde_json::from_str(&worker.wait_for_line("health and metrics").await).expect("a JSON line");
    format!("http://{}/readyz", line["address"].as_str().expect("an address"))
}

async fn status(url: &str) -> u16 {
    http_client().get(url).send().await.map_or(0, |answer| answer.status().as_u16())
}

async fn counted(pool: &PgPool) -> i64 {
    let running = "SELECT count(*) FROM apalis.jobs WHERE status = 'Running'";
    sqlx::query_scalar(running).fetch_one(pool).await.expect("a count")
}
