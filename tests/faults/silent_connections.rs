//! Connections die without a RST while sixty readers are under way; new connections work.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{
    QUICK, SOON,
    clients::{send, webhook},
    failover::{socket, through},
};
use crate::harness::{
    database, eventually,
    process::{Api, http_client, start_worker},
    proxy::Proxy,
};

const READERS: usize = 60;

#[tokio::test]
async fn sixty_readers_are_served_again_within_thirty_seconds() {
    let database = database::fresh().await;
    let proxy = Proxy::start(socket(&database.url)).await;
    let api = Api::start(&through(&proxy, &database.url), &QUICK).await;
    let http = http_client();
    assert_eq!(send(&http, &api.url, &webhook("txn_1")).await.expect("an answer").status(), 202);
    // Each takes a session of its own, so that every session of the pool is in use when its connection dies.
    let url = format!("{}/v1/transactions?limit=1", api.url);
    let read = || {
        let reads = (0..READERS).map(|_| {
            let (http, url) = (http.clone(), url.clone());
            async move { http.get(url).send().await.expect("an answer").status() }
        });
        reads.collect::<JoinSet<_>>().join_all()
    };
    assert!(read().await.iter().all(|status| *status == 200), "before");
    proxy.drop_traffic();
    let (begun, under_way) = (Instant::now(), tokio::spawn(read()));
    let mut refused = under_way.await.expect("answers").iter().filter(|status| **status != 200).count();
    loop {
        let failed = read().await.iter().filter(|status| **status != 200).count();
        if failed == 0 {
            break;
        }
        refused += failed;
        assert!(begun.elapsed() < Duration::from_secs(30), "still {failed} of {READERS} refused");
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");
    println!("{READERS} readers over silent connections: {refused} answers 503, all served again after {took:.1?}");
}

#[tokio::test]
async fn a_listener_over_a_silent_connection_listens_anew() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let proxy = Proxy::start(socket(&database.url)).await;
    let worker = start_worker(&through(&proxy, &database.url), &QUICK).await;
    let listeners = "SELECT count(*), max(pid) FROM pg_stat_activity
                     WHERE application_name = 'millrace listener' AND datname = current_database()";
    let listening =
        async || sqlx::query_as::<_, (i64, Option<i32>)>(listeners).fetch_one(&pool).await.expect("a count");
    eventually("it listens", SOON, async || listening().await.0 == 1).await;
    proxy.drop_traffic();
    let begun = Instant::now();
    // The server still has the first: it got no sign of its end.
    eventually("it listens over another connection", Duration::from_secs(15), async || listening().await.0 == 2).await;
    println!("a silent listener was replaced after {:.1?}", begun.elapsed());
    drop(worker);
}
