//! Request bodies for Elasticsearch. A test checks each of them against the types that Elastic publishes.

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    items::search::{
        analysis::{Analysis, is_correctable},
        model::{Document, MAX_COUNTED},
        words::{Field, Term, Terms},
    },
    text::pairs,
};
use runtime::error::Error;

/// The alias that all requests name. Writes require it: after an operator has deleted the index, a write to its name would
/// create it again, with a guessed mapping.
pub const ALIAS: &str = "millrace-items-v2";

/// A document as the index stores it. Its words are the same as in PostgreSQL, since both must find the same documents.
#[derive(Serialize)]
struct IndexedDocument<'a> {
    #[serde(flatten)]
    document: &'a Document,
    title_words: String,
    description_words: String,
    title_key: String,
    title_length: usize,
}

/// The fields of a [`Document`].
const DOCUMENT_FIELDS: [&str; 8] =
    ["id", "version", "title", "description", "price_cents", "owner_id", "created_at", "updated_at"];

/// The body that writes a document.
///
/// # Errors
/// When the document cannot be serialised.
pub(super) fn document(document: &Document) -> Result<Value, Error> {
    let Analysis { title_key, title, description } = Analysis::of(document);
    let indexed = IndexedDocument {
        document,
        title_words: title.join(" "),
        description_words: description.join(" "),
        title_key,
        title_length: document.title.chars().count(),
    };
    serde_json::to_value(&indexed).map_err(|error| Error::Internal(error.to_string()))
}

/// The body that creates the index: its mapping, its alias, and how long it keeps the versions of removed documents.
pub(super) fn index() -> Value {
    // The words are already analysed, and separated by blanks.
    let words = json!({ "type": "text", "analyzer": "whitespace" });
    let stored_only = json!({ "type": "text", "index": false });
    json!({
        // How long the version of a removed document is kept; the default is 60 s. After an hour no run of a job that
        // read the item before its removal is still active.
        "settings": { "index": { "gc_deletes": "1h" } },
        "mappings": {
            // A field that is missing here is a programming error, and Elasticsearch rejects it.
            "dynamic": "strict",
            "properties": {
                "id": { "type": "long" },
                "version": { "type": "long" },
                "title": stored_only,
                "description": stored_only,
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
    Prefix,
    Misspelt,
}

/// The body that finds the best `limit` documents, in the same order as PostgreSQL: by group, then shorter titles, then
/// ids. Documents that match only with corrected words are found if `corrects` is set.
pub(super) fn search(terms: &Terms, limit: u32, corrects: bool) -> Value {
    let exact = json!({ "term": { "title_key": { "value": terms.title_key() } } });
    let groups = [Match::Whole, Match::Prefix].into_iter().chain(corrects.then_some(Match::Misspelt));
    let groups = groups.flat_map(|how| [Field::Title, Field::Any].map(|field| all_terms(terms, how, field)));
    let groups: Vec<Value> = std::iter::once(exact).chain(groups).collect();
    // The score of a document is the boost of its best group.
    let boosts = (1..=groups.len()).rev();
    let queries: Vec<Value> = groups
        .into_iter()
        .zip(boosts)
        .map(|(filter, boost)| json!({ "constant_score": { "filter": filter, "boost": boost } }))
        .collect();
    json!({
        "query": { "dis_max": { "queries": queries } },
        "size": limit,
        "track_total_hits": MAX_COUNTED,
        "sort": [
            { "_score": { "order": "desc" } },
            { "title_length": { "order": "asc" } },
            { "id": { "order": "asc" } },
        ],
        "_source": DOCUMENT_FIELDS,
    })
}

/// A query that all terms must match.
fn all_terms(terms: &Terms, how: Match, field: Field) -> Value {
    let must: Vec<Value> = terms.iter().map(|(term, is_prefix)| one_term(term, is_prefix, how, field)).collect();
    json!({ "bool": { "must": must } })
}

fn one_term(term: &Term, is_prefix: bool, how: Match, field: Field) -> Value {
    let fields: &[&str] = match field {
        Field::Title => &["title_words"],
        Field::Any => &["title_words", "description_words"],
    };
    let query = |text: &str, kind: &str| json!({ "multi_match": { "query": text, "type": kind, "fields": fields } });
    match term {
        Term::Run(run) if run.chars().nth(1).is_none() => query(run, "bool_prefix"),
        Term::Run(run) => query(&pairs(run, false).join(" "), "phrase"),
        Term::Word(word) => {
            let exact = query(word, if is_prefix && how != Match::Whole { "bool_prefix" } else { "best_fields" });
            if how != Match::Misspelt || !is_correctable(word) {
                return exact;
            }
            let mut fuzzy = query(word, "best_fields");
            fuzzy["multi_match"]["fuzziness"] = json!("AUTO");
            // By default every similar word of the index becomes a clause of its own, and a query of 20 words exceeds
            // the limit of 1,024 clauses.
            fuzzy["multi_match"]["fuzzy_rewrite"] = json!("constant_score");
            json!({ "bool": { "should": [exact, fuzzy], "minimum_should_match": 1 } })
        }
    }
}

/// The body that reads a page of the ids and versions of all documents, by id.
pub(super) fn page(after: i64, limit: i64) -> Value {
    json!({
        "query": { "match_all": {} },
        "size": limit,
        "sort": [{ "id": { "order": "asc" } }],
        "search_after": [after],
        "_source": ["id", "version"],
        "track_total_hits": false,
    })
}
