//! The indexes of the fake Elasticsearch: names, aliases and versioned documents.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{FakeResponse, FakeResult, error, validate};

/// Version and source by id. A removed document keeps its version.
pub(crate) type Documents = BTreeMap<String, (i64, Option<Value>)>;
/// The parameters of a request.
pub(super) type Parameters<'a> = [(&'a str, &'a str)];

#[derive(Debug, Default)]
pub(crate) struct Indexes(Vec<Index>);

#[derive(Debug, Default)]
pub(super) struct Index {
    name: String,
    alias: Option<String>,
    pub mappings: Value,
    pub documents: Documents,
}

/// The version of a write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Version {
    number: i64,
    replaces_equal: bool,
}

impl Indexes {
    /// The documents of the only index.
    pub(crate) fn documents(&self) -> &Documents {
        assert_eq!(self.0.len(), 1, "indexes");
        &self.0[0].documents
    }

    pub(super) fn has_index(&self, name: &str) -> bool {
        self.0.iter().any(|index| index.name == name)
    }

    pub(super) fn has_alias(&self, name: &str) -> bool {
        self.0.iter().any(|index| index.alias.as_deref() == Some(name))
    }

    /// The index with this name or alias.
    pub(super) fn find(&mut self, name: &str) -> Result<&mut Index, FakeResponse> {
        let found = self.0.iter_mut().find(|index| index.name == name || index.alias.as_deref() == Some(name));
        found.ok_or_else(|| error(404, "index_not_found_exception", format!("no such index [{name}]")))
    }

    pub(super) fn create(&mut self, name: &str, body: &str) -> FakeResult {
        let body = parse_json(body, "parse_exception")?;
        validate::index(&body)?;
        let alias = body["aliases"].as_object().and_then(|aliases| aliases.keys().next()).cloned();
        if self.has_index(name) {
            return Err(error(400, "resource_already_exists_exception", format!("index [{name}] already exists")));
        }
        if self.has_alias(name) {
            return Err(error(400, "invalid_index_name_exception", format!("[{name}] already exists as alias")));
        }
        if let Some(alias) = alias.as_deref().filter(|alias| self.has_index(alias)) {
            return Err(error(400, "invalid_alias_name_exception", format!("an index has the name [{alias}]")));
        }
        let mappings = body["mappings"].clone();
        self.0.push(Index { name: name.into(), alias, mappings, documents: BTreeMap::new() });
        Ok((200, json!({ "acknowledged": true, "index": name })))
    }

    pub(super) fn delete(&mut self, name: &str) -> FakeResult {
        if self.has_alias(name) {
            return Err(error(400, "illegal_argument_exception", format!("[{name}] matches an alias")));
        }
        self.find(name)?;
        self.0.retain(|index| index.name != name);
        Ok((200, json!({ "acknowledged": true })))
    }

    pub(super) fn put_alias(&mut self, name: &str, alias: &str) -> FakeResult {
        let is_taken = self.has_index(alias);
        let index = self.find(name)?;
        if is_taken {
            return Err(error(400, "invalid_alias_name_exception", format!("an index has the name [{alias}]")));
        }
        index.alias = Some(alias.into());
        Ok((200, json!({ "acknowledged": true })))
    }

    pub(super) fn delete_alias(&mut self, name: &str, alias: &str) -> FakeResult {
        let found = self.find(name)?;
        if found.alias.as_deref() != Some(alias) {
            return Err(error(404, "aliases_not_found_exception", format!("aliases [{alias}] missing")));
        }
        found.alias = None;
        Ok((200, json!({ "acknowledged": true })))
    }

    pub(super) fn put(&mut self, name: &str, id: &str, parameters: &Parameters, body: &str) -> FakeResult {
        check_parameters(parameters, &["version", "version_type", "require_alias"])?;
        let version = Version::of(parameters)?;
        self.find_for_document(name, parameters)?.put(id, version, body)
    }

    pub(super) fn remove(&mut self, name: &str, id: &str, parameters: &Parameters) -> FakeResult {
        check_parameters(parameters, &["version", "version_type"])?;
        let version = Version::of(parameters)?;
        self.find_for_removal(name).remove(id, version)
    }

    pub(super) fn find_for_document(
        &mut self,
        name: &str,
        parameters: &Parameters,
    ) -> Result<&mut Index, FakeResponse> {
        if parameters.contains(&("require_alias", "true")) && !self.has_alias(name) {
            let reason = format!("[require_alias] request flag is [true] and [{name}] is not an alias");
            return Err(error(404, "index_not_found_exception", reason));
        }
        self.find(name)
    }

    /// A removal with an external version creates the index, to store the version there.
    pub(super) fn find_for_removal(&mut self, name: &str) -> &mut Index {
        if !self.has_index(name) && !self.has_alias(name) {
            self.0.push(Index { name: name.into(), ..Index::default() });
        }
        self.find(name).expect("the index was created")
    }
}

impl Index {
    pub(super) fn put(&mut self, id: &str, version: Version, source: &str) -> FakeResult {
        let kind = if source.is_empty() { "parse_exception" } else { "mapper_parsing_exception" };
        let source = parse_json(source, kind)?;
        validate::document(&self.mappings, &source)?;
        self.write(id, version, Some(source))
    }

    pub(super) fn remove(&mut self, id: &str, version: Version) -> FakeResult {
        self.write(id, version, None)
    }

    fn write(&mut self, id: &str, version: Version, source: Option<Value>) -> FakeResult {
        let stored = self.documents.get(id);
        let is_older = |known: i64| known > version.number || (known == version.number && !version.replaces_equal);
        if stored.is_some_and(|(known, _)| is_older(*known)) {
            return Err(error(409, "version_conflict_engine_exception", format!("[{id}]: version conflict")));
        }
        let existed = stored.is_some_and(|(_, source)| source.is_some());
        let (status, result) = match (&source, existed) {
            (Some(_), false) => (201, "created"),
            (Some(_), true) => (200, "updated"),
            (None, true) => (200, "deleted"),
            (None, false) => (404, "not_found"),
        };
        self.documents.insert(id.to_owned(), (version.number, source));
        Ok((status, json!({ "_index": self.name, "_id": id, "result": result, "_version": version.number })))
    }
}

impl Version {
    fn of(parameters: &Parameters) -> Result<Self, FakeResponse> {
        let parameter = |name: &str| parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        Self::parse(parameter("version").and_then(|version| version.parse().ok()), parameter("version_type"))
    }

    /// Only external versions are imitated. Any other type of version is refused, as a real server refuses it for a write.
    pub(super) fn parse(number: Option<i64>, kind: Option<&str>) -> Result<Self, FakeResponse> {
        match (number.filter(|number| *number >= 0), kind) {
            (Some(number), Some(kind @ ("external" | "external_gte"))) => {
                Ok(Self { number, replaces_equal: kind == "external_gte" })
            }
            _ => Err(error(400, "action_request_validation_exception", format!("version {number:?} of type {kind:?}"))),
        }
    }
}

pub(super) fn check_parameters(parameters: &Parameters, known: &[&str]) -> Result<(), FakeResponse> {
    match parameters.iter().find(|(name, _)| !known.contains(name)) {
        Some((name, _)) => Err(error(400, "illegal_argument_exception", format!("unrecognized parameter: [{name}]"))),
        None => Ok(()),
    }
}

/// Parses JSON. Each request has its own type of error for malformed JSON.
pub(super) fn parse_json(text: &str, kind: &str) -> Result<Value, FakeResponse> {
    serde_json::from_str(text).map_err(|reason| error(400, kind, reason.to_string()))
}
