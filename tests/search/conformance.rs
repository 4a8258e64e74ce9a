//! Conformance of every search backend: PostgreSQL, the fake Elasticsearch, OpenSearch, and a server of the developer.

use jobs::items::search::{Document, Elasticsearch, Postgres, Search, Server};

use super::{document, fake::FakeElasticsearch};
use crate::harness::{database, needs, process, search_engine};

/// A search backend under test.
pub(super) trait SearchBackend: Search {
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
    assert_conforms(&Postgres::new(database.pool().await.into()), 1).await;
}

#[tokio::test]
async fn fake_elasticsearch_conforms_to_the_search_contract() {
    drop(process::http_client());
    let fake = FakeElasticsearch::start().await;
    assert_conforms(&Elasticsearch::new(&Server::parse(&fake.url()).unwrap()).unwrap(), 1).await;
}

#[tokio::test]
async fn opensearch_conforms_to_the_search_contract() {
    let Some(engine) = search_engine::lease().await else { return };
    assert_conforms(&Elasticsearch::new(&Server::parse(&engine.url()).unwrap()).unwrap(), 1).await;
}

#[tokio::test]
async fn real_elasticsearch_conforms_to_the_search_contract() {
    let Some(url) = needs::optional_variable("ELASTICSEARCH_URL") else { return };
    drop(process::http_client());
    let server = Elasticsearch::new(&Server::parse(&url).expect("a URL")).unwrap();
    // Its index outlives this test, so ids and words are unique to this run.
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    assert_conforms(&server, now * 1000).await;
}

async fn assert_conforms<S: SearchBackend>(backend: &S, first: i64) {
    let run = Run { backend, first };
    run.assert_matching().await;
    run.assert_long_queries().await;
    run.assert_enough_matches_need_no_corrections().await;
    run.assert_the_newest_version_wins().await;
    run.clean_up().await;
}

/// One run of the conformance test. Its ids start at `first`, which also makes its words unique.
struct Run<'a, S> {
    backend: &'a S,
    first: i64,
}

impl<S: SearchBackend> Run<'_, S> {
    /// Appends a suffix of this run to each word, because a real index may hold documents of an earlier run.
    fn unique(&self, text: &str) -> String {
        let digits = self.first.to_string();
        let letters: String = digits.bytes().map(|digit| char::from(b'a' + (digit - b'0'))).collect();
        text.split(' ').map(|word| format!("{word}x{letters}")).collect::<Vec<_>>().join(" ")
    }

    fn ids(&self, offsets: &[i64]) -> Vec<i64> {
        offsets.iter().map(|offset| self.first + offset).collect()
    }

    async fn put(&self, offset: i64, version: i64, title: &str, description: Option<&str>) -> Document {
        let written = document(self.first + offset, version, title, description);
        self.backend.upsert(written.clone()).await.expect("a put");
        written
    }

    async fn search_ids(&self, query: &str) -> Vec<i64> {
        let found = self.backend.search(query, 20).await.unwrap_or_else(|error| panic!("{query}: {error}"));
        assert_eq!(found.total, i64::try_from(found.hits.len()).unwrap(), "{query}: {found:?}");
        found.hits.into_iter().map(|hit| hit.document.id).collect()
    }

    async fn assert_matching(&self) {
        // A document comes back complete, with any content.
        let strange = format!("{} <script>alert(\"1\")</script> & it's", self.unique("strange"));
        let whole: Document = self.put(0, 1, &strange, Some("ünï \u{1F980}\n\ttab")).await;
        self.put(1, 1, &self.unique("wireless keyboard"), Some(&self.unique("silent mouse"))).await;
        self.put(2, 1, &self.unique("keyboard"), None).await;
        self.put(3, 1, &self.unique("mouse"), Some(&self.unique("for a keyboard"))).await;
        self.backend.refresh().await;
        let hits = self.backend.search(&self.unique("strange"), 5).await.unwrap().hits;
        assert_eq!(hits.iter().map(|hit| &hit.document).collect::<Vec<_>>(), [&whole]);
        let highlight = hits[0].highlight.replace("&#x2F;", "/");
        let escaped = format!(
            "<em>{}</em> &lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; it&#x27;s",
            self.unique("strange")
        );
        assert_eq!(highlight, escaped);

        // All words must match, in either field. A title match ranks higher, and equal hits are sorted by id.
        assert_eq!(self.search_ids(&self.unique("wireless mouse")).await, self.ids(&[1]));
        let keyboards = self.search_ids(&self.unique("keyboard")).await;
        assert_eq!((keyboards.len(), keyboards.last()), (3, Some(&(self.first + 3))), "{keyboards:?}");
        assert_eq!(self.search_ids(&self.unique("keyboard")).await, keyboards, "the same order each time");
        assert_eq!(self.search_ids(&self.unique("keyboard absent")).await, self.ids(&[]));
        let limited = self.backend.search(&self.unique("keyboard"), 2).await.unwrap();
        assert_eq!((limited.total, limited.hits.len()), (3, 2), "the total counts hits beyond the limit");

        // A prefix of the last word; a letter missing, replaced or added, or two swapped; capitals.
        let letters = self.unique("k").len() - 1;
        let keyboard = self.unique("keyboard");
        let prefix = &keyboard[..keyboard.len() - letters / 2];
        assert_eq!(self.search_ids(prefix).await.len(), 3, "{prefix}");
        for typo in ["keybord", "keyboatd", "keyyboard", "kyeboard", "KEYBOARD"] {
            assert_eq!(self.search_ids(&self.unique(typo)).await.len(), 3, "{typo}");
            let hits = self.backend.search(&self.unique(typo), 1).await.unwrap().hits;
            assert!(hits[0].highlight.contains(&format!("<em>{keyboard}</em>")), "{typo}: {hits:?}");
        }
        assert_eq!(self.search_ids(&self.unique("wireless keybord")).await, self.ids(&[1]));
        assert_eq!(self.search_ids(&self.unique("zzzz")).await, self.ids(&[]));

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
            self.backend.search(text, 5).await.unwrap_or_else(|error| panic!("{text}: {error}"));
        }
    }

    /// A query of many words, each of which is similar to many others.
    async fn assert_long_queries(&self) {
        let words: Vec<String> = (0..128).map(|n| format!("{n:07b}").replace('0', "a").replace('1', "b")).collect();
        self.put(6, 1, "words", Some(&self.unique(&words.join(" ")))).await;
        self.backend.refresh().await;
        assert_eq!(self.search_ids(&self.unique(&words[..25].join(" "))).await, self.ids(&[6]));
    }

    /// Words are corrected if there are fewer than 100 matches.
    async fn assert_enough_matches_need_no_corrections(&self) {
        let (word, similar) = (self.unique("hailstone"), self.unique("hailstome"));
        for offset in 10..110 {
            self.put(offset, 1, &word, None).await;
        }
        for offset in 110..112 {
            self.put(offset, 1, &similar, None).await;
        }
        self.backend.refresh().await;
        let total = async || self.backend.search(&word, 20).await.expect("hits").total;
        assert_eq!(total().await, 100, "nothing is corrected");
        self.backend.remove(self.first + 10, 2).await.expect("a removal");
        self.backend.refresh().await;
        assert_eq!(total().await, 101, "99 matches and 2 similar ones");
    }

    /// An older version never wins, in any order of arrival. Of one version, the removal wins.
    async fn assert_the_newest_version_wins(&self) {
        self.put(4, 3, &self.unique("newer"), None).await;
        self.put(4, 2, &self.unique("older"), None).await;
        self.put(4, 3, &self.unique("equal"), None).await;
        self.backend.remove(self.first + 4, 2).await.expect("a removal");
        self.backend.refresh().await;
        assert_eq!(self.search_ids(&self.unique("newer")).await, self.ids(&[4]));
        assert_eq!(self.search_ids(&self.unique("older")).await, self.ids(&[]));
        assert_eq!(self.search_ids(&self.unique("equal")).await, self.ids(&[]));
        self.backend.remove(self.first + 4, 3).await.expect("a removal");
        self.put(4, 3, &self.unique("newer"), None).await;
        self.backend.refresh().await;
        assert_eq!(self.search_ids(&self.unique("newer")).await, self.ids(&[]), "a late put restores nothing");
        self.backend.remove(self.first + 5, 2).await.expect("a removal of an unknown document");
        self.put(5, 1, &self.unique("late"), None).await;
        self.backend.refresh().await;
        assert_eq!(
            self.search_ids(&self.unique("late")).await,
            self.ids(&[]),
            "a put after the removal of a newer version"
        );
        self.put(5, 3, &self.unique("again"), None).await;
        self.backend.refresh().await;
        assert_eq!(self.search_ids(&self.unique("again")).await, self.ids(&[5]));
    }

    /// Removes all documents of this run.
    async fn clean_up(&self) {
        for offset in (0..7).chain(10..112) {
            self.backend.remove(self.first + offset, 100).await.expect("a removal");
        }
        self.backend.refresh().await;
        assert_eq!(self.search_ids(&self.unique("keyboard")).await, self.ids(&[]));
    }
}
