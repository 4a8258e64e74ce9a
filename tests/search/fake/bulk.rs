//! Bulk requests to the fake Elasticsearch.

use serde_json::json;

use super::{
    FakeResponse, FakeResult, error,
    index::{Indexes, Parameters, Version, check_parameters, parse_json},
    validate,
};

/// One write: a document with its source, or a removal.
struct Action {
    id: String,
    version: Version,
    source: Option<String>,
}

/// Runs a bulk request. With `half`, every second write gets this status.
pub(super) fn run(
    indexes: &mut Indexes,
    name: &str,
    body: &str,
    parameters: &Parameters,
    half: Option<u16>,
) -> FakeResult {
    check_parameters(parameters, &["require_alias"])?;
    let actions = parse(body)?;
    // An index that a document may not create is not created by the removals of the same request either.
    let only_removals = actions.iter().all(|action| action.source.is_none());
    let is_missing = !indexes.has_index(name) && !indexes.has_alias(name);
    let (mut items, mut errors) = (Vec::new(), false);
    for Action { id, version, source } in actions {
        let written = match &source {
            _ if half.is_some() && items.len() % 2 == 1 => {
                Err(error(half.unwrap_or_default(), "rejected_execution_exception", "rejected execution"))
            }
            Some(source) => {
                let index = indexes.find_for_document(name, parameters);
                index.and_then(|index| index.put(&id, version, source))
            }
            None if is_missing && !only_removals => {
                Err(error(404, "index_not_found_exception", format!("no such index [{name}]")))
            }
            None => indexes.find_for_removal(name).remove(&id, version),
        };
        let (status, mut result) = written.unwrap_or_else(|refused| refused);
        errors |= status >= 400 && result["result"] != "not_found";
        result["status"] = status.into();
        let verb = if source.is_some() { "index" } else { "delete" };
        items.push(json!({ verb: result }));
    }
    Ok((200, json!({ "took": 1, "errors": errors, "items": items })))
}

/// Reads all actions before the first is run: a malformed line fails the request as a whole.
fn parse(body: &str) -> Result<Vec<Action>, FakeResponse> {
    let malformed = |reason: &str| error(400, "illegal_argument_exception", reason);
    let invalid = |reason: &str| error(400, "action_request_validation_exception", reason);
    if body.is_empty() {
        return Err(error(400, "parse_exception", "request body is required"));
    }
    if !body.ends_with('\n') {
        return Err(malformed("The bulk request must be terminated by a newline [\\n]"));
    }
    let (mut lines, mut actions) = (body.lines().filter(|line| !line.is_empty()), Vec::new());
    while let Some(line) = lines.next() {
        let action = parse_json(line, "illegal_argument_exception")?;
        let entries: Vec<_> = action.as_object().into_iter().flatten().collect();
        let [(verb, meta)] = &*entries else { return Err(malformed("Malformed action/metadata line")) };
        if !meta.is_object() {
            return Err(malformed("Malformed action/metadata line"));
        }
        let known = ["_index", "_id", "version", "version_type", "routing"];
        validate::keys(meta, &known, "illegal_argument_exception")?;
        let source = match verb.as_str() {
            "index" => Some(lines.next().ok_or_else(|| invalid("no source line"))?.to_owned()),
            "delete" => None,
            _ => return Err(malformed("expected one of [create, delete, index, update]")),
        };
        let id = meta["_id"].as_str().ok_or_else(|| invalid("id is missing"))?.to_owned();
        let version = Version::parse(meta["version"].as_i64(), meta["version_type"].as_str())?;
        actions.push(Action { id, version, source });
    }
    if actions.is_empty() { Err(invalid("no requests added")) } else { Ok(actions) }
}
