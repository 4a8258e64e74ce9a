//! What a settlement costs the database: a new version of the row on the row's page, and no entry of any index.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::task::JoinSet;

use super::{System, webhook};
use crate::harness::{eventually, http::send};

const SOON: Duration = Duration::from_secs(30);

/// PostgreSQL calls that a HOT update. It takes two things: no index knows a column that changes, and the page has room.
/// A worker that settles all rows of a page in one statement needs the most of that, so this has everything due at
/// once, in a table whose other pages are full.
#[tokio::test]
async fn settlements_are_hot_updates() {
    const COUNT: i64 = 600;
    let system = System::start(&[("PROCESSING_DELAY_SECONDS", "0")]).await;
    let pool = system.database.pool().await;
    let fill = "INSERT INTO transactions (id, transaction_id, source_account, destination_account, amount, currency,
                                          status, created_at, due_at, processed_at)
                SELECT gen_random_uuid(), 'old ' || n, 'acc_user_1', 'acc_merchant_1', 1500, 'INR', 'PROCESSED', now(),
                       now(), now()
                FROM generate_series(1, 5000) AS n";
    sqlx::query(fill).execute(&pool).await.unwrap();
    let mut requests = JoinSet::new();
    for number in 0..COUNT {
        requests.spawn(send(system.post(webhook(&format!("new {number}")).to_string())));
    }
    assert!(requests.join_all().await.iter().all(|answer| answer.status == 202));

    let mut worker = system.worker(&[]).await;
    eventually("all are settled", SOON, async || {
        system.count("SELECT count(*) FROM transactions WHERE status = 'PROCESSING'").await == 0
    })
    .await;
    // A session hands its counts in when it ends; else within ten seconds.
    worker.signal(Signal::SIGTERM);
    assert!(worker.wait_for_exit(SOON).await.success(), "{}", worker.log());
    let counts = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'transactions'";
    let mut seen = (0_i64, 0_i64);
    eventually("all are counted", SOON, async || {
        seen = sqlx::query_as(counts).fetch_one(&pool).await.unwrap();
        seen.0 >= COUNT
    })
    .await;
    let (updates, hot) = seen;
    assert_eq!(updates, COUNT, "one for each");
    // Not all: a webhook may be put into the last free place of a page, and long neighbours may take more than theirs.
    assert!(hot * 10 >= updates * 9, "only {hot} of {updates} are HOT");
}
