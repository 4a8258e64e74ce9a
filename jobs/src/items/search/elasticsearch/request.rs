//! What we say to Elasticsearch. A test checks each of these against the types that Elastic publishes.

use serde_json::{Value, json};

use crate::items::search::{elasticsearch::ALIAS, highlight::EXCERPT, model::COUNTED};

/// The index: its fields, its alias, and how long it remembers what was removed.
pub fn index() -> Value {
    json!({
        // The version of a removed document is forgotten after this long, 60 s by itself: a run of a job that read the
        // item before is over by then.
        "settings": { "index": { "gc_deletes": "1h" } },
        "mappings": {
            // A field that nobody has described is a mistake of ours, to be told at once.
            "dynamic": "strict",
            "properties": {
                "id": { "type": "long" },
                "version": { "type": "long" },
                "title": { "type": "text" },
                "description": { "type": "text" },
                "price_cents": { "type": "long" },
                "owner_id": { "type": "long" },
                "created_at": { "type": "date" },
                "updated_at": { "type": "date" },
            },
        },
        "aliases": { ALIAS: {} },
    })
}

/// The best `limit` documents for what somebody typed.
pub fn search(query: &str, limit: u32) -> Value {
    json!({
        "query": { "bool": { "minimum_should_match": 1, "should": [
            // All words as they are, in whichever field; the best there is.
            { "multi_match": { "query": query, "type": "cross_fields", "operator": "and",
                               "fields": ["title^3", "description"], "boost": 4 } },
            // All words, the last one being only the beginning of one.
            { "multi_match": { "query": query, "type": "bool_prefix", "operator": "and",
                               "fields": ["title^3", "description"], "boost": 2 } },
            // All words, with up to two wrong letters each.
            { "multi_match": { "query": query, "type": "best_fields", "operator": "and", "fuzziness": "AUTO",
                               "fields": ["title^3", "description"] } },
        ] } },
        "size": limit,
        "track_total_hits": COUNTED,
        "sort": [{ "_score": { "order": "desc" } }, { "id": { "order": "asc" } }],
        "highlight": {
            "encoder": "html",
            "pre_tags": ["<em>"],
            "post_tags": ["</em>"],
            "fields": {
                "title": { "number_of_fragments": 0 },
                "description": { "number_of_fragments": 1, "fragment_size": EXCERPT },
            },
        },
    })
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
