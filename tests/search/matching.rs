//! Word matching and ranking, the same on PostgreSQL and Elasticsearch: word boundaries, case, diacritics, scripts, order.

use jobs::items::search::{Elasticsearch, Postgres, Server};

use super::{conformance::SearchBackend, document, fake::FakeElasticsearch};
use crate::harness::{database, process, search_engine};

/// A title with a description, a search, and the expected highlight. An empty highlight means no hit.
const FOUND: &[(&str, Option<&str>, &str, &str)] = &[
    // Words end at every character that is not a letter, mark or digit.
    ("AC/DC live", None, "dc", "AC/<em>DC</em> live"),
    ("iPhone 12/13 case", None, "iphone 13", "<em>iPhone</em> 12/<em>13</em> case"),
    ("SKU-1234", None, "1234", "SKU-<em>1234</em>"),
    ("SKU-1234", None, "sku1234 sku-1234", ""),
    ("Adapter USB/HDMI", None, "hdmi", "Adapter USB/<em>HDMI</em>"),
    ("snake_case_name", None, "case", "snake_<em>case</em>_name"),
    ("Tags <b>bold</b>", None, "bold", "Tags &lt;b&gt;<em>bold</em>&lt;/b&gt;"),
    (
        "Host",
        Some("see https://shop.example.com/offers?id=77"),
        "offers",
        "see https://shop.example.com/<em>offers</em>?id=77",
    ),
    (
        "Host",
        Some("see https://shop.example.com/offers?id=77"),
        "example 77",
        "see https://shop.<em>example</em>.com/offers?id=<em>77</em>",
    ),
    ("Mail", Some("write to ada.lovelace@example.org"), "lovelace", "write to ada.<em>lovelace</em>@example.org"),
    ("Path /usr/local/bin", None, "local", "Path /usr/<em>local</em>/bin"),
    ("-5.5e3 and 1.000,50", None, "000 50", "-5.5e3 and 1.<em>000</em>,<em>50</em>"),
    ("Rock'n'Roll", None, "roll rock", "<em>Rock</em>&#x27;n&#x27;<em>Roll</em>"),
    ("Apple™ Watch®", None, "apple watch", "<em>Apple</em>™ <em>Watch</em>®"),
    ("a.b.c.d.com:8080", None, "8080", "a.b.c.d.com:<em>8080</em>"),
    ("2026-11-28T09:21", None, "28t09", "2026-11-<em>28T09</em>:21"),
    // There are no operators.
    ("this or that", None, "this or that", "<em>this</em> <em>or</em> <em>that</em>"),
    ("red cap", None, "red -cap", "<em>red</em> <em>cap</em>"),
    ("cap red", None, "\"red cap\"", "<em>cap</em> <em>red</em>"),
    ("cap red", None, "!red & (cap | :*", "<em>cap</em> <em>red</em>"),
    ("Redcurrant jam", None, "\"redcurr", "<em>Redcurrant</em> jam"),
    // Case, diacritics and their encoding do not matter.
    ("Café Crème", None, "cafe creme", "<em>Café</em> <em>Crème</em>"),
    ("Cafe", None, "café", "<em>Cafe</em>"),
    ("Cafe\u{301}", None, "caf\u{e9}", "<em>Cafe\u{301}</em>"),
    ("Caf\u{e9}", None, "cafe\u{301}", "<em>Caf\u{e9}</em>"),
    ("Straße", None, "STRASSE", "<em>Straße</em>"),
    ("ΟΔΟΣ", None, "οδος", "<em>ΟΔΟΣ</em>"),
    ("οδός", None, "ΟΔΟΣ", "<em>οδός</em>"),
    ("İstanbul ISPARTA", None, "istanbul ısparta", "<em>İstanbul</em> <em>ISPARTA</em>"),
    ("Łódź Smørrebrød", None, "lodz smorrebrod", "<em>Łódź</em> <em>Smørrebrød</em>"),
    ("Ёлка", None, "елка", "<em>Ёлка</em>"),
    ("ﬁne ｆｕｌｌ ①", None, "FINE full 1", "<em>ﬁne</em> <em>ｆｕｌｌ</em> <em>①</em>"),
    ("key\u{ad}board", None, "keyboard", "<em>key\u{ad}board</em>"),
    ("Đặng Thị", None, "dang thi", "<em>Đặng</em> <em>Thị</em>"),
    ("שָׁלוֹם", None, "שלום", "<em>שָׁלוֹם</em>"),
    ("हिन्दी किताब", None, "किताब", "हिन्दी <em>किताब</em>"),
    // Two letters are wrong, and few trigrams agree.
    ("Bicycle", None, "bycicle", "<em>Bicycle</em>"),
    ("Waterfall lamp", None, "wadervall", "<em>Waterfall</em> lamp"),
    ("Headphones", None, "haedphonse", "<em>Headphones</em>"),
    ("Wireless keyboard", None, "kaybourd", "Wireless <em>keyboard</em>"),
    ("Wireless keyboard", None, "wireless kaybourd", "<em>Wireless</em> <em>keyboard</em>"),
    // In scripts without spaces between words, every part of a text matches.
    ("東京都庁の写真", None, "京都", "東<em>京都</em>庁の写真"),
    ("東京都庁の写真", None, "写真", "東京都庁の<em>写真</em>"),
    ("東京都庁の写真", None, "真", "東京都庁の写<em>真</em>"),
    ("无线键盘", None, "键盘", "无线<em>键盘</em>"),
    ("iPhone手机壳", None, "手机", "iPhone<em>手机</em>壳"),
    ("ｶﾞﾗｽのコップ", None, "ガラス コップ", "<em>ｶﾞﾗｽ</em>の<em>コップ</em>"),
    ("무선키보드", None, "키보드", "무선<em>키보드</em>"),
    (
        "\u{1106}\u{116e}\u{1109}\u{1165}\u{11ab}키보드",
        None,
        "선키",
        "\u{1106}\u{116e}<em>\u{1109}\u{1165}\u{11ab}키</em>보드",
    ),
    ("แป้นพิมพ์ไร้สาย", None, "ไร้สาย", "แป้นพิมพ์<em>ไร้สาย</em>"),
    ("ແປ້ນພິມໄຮ້ສາຍ", None, "ໄຮ້ສາຍ", "ແປ້ນພິມ<em>ໄຮ້ສາຍ</em>"),
    ("ក្តារចុចឥតខ្សែ ကြိုးမဲ့ကီးဘုတ်", None, "ឥតខ្សែ ကီးဘုတ်", "ក្តារចុច<em>ឥតខ្សែ</em> ကြိုးမဲ့<em>ကီးဘုတ်</em>"),
];

/// A title and a search that does not find it.
const NOT_FOUND: &[(&str, &str)] = &[
    ("SKU-1234", "1235"),
    ("SKU-1234", "234"),
    ("Bicycle", "bycikle"),
    ("京都 東京", "東京都"),
    ("ガラス", "カラス"),
    ("हिन्दी", "हन्द"),
    ("red cap", "red -pot"),
    ("this that", "this or that"),
    ("東京", "東北"),
];

async fn assert_matching<S: SearchBackend>(backend: &S) {
    for ((title, description, query, highlight), id) in FOUND.iter().copied().zip(1..) {
        backend.upsert(document(id, 1, title, description)).await.expect("a put");
        backend.refresh().await;
        let found = backend.search(query, 20).await.unwrap_or_else(|error| panic!("{query}: {error}"));
        let hits: Vec<(i64, &str)> = found.hits.iter().map(|hit| (hit.document.id, &*hit.highlight)).collect();
        let expected = if highlight.is_empty() { vec![] } else { vec![(id, highlight)] };
        assert_eq!(hits, expected, "{title}: {query}");
        backend.remove(id, 1).await.expect("a removal");
    }
    for ((title, query), id) in NOT_FOUND.iter().copied().zip(101..) {
        backend.upsert(document(id, 1, title, None)).await.expect("a put");
        backend.refresh().await;
        let found = backend.search(query, 20).await.expect("hits");
        assert!(found.hits.is_empty(), "{title}: {query}: {found:?}");
        backend.remove(id, 1).await.expect("a removal");
    }
}

/// Titles and descriptions in the order of their rank for `kettle`. The ids are shuffled, so that they cannot decide it.
const RANKED: [(i64, &str, Option<&str>); 11] = [
    (9, "Kettle", None),
    (8, "a kettle", None),
    (11, "kettle kettle kettle", Some("kettle kettle kettle kettle")),
    (5, "the very best kettle of all", Some("kettle")),
    (10, "pot", Some("like a kettle")),
    (6, "teapot", Some("kettle kettle kettle")),
    (4, "kettles", None),
    (1, "big kettledrum", None),
    (7, "drum", Some("a kettledrum")),
    (2, "ketle", None),
    (3, "mug", Some("not for a kettel")),
];

async fn assert_ranking<S: SearchBackend>(backend: &S) {
    let mut documents = RANKED.map(|(id, title, description)| document(id, 1, title, description));
    documents.sort_by_key(|document| document.id);
    for document in documents {
        backend.upsert(document).await.expect("a put");
    }
    backend.refresh().await;
    let found = backend.search("kettle", 20).await.expect("hits");
    let titles: Vec<&str> = found.hits.iter().map(|hit| &*hit.document.title).collect();
    assert_eq!(titles, RANKED.map(|(_, title, _)| title));
    assert_eq!(found.total, 11);
    let limited = backend.search("KETTLE", 3).await.expect("hits");
    assert_eq!((limited.total, limited.hits.len()), (11, 3), "the total does not depend on the page");
    // Several words: a title of exactly these words ranks before one that repeats them.
    for (id, title) in [(21, "red kettle red kettle"), (22, "kettle, red"), (23, "RED/KETTLE")] {
        backend.upsert(document(id, 1, title, None)).await.expect("a put");
    }
    backend.refresh().await;
    let found = backend.search("red kettle", 3).await.expect("hits");
    assert_eq!(found.hits.iter().map(|hit| hit.document.id).collect::<Vec<_>>(), [23, 22, 21]);
}

#[tokio::test]
async fn words_are_matched_in_postgres() {
    let database = database::fresh().await;
    assert_matching(&Postgres::new(database.pool().await.into())).await;
}

#[tokio::test]
async fn words_are_matched_in_fake_elasticsearch() {
    drop(process::http_client());
    let fake = FakeElasticsearch::start().await;
    assert_matching(&Elasticsearch::new(&Server::parse(&fake.url()).unwrap()).unwrap()).await;
}

#[tokio::test]
async fn words_are_matched_in_opensearch() {
    let Some(engine) = search_engine::lease().await else { return };
    assert_matching(&Elasticsearch::new(&Server::parse(&engine.url()).unwrap()).unwrap()).await;
}

#[tokio::test]
async fn titles_rank_first_in_postgres() {
    let database = database::fresh().await;
    assert_ranking(&Postgres::new(database.pool().await.into())).await;
}

#[tokio::test]
async fn titles_rank_first_in_fake_elasticsearch() {
    drop(process::http_client());
    let fake = FakeElasticsearch::start().await;
    assert_ranking(&Elasticsearch::new(&Server::parse(&fake.url()).unwrap()).unwrap()).await;
}

#[tokio::test]
async fn titles_rank_first_in_opensearch() {
    let Some(engine) = search_engine::lease().await else { return };
    assert_ranking(&Elasticsearch::new(&Server::parse(&engine.url()).unwrap()).unwrap()).await;
}

/// More documents match than the total counts, and the exact title is written last.
#[tokio::test]
async fn the_exact_title_ranks_first_among_many_hits() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let postgres = Postgres::new(pool.clone().into());
    let put = async |id, title| {
        jobs::items::search::Search::upsert(&postgres, document(id, 1, title, None)).await.expect("a put");
    };
    put(1, "the kettle").await;
    let many = "INSERT INTO item_documents (item_id, version, removed, title, owner_id, created_at, updated_at, words,
                                            title_key, analysed)
                SELECT -n, version, removed, title || n, owner_id, created_at, updated_at, words, title_key || n, analysed
                FROM generate_series(1, 1500) AS n, item_documents WHERE item_id = 1";
    sqlx::query(many).execute(&pool).await.expect("1,500 documents");
    put(2, "kettle").await;
    let found = jobs::items::search::Search::search(&postgres, "kettle", 2).await.expect("hits");
    assert_eq!((found.total, &*found.hits[0].document.title), (1000, "kettle"));
}

/// Titles, descriptions and prefixes are counted together, each document once, up to the limit of the total.
#[tokio::test]
async fn the_total_counts_all_groups_up_to_its_limit() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let postgres = Postgres::new(pool.clone().into());
    for (id, title, description) in [(1, "kettle", None), (2, "pot", Some("a kettle")), (3, "kettledrum", None)] {
        let written = document(id, 1, title, description);
        jobs::items::search::Search::upsert(&postgres, written).await.expect("a put");
    }
    let copy = "INSERT INTO item_documents (item_id, version, removed, title, description, owner_id, created_at,
                                            updated_at, words, title_key, analysed)
                SELECT item_id + 3 * n, version, removed, title || n, description, owner_id, created_at,
                       updated_at, words, title_key || n, analysed
                FROM generate_series($1, $2) AS n, item_documents WHERE item_id <= 3";
    // The last group of 400 is cut: 400 titles, 400 descriptions, and 200 of the prefixes.
    for (first, last, total) in [(1, 199, 600), (200, 399, 1_000)] {
        sqlx::query(copy).bind(first).bind(last).execute(&pool).await.expect("copies");
        let found = jobs::items::search::Search::search(&postgres, "kettle", 3).await.expect("hits");
        let ids: Vec<i64> = found.hits.iter().map(|hit| hit.document.id).collect();
        assert_eq!((found.total, ids), (total, vec![1, 4, 7]), "{last} copies");
    }
}
