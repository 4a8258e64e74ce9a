//! Search on Elasticsearch 8 and 9 and OpenSearch: plain JSON over HTTP.

mod bulk;
mod request;
mod transport;

use std::sync::Arc;

pub use bulk::Write;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;

use self::transport::{Answer, Transport};
use super::{
    Search,
    config::Server,
    highlight::highlight,
    model::{Document, Found, Hit},
    words::Terms,
};
use crate::error::Error;

/// The index. A new mapping gets a new number here and in the alias, so that processes of both releases work side by side;
/// what is in the index of before is written to it by [`super::reindex`].
pub const INDEX: &str = "millrace-items-2";
/// What all requests name. Writes require it to be an alias: an index that an operator deleted is not made again by a write,
/// with a mapping that Elasticsearch guesses, but by us.
pub const ALIAS: &str = "millrace-items-v2";

/// One server. Clones share everything.
#[derive(Debug, Clone)]
pub struct Elasticsearch {
    transport: Transport,
    /// Whether the index was there when we last looked.
    prepared: Arc<Mutex<bool>>,
}

impl Elasticsearch {
    /// Talks to this server, from the first call on.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn new(server: &Server) -> Result<Self, Error> {
        Ok(Self { transport: Transport::new(server)?, prepared: Arc::default() })
    }

    /// `green`, `yellow` or `red`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it does not answer.
    pub async fn health(&self) -> Result<String, Error> {
        let answer = self.transport.ask(Method::GET, "_cluster/health", None).await?;
        match (answer.status, answer.body["status"].as_str()) {
            (StatusCode::OK, Some(status)) => Ok(status.to_owned()),
            _ => Err(answer.error("its health")),
        }
    }

    /// Makes what was written so far visible to searches.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it does not answer.
    pub async fn refresh(&self) -> Result<(), Error> {
        let answer = self.transport.ask(Method::POST, &format!("{ALIAS}/_refresh"), None).await?;
        if answer.status.is_success() { Ok(()) } else { Err(answer.error("a refresh")) }
    }

    /// Makes the index unless it is there.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it cannot be made now.
    pub async fn prepare(&self) -> Result<(), Error> {
        let mut prepared = self.prepared.lock().await;
        if *prepared {
            return Ok(());
        }
        let answer = self.transport.ask(Method::HEAD, ALIAS, None).await?;
        if answer.status == StatusCode::NOT_FOUND {
            let made = self.transport.ask(Method::PUT, INDEX, Some(&request::index())).await?;
            // Another process was faster.
            if !made.status.is_success() && made.kind() != "resource_already_exists_exception" {
                return Err(made.error("the index"));
            }
        } else if !answer.status.is_success() {
            return Err(answer.error("the index"));
        }
        *prepared = true;
        Ok(())
    }

    /// Ids and versions of the documents after `id`, by id.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it does not answer.
    pub async fn documents_after(&self, id: i64, limit: i64) -> Result<Vec<(i64, i64)>, Error> {
        let body = request::page(id, limit);
        let answer = self.transport.ask(Method::POST, &format!("{ALIAS}/_search"), Some(&body)).await?;
        let found: Page<Key> = answer.read("a page of documents")?;
        Ok(found.hits.hits.into_iter().map(|hit| (hit.source.id, hit.source.version)).collect())
    }

    /// Judges the answer to the writing of one document.
    async fn written(&self, answer: Answer, what: &str) -> Result<(), Error> {
        match answer.status {
            status if status.is_success() => Ok(()),
            // A newer one is there, which is as it should be.
            StatusCode::CONFLICT => Ok(()),
            StatusCode::NOT_FOUND if answer.body["result"] == "not_found" => Ok(()),
            StatusCode::NOT_FOUND => {
                *self.prepared.lock().await = false;
                Err(Error::Unavailable(format!("Elasticsearch: {what}: the index is gone, to be made again")))
            }
            _ => Err(answer.error(what)),
        }
    }
}

impl Search for Elasticsearch {
    async fn put(&self, document: Document) -> Result<(), Error> {
        self.prepare().await?;
        let (id, version) = (document.id, document.version);
        let path = format!("{ALIAS}/_doc/{id}?version={version}&version_type=external&require_alias=true");
        let body = request::document(&document)?;
        let answer = self.transport.ask(Method::PUT, &path, Some(&body)).await?;
        self.written(answer, "a document").await
    }

    async fn remove(&self, id: i64, version: i64) -> Result<(), Error> {
        self.prepare().await?;
        // Of one version, the removal is the newer.
        let path = format!("{ALIAS}/_doc/{id}?version={version}&version_type=external_gte");
        let answer = self.transport.ask(Method::DELETE, &path, None).await?;
        self.written(answer, "a removal").await
    }

    async fn search(&self, query: &str, limit: u32) -> Result<Found, Error> {
        let terms = Terms::read(query);
        if terms.is_empty() {
            return Ok(Found::default());
        }
        let body = request::search(&terms, limit);
        let answer = self.transport.ask(Method::POST, &format!("{ALIAS}/_search"), Some(&body)).await?;
        let page: Page<Document> = answer.read("a search")?;
        let hit = |Source { source }: Source<Document>| Hit { highlight: highlight(&source, &terms), document: source };
        let hits = page.hits.hits.into_iter().map(hit);
        Ok(Found { total: page.hits.total.map_or(0, |total| total.value), hits: hits.collect() })
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
