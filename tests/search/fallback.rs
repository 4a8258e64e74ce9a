//! Searches while Elasticsearch is down: PostgreSQL takes over or the API returns 503, and missed writes are retried.

use std::time::{Duration, Instant};

use jobs::items::search::{Config, Fallback, Searcher, Server, elasticsearch::Write};
use runtime::error::Error;
use sqlx::PgPool;

use super::{
    document,
    fake::{FakeElasticsearch, FakeMode},
};
use crate::harness::{
    database::{self, TestDatabase},
    http::send,
    port::Port,
    process::{self, Api},
};

/// While Elasticsearch fails, one search in this many seconds tries it.
const PAUSE_SECONDS: u64 = 5;

/// A searcher over a fake Elasticsearch and a database.
struct SearchHarness {
    fake: FakeElasticsearch,
    searcher: Searcher,
    pool: PgPool,
    database: TestDatabase,
}

impl SearchHarness {
    async fn start(fallback: Fallback) -> Self {
        drop(process::http_client());
        let (fake, database) = (FakeElasticsearch::start().await, database::fresh().await);
        let pool = database.pool().await;
        let config = Config { elasticsearch: Some(Server::parse(&fake.url()).unwrap()), fallback };
        Self { searcher: Searcher::start(&pool.clone().into(), &config).unwrap(), fake, pool, database }
    }

    /// How many further searches may have tried a failing Elasticsearch by now, if the first one began after this time.
    fn most_tries_since(begun: Instant) -> usize {
        usize::try_from(begun.elapsed().as_secs() / PAUSE_SECONDS).expect("a short test")
    }

    async fn search_ids(&self, query: &str) -> Vec<i64> {
        let found = self.searcher.search(query, 10).await.expect("hits");
        found.hits.into_iter().map(|hit| hit.document.id).collect()
    }
}

#[tokio::test]
async fn postgres_serves_searches_while_elasticsearch_is_down() {
    let harness = SearchHarness::start(Fallback::Postgres).await;
    harness.searcher.index(document(1, 1, "kettle", None)).await.unwrap();
    assert_eq!(harness.search_ids("kettle").await, [1]);
    // The second request also finds misspelt words, because there are few hits.
    assert_eq!(harness.fake.count_searches(), 2, "the hits come from Elasticsearch");
    let begun = Instant::now();
    for mode in [FakeMode::Rejecting(503), FakeMode::Rejecting(429), FakeMode::Rejecting(400)] {
        harness.fake.set_mode(mode);
        let error = harness.searcher.index(document(2, 1, "second kettle", None)).await.expect_err("a refusal");
        assert_eq!(matches!(error, Error::Unavailable(_)), mode != FakeMode::Rejecting(400), "{error}");
        assert_eq!(harness.search_ids("kettle").await, [1, 2], "PostgreSQL has the document already");
    }
    // Elasticsearch is known to be down, so only one search in five seconds tries it.
    let (tries, most) = (harness.fake.count_searches(), 3 + SearchHarness::most_tries_since(begun));
    assert!((3..=most).contains(&tries), "{tries}: {:?}", harness.fake.state().requests);
    // The retry of the indexing job writes the document.
    harness.fake.set_mode(FakeMode::Healthy);
    harness.searcher.index(document(2, 1, "second kettle", None)).await.unwrap();
    assert_eq!(harness.fake.state().indexes.documents().len(), 2);
}

#[tokio::test]
async fn a_silent_elasticsearch_delays_only_one_search() {
    let harness = SearchHarness::start(Fallback::Postgres).await;
    harness.searcher.index(document(1, 1, "kettle", None)).await.unwrap();
    harness.fake.set_mode(FakeMode::Silent);
    let (before, begun) = (harness.fake.count_searches(), Instant::now());
    assert_eq!(harness.search_ids("kettle").await, [1]);
    let first = begun.elapsed();
    // It has 2 s for its response. A busy machine adds some seconds.
    assert!(first >= Duration::from_secs(1) && first < Duration::from_secs(12), "{first:?}");
    for _ in 0..20 {
        assert_eq!(harness.search_ids("kettle").await, [1]);
    }
    // Only a search that tries it waits for it.
    let (tries, most) = (harness.fake.count_searches() - before, 1 + SearchHarness::most_tries_since(begun));
    assert!((1..=most).contains(&tries), "{tries} of 21 searches waited in {:?}", begun.elapsed());
}

#[tokio::test]
async fn without_a_fallback_searches_are_503_and_leak_no_password() {
    let harness = SearchHarness::start(Fallback::None).await;
    harness.fake.state().authorization = Some("Basic bWU6aGlkZGVuLXB3".into());
    let url = format!("http://me:hidden-pw@{}", harness.fake.address);
    let variables = [("ELASTICSEARCH_URL", &*url), ("SEARCH_FALLBACK", "none"), ("RUST_LOG", "debug")];
    let api = Api::start(&harness.database.url, &variables).await;
    let get = || send(process::http_client().get(format!("{}/api/v1/search/items?q=kettle", api.url)));
    for mode in [FakeMode::Healthy, FakeMode::Rejecting(503), FakeMode::Rejecting(503)] {
        // First without an index, then down twice.
        harness.fake.set_mode(mode);
        let response = get().await;
        response.assert_problem(503, "down");
        assert_eq!(response.header("retry-after"), "1");
        assert!(!response.text.to_lowercase().contains("elastic"), "{response:?}");
    }
    assert!(!api.process.log().contains("hidden-pw"), "{}", api.process.log());
    let credentials = Server::parse(&url).unwrap();
    let config = Config { elasticsearch: Some(credentials), fallback: Fallback::None };
    harness.fake.set_mode(FakeMode::Healthy);
    let searcher = Searcher::start(&harness.pool.clone().into(), &config).unwrap();
    searcher.index(document(1, 1, "kettle", None)).await.expect("accepted with the password");
    let error = harness.searcher.index(document(1, 2, "kettle", None)).await.expect_err("refused without a password");
    assert!(matches!(&error, Error::Unavailable(reason) if reason.contains("401")), "{error}");
}

#[tokio::test]
async fn an_unreachable_elasticsearch_is_reported_with_its_cause() {
    drop(process::http_client());
    let (database, unused) = (database::fresh().await, Port::free());
    let server = Server::parse(&format!("http://127.0.0.1:{}", unused.number())).unwrap();
    let config = Config { elasticsearch: Some(server), fallback: Fallback::None };
    let searcher = Searcher::start(&database.pool().await.into(), &config).unwrap();
    let error = searcher.index(document(1, 1, "kettle", None)).await.expect_err("nothing listens there").to_string();
    assert!(error.contains("Connection refused"), "{error}");
}

#[tokio::test]
async fn a_bulk_write_retries_only_rejected_items() {
    let harness = SearchHarness::start(Fallback::None).await;
    let server = Server::parse(&harness.fake.url()).unwrap();
    let elasticsearch = jobs::items::search::Elasticsearch::new(&server).unwrap();
    let writes = |version| {
        (1..=9).map(move |id| Write::Upsert(document(id, version, "kettle\nwith a \"line\"", None))).collect()
    };
    for (version, status) in [(1, 429), (2, 503)] {
        harness.fake.set_mode(FakeMode::RejectingHalfOfBulk(status));
        elasticsearch.write(writes(version)).await.expect("all writes succeed in the end");
        let state = harness.fake.state();
        let documents = state.indexes.documents();
        assert!(documents.len() == 9 && documents.values().all(|(known, _)| *known == version), "{documents:?}");
        let bulks = state.requests.iter().filter(|request| request.contains("/_bulk")).count();
        assert_eq!(i64::try_from(bulks).unwrap(), 2 * version, "{:?}", state.requests);
    }
    // A permanent rejection is an error and is not retried.
    harness.fake.set_mode(FakeMode::RejectingHalfOfBulk(400));
    let error = elasticsearch.write(writes(3)).await.expect_err("a permanent rejection");
    assert!(matches!(&error, Error::Internal(reason) if reason.contains("400")), "{error}");
    // Older versions: the 409 of each write is a success.
    elasticsearch.write(writes(1)).await.expect("older versions are ignored");
}
