//! Other programs occupy every session of the server: clients get 503, and all processes recover afterwards.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use super::{
    QUICK, SOON,
    clients::Clients,
    server,
    settlements::{assert_consistent, wait_until_settled},
};
use crate::harness::{
    eventually,
    process::{Api, start_worker},
    scratch::Scratch,
};

/// The smallest number that suffices for our processes and the test.
const SESSIONS: u16 = 40;
/// The sessions of our processes.
const OUR_SESSIONS: &str = "FROM pg_stat_activity WHERE application_name LIKE 'millrace %'";

#[tokio::test]
async fn all_processes_recover_from_a_server_without_a_free_session() {
    let scratch = Scratch::new();
    let (cluster, url) = server::start_with(&scratch, SESSIONS).await;
    let pool = server::prepare(&cluster, &url).await;
    let mut watcher = PgConnection::connect(&url).await.expect("a connection");
    pool.close().await;
    let mut api = Api::start(&url, &QUICK).await;
    let mut workers = [start_worker(&url, &QUICK).await, start_worker(&url, &QUICK).await];
    let clients = Clients::start(&[&api.url], 8);
    eventually("webhooks are acknowledged", SOON, async || clients.acknowledged() > 50).await;

    let unavailable_before = clients.history().unavailable;
    let mut others = Vec::new();
    let begun = Instant::now();
    // Repeated, because one of our processes may take a free session first.
    eventually("others have every session, clients get 503, and every lease has expired", SOON * 3, async || {
        while let Ok(other) = PgConnection::connect(&url).await {
            others.push(other);
        }
        let terminated: i64 =
            query_value(&mut watcher, &format!("SELECT count(pg_terminate_backend(pid)) {OUR_SESSIONS}")).await;
        let expired = "SELECT max(last_seen) < now() - interval '2 seconds' FROM apalis.workers";
        terminated == 0
            && clients.history().unavailable >= unavailable_before + 8
            && query_value(&mut watcher, expired).await
    })
    .await;
    let exhausted = begun.elapsed();
    let acknowledged = clients.acknowledged();

    let taken = others.len();
    for other in others {
        other.close().await.expect("a closed connection");
    }
    let released = Instant::now();
    eventually("webhooks are acknowledged again", SOON, async || clients.acknowledged() > acknowledged).await;
    let reacknowledged = released.elapsed();
    let history = clients.finish().await;
    let pool = PgPool::connect(&url).await.expect("a connection");
    wait_until_settled(&pool, SOON).await;
    let recovery = released.elapsed();
    assert!(recovery < Duration::from_secs(20), "{recovery:?}");

    let settled = assert_consistent(&pool, &history).await;
    assert!(api.process.is_running() && workers.iter_mut().all(|worker| worker.is_running()));
    println!(
        "all {SESSIONS} sessions taken, {taken} by others, for {exhausted:.1?}: {} responses 503; \
         acknowledging again after {reacknowledged:.2?}, all settled {recovery:.1?} after they left; {settled:?}",
        history.unavailable,
    );
    drop((api, workers));
    pool.close().await;
    cluster.stop().await.expect("a stop");
}

async fn query_value<T>(watcher: &mut PgConnection, query: &str) -> T
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(watcher).await.expect("a result")
}
