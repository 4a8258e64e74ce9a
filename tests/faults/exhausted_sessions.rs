//! Others take every session that the server has: 503 meanwhile, nobody gives up, and everything goes on when they leave.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use super::{
    QUICK, SOON,
    clients::Clients,
    server,
    settlements::{agree, all_settled},
};
use crate::harness::{
    eventually,
    process::{Api, start_worker},
    scratch::Scratch,
};

/// The fewest that the test needs for ours and its own.
const SESSIONS: u16 = 40;
/// Ours, as far as they still have one.
const OURS: &str = "FROM pg_stat_activity WHERE application_name LIKE 'millrace %'";

#[tokio::test]
async fn a_server_without_a_free_session_stops_nothing_for_good() {
    let scratch = Scratch::new();
    let (cluster, url) = server::start_with(&scratch, SESSIONS).await;
    let pool = server::prepare(&cluster, &url).await;
    let mut watcher = PgConnection::connect(&url).await.expect("a connection");
    pool.close().await;
    let mut api = Api::start(&url, &QUICK).await;
    let mut workers = [start_worker(&url, &QUICK).await, start_worker(&url, &QUICK).await];
    let clients = Clients::start(&[&api.url], 8);
    eventually("webhooks are acknowledged", SOON, async || clients.acknowledged() > 50).await;

    let refused = clients.history().unavailable;
    let mut others = Vec::new();
    let begun = Instant::now();
    // Again and again: one of ours may be faster than an other.
    eventually("others have every session, clients are told to come again, every lease is over", SOON, async || {
        while let Ok(other) = PgConnection::connect(&url).await {
            others.push(other);
        }
        let terminated: i64 = ask(&mut watcher, &format!("SELECT count(pg_terminate_backend(pid)) {OURS}")).await;
        let over = "SELECT max(last_seen) < now() - interval '2 seconds' FROM apalis.workers";
        terminated == 0 && clients.history().unavailable >= refused + 8 && ask(&mut watcher, over).await
    })
    .await;
    let told = begun.elapsed();
    let acknowledged = clients.acknowledged();

    let taken = others.len();
    for other in others {
        other.close().await.expect("a goodbye");
    }
    let back = Instant::now();
    eventually("webhooks are acknowledged again", SOON, async || clients.acknowledged() > acknowledged).await;
    let again = back.elapsed();
    let history = clients.finish().await;
    let pool = PgPool::connect(&url).await.expect("a connection");
    all_settled(&pool, SOON).await;
    let recovery = back.elapsed();
    assert!(recovery < Duration::from_secs(20), "{recovery:?}");

    let settled = agree(&pool, &history).await;
    assert!(api.process.is_running() && workers.iter_mut().all(|worker| worker.is_running()));
    println!(
        "all {SESSIONS} sessions taken, {taken} by others: for {told:.1?}: {} answers 503; \
         acknowledging again after {again:.2?}, all settled {recovery:.1?} after they left; {settled:?}",
        history.unavailable,
    );
    drop((api, workers));
    pool.close().await;
    cluster.stop().await.expect("a stop");
}

async fn ask<T>(watcher: &mut PgConnection, question: &str) -> T
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    sqlx::query_scalar(AssertSqlSafe(question.to_owned())).fetch_one(watcher).await.expect("an answer")
}
