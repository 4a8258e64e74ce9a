//! Both item caches: leases, visibility across processes, and a Redis that is flushed, frozen or killed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use jobs::items::{
    ChangeOutcome, ItemId,
    cache::{Cache, Lookup, memory::Memory, redis},
};
use queue::Origin;
use reqwest::Method;
use runtime::{
    clients::{self, redis::RedisUrl},
    config::EnvReader,
};
use serde_json::json;

use super::{ITEMS, ItemHarness, contents, create_user, find_title, start};
use crate::harness::{eventually, http::send, redis::Redis};

const SOON: Duration = Duration::from_secs(20);
const ID: ItemId = ItemId(7);

fn expect_lease(lookup: Lookup) -> u128 {
    match lookup {
        Lookup::Leased(lease) => lease,
        other => panic!("a lease, not {other:?}"),
    }
}

/// A fill needs a current lease, uses it up, and fails after an invalidation.
async fn assert_stale_fills_are_refused(cache: &Cache) {
    assert_eq!(cache.peek(ID).await.unwrap(), Lookup::Missed);
    let stale = expect_lease(cache.lease(ID).await.unwrap());
    assert_eq!(cache.lease(ID).await.unwrap(), Lookup::Missed, "one lease at a time");
    assert_eq!(cache.peek(ID).await.unwrap(), Lookup::Missed, "a lease is not an entry");
    cache.remove(ID).await.unwrap();
    assert!(!cache.fill(ID, stale, None).await.unwrap(), "a lease from before the invalidation");
    let next = expect_lease(cache.lease(ID).await.unwrap());
    assert!(!cache.fill(ID, stale, None).await.unwrap(), "the lease of another reader");
    assert!(cache.fill(ID, next, None).await.unwrap());
    assert_eq!(cache.peek(ID).await.unwrap(), Lookup::Hit(None));
    assert_eq!(cache.lease(ID).await.unwrap(), Lookup::Hit(None));
    assert!(!cache.fill(ID, next, None).await.unwrap(), "a lease is used up by one fill");
    cache.remove(ID).await.unwrap();
    assert_eq!(cache.peek(ID).await.unwrap(), Lookup::Missed);
    cache.remove(ID).await.unwrap();
}

#[tokio::test]
async fn the_memory_cache_refuses_stale_fills() {
    let memory = Cache::Memory(Memory::default());
    assert_stale_fills_are_refused(&memory).await;
    let lease = expect_lease(memory.lease(ID).await.unwrap());
    assert!(memory.fill(ID, lease, None).await.unwrap());
    eventually("a cached absence expires", SOON, async || memory.peek(ID).await.unwrap() == Lookup::Missed).await;
}

#[tokio::test]
async fn the_redis_cache_refuses_stale_fills() {
    let Some(server) = Redis::start().await else { return };
    let url = RedisUrl::read(&mut EnvReader::from_pairs(&[("REDIS_URL", &server.url)])).expect("a URL");
    let cache = Cache::Redis(redis::Redis { redis: clients::redis::Redis::start(&url).expect("a client") });
    assert_stale_fills_are_refused(&cache).await;
    // Flushed between a lease and its fill: the flush may have dropped the invalidation of a write.
    let lease = expect_lease(cache.lease(ID).await.unwrap());
    server.flush().await;
    assert!(!cache.fill(ID, lease, None).await.unwrap());
}

#[tokio::test]
async fn redis_shows_a_write_to_other_processes_at_once() {
    let Some(server) = Redis::start().await else { return };
    let harness = ItemHarness::start().await;
    let (a, b) = (harness.start_items(Some(&server.url)), harness.start_items(Some(&server.url)));
    for round in 0..20 {
        let next = a.find(ItemId(round + 1)).await.unwrap();
        assert_eq!(next, None, "the absence of the next id is cached first");
        let item = harness.create(&a, "first").await;
        assert_eq!(item.id, ItemId(round + 1));
        assert_eq!(find_title(&b, item.id).await.as_deref(), Some("first"));
        assert_eq!(server.keys().await, u32::try_from(round + 1).unwrap(), "the entry is in Redis");
        let change = harness.change(item.id);
        assert!(matches!(
            a.update(&change, &contents("second"), Origin::default()).await.unwrap(),
            ChangeOutcome::Done(_)
        ));
        assert_eq!(find_title(&b, item.id).await.as_deref(), Some("second"));
        assert_eq!(find_title(&a, item.id).await.as_deref(), Some("second"));
        assert_eq!(a.delete(&change, Origin::default()).await.unwrap(), ChangeOutcome::Done(()));
        assert_eq!((find_title(&b, item.id).await, find_title(&a, item.id).await), (None, None));
        if round % 5 == 4 {
            server.flush().await;
            assert_eq!(find_title(&b, item.id).await, None);
            for deleted in 1..=round {
                assert_eq!(find_title(&b, ItemId(deleted)).await, None);
            }
        }
    }
}

#[tokio::test]
async fn without_redis_other_processes_show_a_write_within_three_seconds() {
    let harness = ItemHarness::start().await;
    let (a, b) = (harness.start_items(None), harness.start_items(None));
    let item = harness.create(&a, "first").await;
    assert_eq!(find_title(&b, item.id).await.as_deref(), Some("first"));
    let change = harness.change(item.id);
    a.update(&change, &contents("second"), Origin::default()).await.unwrap();
    let written = Instant::now();
    assert_eq!(find_title(&a, item.id).await.as_deref(), Some("second"), "its own write");
    eventually("the other process shows the write", SOON, async || {
        find_title(&b, item.id).await.as_deref() == Some("second")
    })
    .await;
    assert!(written.elapsed() < Duration::from_millis(3500), "{:?}", written.elapsed());
}

/// A frozen Redis costs a 100 ms wait once a second. Entries that became stale meanwhile are not returned after it thaws.
#[tokio::test]
async fn a_frozen_redis_fails_no_request_and_returns_no_stale_item() {
    let Some(server) = Redis::start().await else { return };
    let harness = ItemHarness::start().await;
    let (a, b) = (harness.start_items(Some(&server.url)), harness.start_items(Some(&server.url)));
    let (updated, deleted) = (harness.create(&a, "first").await.id, harness.create(&a, "to be deleted").await.id);
    for items in [&a, &b] {
        assert_eq!(find_title(items, updated).await.as_deref(), Some("first"));
        assert_eq!(find_title(items, deleted).await.as_deref(), Some("to be deleted"));
    }
    assert_eq!(server.keys().await, 2);
    server.freeze();
    let begun = Instant::now();
    a.update(&harness.change(updated), &contents("second"), Origin::default()).await.unwrap();
    a.delete(&harness.change(deleted), Origin::default()).await.unwrap();
    for _ in 0..200 {
        assert_eq!(find_title(&a, updated).await.as_deref(), Some("second"));
        assert_eq!(find_title(&a, deleted).await, None);
    }
    // 402 calls in sequence: the first one waits 100 ms, and so does one call a second.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    server.thaw();
    for _ in 0..50 {
        assert_eq!(find_title(&a, updated).await.as_deref(), Some("second"), "its own write");
        assert_eq!(find_title(&a, deleted).await, None, "its own deletion");
    }
    // If the writer is gone, the indexing job invalidates the entry for the other processes.
    drop(a);
    let worker = harness.start_worker(&harness.start_items(Some(&server.url)));
    eventually("no indexing job is open", SOON, async || harness.count_open_jobs().await == 0).await;
    assert_eq!(find_title(&b, updated).await.as_deref(), Some("second"));
    assert_eq!(find_title(&b, deleted).await, None);
    worker.stop().await;
}

#[tokio::test]
async fn a_killed_redis_fails_no_request() {
    let Some(mut server) = Redis::start().await else { return };
    let harness = ItemHarness::start().await;
    let items = harness.start_items(Some(&server.url));
    let item = harness.create(&items, "first").await;
    assert_eq!(find_title(&items, item.id).await.as_deref(), Some("first"));
    server.kill().await;
    let begun = Instant::now();
    for round in 0..50 {
        let next = format!("round {round}");
        items.update(&harness.change(item.id), &contents(&next), Origin::default()).await.unwrap();
        assert_eq!(find_title(&items, item.id).await, Some(next));
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // An unreachable cache does not delay indexing.
    let worker = harness.start_worker(&items);
    eventually("the last version is indexed", SOON, async || {
        harness.index.items().get(&item.id.0).is_some_and(|item| item.version == 51)
    })
    .await;
    worker.stop().await;
}

#[tokio::test]
async fn concurrent_misses_load_an_item_once() {
    let redis = Redis::start().await;
    for url in [None, redis.as_ref().map(|redis| redis.url.as_str())] {
        let variables: Vec<(&str, &str)> = url.map(|url| ("REDIS_URL", url)).into_iter().collect();
        let system = Arc::new(start(&variables).await);
        let (_, token) = create_user(&system.database.pool().await, "ada").await;
        let created =
            send(system.request(Method::POST, ITEMS).bearer_auth(&token).json(&json!({"title": "cold"}))).await;
        let path = created.header("location").to_owned();
        let responses = join_all((0..100).map(|_| send(system.get(&path)))).await;
        assert!(responses.iter().all(|response| response.status == 200));
        let requests = async |outcome: &str| {
            let series = format!("millrace_cache_requests_total{{cache=\"items\",outcome=\"{outcome}\"}}");
            system.metric(&series).await
        };
        let errors = requests("error").await;
        assert_eq!(requests("hit").await + requests("miss").await + errors, 100);
        // A request loads by itself if Redis does not reply to it in time, which happens on a busy machine.
        let loads = system.metric("millrace_cache_loads_total{cache=\"items\"}").await;
        assert!((1..=1 + errors).contains(&loads), "{loads} loads, {errors} errors");
        assert!(!system.api.process.log().contains("not-to-be-printed"));
    }
}
