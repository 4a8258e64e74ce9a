//! What both caches hold, and what a Redis that is shared, emptied, frozen or killed changes: never the truth.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use jobs::{
    config::Vars,
    items::{
        ChangeOutcome, ItemId,
        cache::{Cache, Lookup, memory::Memory, redis},
    },
    queue::Origin,
    remote::{self, redis::RedisUrl},
};
use reqwest::Method;
use serde_json::json;

use super::{ITEMS, Shop, System, contents, title, user};
use crate::harness::{eventually, http::ask, redis::Redis};

const SOON: Duration = Duration::from_secs(20);
const ID: ItemId = ItemId(7);

fn leased(lookup: Lookup) -> u128 {
    match lookup {
        Lookup::Leased(lease) => lease,
        other => panic!("a lease, not {other:?}"),
    }
}

/// Filled under a lease only, once, and not after a drop.
async fn keeps_its_promises(cache: &Cache) {
    assert_eq!(cache.peek(ID).await.unwrap(), Lookup::Missed);
    let late = leased(cache.lease(ID).await.unwrap());
    assert_eq!(cache.lease(ID).await.unwrap(), Lookup::Missed, "one lease at a time");
    assert_eq!(cache.peek(ID).await.unwrap(), Lookup::Missed, "a lease is no entry");
    cache.remove(ID).await.unwrap();
    assert!(!cache.fill(ID, late, None).await.unwrap(), "read before the drop");
    let next = leased(cache.lease(ID).await.unwrap());
    assert!(!cache.fill(ID, late, None).await.unwrap(), "somebody else's lease");
    assert!(cache.fill(ID, next, None).await.unwrap());
    assert_eq!(cache.peek(ID).await.unwrap(), Lookup::Hit(None));
    assert_eq!(cache.lease(ID).await.unwrap(), Lookup::Hit(None));
    assert!(!cache.fill(ID, next, None).await.unwrap(), "a lease is good once");
    cache.remove(ID).await.unwrap();
    assert_eq!(cache.peek(ID).await.unwrap(), Lookup::Missed);
    cache.remove(ID).await.unwrap();
}

#[tokio::test]
async fn a_cache_in_the_process_refuses_late_fills() {
    let memory = Cache::Memory(Memory::default());
    keeps_its_promises(&memory).await;
    let lease = leased(memory.lease(ID).await.unwrap());
    assert!(memory.fill(ID, lease, None).await.unwrap());
    eventually("what is not there is asked for again", SOON, async || memory.peek(ID).await.unwrap() == Lookup::Missed)
        .await;
}

#[tokio::test]
async fn a_cache_in_redis_refuses_late_fills() {
    let Some(server) = Redis::start().await else { return };
    let url = RedisUrl::read(&mut Vars::from_pairs(&[("REDIS_URL", &server.url)])).expect("a URL");
    let cache = Cache::Redis(redis::Redis { redis: remote::redis::Redis::start(&url).expect("a client") });
    keeps_its_promises(&cache).await;
    // Emptied between a look and its fill: a write may have been forgotten with the rest.
    let lease = leased(cache.lease(ID).await.unwrap());
    server.flush().await;
    assert!(!cache.fill(ID, lease, None).await.unwrap());
}

#[tokio::test]
async fn what_one_process_writes_another_shows_at_once_through_redis() {
    let Some(server) = Redis::start().await else { return };
    let shop = Shop::open().await;
    let (a, b) = (shop.process(Some(&server.url)), shop.process(Some(&server.url)));
    for round in 0..20 {
        let next = a.find(ItemId(round + 1)).await.unwrap();
        assert_eq!(next, None, "the next id is asked for before it is given");
        let item = shop.create(&a, "first").await;
        assert_eq!(item.id, ItemId(round + 1));
        assert_eq!(title(&b, item.id).await.as_deref(), Some("first"));
        assert_eq!(server.keys().await, u32::try_from(round + 1).unwrap(), "kept");
        let change = shop.change(item.id);
        assert!(matches!(
            a.update(&change, &contents("second"), Origin::default()).await.unwrap(),
            ChangeOutcome::Done(_)
        ));
        assert_eq!(title(&b, item.id).await.as_deref(), Some("second"));
        assert_eq!(title(&a, item.id).await.as_deref(), Some("second"));
        assert_eq!(a.delete(&change, Origin::default()).await.unwrap(), ChangeOutcome::Done(()));
        assert_eq!((title(&b, item.id).await, title(&a, item.id).await), (None, None));
        if round % 5 == 4 {
            server.flush().await;
            assert_eq!(title(&b, item.id).await, None);
            for gone in 1..=round {
                assert_eq!(title(&b, ItemId(gone)).await, None);
            }
        }
    }
}

#[tokio::test]
async fn without_redis_another_process_shows_a_write_within_three_seconds() {
    let shop = Shop::open().await;
    let (a, b) = (shop.process(None), shop.process(None));
    let item = shop.create(&a, "first").await;
    assert_eq!(title(&b, item.id).await.as_deref(), Some("first"));
    let change = shop.change(item.id);
    a.update(&change, &contents("second"), Origin::default()).await.unwrap();
    let written = Instant::now();
    assert_eq!(title(&a, item.id).await.as_deref(), Some("second"), "its own write");
    eventually("the other one shows it", SOON, async || title(&b, item.id).await.as_deref() == Some("second")).await;
    assert!(written.elapsed() < Duration::from_millis(3500), "{:?}", written.elapsed());
}

/// A Redis that stops answering costs one short wait now and then; what it kept meanwhile is not shown afterwards.
#[tokio::test]
async fn a_frozen_redis_fails_no_request_and_shows_nothing_old_when_it_is_back() {
    let Some(server) = Redis::start().await else { return };
    let shop = Shop::open().await;
    let (a, b) = (shop.process(Some(&server.url)), shop.process(Some(&server.url)));
    let (kept, gone) = (shop.create(&a, "first").await.id, shop.create(&a, "doomed").await.id);
    for items in [&a, &b] {
        assert_eq!(title(items, kept).await.as_deref(), Some("first"));
        assert_eq!(title(items, gone).await.as_deref(), Some("doomed"));
    }
    assert_eq!(server.keys().await, 2);
    server.freeze();
    let begun = Instant::now();
    a.update(&shop.change(kept), &contents("second"), Origin::default()).await.unwrap();
    a.delete(&shop.change(gone), Origin::default()).await.unwrap();
    for _ in 0..200 {
        assert_eq!(title(&a, kept).await.as_deref(), Some("second"));
        assert_eq!(title(&a, gone).await, None);
    }
    // 402 calls one after the other: 100 ms for the first, and again once a second.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    server.thaw();
    for _ in 0..50 {
        assert_eq!(title(&a, kept).await.as_deref(), Some("second"), "its own write");
        assert_eq!(title(&a, gone).await, None, "its own deletion");
    }
    // Whoever did not write learns of it by the job, should the writer be gone.
    drop(a);
    let worker = shop.worker(&shop.process(Some(&server.url)));
    eventually("nothing is left to index", SOON, async || shop.left().await == 0).await;
    assert_eq!(title(&b, kept).await.as_deref(), Some("second"));
    assert_eq!(title(&b, gone).await, None);
    worker.stop().await;
}

#[tokio::test]
async fn a_killed_redis_fails_no_request() {
    let Some(mut server) = Redis::start().await else { return };
    let shop = Shop::open().await;
    let items = shop.process(Some(&server.url));
    let item = shop.create(&items, "first").await;
    assert_eq!(title(&items, item.id).await.as_deref(), Some("first"));
    server.kill().await;
    let begun = Instant::now();
    for round in 0..50 {
        let next = format!("round {round}");
        items.update(&shop.change(item.id), &contents(&next), Origin::default()).await.unwrap();
        assert_eq!(title(&items, item.id).await, Some(next));
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // An unreachable cache holds no indexing back.
    let worker = shop.worker(&items);
    eventually("indexed", SOON, async || shop.recorder.found().get(&item.id.0).is_some_and(|item| item.version == 51))
        .await;
    worker.stop().await;
}

#[tokio::test]
async fn a_cold_key_is_loaded_once_however_many_ask() {
    let redis = Redis::start().await;
    for url in [None, redis.as_ref().map(|redis| redis.url.as_str())] {
        let variables: Vec<(&str, &str)> = url.map(|url| ("REDIS_URL", url)).into_iter().collect();
        let system = Arc::new(System::start(&variables).await);
        let (_, token) = user(&system.database.pool().await, "ada").await;
        let created = ask(system.call(Method::POST, ITEMS).bearer_auth(&token).json(&json!({"title": "cold"}))).await;
        let path = created.header("location").to_owned();
        let answers = join_all((0..100).map(|_| ask(system.call(Method::GET, &path)))).await;
        assert!(answers.iter().all(|answer| answer.status == 200));
        assert_eq!(system.metric("millrace_cache_loads_total{cache=\"items\"}").await, 1);
        let mut requests = 0;
        for outcome in ["hit", "miss", "error"] {
            let series = format!("millrace_cache_requests_total{{cache=\"items\",outcome=\"{outcome}\"}}");
            requests += system.metric(&series).await;
        }
        assert_eq!(requests, 100);
        assert!(!system.api.process.log().contains("not-to-be-printed"));
    }
}
