//! All our sessions are terminated twice a second for ten seconds: statements fail with an unknown outcome.

use std::time::{Duration, Instant};

use super::{
    SOON,
    clients::Clients,
    processor::Processor,
    settlements::{assert_consistent, log_changes, wait_until_settled},
    with_processor,
};
use crate::harness::{
    database,
    process::{Api, start_worker},
};

const TERMINATE: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                         WHERE datname = current_database() AND application_name LIKE 'millrace %'";

#[tokio::test]
async fn terminating_every_session_loses_nothing_and_leaves_nothing_running() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    log_changes(&pool).await;
    let processor = Processor::start(Duration::from_millis(50)).await;
    let variables = with_processor(&processor.url);
    let mut api = Api::start(&database.url, &variables).await;
    // A single worker, so that no other one rescues jobs that it claimed without knowing.
    let mut worker = start_worker(&database.url, &variables).await;
    let clients = Clients::start(&[&api.url], 8);

    let (begun, mut storms, mut terminated) = (Instant::now(), 0, 0);
    while begun.elapsed() < Duration::from_secs(10) {
        super::random_delay(400..600).await;
        terminated += sqlx::query_scalar::<_, i64>(TERMINATE).fetch_one(&pool).await.expect("the test's own session");
        storms += 1;
    }
    let last = Instant::now();
    let history = clients.finish().await;
    wait_until_settled(&pool, SOON).await;
    let recovery = last.elapsed();

    let settled = assert_consistent(&pool, &history).await;
    assert!(api.process.is_running() && worker.is_running());
    println!(
        "{terminated} sessions terminated at {storms} times: {} acknowledged, {} responses 503, all settled \
         {recovery:.1?} after the last; {} calls of the processor repeated; claims recovered: {}; {settled:?}",
        history.acknowledged.len(),
        history.unavailable,
        processor.repeated_calls(),
        worker.log().matches("gave back jobs").count(),
    );
}
