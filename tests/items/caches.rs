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
use serde_json::json;

use super::{ITEMS, ItemHarness, contents, create_user, find_title, impatient_redis, patient_redis, start};
use crate::harness::{eventually, http::send, redis::Redis};

const SOON: Duration = Duration::from_secs(20);
const ID: ItemId = ItemId(7);
/// How long the cache in memory keeps an absence, the one in Redis longer.
const ABSENT_TTL: Duration = Duration::from_secs(1);
/// How long the cache in memory keeps an item.
const MEMORY_TTL: Duration = Duration::from_secs(3);

fn expect_lease(lookup: Lookup) -> u128 {
    match lookup {
        Lookup::Leased(lease) => lease,
        other => panic!("a lease, not {other:?}"),
    }
}

/// Whether Redis has an entry of this item, and not only a lease.
async fn is_in_redis(server: &Redis, id: ItemId) -> bool {
    let response = server.command(&format!("HEXISTS millrace:1:item:{id} b")).await;
    response.expect("a response").contains(":1")
}

/// A fill needs a current lease, uses it up, and fails after an invalidation.
async fn assert_stale_fills_are_refused(cache: &Cache) {
    assert_eq!(cache.peek(ID).await.unwrap(), Lookup::Missed);
    let abandoned = expect_lease(cache.lease(ID).await.unwrap());
    let stale = expect_lease(cache.lease(ID).await.unwrap());
    assert_eq!(cache.peek(ID).await.unwrap(), Lookup::Missed, "a lease is not an entry");
    assert!(!cache.fill(ID, abandoned, None).await.unwrap(), "a lease that the next load has taken over");
    cache.remove(ID).await.unwrap();
    assert!(!cache.fill(ID, stale, None).await.unwrap(), "a lease from before the invalidation");
    let leased = Instant::now();
    let next = expect_lease(cache.lease(ID).await.unwrap());
    // A busy machine may take so long that the absence has expired.
    let is_cached = |found: &Lookup| *found == Lookup::Hit(None) || leased.elapsed() >= ABSENT_TTL;
    assert!(!cache.fill(ID, stale, None).await.unwrap(), "the lease of another reader");
    assert!(cache.fill(ID, next, None).await.unwrap());
    for found in [cache.peek(ID).await.unwrap(), cache.lease(ID).await.unwrap()] {
        assert!(is_cached(&found), "{found:?}");
    }
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
    let [cache, other] = [(); 2].map(|()| Cache::Redis(redis::Redis::new(patient_redis(&server.url))));
    assert_stale_fills_are_refused(&cache).await;
    let lease = expect_lease(cache.lease(ID).await.unwrap());
    assert_eq!(other.lease(ID).await.unwrap(), Lookup::Missed, "one process at a time");
    assert!(cache.fill(ID, lease, None).await.unwrap(), "no other process takes a lease over");
    cache.remove(ID).await.unwrap();
    // Flushed between a lease and its fill: the flush may have dropped the invalidation of a write.
    let lease = expect_lease(cache.lease(ID).await.unwrap());
    server.flush().await;
    assert!(!cache.fill(ID, lease, None).await.unwrap());
}

/// A failed load leaves its lease, as a lease does that Redis grants too late, or a fill that Redis refuses.
#[tokio::test]
async fn the_first_load_after_a_failed_one_fills_the_cache() {
    let redis = Redis::start().await;
    for url in [None, redis.as_ref().map(|redis| redis.url.as_str())] {
        let harness = ItemHarness::start().await;
        let items = harness.start_items(url.map(patient_redis));
        // On a busy machine the entry expires before the second read. Then another item is read.
        eventually("the second read is of the cache", SOON, async || {
            let item = harness.create(&items, "first").await;
            harness.execute("ALTER TABLE items RENAME TO items_away").await;
            items.find(item.id).await.expect_err("a load without the table");
            harness.execute("ALTER TABLE items_away RENAME TO items").await;
            assert_eq!(find_title(&items, item.id).await.as_deref(), Some("first"));
            harness.execute("UPDATE items SET title = 'second'").await;
            find_title(&items, item.id).await.as_deref() == Some("first")
        })
        .await;
    }
}

#[tokio::test]
async fn the_writer_of_an_item_caches_that_another_process_has_deleted_it() {
    let Some(server) = Redis::start().await else { return };
    let harness = ItemHarness::start().await;
    let [a, b] = [(); 2].map(|()| harness.start_items(Some(patient_redis(&server.url))));
    // On a busy machine the absence expires before the second read. Then another item is read.
    eventually("the second read is of the cache", SOON, async || {
        let item = harness.create(&a, "first").await;
        b.delete(&harness.change(item.id), Origin::default()).await.unwrap();
        assert_eq!(find_title(&a, item.id).await, None);
        // The product never uses an id twice. This row shows whether the second read is a load.
        let insert = "INSERT INTO items (id, owner_id, title) OVERRIDING SYSTEM VALUE VALUES ($1, $2, 'again')";
        sqlx::query(insert).bind(item.id.0).bind(harness.owner.0).execute(&harness.pool).await.expect("a row");
        find_title(&a, item.id).await.is_none()
    })
    .await;
}

#[tokio::test]
async fn redis_shows_a_write_to_other_processes_at_once() {
    let Some(server) = Redis::start().await else { return };
    let harness = ItemHarness::start().await;
    // A removal that Redis does not confirm in time is left to the indexing job, which does not run here.
    let [a, b] = [(); 2].map(|()| harness.start_items(Some(patient_redis(&server.url))));
    for round in 0..20 {
        let next = a.find(ItemId(round + 1)).await.unwrap();
        assert_eq!(next, None, "the absence of the next id is cached first");
        let item = harness.create(&a, "first").await;
        assert_eq!(item.id, ItemId(round + 1));
        assert_eq!(find_title(&b, item.id).await.as_deref(), Some("first"));
        assert!(is_in_redis(&server, item.id).await);
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
        let age = written.elapsed();
        let is_shown = find_title(&b, item.id).await.as_deref() == Some("second");
        // Of a read that takes long, the time of its beginning counts.
        assert!(is_shown || age < MEMORY_TTL, "not shown {age:?} after the write");
        is_shown
    })
    .await;
}

/// A frozen Redis costs a 100 ms wait once a second. Entries that became stale meanwhile are not returned after it thaws.
#[tokio::test]
async fn a_frozen_redis_fails_no_request_and_returns_no_stale_item() {
    let Some(server) = Redis::start().await else { return };
    let harness = ItemHarness::start().await;
    let [a, b] = [(); 2].map(|()| harness.start_items(Some(impatient_redis(&server.url))));
    let (updated, deleted) = (harness.create(&a, "first").await.id, harness.create(&a, "to be deleted").await.id);
    // An item is not cached if Redis responds too late.
    eventually("both items are in Redis", SOON, async || {
        for items in [&a, &b] {
            assert_eq!(find_title(items, updated).await.as_deref(), Some("first"));
            assert_eq!(find_title(items, deleted).await.as_deref(), Some("to be deleted"));
        }
        is_in_redis(&server, updated).await && is_in_redis(&server, deleted).await
    })
    .await;
    server.freeze();
    let begun = Instant::now();
    a.update(&harness.change(updated), &contents("second"), Origin::default()).await.unwrap();
    a.delete(&harness.change(deleted), Origin::default()).await.unwrap();
    for _ in 0..200 {
        assert_eq!(find_title(&a, updated).await.as_deref(), Some("second"));
        assert_eq!(find_title(&a, deleted).await, None);
    }
    // One command a second waits 100 ms for Redis. If both commands of each read waited, this would take 80 s.
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    server.thaw();
    for _ in 0..50 {
        assert_eq!(find_title(&a, updated).await.as_deref(), Some("second"), "its own write");
        assert_eq!(find_title(&a, deleted).await, None, "its own deletion");
    }
    // If the writer is gone, the indexing job invalidates the entry for the other processes.
    drop(a);
    let worker = harness.start_worker(&harness.start_items(Some(impatient_redis(&server.url))));
    eventually("no indexing job is open", SOON, async || harness.count_open_jobs().await == 0).await;
    assert_eq!(find_title(&b, updated).await.as_deref(), Some("second"));
    assert_eq!(find_title(&b, deleted).await, None);
    worker.stop().await;
}

#[tokio::test]
async fn a_killed_redis_fails_no_request() {
    let Some(mut server) = Redis::start().await else { return };
    let harness = ItemHarness::start().await;
    let items = harness.start_items(Some(impatient_redis(&server.url)));
    let item = harness.create(&items, "first").await;
    assert_eq!(find_title(&items, item.id).await.as_deref(), Some("first"));
    server.kill().await;
    let begun = Instant::now();
    for round in 0..50 {
        let next = format!("round {round}");
        items.update(&harness.change(item.id), &contents(&next), Origin::default()).await.unwrap();
        for _ in 0..5 {
            assert_eq!(find_title(&items, item.id).await.as_ref(), Some(&next));
        }
    }
    // If each of the 550 commands waited 100 ms for Redis, this would take 55 s.
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
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
        let count_reads = async || {
            let mut reads = 0;
            for outcome in ["hit", "miss", "error"] {
                let series = format!("millrace_cache_requests_total{{cache=\"items\",outcome=\"{outcome}\"}}");
                reads += system.metric(&series).await;
            }
            reads
        };
        let count_loads = async || system.metric("millrace_cache_loads_total{cache=\"items\"}").await;
        eventually("one load serves 100 reads", Duration::from_secs(60), async || {
            let created =
                send(system.request(Method::POST, ITEMS).bearer_auth(&token).json(&json!({"title": "cold"}))).await;
            let path = created.header("location").to_owned();
            let (reads, loads, begun) = (count_reads().await, count_loads().await, Instant::now());
            let responses = join_all((0..100).map(|_| send(system.get(&path)))).await;
            let is_late = begun.elapsed() >= MEMORY_TTL;
            assert!(responses.iter().all(|response| response.status == 200));
            assert_eq!(count_reads().await - reads, 100);
            let loads = count_loads().await - loads;
            // On a busy machine the entry in memory expires, or Redis responds too late. Then another item is read.
            assert!(loads == 1 || is_late || url.is_some(), "{loads} loads");
            loads == 1
        })
        .await;
        assert!(!system.api.process.log().contains("not-to-be-printed"));
    }
}
