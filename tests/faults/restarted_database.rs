//! Immediate restarts of PostgreSQL under load: clients get 503 meanwhile, and no acknowledged webhook is lost.

use std::time::Instant;

use embedded_postgres::RunningServer;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

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

const RESTARTS: usize = 5;

#[tokio::test]
async fn immediate_restarts_of_postgresql_lose_no_acknowledged_webhook() {
    let scratch = Scratch::new();
    let (mut cluster, url) = server::start(&scratch).await;
    let pool = server::prepare(&cluster, &url).await;
    let mut api = Api::start(&url, &QUICK).await;
    let mut workers = [start_worker(&url, &QUICK).await, start_worker(&url, &QUICK).await];
    let clients = Clients::start(&[&api.url], 8);

    let mut recoveries = Vec::new();
    let mut restarted = Instant::now();
    for _ in 0..RESTARTS {
        let before = clients.acknowledged();
        eventually("webhooks are acknowledged", SOON, async || clients.acknowledged() > before + 50).await;
        super::random_delay(0..300).await;
        let unavailable_before = clients.history().unavailable;
        kill(Pid::from_raw(cluster.pid().cast_signed()), Signal::SIGQUIT).expect("a running server");
        eventually("the server is gone", SOON, async || RunningServer::find(&scratch).is_none()).await;
        eventually("clients get 503", SOON, async || clients.history().unavailable > unavailable_before + 10).await;
        // Reaps the process and releases the folder.
        drop(cluster);
        let (next, same_url) = server::start(&scratch).await;
        assert_eq!(same_url, url);
        cluster = next;
        restarted = Instant::now();
        let before = clients.acknowledged();
        eventually("webhooks are acknowledged again", SOON, async || clients.acknowledged() > before).await;
        recoveries.push(restarted.elapsed());
    }
    let history = clients.finish().await;
    wait_until_settled(&pool, SOON).await;
    let recovery = restarted.elapsed();

    let settled = assert_consistent(&pool, &history).await;
    assert!(api.process.is_running() && workers.iter_mut().all(|worker| worker.is_running()));
    println!(
        "{RESTARTS} immediate restarts of PostgreSQL: {} acknowledged, {} responses 503, acknowledging again after \
         {recoveries:.2?}, all settled {recovery:.1?} after the last start; {} acknowledged only when repeated; {settled:?}",
        history.acknowledged.len(),
        history.unavailable,
        history.replayed,
    );
    drop((api, workers));
    pool.close().await;
    cluster.stop().await.expect("a stop");
}
