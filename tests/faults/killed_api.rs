//! `kill -9` of the API in a storm of posts that are repeated until they are acknowledged: each is there once.

use std::time::Instant;

use nix::sys::signal::Signal;

use super::{
    QUICK, SOON,
    clients::Clients,
    settlements::{agree, all_settled, log_changes},
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
        super::moment(0..100).await;
        api.process.signal(Signal::SIGKILL);
        api.process.wait_for_exit(SOON).await;
        api = Api::start(&database.url, &QUICK).await;
        clients.redirect(&api.url);
    }
    let killed = Instant::now();
    let history = clients.finish().await;
    all_settled(&pool, SOON).await;
    let settled = agree(&pool, &history).await;
    assert!(history.unanswered > 0, "no request was cut off");
    assert_eq!(settled.transactions, history.acknowledged.len(), "every client repeated its posts to the end");
    assert!(api.process.is_running() && worker.is_running());
    println!(
        "{KILLS} kills of the API: {} acknowledged, {} requests cut off or refused, {} recorded before but answered \
         only to a repetition; all settled {:.1?} after the last start; {settled:?}",
        history.acknowledged.len(),
        history.unanswered,
        history.replayed,
        killed.elapsed(),
    );
}
