//! The index of the imitation: versioned documents, and a search that reads the query that it was sent.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Answer, State, error, reject};

type Asked = Result<Answer, Answer>;

#[derive(Debug, Default)]
pub struct Index {
    name: String,
    alias: String,
    mappings: Value,
    /// Version and source; a removed document keeps its version.
    pub documents: BTreeMap<String, (i64, Option<Value>)>,
}

impl Index {
    pub fn named<'a>(state: &'a mut State, name: &str) -> Result<&'a mut Self, Answer> {
        let found = state.index.as_mut().filter(|index| index.alias == name || index.name == name);
        found.ok_or_else(|| error(404, "index_not_found_exception", format!("no such index [{name}]")))
    }

    pub fn create(state: &mut State, name: &str, body: &str) -> Asked {
        let body = json_of(body)?;
        reject::index(&body)?;
        if state.index.is_some() {
            return Err(error(400, "resource_already_exists_exception", "already exists"));
        }
        let alias = body["aliases"].as_object().unwrap().keys().next().unwrap().clone();
        let mappings = body["mappings"].clone();
        state.index = Some(Self { name: name.into(), alias, mappings, documents: BTreeMap::new() });
        Ok((200, json!({ "acknowledged": true, "index": name })))
    }

    pub fn put(&mut self, id: &str, parameters: &[(&str, &str)], body: &str) -> Asked {
        let parameter = |name: &str| parameters.iter().find(|(given, _)| *given == name).map(|(_, value)| *value);
        known(parameters)?;
        let source = json_of(body)?;
        self.write(id, parameter("version"), parameter("version_type"), Some(source))
    }

    pub fn delete(&mut self, id: &str, parameters: &[(&str, &str)]) -> Asked {
        let parameter = |name: &str| parameters.iter().find(|(given, _)| *given == name).map(|(_, value)| *value);
        known(parameters)?;
        self.write(id, parameter("version"), parameter("version_type"), None)
    }

    fn write(&mut self, id: &str, version: Option<&str>, kind: Option<&str>, source: Option<Value>) -> Asked {
        let version: i64 =
            version.and_then(|version| version.parse().ok()).filter(|version| *version >= 0).ok_or_else(|| {
                error(400, "action_request_validation_exception", format!("illegal version value {version:?}"))
            })?;
        if let Some(source) = &source {
            reject::document(&self.mappings, source)?;
        }
        let there = self.documents.get(id);
        let conflict = match kind {
            Some("external") => there.is_some_and(|(known, _)| *known >= version),
            Some("external_gte") => there.is_some_and(|(known, _)| *known > version),
            _ => return Err(error(400, "illegal_argument_exception", format!("version type {kind:?}"))),
        };
        if conflict {
            return Err(error(409, "version_conflict_engine_exception", format!("[{id}]: version conflict")));
        }
        let was_there = there.is_some_and(|(_, source)| source.is_some());
        let (status, result) = match (&source, was_there) {
            (Some(_), false) => (201, "created"),
            (Some(_), true) => (200, "updated"),
            (None, true) => (200, "deleted"),
            (None, false) => (404, "not_found"),
        };
        self.documents.insert(id.to_owned(), (version, source));
        Ok((status, json!({ "_id": id, "result": result, "_version": version })))
    }

    pub fn bulk(&mut self, body: &str, parameters: &[(&str, &str)], half: Option<u16>) -> Asked {
        known(parameters)?;
        let malformed = |reason: &str| error(400, "illegal_argument_exception", reason);
        if !body.ends_with('\n') {
            return Err(malformed("The bulk request must be terminated by a newline [\\n]"));
        }
        let (mut lines, mut items, mut errors) = (body.lines(), Vec::new(), false);
        while let Some(line) = lines.next() {
            let action = json_of(line)?;
            let entries: Vec<_> =
                action.as_object().ok_or_else(|| malformed("Malformed action/metadata line"))?.iter().collect();
            let [(verb, meta)] = &*entries else { return Err(malformed("Malformed action/metadata line")) };
            reject::keys(meta, &["_index", "_id", "version", "version_type", "routing"], "action/metadata line")?;
            let source = match verb.as_str() {
                "index" => Some(json_of(lines.next().ok_or_else(|| malformed("no source line"))?)?),
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

    pub fn search(&mut self, body: &str) -> Asked {
        let body = json_of(body)?;
        reject::search(&body)?;
        let after = body["search_after"][0].as_i64();
        let mut found: Vec<(i64, i64, &Value)> = Vec::new();
        for source in self.documents.values().filter_map(|(_, source)| source.as_ref()) {
            let (score, id) = (score(&body["query"], source), source["id"].as_i64().unwrap());
            if score > 0 && after.is_none_or(|after| id > after) {
                found.push((score, id, source));
            }
        }
        found.sort_by_key(|(score, id, _)| (-score, *id));
        let total = found.len();
        let query = body["query"]["bool"]["should"][0]["multi_match"]["query"].as_str().unwrap_or_default();
        let hits: Vec<Value> = found
            .iter()
            .take(usize::try_from(body["size"].as_u64().unwrap_or(10)).unwrap())
            .map(|(score, id, source)| {
                let mut hit = json!({ "_id": id.to_string(), "_score": score, "_source": source });
                for field in ["title", "description"] {
                    let text = source[field].as_str().unwrap_or_default();
                    let marked = marked(text, query);
                    if body.get("highlight").is_some() && marked.contains("<em>") {
                        hit["highlight"][field] = json!([marked]);
                    }
                }
                hit
            })
            .collect();
        let mut hits = json!({ "hits": hits });
        if body["track_total_hits"] != false {
            hits["total"] = json!({ "value": total, "relation": "eq" });
        }
        Ok((200, json!({ "took": 1, "timed_out": false, "hits": hits })))
    }
}

fn known(parameters: &[(&str, &str)]) -> Result<(), Answer> {
    let unknown = parameters.iter().find(|(name, _)| !["version", "version_type", "require_alias"].contains(name));
    match unknown {
        Some((name, _)) => Err(error(400, "illegal_argument_exception", format!("unrecognized parameter: [{name}]"))),
        None => Ok(()),
    }
}

fn json_of(text: &str) -> Result<Value, Answer> {
    serde_json::from_str(text).map_err(|why| error(400, "json_parse_exception", why.to_string()))
}

fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

/// Zero for no match; a whole number otherwise, larger for a better one.
fn score(query: &Value, source: &Value) -> i64 {
    if query.get("match_all").is_some() {
        return 1;
    }
    if let Some(clauses) = query["bool"]["should"].as_array() {
        return clauses.iter().map(|clause| score(clause, source)).sum();
    }
    let query = &query["multi_match"];
    let asked = words(query["query"].as_str().unwrap());
    let text = |field: &str| words(source[field].as_str().unwrap_or_default());
    let (title, description) = (text("title"), text("description"));
    let boost = query["boost"].as_i64().unwrap_or(1);
    let (fuzzy, prefix) = (query["fuzziness"] == "AUTO", query["type"] == "bool_prefix");
    let all = |field: &[String]| {
        let hit = |at: usize, word: &String| {
            field.iter().any(|own| {
                own == word
                    || (prefix && at + 1 == asked.len() && own.starts_with(&**word))
                    || (fuzzy && near(own, word))
            })
        };
        !asked.is_empty() && asked.iter().enumerate().all(|(at, word)| hit(at, word))
    };
    match query["type"].as_str() {
        _ if all(&title) => 3 * boost,
        Some("cross_fields") if all(&[title, description.clone()].concat()) => boost,
        Some("cross_fields") => 0,
        _ if all(&description) => boost,
        _ => 0,
    }
}

/// One wrong letter, or two that changed places.
fn near(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let same = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[same..], &b[same..]);
    let rest = |of: &[char], from: usize| of.get(from..).map(<[char]>::to_vec);
    let swapped = a.len() > 1 && b.len() > 1 && a[0] == b[1] && a[1] == b[0] && rest(a, 2) == rest(b, 2);
    let lost = rest(a, 1).is_some_and(|a| a == b) || rest(b, 1).is_some_and(|b| a == b);
    swapped || lost || (!a.is_empty() && rest(a, 1) == rest(b, 1))
}

fn marked(text: &str, query: &str) -> String {
    let asked = words(query);
    let escaped = |text: &str| {
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        text.replace('"', "&quot;").replace('\'', "&#x27;").replace('/', "&#x2F;")
    };
    let is_hit = |word: &str| {
        let word = word.to_lowercase();
        asked.iter().any(|own| own == &word || near(own, &word))
            || asked.last().is_some_and(|own| word.starts_with(&**own))
    };
    let mut html = String::new();
    for piece in text.split_inclusive(|c: char| !c.is_alphanumeric()) {
        let word = piece.trim_end_matches(|c: char| !c.is_alphanumeric());
        let end = escaped(&piece[word.len()..]);
        html +=
            &if !word.is_empty() && is_hit(word) { format!("<em>{word}</em>{end}") } else { format!("{word}{end}") };
    }
    html
}
