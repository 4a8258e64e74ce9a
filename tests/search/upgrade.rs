//! What an earlier release has indexed is found all the time, and by this release's rules soon.

use std::time::Duration;

use jobs::items::search::{Config, Fallback, Searcher, Server};
use sqlx::PgPool;

use super::fake::Fake;
use crate::harness::{
    database, eventually,
    process::{self, start_worker},
};

const SOON: Duration = Duration::from_secs(30);

/// Documents as the release before wrote them.
async fn earlier(pool: &PgPool) {
    let insert =
        "INSERT INTO item_documents (item_id, version, removed, title, owner_id, created_at, updated_at, words)
                  SELECT n, 3, false, title || n, 7, now(), now(), to_tsvector('simple', title || n)
                  FROM generate_series(1, 450) AS n, (VALUES ('Adapter USB/HDMI Café no')) AS old (title)";
    sqlx::query(insert).execute(pool).await.expect("documents");
}

async fn total(searcher: &Searcher, query: &str) -> i64 {
    searcher.search(query, 1).await.expect("an answer").total
}

#[tokio::test]
async fn documents_of_an_earlier_release_are_indexed_anew() {
    drop(process::http_client());
    let (fake, database) = (Fake::start().await, database::fresh().await);
    let pool = database.pool().await;
    earlier(&pool).await;
    let config = Config { elasticsearch: Some(Server::parse(&fake.url()).unwrap()), fallback: Fallback::Postgres };
    let searcher = Searcher::start(&pool, &config).unwrap();
    assert_eq!((total(&searcher, "adapter").await, total(&searcher, "hdmi").await), (450, 0), "as before");
    assert_eq!(fake.searches(), 0, "its index has nothing yet");

    let _worker = start_worker(&database.url, &[("ELASTICSEARCH_URL", &*fake.url())]).await;
    eventually("all are indexed anew", SOON, async || total(&searcher, "hdmi cafe").await == 450).await;
    eventually("Elasticsearch answers", SOON, async || total(&searcher, "usb").await == 450 && fake.searches() > 0)
        .await;
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM item_documents WHERE analysed <> version")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(left, 0);
    // One job for all of them, and none when there is nothing to do.
    let jobs = "SELECT count(*) FROM apalis.jobs WHERE job_type = 'reindex_items'";
    assert_eq!(sqlx::query_scalar::<_, i64>(jobs).fetch_one(&pool).await.unwrap(), 1);
}

/// An old process still writes: then the version is newer than the words.
#[tokio::test]
async fn what_an_old_process_overwrites_counts_as_stale() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let searcher = Searcher::start(&pool, &Config::default()).unwrap();
    searcher.index(super::document(1, 1, "Café", None)).await.unwrap();
    assert_eq!(total(&searcher, "cafe").await, 1);
    sqlx::query("UPDATE item_documents SET version = 2, title = 'AC/DC'").execute(&pool).await.unwrap();
    let _worker = start_worker(&database.url, &[]).await;
    eventually("the new title is found", SOON, async || total(&searcher, "dc").await == 1).await;
    assert_eq!(total(&searcher, "cafe").await, 0);
}
