//! The index of the fake Elasticsearch: versioned documents, and a search that evaluates the query.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{FakeResponse, State, error, validate};

type FakeResult = Result<FakeResponse, FakeResponse>;

#[derive(Debug, Default)]
pub(crate) struct Index {
    name: String,
    alias: String,
    mappings: Value,
    /// Version and source by id. A removed document keeps its version.
    pub documents: BTreeMap<String, (i64, Option<Value>)>,
}

impl Index {
    pub(crate) fn find_by_name<'a>(state: &'a mut State, name: &str) -> Result<&'a mut Self, FakeResponse> {
        let found = state.index.as_mut().filter(|index| index.alias == name || index.name == name);
        found.ok_or_else(|| error(404, "index_not_found_exception", format!("no such index [{name}]")))
    }

    pub(crate) fn create(state: &mut State, name: &str, body: &str) -> FakeResult {
        let body = parse_json(body)?;
        validate::index(&body)?;
        if state.index.is_some() {
            return Err(error(400, "resource_already_exists_exception", "already exists"));
        }
        let alias = body["aliases"].as_object().unwrap().keys().next().unwrap().clone();
        let mappings = body["mappings"].clone();
        state.index = Some(Self { name: name.into(), alias, mappings, documents: BTreeMap::new() });
        Ok((200, json!({ "acknowledged": true, "index": name })))
    }

    pub(crate) fn put(&mut self, id: &str, parameters: &[(&str, &str)], body: &str) -> FakeResult {
        let parameter = |name: &str| parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        check_parameters(parameters)?;
        let source = parse_json(body)?;
        self.write(id, parameter("version"), parameter("version_type"), Some(source))
    }

    pub(crate) fn delete(&mut self, id: &str, parameters: &[(&str, &str)]) -> FakeResult {
        let parameter = |name: &str| parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        check_parameters(parameters)?;
        self.write(id, parameter("version"), parameter("version_type"), None)
    }

    fn write(&mut self, id: &str, version: Option<&str>, kind: Option<&str>, source: Option<Value>) -> FakeResult {
        let version: i64 =
            version.and_then(|version| version.parse().ok()).filter(|version| *version >= 0).ok_or_else(|| {
                error(400, "action_request_validation_exception", format!("illegal version value {version:?}"))
            })?;
        if let Some(source) = &source {
            validate::document(&self.mappings, source)?;
        }
        let stored = self.documents.get(id);
        let conflict = match kind {
            Some("external") => stored.is_some_and(|(known, _)| *known >= version),
            Some("external_gte") => stored.is_some_and(|(known, _)| *known > version),
            _ => return Err(error(400, "illegal_argument_exception", format!("version type {kind:?}"))),
        };
        if conflict {
            return Err(error(409, "version_conflict_engine_exception", format!("[{id}]: version conflict")));
        }
        let existed = stored.is_some_and(|(_, source)| source.is_some());
        let (status, result) = match (&source, existed) {
            (Some(_), false) => (201, "created"),
            (Some(_), true) => (200, "updated"),
            (None, true) => (200, "deleted"),
            (None, false) => (404, "not_found"),
        };
        self.documents.insert(id.to_owned(), (version, source));
        Ok((status, json!({ "_id": id, "result": result, "_version": version })))
    }

    pub(crate) fn bulk(&mut self, body: &str, parameters: &[(&str, &str)], half: Option<u16>) -> FakeResult {
        check_parameters(parameters)?;
        let malformed = |reason: &str| error(400, "illegal_argument_exception", reason);
        if !body.ends_with('\n') {
            return Err(malformed("The bulk request must be terminated by a newline [\\n]"));
        }
        let (mut lines, mut items, mut errors) = (body.lines(), Vec::new(), false);
        while let Some(line) = lines.next() {
            let action = parse_json(line)?;
            let entries: Vec<_> =
                action.as_object().ok_or_else(|| malformed("Malformed action/metadata line"))?.iter().collect();
            let [(verb, meta)] = &*entries else { return Err(malformed("Malformed action/metadata line")) };
            validate::keys(meta, &["_index", "_id", "version", "version_type", "routing"], "action/metadata line")?;
            let source = match verb.as_str() {
                "index" => Some(parse_json(lines.next().ok_or_else(|| malformed("no source line"))?)?),
                "delete" => None,
                _ => return Err(malformed("expected one of [create, delete, index, update]")),
            };
            let id = meta["_id"].as_str().ok_or_else(|| malformed("_id"))?;
            let version = meta["version"].as_i64().map(|version| version.to_string());
            let (status, mut result) = match half.filter(|_| items.len() % 2 == 1) {
                Some(status) => error(status, "es_rejected_execution_exception", "rejected execution"),
                None => {
                    let written = self.write(id, version.as_deref(), meta["version_type"].as_str(), source);
                    written.unwrap_or_else(|refused| refused)
                }
            };
            errors |= status >= 400 && result["result"] != "not_found";
            result["status"] = status.into();
            items.push(json!({ verb.as_str(): result }));
        }
        Ok((200, json!({ "took": 1, "errors": errors, "items": items })))
    }

    pub(crate) fn search(&mut self, body: &str) -> FakeResult {
        let body = parse_json(body)?;
        validate::search(&body)?;
        let after = body["search_after"][0].as_i64();
        let mut found: Vec<(i64, &Value)> = Vec::new();
        for source in self.documents.values().filter_map(|(_, source)| source.as_ref()) {
            let score = self.score(&body["query"], source);
            if score > 0 && after.is_none_or(|after| source["id"].as_i64().unwrap() > after) {
                found.push((score, source));
            }
        }
        let sort: Vec<(String, bool)> = body["sort"].as_array().into_iter().flatten().map(parse_sort).collect();
        found.sort_by_key(|(score, source)| {
            let key = |(field, descending): &(String, bool)| {
                let value = if field == "_score" { *score } else { source[field].as_i64().expect("a number") };
                if *descending { -value } else { value }
            };
            sort.iter().map(key).collect::<Vec<i64>>()
        });
        let total = found.len();
        let selected_fields = |source: &Value| match body["_source"].as_array() {
            None => source.clone(),
            Some(fields) => {
                fields.iter().map(|name| name.as_str().unwrap()).map(|n| (n.to_owned(), source[n].clone())).collect()
            }
        };
        let hits: Vec<Value> = found
            .iter()
            .take(usize::try_from(body["size"].as_u64().unwrap_or(10)).unwrap())
            .map(
                |(score, source)| json!({ "_id": source["id"].to_string(), "_score": score, "_source": selected_fields(source) }),
            )
            .collect();
        let mut hits = json!({ "hits": hits });
        if body["track_total_hits"] != false {
            hits["total"] = json!({ "value": total, "relation": "eq" });
        }
        Ok((200, json!({ "took": 1, "timed_out": false, "hits": hits })))
    }

    /// The score of a document: zero without a match, and larger for a better match.
    fn score(&self, query: &Value, source: &Value) -> i64 {
        let (kind, inner) = query.as_object().and_then(|query| query.iter().next()).expect("a query");
        match kind.as_str() {
            "dis_max" => {
                let scores = inner["queries"].as_array().unwrap().iter().map(|query| self.score(query, source));
                scores.max().unwrap_or(0)
            }
            "constant_score" => match self.score(&inner["filter"], source) {
                0 => 0,
                _ => inner["boost"].as_i64().expect("a whole boost"),
            },
            "bool" => {
                let list = |name: &str| inner[name].as_array().cloned().unwrap_or_default();
                let hit = |query: &Value| self.score(query, source) > 0;
                let should = list("should").iter().filter(|query| hit(query)).count() as u64;
                let least = inner["minimum_should_match"].as_u64().unwrap_or(0);
                i64::from(list("must").iter().all(hit) && should >= least)
            }
            "term" => {
                let (field, term) = inner.as_object().and_then(|term| term.iter().next()).expect("a field");
                assert_eq!(self.mappings["properties"][field]["type"], "keyword", "{field}");
                i64::from(source[field] == term["value"])
            }
            "multi_match" => {
                let fields = inner["fields"].as_array().unwrap().iter().map(|field| field.as_str().unwrap());
                i64::from(fields.into_iter().any(|field| matches(inner, &self.words(field, source))))
            }
            _ => 1,
        }
    }

    /// The words of a field, by the analyzer in its mapping.
    fn words(&self, field: &str, source: &Value) -> Vec<String> {
        let mapping = &self.mappings["properties"][field];
        assert_ne!(mapping["index"], false, "{field} is not searched");
        assert_eq!(mapping["analyzer"], "whitespace", "{field}");
        source[field].as_str().unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    }
}

fn parse_sort(by: &Value) -> (String, bool) {
    let (field, order) = by.as_object().and_then(|by| by.iter().next()).expect("a field to sort by");
    (field.clone(), order["order"] == "desc")
}

fn check_parameters(parameters: &[(&str, &str)]) -> Result<(), FakeResponse> {
    let unknown = parameters.iter().find(|(name, _)| !["version", "version_type", "require_alias"].contains(name));
    match unknown {
        Some((name, _)) => Err(error(400, "illegal_argument_exception", format!("unrecognized parameter: [{name}]"))),
        None => Ok(()),
    }
}

fn parse_json(text: &str) -> Result<Value, FakeResponse> {
    serde_json::from_str(text).map_err(|reason| error(400, "json_parse_exception", reason.to_string()))
}

/// Whether a field with these words matches a `multi_match` query.
fn matches(query: &Value, words: &[String]) -> bool {
    let text = query["query"].as_str().unwrap();
    let terms: Vec<&str> = text.split_whitespace().collect();
    match query["type"].as_str() {
        Some("phrase") => words.windows(terms.len()).any(|window| window == terms),
        Some("bool_prefix") => words.iter().any(|word| word.starts_with(text)),
        _ => words.iter().any(|word| word == text || (query["fuzziness"] == "AUTO" && is_one_edit_apart(word, text))),
    }
}

/// Whether two words differ by one letter, or by two swapped neighbours.
fn is_one_edit_apart(a: &str, b: &str) -> bool {
    if a.len().abs_diff(b.len()) > 4 {
        return false;
    }
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let same = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[same..], &b[same..]);
    let rest = |of: &[char], from: usize| of.get(from..).map(<[char]>::to_vec);
    let swapped = a.len() > 1 && b.len() > 1 && a[0] == b[1] && a[1] == b[0] && rest(a, 2) == rest(b, 2);
    let lost = rest(a, 1).is_some_and(|a| a == b) || rest(b, 1).is_some_and(|b| a == b);
    swapped || lost || (!a.is_empty() && rest(a, 1) == rest(b, 1))
}
