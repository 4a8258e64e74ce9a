//! The database cost of a settlement: a new row version on the same page, without any index entry.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::task::JoinSet;

use super::{System, webhook};
use crate::harness::{eventually, http::send};

const SOON: Duration = Duration::from_secs(30);

/// PostgreSQL calls that a HOT update. It needs two things: no index has a changing column, and the page has room. A
/// worker that settles all rows of a page in one statement needs the most room. So all rows are due at once here, in a
/// table whose other pages are full.
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
        requests.spawn(send(system.post_webhook(webhook(&format!("new {number}")).to_string())));
    }
    assert!(requests.join_all().await.iter().all(|response| response.status == 202));

    let mut worker = system.start_worker(&[]).await;
    eventually("all transactions are settled", SOON, async || {
        system.count("SELECT count(*) FROM transactions WHERE status = 'PROCESSING'").await == 0
    })
    .await;
    // A session reports its statistics when it ends, otherwise within ten seconds.
    worker.signal(Signal::SIGTERM);
    assert!(worker.wait_for_exit(SOON).await.success(), "{}", worker.log());
    let counts = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'transactions'";
    let mut statistics = (0_i64, 0_i64);
    eventually("all updates are counted", SOON, async || {
        statistics = sqlx::query_as(counts).fetch_one(&pool).await.unwrap();
        statistics.0 >= COUNT
    })
    .await;
    let (updates, hot) = statistics;
    assert_eq!(updates, COUNT, "one update for each transaction");
    // Not all: a new row may take the last free place of a page, and long rows may take more than their share.
    assert!(hot * 10 >= updates * 9, "only {hot} of {updates} are HOT");
}
