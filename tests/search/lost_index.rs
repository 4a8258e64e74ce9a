//! The index or its alias is deleted while processes run: the next write creates it again, with our mapping.

use jobs::items::search::{
    Elasticsearch, Search, Server,
    elasticsearch::{ALIAS, INDEX, Write},
};
use reqwest::Method;
use runtime::error::Error;

use super::{document, fake::FakeElasticsearch};
use crate::harness::{process, search_engine};

/// The writes that find that the index is missing.
#[derive(Debug, Clone, Copy)]
enum Lost {
    Document,
    Removal,
    Bulk,
    BulkOfRemovals,
}

async fn assert_recovery(url: &str) {
    let elasticsearch = Elasticsearch::new(&Server::parse(url).unwrap()).unwrap();
    let mut version = 0;
    for deleted in [INDEX.to_owned(), format!("{INDEX}/_alias/{ALIAS}")] {
        for write in [Lost::Document, Lost::Removal, Lost::Bulk, Lost::BulkOfRemovals] {
            let what = format!("{deleted}: {write:?}");
            version += 10;
            elasticsearch.upsert(document(1, version, "kettle", None)).await.expect(&what);
            assert_eq!(status(url, Method::DELETE, &deleted).await, 200, "{what}");
            let removal = Write::Remove { id: 1, version: version + 1 };
            match write {
                // The caller's job runs again later.
                Lost::Document => {
                    let next = document(1, version + 1, "kettle", None);
                    assert_unavailable(elasticsearch.upsert(next.clone()).await);
                    elasticsearch.upsert(next).await.expect(&what);
                }
                Lost::Removal => {
                    assert_unavailable(elasticsearch.remove(1, version + 1).await);
                    elasticsearch.remove(1, version + 1).await.expect(&what);
                }
                Lost::Bulk => {
                    let writes = vec![removal, Write::Upsert(document(2, version, "mug", None))];
                    elasticsearch.write(writes).await.expect(&what);
                }
                Lost::BulkOfRemovals => elasticsearch.write(vec![removal]).await.expect(&what),
            }
            assert_eq!(status(url, Method::HEAD, &format!("_alias/{ALIAS}")).await, 200, "{what}");
            // With a guessed mapping this search fails.
            elasticsearch.upsert(document(1, version + 2, "kettle", None)).await.expect(&what);
            elasticsearch.refresh().await.expect(&what);
            let found = elasticsearch.search("kettle", 20).await.expect(&what);
            assert_eq!(found.hits.iter().map(|hit| hit.document.version).collect::<Vec<_>>(), [version + 2], "{what}");
        }
    }
}

fn assert_unavailable(result: Result<(), Error>) {
    let error = result.expect_err("a missing index");
    assert!(matches!(&error, Error::Unavailable(reason) if reason.contains("was deleted")), "{error}");
}

async fn status(url: &str, method: Method, path: &str) -> u16 {
    let request = process::http_client().request(method, format!("{url}/{path}"));
    request.send().await.expect("a response").status().as_u16()
}

#[tokio::test]
async fn a_lost_index_is_created_again_in_fake_elasticsearch() {
    drop(process::http_client());
    assert_recovery(&FakeElasticsearch::start().await.url()).await;
}

#[tokio::test]
async fn a_lost_index_is_created_again_in_opensearch() {
    let Some(engine) = search_engine::lease().await else { return };
    assert_recovery(&engine.url()).await;
}
