//! Validation of requests as in a real server: content types, unknown keys, and wrong types.

use poem::Request;
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{FakeResponse, error};

type ValidationResult = Result<(), FakeResponse>;

pub(super) fn content_type(request: &Request, path: &[&str], body: &str) -> ValidationResult {
    let content_type = request.content_type();
    let bulk = path.last() == Some(&"_bulk");
    let fits = match content_type {
        None => body.is_empty(),
        Some("application/json") => true,
        Some("application/x-ndjson") => bulk,
        Some(_) => false,
    };
    if fits { Ok(()) } else { Err(error(406, "media_type_header_exception", format!("{content_type:?}"))) }
}

/// Accepts an object that has only these keys.
pub(super) fn keys(value: &Value, allowed: &[&str], place: &str) -> ValidationResult {
    let parsing = |reason: String| error(400, "x_content_parse_exception", reason);
    let object = value.as_object().ok_or_else(|| parsing(format!("[{place}] is no object: {value}")))?;
    match object.keys().find(|key| !allowed.contains(&key.as_str())) {
        Some(key) => Err(parsing(format!("[{place}] unknown field [{key}]"))),
        None => Ok(()),
    }
}

fn check_optional(value: &Value, name: &str, place: &str, fits: impl Fn(&Value) -> bool) -> ValidationResult {
    match value.get(name) {
        Some(value) if !fits(value) => {
            Err(error(400, "x_content_parse_exception", format!("[{place}] [{name}]: {value}")))
        }
        _ => Ok(()),
    }
}

pub(super) fn index(body: &Value) -> ValidationResult {
    keys(body, &["settings", "mappings", "aliases"], "create_index")?;
    keys(&body["settings"], &["index"], "settings")?;
    keys(&body["settings"]["index"], &["number_of_shards", "number_of_replicas", "gc_deletes"], "settings.index")?;
    keys(&body["mappings"], &["dynamic", "properties"], "_doc")?;
    for (name, field) in body["mappings"]["properties"].as_object().unwrap() {
        keys(field, &["type", "analyzer", "fields", "index", "ignore_above"], name)?;
        if !matches!(field["type"].as_str(), Some("long" | "text" | "date" | "keyword")) {
            return Err(error(400, "mapper_parsing_exception", format!("no handler for the type of [{name}]")));
        }
    }
    for alias in body["aliases"].as_object().unwrap().values() {
        keys(alias, &["filter", "is_write_index"], "alias")?;
    }
    Ok(())
}

/// Validates a document against a strict mapping.
pub(super) fn document(mappings: &Value, source: &Value) -> ValidationResult {
    let document = source.as_object().ok_or_else(|| error(400, "document_parsing_exception", "no object"))?;
    for (name, value) in document {
        let field = &mappings["properties"][name];
        let fits = match field["type"].as_str() {
            _ if value.is_null() && !field.is_null() => true,
            Some("long") => value.is_i64(),
            Some("text" | "keyword") => value.is_string(),
            Some("date") => value.as_str().is_some_and(|text| OffsetDateTime::parse(text, &Rfc3339).is_ok()),
            _ => {
                let reason = format!("introduction of [{name}] within [_doc] is not allowed");
                return Err(error(400, "strict_dynamic_mapping_exception", reason));
            }
        };
        if !fits {
            return Err(error(400, "document_parsing_exception", format!("failed to parse field [{name}]")));
        }
    }
    Ok(())
}

pub(super) fn search(body: &Value) -> ValidationResult {
    let allowed = ["query", "size", "from", "sort", "search_after", "_source", "track_total_hits", "highlight"];
    keys(body, &allowed, "search")?;
    query(&body["query"])?;
    check_optional(body, "size", "search", |size| size.as_u64().is_some_and(|size| size <= 10_000))?;
    check_optional(body, "track_total_hits", "search", |track| track.is_boolean() || track.is_u64())?;
    let sorts = body["sort"].as_array().map_or(0, Vec::len);
    if body["search_after"].as_array().is_some_and(|after| after.len() != sorts) {
        return Err(error(400, "illegal_argument_exception", "search_after has not as many values as sort"));
    }
    let Some(highlight) = body.get("highlight") else { return Ok(()) };
    keys(highlight, &["encoder", "pre_tags", "post_tags", "fields"], "highlight")?;
    check_optional(highlight, "encoder", "highlight", |encoder| encoder == "html" || encoder == "default")?;
    for field in highlight["fields"].as_object().unwrap().values() {
        keys(field, &["number_of_fragments", "fragment_size"], "highlight_field")?;
    }
    Ok(())
}

fn query(query: &Value) -> ValidationResult {
    let (name, inner) = match query.as_object().map(|object| object.iter().collect::<Vec<_>>()) {
        Some(entries) if entries.len() == 1 => entries[0],
        _ => return Err(error(400, "parsing_exception", format!("a query has one name: {query}"))),
    };
    match name.as_str() {
        "match_all" => keys(inner, &["boost"], "match_all"),
        "dis_max" => {
            keys(inner, &["queries", "tie_breaker", "boost"], "dis_max")?;
            inner["queries"].as_array().unwrap().iter().try_for_each(self::query)
        }
        "constant_score" => {
            keys(inner, &["filter", "boost"], "constant_score")?;
            self::query(&inner["filter"])
        }
        "term" => inner.as_object().unwrap().values().try_for_each(|term| keys(term, &["value", "boost"], "term")),
        "bool" => {
            keys(inner, &["should", "must", "filter", "must_not", "minimum_should_match", "boost"], "bool")?;
            let clauses = ["should", "must", "filter", "must_not"].map(|name| inner[name].as_array());
            clauses.into_iter().flatten().flatten().try_for_each(self::query)
        }
        "multi_match" => {
            let allowed = ["query", "type", "operator", "fields", "fuzziness", "boost", "prefix_length"];
            keys(inner, &allowed, "multi_match")?;
            check_optional(inner, "operator", "multi_match", |operator| operator == "and" || operator == "or")?;
            let kind = inner["type"].as_str().unwrap_or("best_fields");
            if !["best_fields", "most_fields", "cross_fields", "phrase", "phrase_prefix", "bool_prefix"].contains(&kind)
            {
                return Err(error(400, "parse_exception", format!("multi_match type [{kind}]")));
            }
            if inner.get("fuzziness").is_some() && ["cross_fields", "phrase", "phrase_prefix"].contains(&kind) {
                return Err(error(400, "parsing_exception", format!("Fuzziness not allowed for type [{kind}]")));
            }
            Ok(())
        }
        _ => Err(error(400, "parsing_exception", format!("unknown query [{name}]"))),
    }
}
