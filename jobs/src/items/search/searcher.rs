//! The configured search: Elasticsearch if there is one, with PostgreSQL as the fallback; otherwise PostgreSQL alone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    Search,
    config::{Config, Fallback},
    elasticsearch::Elasticsearch,
    model::{Document, SearchResults},
    postgres::Postgres,
    store,
};
use runtime::{clients::breaker::Breaker, db::Pool, error::Error};

/// After a failure no search calls Elasticsearch for this long. After each pause one search tries it.
const PAUSE: Duration = Duration::from_secs(5);

/// The configured search. Clones share everything.
#[derive(Debug, Clone)]
pub struct Searcher {
    pub(super) postgres: Postgres,
    pub(super) elasticsearch: Option<Elasticsearch>,
    fallback: Fallback,
    breaker: Arc<Breaker>,
    /// Whether all documents of earlier releases have been reindexed.
    is_complete: Arc<AtomicBool>,
}

impl Searcher {
    /// Prepares the search. It does not call Elasticsearch, which may start later.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn start(pool: &Pool, config: &Config) -> Result<Self, Error> {
        Ok(Self {
            postgres: Postgres::new(pool.clone()),
            elasticsearch: config.elasticsearch.as_ref().map(Elasticsearch::new).transpose()?,
            fallback: config.fallback,
            breaker: Arc::new(Breaker::new(PAUSE)),
            is_complete: Arc::default(),
        })
    }

    /// Writes a document to every index. The caller's job retries until all writes succeed.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when one of the indexes is not available. PostgreSQL is written first and keeps the
    /// document.
    pub async fn index(&self, document: Document) -> Result<(), Error> {
        self.postgres.upsert(document.clone()).await?;
        match &self.elasticsearch {
            Some(elasticsearch) => elasticsearch.upsert(document).await,
            None => Ok(()),
        }
    }

    /// Removes a document from every index.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when one of the indexes is not available.
    pub async fn remove(&self, id: i64, version: i64) -> Result<(), Error> {
        self.postgres.remove(id, version).await?;
        match &self.elasticsearch {
            Some(elasticsearch) => elasticsearch.remove(id, version).await,
            None => Ok(()),
        }
    }

    /// Searches Elasticsearch, or PostgreSQL as its fallback; see [`Search::search`].
    ///
    /// # Errors
    /// [`Error::Unavailable`] when Elasticsearch is down and there is no fallback, or when PostgreSQL is not available.
    pub async fn search(&self, query: &str, limit: u32) -> Result<SearchResults, Error> {
        let Some(elasticsearch) = &self.elasticsearch else { return self.postgres.search(query, limit).await };
        // After an update the new Elasticsearch index is still incomplete, while PostgreSQL has every document.
        if self.fallback == Fallback::Postgres && !self.is_complete().await {
            return self.postgres.search(query, limit).await;
        }
        let failed = if self.breaker.allows() {
            match elasticsearch.search(query, limit).await {
                Ok(results) => {
                    if self.breaker.record_success() {
                        tracing::info!("searches use Elasticsearch again");
                    }
                    return Ok(results);
                }
                Err(error) => {
                    if self.breaker.record_failure() {
                        tracing::warn!(%error, fallback = ?self.fallback, "searches on Elasticsearch fail");
                    }
                    error
                }
            }
        } else {
            Error::Unavailable("Elasticsearch failed a moment ago".into())
        };
        match self.fallback {
            Fallback::Postgres => self.postgres.search(query, limit).await,
            // Any failure counts as temporary: a search changes nothing, so the client may repeat it.
            Fallback::None => Err(Error::Unavailable(failed.to_string())),
        }
    }

    /// Whether no document waits for reindexing. Once true it stays true, because this release writes no stale
    /// documents.
    async fn is_complete(&self) -> bool {
        if self.is_complete.load(Ordering::Relaxed) {
            return true;
        }
        match store::has_stale_documents(&self.postgres.pool).await {
            Ok(stale) => {
                self.is_complete.store(!stale, Ordering::Relaxed);
                !stale
            }
            // PostgreSQL is down, but Elasticsearch may work.
            Err(_unavailable) => true,
        }
    }
}
