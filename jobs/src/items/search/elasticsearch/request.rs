//! What we say to Elasticsearch. A test checks each of these against the types that Elastic publishes.

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    error::Error,
    items::search::{
        analysis::Analysis,
        elasticsearch::ALIAS,
        model::{COUNTED, Document},
        words::{Field, Term, Terms, is_correctable},
    },
    text::pairs,
};

/// A document as the index has it: with the words that PostgreSQL has as well, since both must find the same.
#[derive(Serialize)]
struct Indexed<'a> {
    #[serde(flatten)]
    document: &'a Document,
    title_words: String,
    description_words: String,
    title_key: String,
    title_length: usize,
}

/// The fields of a [`Document`].
const SHOWN: [&str; 8] =
    ["id", "version", "title", "description", "price_cents", "owner_id", "created_at", "updated_at"];

/// A document, with its words.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn document(document: &Document) -> Result<Value, Error> {
    let Analysis { title_key, title, description } = Analysis::of(document);
    let indexed = Indexed {
        document,
        title_words: title.join(" "),
        description_words: description.join(" "),
        title_key,
        title_length: document.title.chars().count(),
    };
    serde_json::to_value(&indexed).map_err(|error| Error::Internal(error.to_string()))
}

/// The index: its fields, its alias, and how long it remembers what was removed.
pub fn index() -> Value {
    // Our words, which only blanks separate.
    let words = json!({ "type": "text", "analyzer": "whitespace" });
    let shown = json!({ "type": "text", "index": false });
    json!({
        // The version of a removed document is forgotten after this long, 60 s by itself: a run of a job that read the
        // item before is over by then.
        "settings": { "index": { "gc_deletes": "1h" } },
        "mappings": {
            // A field that is not described here is a mistake of ours, and is refused at once.
            "dynamic": "strict",
            "properties": {
                "id": { "type": "long" },
                "version": { "type": "long" },
                "title": shown,
                "description": shown,
                "price_cents": { "type": "long" },
                "owner_id": { "type": "long" },
                "created_at": { "type": "date" },
                "updated_at": { "type": "date" },
                "title_words": words,
                "description_words": words,
                "title_key": { "type": "keyword", "ignore_above": 8000 },
                "title_length": { "type": "long" },
            },
        },
        "aliases": { ALIAS: {} },
    })
}

/// How a term may match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    Whole,
    Begun,
    Misspelt,
}

/// The best `limit` documents, in the order that PostgreSQL's side has: by group, then shorter titles, then ids.
pub fn search(terms: &Terms, limit: u32) -> Value {
    let exact = json!({ "term": { "title_key": { "value": terms.key() } } });
    let groups = [Match::Whole, Match::Begun, Match::Misspelt].into_iter();
    let groups = groups.flat_map(|how| [Field::Title, Field::Any].map(|field| all(terms, how, field)));
    let groups: Vec<Value> = std::iter::once(exact).chain(groups).collect();
    // The score of a document is the boost of the best group that it is in.
    let boosts = (1..=groups.len()).rev();
    let queries: Vec<Value> = groups
        .into_iter()
        .zip(boosts)
        .map(|(filter, boost)| json!({ "constant_score": { "filter": filter, "boost": boost } }))
        .collect();
    json!({
        "query": { "dis_max": { "queries": queries } },
        "size": limit,
        "track_total_hits": COUNTED,
        "sort": [
            { "_score": { "order": "desc" } },
            { "title_length": { "order": "asc" } },
            { "id": { "order": "asc" } },
        ],
        "_source": SHOWN,
    })
}

/// All terms.
fn all(terms: &Terms, how: Match, field: Field) -> Value {
    let must: Vec<Value> = terms.each().map(|(term, is_begun)| one(term, is_begun, how, field)).collect();
    json!({ "bool": { "must": must } })
}

fn one(term: &Term, is_begun: bool, how: Match, field: Field) -> Value {
    let fields: &[&str] = match field {
        Field::Title => &["title_words"],
        Field::Any => &["title_words", "description_words"],
    };
    let query = |text: &str, kind: &str| json!({ "multi_match": { "query": text, "type": kind, "fields": fields } });
    match term {
        Term::Run(run) if run.chars().nth(1).is_none() => query(run, "bool_prefix"),
        Term::Run(run) => query(&pairs(run, false).join(" "), "phrase"),
        Term::Word(word) => {
            let own = query(word, if is_begun && how != Match::Whole { "bool_prefix" } else { "best_fields" });
            if how != Match::Misspelt || !is_correctable(word) {
                return own;
            }
            let mut near = query(word, "best_fields");
            near["multi_match"]["fuzziness"] = json!("AUTO");
            json!({ "bool": { "should": [own, near], "minimum_should_match": 1 } })
        }
    }
}

/// A page of the keys of all documents, by id.
pub fn page(after: i64, limit: i64) -> Value {
    json!({
        "query": { "match_all": {} },
        "size": limit,
        "sort": [{ "id": { "order": "asc" } }],
        "search_after": [after],
        "_source": ["id", "version"],
        "track_total_hits": false,
    })
}
