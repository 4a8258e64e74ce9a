//! Validation of requests as in a real server: content types, unknown keys, and wrong types.

use poem::Request;
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{FakeResponse, error, text_error};

type ValidationResult = Result<(), FakeResponse>;

pub(super) fn content_type(request: &Request, body: &str) -> ValidationResult {
    match request.content_type() {
        None if body.is_empty() => Ok(()),
        Some("application/json" | "application/x-ndjson") => Ok(()),
        other => Err(text_error(406, format!("Content-Type header [{other:?}] is not supported"))),
    }
}

/// Accepts an object that has only these keys. Otherwise the error has this type.
pub(super) fn keys(value: &Value, allowed: &[&str], kind: &str) -> ValidationResult {
    let object = value.as_object().ok_or_else(|| error(400, kind, format!("no object: {value}")))?;
    match object.keys().find(|key| !allowed.contains(&key.as_str())) {
        Some(key) => Err(error(400, kind, format!("unknown field [{key}]"))),
        None => Ok(()),
    }
}

/// Checks a value, if it is present.
fn check_optional(value: &Value, name: &str, kind: &str, fits: impl Fn(&Value) -> bool) -> ValidationResult {
    match value.get(name) {
        Some(value) if !fits(value) => Err(error(400, kind, format!("[{name}]: {value}"))),
        _ => Ok(()),
    }
}

pub(super) fn index(body: &Value) -> ValidationResult {
    keys(body, &["settings", "mappings", "aliases"], "parse_exception")?;
    let settings = |of: &Value, allowed: &[&str]| {
        let unknown = of.as_object().into_iter().flatten().find(|(name, value)| {
            let is_empty = value.as_object().is_some_and(serde_json::Map::is_empty);
            !allowed.contains(&name.as_str()) && !is_empty
        });
        match unknown {
            Some((name, _)) => Err(error(400, "illegal_argument_exception", format!("unknown setting [{name}]"))),
            None => Ok(()),
        }
    };
    settings(&body["settings"], &["index"])?;
    settings(&body["settings"]["index"], &["number_of_shards", "number_of_replicas", "gc_deletes"])?;
    if body["mappings"].is_null() {
        return Ok(());
    }
    keys(&body["mappings"], &["dynamic", "properties"], "mapper_parsing_exception")?;
    for (name, field) in body["mappings"]["properties"].as_object().into_iter().flatten() {
        let allowed: &[&str] = match field["type"].as_str() {
            Some("text") => &["type", "analyzer", "index"],
            Some("keyword") => &["type", "index", "ignore_above"],
            Some("long" | "date") => &["type", "index"],
            _ => return Err(error(400, "mapper_parsing_exception", format!("no handler for the type of [{name}]"))),
        };
        keys(field, allowed, "mapper_parsing_exception")?;
    }
    Ok(())
}

/// Validates a document against a strict mapping.
pub(super) fn document(mappings: &Value, source: &Value) -> ValidationResult {
    let malformed = |reason: String| error(400, "mapper_parsing_exception", reason);
    let document = source.as_object().ok_or_else(|| malformed("no object".into()))?;
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
            return Err(malformed(format!("failed to parse field [{name}]")));
        }
    }
    Ok(())
}

pub(super) fn search(mappings: &Value, body: &Value) -> ValidationResult {
    /// The type of errors that only the shards find.
    const FAILED: &str = "search_phase_execution_exception";
    let allowed = ["query", "size", "from", "sort", "search_after", "_source", "track_total_hits"];
    keys(body, &allowed, "parsing_exception")?;
    if let Some(query) = body.get("query") {
        self::query(query)?;
    }
    check_optional(body, "size", "number_format_exception", Value::is_u64)?;
    check_optional(body, "size", FAILED, |size| size.as_u64().is_some_and(|size| size <= 10_000))?;
    check_optional(body, "track_total_hits", "number_format_exception", |track| track.is_boolean() || track.is_u64())?;
    check_optional(body, "_source", "parsing_exception", Value::is_array)?;
    let sorts: Vec<_> = body["sort"].as_array().into_iter().flatten().filter_map(Value::as_object).flatten().collect();
    for (field, order) in &sorts {
        keys(order, &["order"], "x_content_parse_exception")?;
        let known = mappings["properties"][field]["type"].as_str();
        if *field != "_score" && !matches!(known, Some("long" | "date" | "keyword")) {
            return Err(error(400, FAILED, format!("cannot sort by [{field}]")));
        }
    }
    check_optional(body, "search_after", FAILED, |after| {
        after.as_array().is_some_and(|after| after.len() == sorts.len() && after.iter().all(Value::is_i64))
    })
}

fn query(query: &Value) -> ValidationResult {
    const PARSING: &str = "parsing_exception";
    let entries: Vec<_> = query.as_object().into_iter().flatten().collect();
    let (name, inner) = match *entries {
        [entry] => entry,
        [] => return Err(error(400, "illegal_argument_exception", "query malformed, empty clause found")),
        _ => return Err(error(400, PARSING, format!("a query has one name: {query}"))),
    };
    match name.as_str() {
        "match_all" => keys(inner, &["boost"], PARSING),
        "dis_max" => {
            keys(inner, &["queries", "tie_breaker", "boost"], PARSING)?;
            inner["queries"].as_array().into_iter().flatten().try_for_each(self::query)
        }
        "constant_score" => {
            keys(inner, &["filter", "boost"], PARSING)?;
            self::query(&inner["filter"])
        }
        "term" => {
            let fields: Vec<_> = inner.as_object().into_iter().flatten().collect();
            match *fields {
                [(_, term)] => keys(term, &["value", "boost"], PARSING),
                [] => Err(error(400, "illegal_argument_exception", "field name is null or empty")),
                _ => Err(error(400, PARSING, "[term] query does not support multiple fields")),
            }
        }
        "bool" => {
            let allowed = ["should", "must", "filter", "must_not", "minimum_should_match", "boost"];
            keys(inner, &allowed, "x_content_parse_exception")?;
            let clauses = ["should", "must", "filter", "must_not"].map(|name| inner[name].as_array());
            clauses.into_iter().flatten().flatten().try_for_each(self::query)
        }
        "multi_match" => multi_match(inner),
        _ => Err(error(400, PARSING, format!("unknown query [{name}]"))),
    }
}

fn multi_match(query: &Value) -> ValidationResult {
    let allowed = ["query", "type", "operator", "fields", "fuzziness", "fuzzy_rewrite", "boost", "prefix_length"];
    keys(query, &allowed, "parsing_exception")?;
    check_optional(query, "operator", "illegal_argument_exception", |operator| operator == "and" || operator == "or")?;
    check_optional(query, "fuzziness", "illegal_argument_exception", |fuzziness| fuzziness == "AUTO")?;
    let kind = query["type"].as_str().unwrap_or("best_fields");
    if !["best_fields", "most_fields", "cross_fields", "phrase", "phrase_prefix", "bool_prefix"].contains(&kind) {
        return Err(error(400, "parse_exception", format!("multi_match type [{kind}]")));
    }
    if query.get("fuzziness").is_some() && ["cross_fields", "phrase", "phrase_prefix"].contains(&kind) {
        return Err(error(400, "parsing_exception", format!("Fuzziness not allowed for type [{kind}]")));
    }
    let rewrites = ["constant_score", "constant_score_boolean", "scoring_boolean"];
    check_optional(query, "fuzzy_rewrite", "search_phase_execution_exception", |rewrite| {
        rewrite.as_str().is_some_and(|rewrite| rewrites.contains(&rewrite))
    })
}
