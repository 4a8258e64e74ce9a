//! Conformance of every search backend: PostgreSQL, the fake Elasticsearch, and a real one where it is configured.

use jobs::items::search::{Document, Elasticsearch, Postgres, Search, Server};

use super::{document, fake::FakeElasticsearch};
use crate::harness::{database, needs, process};

/// A search backend under test.
pub trait SearchBackend: Search {
    /// Makes earlier writes visible to searches.
    async fn refresh(&self);
}

impl SearchBackend for Postgres {
    async fn refresh(&self) {}
}

impl SearchBackend for Elasticsearch {
    async fn refresh(&self) {
        Elasticsearch::refresh(self).await.expect("a refresh");
    }
}

#[tokio::test]
async fn postgres_conforms_to_the_search_contract() {
    let database = database::fresh().await;
    assert_conforms(&Postgres::new(database.pool().await), 1).await;
}

#[tokio::test]
async fn fake_elasticsearch_conforms_to_the_search_contract() {
    drop(process::client());
    let fake = FakeElasticsearch::start().await;
    assert_conforms(&Elasticsearch::new(&Server::parse(&fake.url()).unwrap()).unwrap(), 1).await;
}

#[tokio::test]
async fn real_elasticsearch_conforms_to_the_search_contract() {
    let Some(url) = needs::optional_variable("ELASTICSEARCH_URL") else { return };
    drop(process::client());
    let server = Elasticsearch::new(&Server::parse(&url).expect("a URL")).unwrap();
    // Its index outlives this test, so ids and words are unique to this run.
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    assert_conforms(&server, now * 1000).await;
}

/// Appends a suffix of this run to each word, because a real index may hold documents of an earlier run.
fn unique_words(first: i64, text: &str) -> String {
    let letters: String = first.to_string().bytes().map(|digit| char::from(b'a' + (digit - b'0'))).collect();
    text.split(' ').map(|word| format!("{word}x{letters}")).collect::<Vec<_>>().join(" ")
}

async fn search_ids<S: Search>(backend: &S, query: &str) -> Vec<i64> {
    let found = backend.search(query, 20).await.unwrap_or_else(|error| panic!("{query}: {error}"));
    assert_eq!(found.total, i64::try_from(found.hits.len()).unwrap(), "{query}: {found:?}");
    found.hits.into_iter().map(|hit| hit.document.id).collect()
}

async fn assert_conforms<S: SearchBackend>(backend: &S, first: i64) {
    let unique = |text: &str| unique_words(first, text);
    let put = async |offset: i64, version: i64, title: &str, description: Option<&str>| {
        let written = document(first + offset, version, title, description);
        backend.put(written.clone()).await.expect("a put");
        written
    };
    let ids = |offsets: &[i64]| offsets.iter().map(|offset| first + offset).collect::<Vec<i64>>();

    // A document comes back complete, with any content.
    let strange = format!("{} <script>alert(\"1\")</script> & it's", unique("strange"));
    let whole: Document = put(0, 1, &strange, Some("ünï \u{1F980}\n\ttab")).await;
    put(1, 1, &unique("wireless keyboard"), Some(&unique("silent mouse"))).await;
    put(2, 1, &unique("keyboard"), None).await;
    put(3, 1, &unique("mouse"), Some(&unique("for a keyboard"))).await;
    backend.refresh().await;
    let hits = backend.search(&unique("strange"), 5).await.unwrap().hits;
    assert_eq!(hits.iter().map(|hit| &hit.document).collect::<Vec<_>>(), [&whole]);
    let highlight = hits[0].highlight.replace("&#x2F;", "/");
    let escaped =
        format!("<em>{}</em> &lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; it&#x27;s", unique("strange"));
    assert_eq!(highlight, escaped);

    // All words must match, in either field. A title match ranks higher, and equal hits are sorted by id.
    assert_eq!(search_ids(backend, &unique("wireless mouse")).await, ids(&[1]));
    let keyboards = search_ids(backend, &unique("keyboard")).await;
    assert_eq!((keyboards.len(), keyboards.last()), (3, Some(&(first + 3))), "{keyboards:?}");
    assert_eq!(search_ids(backend, &unique("keyboard")).await, keyboards, "the same order each time");
    assert_eq!(search_ids(backend, &unique("keyboard absent")).await, ids(&[]));
    let limited = backend.search(&unique("keyboard"), 2).await.unwrap();
    assert_eq!((limited.total, limited.hits.len()), (3, 2), "the total counts hits beyond the limit");

    // A prefix of the last word; a letter missing, replaced or added, or two swapped; capitals.
    let letters = unique("k").len() - 1;
    let keyboard = unique("keyboard");
    let prefix = &keyboard[..keyboard.len() - letters / 2];
    assert_eq!(search_ids(backend, prefix).await.len(), 3, "{prefix}");
    for typo in ["keybord", "keyboatd", "keyyboard", "kyeboard", "KEYBOARD"] {
        assert_eq!(search_ids(backend, &unique(typo)).await.len(), 3, "{typo}");
        let hits = backend.search(&unique(typo), 1).await.unwrap().hits;
        assert!(hits[0].highlight.contains(&format!("<em>{keyboard}</em>")), "{typo}: {hits:?}");
    }
    assert_eq!(search_ids(backend, &unique("wireless keybord")).await, ids(&[1]));
    assert_eq!(search_ids(backend, &unique("zzzz")).await, ids(&[]));

    // Every input is a search text: there is no query syntax.
    for text in [
        "\"",
        "'",
        "'' | ''",
        "a & | !",
        ":*",
        "(",
        "\\",
        "-",
        "--",
        "or",
        "%",
        "*:*",
        "{\"a\":1}",
        "!?",
        "\u{1F980}",
        "<->",
    ] {
        backend.search(text, 5).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    }

    // An older version never wins, in any order of arrival. Of one version, the removal wins.
    put(4, 3, &unique("newer"), None).await;
    put(4, 2, &unique("older"), None).await;
    put(4, 3, &unique("equal"), None).await;
    backend.remove(first + 4, 2).await.expect("a removal");
    backend.refresh().await;
    assert_eq!(search_ids(backend, &unique("newer")).await, ids(&[4]));
    assert_eq!(search_ids(backend, &unique("older")).await, ids(&[]));
    assert_eq!(search_ids(backend, &unique("equal")).await, ids(&[]));
    backend.remove(first + 4, 3).await.expect("a removal");
    put(4, 3, &unique("newer"), None).await;
    backend.refresh().await;
    assert_eq!(search_ids(backend, &unique("newer")).await, ids(&[]), "a late put restores nothing");
    backend.remove(first + 5, 2).await.expect("a removal of an unknown document");
    put(5, 1, &unique("late"), None).await;
    backend.refresh().await;
    assert_eq!(search_ids(backend, &unique("late")).await, ids(&[]), "a put after the removal of a newer version");
    put(5, 3, &unique("again"), None).await;
    backend.refresh().await;
    assert_eq!(search_ids(backend, &unique("again")).await, ids(&[5]));
    for offset in 0..6 {
        backend.remove(first + offset, 100).await.expect("a removal");
    }
    backend.refresh().await;
    assert_eq!(search_ids(backend, &unique("keyboard")).await, ids(&[]));
}
