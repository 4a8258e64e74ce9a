//! OpenSearch that is killed, overloaded, out of disk space or changed by an operator: no write is lost.

use std::{sync::Arc, time::Duration};

use jobs::{
    items::{
        Contents, Items,
        search::{
            Config, Elasticsearch, Fallback, MAX_COUNTED, Search, Searcher, Server,
            elasticsearch::{ALIAS, INDEX, Write},
        },
    },
    users::UserId,
};
use queue::{Origin, Queue};
use reqwest::Method;
use runtime::error::Error;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};

use super::{document, upgrade::insert_legacy_documents};
use crate::harness::{
    database::{self, TestDatabase},
    eventually,
    process::{Process, start_worker},
    search_engine::{self, Lease},
};

/// A start of the engine takes 5 s of processor time.
const SOON: Duration = Duration::from_secs(120);

/// The engine, a database, and a client of the engine.
struct EngineHarness {
    engine: Lease,
    elasticsearch: Elasticsearch,
    database: TestDatabase,
    pool: PgPool,
}

impl EngineHarness {
    async fn start() -> Option<Self> {
        let engine = search_engine::lease().await?;
        let elasticsearch = Elasticsearch::new(&Server::parse(&engine.url()).unwrap()).unwrap();
        let database = database::fresh().await;
        Some(Self { engine, elasticsearch, pool: database.pool().await, database })
    }

    fn searcher(&self, fallback: Fallback) -> Searcher {
        let config = Config { elasticsearch: Some(Server::parse(&self.engine.url()).unwrap()), fallback };
        Searcher::start(&self.pool.clone().into(), &config).unwrap()
    }

    async fn start_worker(&self) -> Process {
        start_worker(&self.database.url, &[("ELASTICSEARCH_URL", &*self.engine.url())]).await
    }

    async fn count(&self, query: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(&self.pool).await.expect("a number")
    }

    /// The ids that the engine finds.
    async fn search_ids(&self, query: &str) -> Vec<i64> {
        self.elasticsearch.refresh().await.expect("a refresh");
        let found = self.elasticsearch.search(query, 100).await.expect("hits");
        found.hits.into_iter().map(|hit| hit.document.id).collect()
    }

    /// Changes the settings of the index.
    async fn set(&self, settings: Value) {
        self.engine.call(Method::PUT, &format!("{INDEX}/_settings"), Some(settings)).await;
    }

    async fn assert_refused(&self, id: i64, reason: &str) {
        let refused = [
            self.elasticsearch.upsert(document(id, 100, "kettle", None)).await,
            self.elasticsearch.remove(id, 100).await,
        ];
        for result in refused {
            let error = result.expect_err(reason);
            assert!(matches!(&error, Error::Unavailable(text) if text.contains(reason)), "{reason}: {error}");
        }
    }
}

fn titled(title: &str) -> Contents {
    Contents { title: title.into(), description: None, price_cents: None }
}

#[tokio::test]
async fn items_are_indexed_and_found_while_opensearch_is_killed() {
    let Some(mut harness) = EngineHarness::start().await else { return };
    let user =
        "INSERT INTO users (email, full_name, password_hash) VALUES ('a@example.com', 'A', '$argon2id$') RETURNING id";
    let owner = UserId(harness.count(user).await);
    let searcher = harness.searcher(Fallback::Postgres);
    let pool: runtime::db::Pool = harness.pool.clone().into();
    let items = Items::start(&pool, &Queue::start(pool.clone()), None, Arc::new(searcher.clone()));
    let _worker = harness.start_worker().await;
    // An acknowledged write survives the kill. A removal is forgotten once the index was flushed.
    harness.elasticsearch.upsert(document(901, 1, "ghost", None)).await.expect("a put");
    harness.elasticsearch.remove(901, 5).await.expect("a removal");
    harness.elasticsearch.refresh().await.expect("a refresh");
    harness.engine.call(Method::POST, &format!("{ALIAS}/_flush"), None).await;
    harness.elasticsearch.upsert(document(902, 5, "survivor", None)).await.expect("a put");

    let mut ids = Vec::new();
    for number in 0..30 {
        if number == 10 {
            harness.engine.kill().await;
        }
        let created = items.create(owner, &titled("kettle"), Origin::default()).await.expect("no error");
        ids.push(created.expect("an owner").id.0);
    }
    // The job of an item writes to PostgreSQL first.
    eventually("PostgreSQL finds all items", SOON, async || {
        searcher.search("kettle", 1).await.expect("hits").total == 30
    })
    .await;
    harness.engine.restart().await;
    let jobs = "SELECT count(*) FROM apalis.jobs WHERE job_type = 'index_item' AND status <> 'Done'";
    eventually("all items are indexed", SOON, async || harness.count(jobs).await == 0).await;
    assert_eq!(harness.search_ids("kettle").await, ids);

    assert_eq!(harness.search_ids("survivor").await, [902]);
    harness.elasticsearch.upsert(document(902, 4, "older", None)).await.expect("ignored");
    assert_eq!(harness.search_ids("older").await, Vec::<i64>::new());
    // So a late run of an indexing job checks that its item still exists: see `items::indexing`.
    harness.elasticsearch.upsert(document(901, 4, "ghost", None)).await.expect("a put");
    assert_eq!(harness.search_ids("ghost").await, [901], "OpenSearch remembers removals; then that check can go");
}

#[tokio::test]
async fn a_reindex_continues_after_opensearch_was_killed() {
    const DOCUMENTS: i32 = 4_000;
    let Some(mut harness) = EngineHarness::start().await else { return };
    insert_legacy_documents(&harness.pool, DOCUMENTS).await;
    let _worker = harness.start_worker().await;
    eventually("some documents are written", SOON, async || harness.engine.count_written(INDEX).await > 200).await;
    harness.engine.kill().await;
    harness.engine.restart().await;
    let stale = "SELECT count(*) FROM item_documents WHERE analysed <> version";
    eventually("all documents are reindexed", SOON, async || harness.count(stale).await == 0).await;
    harness.elasticsearch.refresh().await.expect("a refresh");
    let found = harness.elasticsearch.search("hdmi cafe", 1).await.expect("hits");
    assert_eq!(found.total, MAX_COUNTED);
    let counted = harness.engine.call(Method::GET, &format!("{INDEX}/_count"), None).await;
    assert_eq!(counted["count"], DOCUMENTS);
}

#[tokio::test]
async fn requests_that_opensearch_rejects_for_now_are_sent_again() {
    let Some(mut harness) = EngineHarness::start().await else { return };
    let (only_engine, with_fallback) = (harness.searcher(Fallback::None), harness.searcher(Fallback::Postgres));
    with_fallback.index(document(1, 1, "kettle", None)).await.expect("a put");

    harness.engine.occupy("write").await;
    harness.assert_refused(1, "429").await;
    let rejected = harness.engine.count_rejected("write").await;
    assert!(rejected >= 2, "{rejected}");
    let writes = (2..=5).map(|id| Write::Upsert(document(id, 1, "kettle", None))).collect();
    let elasticsearch = harness.elasticsearch.clone();
    let release = async {
        eventually("the bulk is rejected", SOON, async || harness.engine.count_rejected("write").await > rejected)
            .await;
        harness.engine.release().await;
    };
    let (written, ()) = tokio::join!(elasticsearch.write(writes), release);
    written.expect("all writes succeed in the end");
    assert_eq!(harness.search_ids("kettle").await, [1, 2, 3, 4, 5]);

    harness.engine.occupy("search").await;
    // A slow machine may need longer than a response may take.
    eventually("the rejection is named", SOON, async || {
        let error = only_engine.search("kettle", 20).await.expect_err("a full queue");
        matches!(&error, Error::Unavailable(reason) if reason.contains("429"))
    })
    .await;
    assert_eq!(with_fallback.search("kettle", 20).await.expect("hits").total, 1, "found in PostgreSQL");
    harness.engine.release().await;
}

#[tokio::test]
async fn writes_succeed_after_a_full_disk_has_space_again() {
    let Some(harness) = EngineHarness::start().await else { return };
    harness.elasticsearch.upsert(document(1, 1, "kettle", None)).await.expect("a put");
    // What OpenSearch sets by itself above the flood-stage watermark.
    harness.set(json!({ "index.blocks.read_only_allow_delete": true })).await;
    harness.assert_refused(1, "flood-stage watermark").await;
    assert_eq!(harness.search_ids("kettle").await, [1], "searches still work");
    harness.set(json!({ "index.blocks.read_only_allow_delete": null })).await;
    harness.elasticsearch.upsert(document(1, 2, "pot", None)).await.expect("a put");
    assert_eq!(harness.search_ids("pot").await, [1]);

    // It also refuses new indexes.
    let block = |blocked: Value| json!({ "persistent": { "cluster.blocks.create_index": blocked } });
    harness.engine.call(Method::DELETE, INDEX, None).await;
    harness.engine.call(Method::PUT, "_cluster/settings", Some(block(json!(true)))).await;
    for _ in 0..2 {
        let error = harness.elasticsearch.upsert(document(1, 3, "pan", None)).await.expect_err("no index");
        assert!(matches!(error, Error::Unavailable(_)), "{error}");
    }
    harness.engine.call(Method::PUT, "_cluster/settings", Some(block(json!(null)))).await;
    harness.elasticsearch.upsert(document(1, 3, "pan", None)).await.expect("a put");
    assert_eq!(harness.search_ids("pan").await, [1]);
}

#[tokio::test]
async fn an_operator_can_close_the_index_and_make_it_read_only() {
    let Some(harness) = EngineHarness::start().await else { return };
    harness.elasticsearch.upsert(document(1, 1, "kettle", None)).await.expect("a put");
    harness.set(json!({ "index.blocks.write": true })).await;
    harness.assert_refused(1, "403").await;
    harness.set(json!({ "index.blocks.write": false })).await;
    harness.engine.call(Method::POST, &format!("{INDEX}/_close"), None).await;
    harness.assert_refused(1, "index_closed_exception").await;
    harness.engine.call(Method::POST, &format!("{INDEX}/_open"), None).await;
    harness.elasticsearch.upsert(document(1, 2, "pot", None)).await.expect("a put");
    assert_eq!(harness.search_ids("pot").await, [1]);
}

/// An index that an operator created by hand, or of another program with this name.
#[tokio::test]
async fn another_mapping_is_reported_with_its_field() {
    let Some(harness) = EngineHarness::start().await else { return };
    let other = json!({ "mappings": { "properties": { "title": { "type": "long" } } }, "aliases": { ALIAS: {} } });
    harness.engine.call(Method::PUT, INDEX, Some(other)).await;
    let writes = vec![Write::Upsert(document(1, 1, "kettle", None))];
    for result in
        [harness.elasticsearch.upsert(document(1, 1, "kettle", None)).await, harness.elasticsearch.write(writes).await]
    {
        let error = result.expect_err("a text in a field of numbers");
        let is_named = matches!(&error, Error::Internal(reason) if reason.contains("failed to parse field [title]"));
        assert!(is_named, "{error}");
    }
}
