//! `millrace reindex`: the index matches the items afterwards, and no newer document is overwritten.

use std::time::Duration;

use jobs::items::search::{Config, Elasticsearch, Fallback, Searcher, Server};
use runtime::error::Error;

use super::{document, fake::FakeElasticsearch};
use crate::harness::{
    database, eventually,
    process::{self, Process},
    search_engine,
};

const SOON: Duration = Duration::from_secs(60);

/// The number of documents that a search finds. Elasticsearch has 2 s for a response, which a busy machine may miss.
async fn count_hits(searcher: &Searcher, query: &str) -> i64 {
    let mut total = None;
    eventually("the search responds in time", SOON, async || {
        match searcher.search(query, 1).await {
            Ok(found) => total = Some(found.total),
            Err(Error::Unavailable(_)) => {}
            Err(error) => panic!("{query}: {error}"),
        }
        total.is_some()
    })
    .await;
    total.expect("a number")
}

#[tokio::test]
async fn reindex_matches_the_index_to_the_items() {
    drop(process::http_client());
    assert_reindex(&FakeElasticsearch::start().await.url()).await;
}

#[tokio::test]
async fn reindex_matches_opensearch_to_the_items() {
    let Some(engine) = search_engine::lease().await else { return };
    assert_reindex(&engine.url()).await;
}

async fn assert_reindex(url: &str) {
    let database = database::fresh().await;
    let pool = database.pool().await;
    for statement in [
        "INSERT INTO users (email, full_name, password_hash) VALUES ('a@example.com', 'A', '$argon2id$')",
        "INSERT INTO items (owner_id, title, version)
         SELECT (SELECT min(id) FROM users), CASE WHEN n <= 600 THEN 'kettle' ELSE 'teapot' END || ' number' || n, 5
         FROM generate_series(1, 1203) AS n",
        "DELETE FROM items WHERE id = 7",
    ] {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    let config = Config { elasticsearch: Some(Server::parse(url).unwrap()), fallback: Fallback::None };
    let elasticsearch = Searcher::start(&pool.clone().into(), &config).unwrap();
    let postgres = Searcher::start(&pool.clone().into(), &Config::default()).unwrap();
    // Outdated, wrong at the same version, newer than the item that was read, and two without an item.
    elasticsearch.index(document(1, 4, "stale", None)).await.unwrap();
    elasticsearch.index(document(2, 5, "wrong", None)).await.unwrap();
    elasticsearch.index(document(3, 6, "newer", None)).await.unwrap();
    elasticsearch.index(document(7, 5, "ghost", None)).await.unwrap();
    elasticsearch.index(document(9999, 1, "ghost", None)).await.unwrap();

    let variables = [("DATABASE_URL", &*database.url), ("ELASTICSEARCH_URL", url)];
    for run in ["the first", "the second"] {
        let mut process = Process::start(&["reindex"], &variables);
        assert!(process.wait_for_exit(SOON).await.success(), "{run}: {}", process.log());
        let log = process.log();
        assert!(log.contains("Elasticsearch is ") && log.contains("1202 items written"), "{run}: {log}");
        Elasticsearch::new(&Server::parse(url).unwrap()).unwrap().refresh().await.expect("a refresh");
        for searcher in [&elasticsearch, &postgres] {
            let totals = [("kettle", 598), ("teapot", 603), ("stale", 0), ("wrong", 0), ("newer", 1), ("ghost", 0)];
            for (query, total) in totals {
                assert_eq!(count_hits(searcher, query).await, total, "{run}: {query}");
            }
        }
    }
    let mut help = Process::start(&["reindex", "--help"], &[]);
    assert!(help.wait_for_exit(Duration::from_secs(20)).await.success());
    assert!(help.log().contains("Running it again is harmless"), "{}", help.log());
}
