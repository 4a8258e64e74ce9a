//! Upgrades: documents of an earlier release stay searchable, and a worker reindexes them by the current rules.

use std::time::Duration;

use jobs::items::search::{Config, Fallback, Searcher, Server, elasticsearch::INDEX};
use reqwest::Method;
use serde_json::json;
use sqlx::PgPool;

use super::fake::FakeElasticsearch;
use crate::harness::{
    database, eventually,
    process::{self, start_worker},
    search_engine,
};

const SOON: Duration = Duration::from_secs(60);

/// Inserts documents as an earlier release did.
pub(super) async fn insert_legacy_documents(pool: &PgPool, count: i32) {
    let insert =
        "INSERT INTO item_documents (item_id, version, removed, title, owner_id, created_at, updated_at, words)
                  SELECT n, 3, false, title || n, 7, now(), now(), to_tsvector('simple', title || n)
                  FROM generate_series(1, $1) AS n, (VALUES ('Adapter USB/HDMI Café no')) AS old (title)";
    sqlx::query(insert).bind(count).execute(pool).await.expect("documents");
}

async fn count_hits(searcher: &Searcher, query: &str) -> i64 {
    searcher.search(query, 1).await.expect("hits").total
}

#[tokio::test]
async fn documents_of_an_earlier_release_are_reindexed() {
    drop(process::http_client());
    let fake = FakeElasticsearch::start().await;
    assert_reindexed(&fake.url(), async || fake.count_searches() as u64).await;
}

#[tokio::test]
async fn documents_of_an_earlier_release_are_reindexed_in_opensearch() {
    let Some(engine) = search_engine::lease().await else { return };
    // The index of the earlier release, which its processes still use.
    let earlier = json!({
        "aliases": { "millrace-items": {} },
        "mappings": { "dynamic": "strict", "properties": { "id": { "type": "long" }, "title": { "type": "text" } } },
    });
    engine.call(Method::PUT, "millrace-items-1", Some(earlier)).await;
    let document = json!({ "id": 1, "title": "Adapter USB/HDMI" });
    engine.call(Method::PUT, "millrace-items/_doc/1?refresh=true", Some(document)).await;
    assert_reindexed(&engine.url(), async || engine.count_searches(INDEX).await).await;
    assert_eq!(engine.call(Method::GET, "millrace-items/_count", None).await["count"], 1);
}

/// `count_searches` counts the searches of the engine.
async fn assert_reindexed(url: &str, count_searches: impl AsyncFn() -> u64) {
    let database = database::fresh().await;
    let pool = database.pool().await;
    insert_legacy_documents(&pool, 450).await;
    let config = Config { elasticsearch: Some(Server::parse(url).unwrap()), fallback: Fallback::Postgres };
    let searcher = Searcher::start(&pool.clone().into(), &config).unwrap();
    assert_eq!(
        (count_hits(&searcher, "adapter").await, count_hits(&searcher, "hdmi").await),
        (450, 0),
        "matched by the old rules"
    );
    assert_eq!(count_searches().await, 0, "the index of Elasticsearch is empty");

    let _worker = start_worker(&database.url, &[("ELASTICSEARCH_URL", url)]).await;
    eventually("all documents are reindexed", SOON, async || count_hits(&searcher, "hdmi cafe").await == 450).await;
    eventually("Elasticsearch serves the searches", SOON, async || {
        count_hits(&searcher, "usb").await == 450 && count_searches().await > 0
    })
    .await;
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM item_documents WHERE analysed <> version")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(left, 0);
    // One job for all documents, and no second one without outdated documents.
    let jobs = "SELECT count(*) FROM apalis.jobs WHERE job_type = 'reindex_items'";
    assert_eq!(sqlx::query_scalar::<_, i64>(jobs).fetch_one(&pool).await.unwrap(), 1);
}

/// During an upgrade an old process may update a document. Then its version is newer than its words.
#[tokio::test]
async fn documents_written_by_an_old_process_are_reindexed() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let searcher = Searcher::start(&pool.clone().into(), &Config::default()).unwrap();
    searcher.index(super::document(1, 1, "Café", None)).await.unwrap();
    assert_eq!(count_hits(&searcher, "cafe").await, 1);
    sqlx::query("UPDATE item_documents SET version = 2, title = 'AC/DC'").execute(&pool).await.unwrap();
    let _worker = start_worker(&database.url, &[]).await;
    eventually("the new title is found", SOON, async || count_hits(&searcher, "dc").await == 1).await;
    assert_eq!(count_hits(&searcher, "cafe").await, 0);
}
