//! While Elasticsearch is down: PostgreSQL answers or nobody does, quickly, and what was missed is made up.

use std::time::{Duration, Instant};

use jobs::{
    error::Error,
    items::search::{Config, Fallback, Searcher, Server, elasticsearch::Write},
};
use sqlx::PgPool;

use super::{
    document,
    fake::{Fake, Mood},
};
use crate::harness::{
    database::{self, TestDatabase},
    http::ask,
    process::{self, Api},
};

struct System {
    fake: Fake,
    searcher: Searcher,
    pool: PgPool,
    database: TestDatabase,
}

impl System {
    async fn start(fallback: Fallback) -> Self {
        drop(process::client());
        let (fake, database) = (Fake::start().await, database::fresh().await);
        let pool = database.pool().await;
        let config = Config { elasticsearch: Some(Server::parse(&fake.url()).unwrap()), fallback };
        Self { searcher: Searcher::start(&pool, &config).unwrap(), fake, pool, database }
    }

    async fn found(&self, query: &str) -> Vec<i64> {
        let found = self.searcher.search(query, 10).await.expect("an answer");
        found.hits.into_iter().map(|hit| hit.document.id).collect()
    }
}

#[tokio::test]
async fn postgres_answers_while_elasticsearch_is_down() {
    let system = System::start(Fallback::Postgres).await;
    system.searcher.index(document(1, 1, "kettle", None)).await.unwrap();
    assert_eq!(system.found("kettle").await, [1]);
    assert_eq!(system.fake.searches(), 1, "it was Elasticsearch that answered");
    for mood in [Mood::Refusing(503), Mood::Refusing(429), Mood::Refusing(400)] {
        system.fake.be(mood);
        let error = system.searcher.index(document(2, 1, "second kettle", None)).await.expect_err("a refusal");
        assert_eq!(matches!(error, Error::Unavailable(_)), mood != Mood::Refusing(400), "{error}");
        assert_eq!(system.found("kettle").await, [1, 2], "PostgreSQL has it already");
    }
    // Down already, so that nobody asks it: one search in five seconds does.
    assert_eq!(system.fake.searches(), 2, "{:?}", system.fake.state().requests);
    // The job tries again, and then it is there.
    system.fake.be(Mood::Well);
    system.searcher.index(document(2, 1, "second kettle", None)).await.unwrap();
    assert_eq!(system.fake.state().index.as_ref().unwrap().documents.len(), 2);
}

#[tokio::test]
async fn a_silent_elasticsearch_costs_one_search_its_time_out() {
    let system = System::start(Fallback::Postgres).await;
    system.searcher.index(document(1, 1, "kettle", None)).await.unwrap();
    system.fake.be(Mood::Silent);
    let begun = Instant::now();
    assert_eq!(system.found("kettle").await, [1]);
    let first = begun.elapsed();
    assert!(first >= Duration::from_secs(1) && first < Duration::from_secs(4), "{first:?}");
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(system.found("kettle").await, [1]);
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?} for twenty", begun.elapsed());
}

#[tokio::test]
async fn without_a_fallback_it_is_503_and_no_password_is_shown() {
    let system = System::start(Fallback::None).await;
    system.fake.state().authorization = Some("Basic bWU6aGlkZGVuLXB3".into());
    let url = format!("http://me:hidden-pw@{}", system.fake.address);
    let variables = [("ELASTICSEARCH_URL", &*url), ("SEARCH_FALLBACK", "none"), ("RUST_LOG", "debug")];
    let api = Api::start(&system.database.url, &variables).await;
    let get = || ask(process::client().get(format!("{}/api/v1/search/items?q=kettle", api.url)));
    for mood in [Mood::Well, Mood::Refusing(503), Mood::Refusing(503)] {
        // No index yet; down; and still.
        system.fake.be(mood);
        let answer = get().await;
        answer.assert_problem(503, "down");
        assert_eq!(answer.header("retry-after"), "1");
        assert!(!answer.text.to_lowercase().contains("elastic"), "{answer:?}");
    }
    assert!(!api.process.log().contains("hidden-pw"), "{}", api.process.log());
    let credentials = Server::parse(&url).unwrap();
    let config = Config { elasticsearch: Some(credentials), fallback: Fallback::None };
    system.fake.be(Mood::Well);
    let searcher = Searcher::start(&system.pool, &config).unwrap();
    searcher.index(document(1, 1, "kettle", None)).await.expect("with its password");
    let error = system.searcher.index(document(1, 2, "kettle", None)).await.expect_err("without one");
    assert!(matches!(&error, Error::Unavailable(why) if why.contains("401")), "{error}");
}

#[tokio::test]
async fn a_bulk_sends_again_what_was_refused_and_nothing_else() {
    let system = System::start(Fallback::None).await;
    let server = Server::parse(&system.fake.url()).unwrap();
    let elasticsearch = jobs::items::search::Elasticsearch::new(&server).unwrap();
    let writes = |version| {
        (1..=9).map(move |id| Write::Upsert(document(id, version, "kettle\nwith a \"line\"", None))).collect()
    };
    for (version, status) in [(1, 429), (2, 503)] {
        system.fake.be(Mood::HalfOfBulk(status));
        elasticsearch.write(writes(version)).await.expect("all of them in the end");
        let state = system.fake.state();
        let documents = &state.index.as_ref().unwrap().documents;
        assert!(documents.len() == 9 && documents.values().all(|(known, _)| *known == version), "{documents:?}");
        let bulks = state.requests.iter().filter(|request| request.contains("/_bulk")).count();
        assert_eq!(i64::try_from(bulks).unwrap(), 2 * version, "{:?}", state.requests);
    }
    // What is refused for good is told, and not sent for ever.
    system.fake.be(Mood::HalfOfBulk(400));
    let error = elasticsearch.write(writes(3)).await.expect_err("a mistake of ours");
    assert!(matches!(&error, Error::Internal(why) if why.contains("400")), "{error}");
    // An older one: 409 of each, which is as it should be.
    elasticsearch.write(writes(1)).await.expect("older ones lose in silence");
    // An index that somebody deleted is made again, with our mapping.
    system.fake.state().index = None;
    let error =
        jobs::items::search::Search::upsert(&elasticsearch, document(1, 9, "kettle", None)).await.expect_err("gone");
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    jobs::items::search::Search::upsert(&elasticsearch, document(1, 9, "kettle", None)).await.expect("made again");
}
