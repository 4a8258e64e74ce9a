//! Connections die without a RST while sixty readers are active; new connections work.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{
    QUICK, SOON,
    clients::{post_webhook, webhook},
    failover::{start_proxy, url_through},
};
use crate::harness::{
    database, eventually,
    process::{Api, http_client, start_worker},
};

const READERS: usize = 60;

#[tokio::test]
async fn sixty_readers_are_served_again_within_thirty_seconds() {
    let database = database::fresh().await;
    let proxy = start_proxy(&database.url).await;
    let api = Api::start(&url_through(&proxy, &database.url), &QUICK).await;
    let http = http_client();
    assert_eq!(post_webhook(&http, &api.url, &webhook("txn_1")).await.expect("a response").status(), 202);
    // Each reader uses its own session, so that every session of the pool is in use when its connection dies.
    let url = format!("{}/v1/transactions?limit=1", api.url);
    let read = || {
        let reads = (0..READERS).map(|_| {
            let (http, url) = (http.clone(), url.clone());
            async move { http.get(url).send().await.expect("a response").status() }
        });
        reads.collect::<JoinSet<_>>().join_all()
    };
    assert!(read().await.iter().all(|status| *status == 200), "before the fault");
    proxy.silence_open();
    let (begun, interrupted) = (Instant::now(), tokio::spawn(read()));
    let mut failures = interrupted.await.expect("responses").iter().filter(|status| **status != 200).count();
    loop {
        let failed = read().await.iter().filter(|status| **status != 200).count();
        if failed == 0 {
            break;
        }
        failures += failed;
        assert!(begun.elapsed() < Duration::from_secs(30), "{failed} of {READERS} readers still fail");
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");
    println!("{READERS} readers over silent connections: {failures} responses 503, all served again after {took:.1?}");
}

/// All sessions that a process has kept die at once, and only one reader is active. It needs one check, not one for each session.
#[tokio::test]
async fn one_reader_over_many_silent_sessions_fails_at_most_once() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let proxy = start_proxy(&database.url).await;
    let api = Api::start(&url_through(&proxy, &database.url), &QUICK).await;
    let http = http_client();
    let url = format!("{}/v1/transactions?limit=1", api.url);
    let read = async |_| http.get(&url).send().await.expect("a response").status();
    let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'millrace api' AND datname = current_database()";
    eventually("many sessions are open", SOON, async || {
        futures_util::future::join_all((0..READERS).map(read)).await;
        sqlx::query_scalar::<_, i64>(open).fetch_one(&pool).await.expect("a count") >= 6
    })
    .await;
    proxy.silence_open();
    // The statement of the first reader may be under way in a session that was used a moment ago.
    let statuses = [read(0).await, read(1).await];
    assert_eq!(statuses[1], 200, "{statuses:?}");
}

/// A session that died while it was idle is not used for a webhook, whose statement may be sent only once.
#[tokio::test]
async fn a_webhook_over_a_silent_session_is_recorded() {
    let database = database::fresh().await;
    let proxy = start_proxy(&database.url).await;
    let api = Api::start(&url_through(&proxy, &database.url), &QUICK).await;
    let http = http_client();
    let post = async |id| post_webhook(&http, &api.url, &webhook(id)).await.expect("a response").status();
    assert_eq!(post("txn_1").await, 202);
    proxy.silence_open();
    // A session that was used in the last 10 ms is not checked.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(post("txn_2").await, 202);
}

#[tokio::test]
async fn a_listener_over_a_silent_connection_reconnects() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let proxy = start_proxy(&database.url).await;
    let worker = start_worker(&url_through(&proxy, &database.url), &QUICK).await;
    let listeners = "SELECT count(*), max(pid) FROM pg_stat_activity
                     WHERE application_name = 'millrace listener' AND datname = current_database()";
    let listening =
        async || sqlx::query_as::<_, (i64, Option<i32>)>(listeners).fetch_one(&pool).await.expect("a count");
    eventually("the worker listens", SOON, async || listening().await.0 == 1).await;
    proxy.silence_open();
    let begun = Instant::now();
    // The server keeps the first session, because it did not see the connection end.
    eventually("the worker listens over another connection", Duration::from_secs(15), async || {
        listening().await.0 == 2
    })
    .await;
    println!("a silent listener was replaced after {:.1?}", begun.elapsed());
    drop(worker);
}
