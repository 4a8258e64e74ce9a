//! `kill -9` of the API under load. Clients repeat posts until they are acknowledged: each webhook is recorded once.

use std::time::Instant;

use nix::sys::signal::Signal;

use super::{
    QUICK, SOON,
    clients::Clients,
    settlements::{assert_consistent, log_changes, wait_until_settled},
};
use crate::harness::{
    database, eventually,
    process::{Api, start_worker},
};

const KILLS: usize = 6;

#[tokio::test]
async fn killing_the_api_loses_no_acknowledged_webhook_and_records_none_twice() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    log_changes(&pool).await;
    let mut worker = start_worker(&database.url, &QUICK).await;
    let mut api = Api::start(&database.url, &QUICK).await;
    let clients = Clients::start(&[&api.url], 16);
    for _ in 0..KILLS {
        let before = clients.acknowledged();
        eventually("webhooks are acknowledged", SOON, async || clients.acknowledged() > before + 30).await;
        super::random_delay(0..100).await;
        api.process.signal(Signal::SIGKILL);
        api.process.wait_for_exit(SOON).await;
        api = Api::start(&database.url, &QUICK).await;
        clients.redirect(&api.url);
    }
    let killed = Instant::now();
    let history = clients.finish().await;
    wait_until_settled(&pool, SOON).await;
    let settled = assert_consistent(&pool, &history).await;
    assert!(history.without_response > 0, "no request was interrupted");
    assert_eq!(
        settled.transactions,
        history.acknowledged.len(),
        "every client repeated its posts until they were acknowledged"
    );
    assert!(api.process.is_running() && worker.is_running());
    println!(
        "{KILLS} kills of the API: {} acknowledged, {} requests interrupted or refused, {} recorded before but \
         acknowledged only when repeated; all settled {:.1?} after the last start; {settled:?}",
        history.acknowledged.len(),
        history.without_response,
        history.replayed,
        killed.elapsed(),
    );
}
