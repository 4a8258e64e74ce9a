//! Search in Elasticsearch 8 and 9 and OpenSearch, as JSON over HTTP.

mod bulk;
mod request;
mod transport;

use std::sync::Arc;

pub use bulk::Write;
pub use request::ALIAS;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;

use self::transport::{Response, Transport};
use super::{
    Search,
    config::Server,
    highlight::hit,
    model::{Document, ENOUGH_MATCHES, SearchResults},
    words::Terms,
};
use runtime::error::Error;

/// The index. A new mapping gets a new number here and in the alias, so that processes of two releases can run at the
/// same time. [`super::reindex`] fills the new index.
pub const INDEX: &str = "millrace-items-2";
/// The reason of an error.
const MISSING_INDEX: &str = "the index or its alias was deleted; the next write creates it";

/// A client of one server. Clones share everything.
#[derive(Debug, Clone)]
pub struct Elasticsearch {
    transport: Transport,
    /// Whether the index existed at the last check.
    is_prepared: Arc<Mutex<bool>>,
}

impl Elasticsearch {
    /// Prepares a client of this server. It connects at the first call.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn new(server: &Server) -> Result<Self, Error> {
        Ok(Self { transport: Transport::new(server)?, is_prepared: Arc::default() })
    }

    /// The health of the cluster: `green`, `yellow` or `red`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when Elasticsearch is not available.
    pub async fn health(&self) -> Result<String, Error> {
        let response = self.transport.send_json(Method::GET, "_cluster/health", None).await?;
        match (response.status, response.body["status"].as_str()) {
            (StatusCode::OK, Some(status)) => Ok(status.to_owned()),
            _ => Err(response.to_error("get its health")),
        }
    }

    /// Makes all writes so far visible to searches.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when Elasticsearch is not available.
    pub async fn refresh(&self) -> Result<(), Error> {
        let response = self.transport.send_json(Method::POST, &format!("{ALIAS}/_refresh"), None).await?;
        if response.status.is_success() { Ok(()) } else { Err(response.to_error("refresh the index")) }
    }

    /// Creates the index with its alias unless they exist.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when Elasticsearch is not available.
    pub async fn prepare(&self) -> Result<(), Error> {
        let mut is_prepared = self.is_prepared.lock().await;
        if *is_prepared {
            return Ok(());
        }
        // An index could have the name of the alias, so this must ask for the alias.
        let response = self.transport.send_json(Method::HEAD, &format!("_alias/{ALIAS}"), None).await?;
        if response.status == StatusCode::NOT_FOUND {
            self.create_index().await?;
        } else if !response.status.is_success() {
            return Err(response.to_error("find the index"));
        }
        *is_prepared = true;
        Ok(())
    }

    async fn create_index(&self) -> Result<(), Error> {
        let mut response = self.put_index_or_alias().await?;
        if response.error_type() == "invalid_alias_name_exception" {
            // An index has the name of the alias: see `note_missing_index`. It has no documents, since writes require an
            // alias. Elasticsearch refuses this request with 400 if the name is an alias, so it never deletes our index.
            let deleted = self.transport.send_json(Method::DELETE, ALIAS, None).await?;
            // Another process may have been faster.
            let is_gone = matches!(deleted.status, StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST);
            if !deleted.status.is_success() && !is_gone {
                return Err(deleted.to_error("delete the index that has the name of the alias"));
            }
            response = self.put_index_or_alias().await?;
        }
        if response.status.is_success() { Ok(()) } else { Err(response.to_error("create the index")) }
    }

    async fn put_index_or_alias(&self) -> Result<Response, Error> {
        let response = self.transport.send_json(Method::PUT, INDEX, Some(&request::index())).await?;
        if response.error_type() != "resource_already_exists_exception" {
            return Ok(response);
        }
        // Another process created it first, with the alias. Or an operator removed the alias.
        self.transport.send_json(Method::PUT, &format!("{INDEX}/_alias/{ALIAS}"), None).await
    }

    /// Whether the result of a write shows that the index or its alias does not exist. Then the next write prepares it.
    ///
    /// A write of a document fails. A removal with an external version finds no document, but creates an index with the
    /// name of the alias and a guessed mapping. No parameter prevents that.
    async fn note_missing_index(&self, status: u16, result: &Value) -> bool {
        let is_missing = status == 404 && (result["result"] != "not_found" || result["_index"] == ALIAS);
        if is_missing {
            *self.is_prepared.lock().await = false;
        }
        is_missing
    }

    /// A page of the ids and versions of the documents after `id`, by id.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when Elasticsearch is not available.
    pub async fn documents_after(&self, id: i64, limit: i64) -> Result<Vec<(i64, i64)>, Error> {
        let body = request::page(id, limit);
        let response = self.transport.send_json(Method::POST, &format!("{ALIAS}/_search"), Some(&body)).await?;
        let page: Page<Key> = response.parse("read a page of documents")?;
        Ok(page.hits.hits.into_iter().map(|hit| (hit.source.id, hit.source.version)).collect())
    }

    /// Finds the best `limit` documents. Documents that match only with corrected words are found if `corrects` is set.
    async fn find(&self, terms: &Terms, limit: u32, corrects: bool) -> Result<Hits<Document>, Error> {
        let body = request::search(terms, limit, corrects);
        let response = self.transport.send_json(Method::POST, &format!("{ALIAS}/_search"), Some(&body)).await?;
        let page: Page<Document> = response.parse("search")?;
        Ok(page.hits)
    }

    /// Checks the response to a write of one document.
    async fn check_write(&self, response: Response, operation: &str) -> Result<(), Error> {
        if self.note_missing_index(response.status.as_u16(), &response.body).await {
            return Err(Error::Unavailable(format!("Elasticsearch: could not {operation}: {MISSING_INDEX}")));
        }
        match response.status {
            status if status.is_success() => Ok(()),
            // A newer document is stored, or the document to remove does not exist: there is nothing to write.
            StatusCode::CONFLICT | StatusCode::NOT_FOUND => Ok(()),
            _ => Err(response.to_error(operation)),
        }
    }
}

impl Search for Elasticsearch {
    async fn upsert(&self, document: Document) -> Result<(), Error> {
        self.prepare().await?;
        let (id, version) = (document.id, document.version);
        let path = format!("{ALIAS}/_doc/{id}?version={version}&version_type=external&require_alias=true");
        let body = request::document(&document)?;
        let response = self.transport.send_json(Method::PUT, &path, Some(&body)).await?;
        self.check_write(response, "write a document").await
    }

    async fn remove(&self, id: i64, version: i64) -> Result<(), Error> {
        self.prepare().await?;
        // `external_gte`: at equal versions the removal wins.
        let path = format!("{ALIAS}/_doc/{id}?version={version}&version_type=external_gte");
        let response = self.transport.send_json(Method::DELETE, &path, None).await?;
        self.check_write(response, "remove a document").await
    }

    async fn search(&self, query: &str, limit: u32) -> Result<SearchResults, Error> {
        let terms = Terms::parse(query);
        if terms.is_empty() {
            return Ok(SearchResults::default());
        }
        let mut found = self.find(&terms, limit, false).await?;
        // As in PostgreSQL. A frequent word needs no fuzzy query, which costs most.
        if found.total() < ENOUGH_MATCHES && !terms.correctable().is_empty() {
            found = self.find(&terms, limit, true).await?;
        }
        let total = found.total();
        let hits = found.hits.into_iter().map(|Source { source }| hit(source, &terms));
        Ok(SearchResults { total, hits: hits.collect() })
    }
}

#[derive(Deserialize)]
struct Page<S> {
    hits: Hits<S>,
}

#[derive(Deserialize)]
struct Hits<S> {
    total: Option<Total>,
    hits: Vec<Source<S>>,
}

impl<S> Hits<S> {
    fn total(&self) -> i64 {
        self.total.as_ref().map_or(0, |total| total.value)
    }
}

#[derive(Deserialize)]
struct Total {
    value: i64,
}

#[derive(Deserialize)]
struct Source<S> {
    #[serde(rename = "_source")]
    source: S,
}

#[derive(Deserialize)]
struct Key {
    id: i64,
    version: i64,
}
