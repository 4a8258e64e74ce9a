//! What every backend of the search does: PostgreSQL, the imitation of Elasticsearch, and a real one where there is one.

use jobs::items::search::{Document, Elasticsearch, Postgres, Search, Server};

use super::{document, fake::Fake};
use crate::harness::{database, needs, process};

/// A backend under test, and how to make its writes visible.
pub trait Subject: Search {
    async fn refresh(&self);
}

impl Subject for Postgres {
    async fn refresh(&self) {}
}

impl Subject for Elasticsearch {
    async fn refresh(&self) {
        Elasticsearch::refresh(self).await.expect("a refresh");
    }
}

#[tokio::test]
async fn postgres_conforms() {
    let database = database::fresh().await;
    conforms(&Postgres::new(database.pool().await), 1).await;
}

#[tokio::test]
async fn the_imitation_of_elasticsearch_conforms() {
    drop(process::client());
    let fake = Fake::start().await;
    conforms(&Elasticsearch::new(&Server::parse(&fake.url()).unwrap()).unwrap(), 1).await;
}

#[tokio::test]
async fn a_real_elasticsearch_conforms() {
    let Some(url) = needs::optional_variable("ELASTICSEARCH_URL") else { return };
    drop(process::client());
    let server = Elasticsearch::new(&Server::parse(&url).expect("a URL")).unwrap();
    // Its index outlives this test: ids and words of this run alone.
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    conforms(&server, now * 1000).await;
}

/// Words that nothing else in the index has: a real one may hold what an earlier run left.
fn own(first: i64, text: &str) -> String {
    let letters: String = first.to_string().bytes().map(|digit| char::from(b'a' + (digit - b'0'))).collect();
    text.split(' ').map(|word| format!("{word}x{letters}")).collect::<Vec<_>>().join(" ")
}

async fn found<S: Search>(subject: &S, query: &str) -> Vec<i64> {
    let found = subject.search(query, 20).await.unwrap_or_else(|error| panic!("{query}: {error}"));
    assert_eq!(found.total, i64::try_from(found.hits.len()).unwrap(), "{query}: {found:?}");
    found.hits.into_iter().map(|hit| hit.document.id).collect()
}

async fn conforms<S: Subject>(subject: &S, first: i64) {
    let own = |text: &str| own(first, text);
    let put = async |offset: i64, version: i64, title: &str, description: Option<&str>| {
        let written = document(first + offset, version, title, description);
        subject.upsert(written.clone()).await.expect("a put");
        written
    };
    let ids = |offsets: &[i64]| offsets.iter().map(|offset| first + offset).collect::<Vec<i64>>();

    // What was put comes back whole, whatever it holds.
    let strange = format!("{} <script>alert(\"1\")</script> & it's", own("strange"));
    let whole: Document = put(0, 1, &strange, Some("ünï \u{1F980}\n\ttab")).await;
    put(1, 1, &own("wireless keyboard"), Some(&own("silent mouse"))).await;
    put(2, 1, &own("keyboard"), None).await;
    put(3, 1, &own("mouse"), Some(&own("for a keyboard"))).await;
    subject.refresh().await;
    let hits = subject.search(&own("strange"), 5).await.unwrap().hits;
    assert_eq!(hits.iter().map(|hit| &hit.document).collect::<Vec<_>>(), [&whole]);
    let highlight = hits[0].highlight.replace("&#x2F;", "/");
    let escaped =
        format!("<em>{}</em> &lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; it&#x27;s", own("strange"));
    assert_eq!(highlight, escaped);

    // All words, in either field; the title counts for more; equally good ones by id.
    assert_eq!(found(subject, &own("wireless mouse")).await, ids(&[1]));
    let keyboards = found(subject, &own("keyboard")).await;
    assert_eq!((keyboards.len(), keyboards.last()), (3, Some(&(first + 3))), "{keyboards:?}");
    assert_eq!(found(subject, &own("keyboard")).await, keyboards, "the same order each time");
    assert_eq!(found(subject, &own("keyboard absent")).await, ids(&[]));
    let limited = subject.search(&own("keyboard"), 2).await.unwrap();
    assert_eq!((limited.total, limited.hits.len()), (3, 2), "the total counts what the limit leaves out");

    // The last word begun; a letter lost, replaced, added, or two swapped; capitals.
    let letters = own("k").len() - 1;
    let keyboard = own("keyboard");
    let begun = &keyboard[..keyboard.len() - letters / 2];
    assert_eq!(found(subject, begun).await.len(), 3, "{begun}");
    for typo in ["keybord", "keyboatd", "keyyboard", "kyeboard", "KEYBOARD"] {
        assert_eq!(found(subject, &own(typo)).await.len(), 3, "{typo}");
        let hits = subject.search(&own(typo), 1).await.unwrap().hits;
        assert!(hits[0].highlight.contains(&format!("<em>{keyboard}</em>")), "{typo}: {hits:?}");
    }
    assert_eq!(found(subject, &own("wireless keybord")).await, ids(&[1]));
    assert_eq!(found(subject, &own("zzzz")).await, ids(&[]));

    // Whatever is typed is a search, not a syntax.
    for odd in [
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
        subject.search(odd, 5).await.unwrap_or_else(|error| panic!("{odd}: {error}"));
    }

    // An older version never wins, in whatever order they arrive; of one version the removal does.
    put(4, 3, &own("newer"), None).await;
    put(4, 2, &own("older"), None).await;
    put(4, 3, &own("equal"), None).await;
    subject.remove(first + 4, 2).await.expect("a removal");
    subject.refresh().await;
    assert_eq!(found(subject, &own("newer")).await, ids(&[4]));
    assert_eq!(found(subject, &own("older")).await, ids(&[]));
    assert_eq!(found(subject, &own("equal")).await, ids(&[]));
    subject.remove(first + 4, 3).await.expect("a removal");
    put(4, 3, &own("newer"), None).await;
    subject.refresh().await;
    assert_eq!(found(subject, &own("newer")).await, ids(&[]), "a late put brings nothing back");
    subject.remove(first + 5, 2).await.expect("a removal of what never came");
    put(5, 1, &own("late"), None).await;
    subject.refresh().await;
    assert_eq!(found(subject, &own("late")).await, ids(&[]), "a put later than the removal of a newer version");
    put(5, 3, &own("again"), None).await;
    subject.refresh().await;
    assert_eq!(found(subject, &own("again")).await, ids(&[5]));
    for offset in 0..6 {
        subject.remove(first + offset, 100).await.expect("a removal");
    }
    subject.refresh().await;
    assert_eq!(found(subject, &own("keyboard")).await, ids(&[]));
}
