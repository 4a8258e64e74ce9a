//! What the rest of the system searches with: Elasticsearch when there is one, PostgreSQL otherwise and meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::PgPool;

use super::{
    Search,
    config::{Config, Fallback},
    elasticsearch::Elasticsearch,
    model::{Document, Found},
    postgres::Postgres,
    store,
};
use crate::{boot::db::answered, error::Error, remote::breaker::Breaker};

/// After a failure Elasticsearch is left alone for this long, and then asked by one search at a time.
const PAUSE: Duration = Duration::from_secs(5);

/// The configured search. Clones share everything.
#[derive(Debug, Clone)]
pub struct Searcher {
    pub(super) postgres: Postgres,
    pub(super) elasticsearch: Option<Elasticsearch>,
    fallback: Fallback,
    breaker: Arc<Breaker>,
    /// Whether everything that an earlier release indexed has been indexed anew.
    is_complete: Arc<AtomicBool>,
}

impl Searcher {
    /// Starts it. Elasticsearch is not asked yet: it may come later.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn start(pool: &PgPool, config: &Config) -> Result<Self, Error> {
        Ok(Self {
            postgres: Postgres::new(pool.clone()),
            elasticsearch: config.elasticsearch.as_ref().map(Elasticsearch::new).transpose()?,
            fallback: config.fallback,
            breaker: Arc::new(Breaker::new(PAUSE)),
            is_complete: Arc::default(),
        })
    }

    /// Has a document be found everywhere; a job tries again until that is so.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when one of both cannot take it now; PostgreSQL then has it nonetheless, if it can.
    pub async fn index(&self, document: Document) -> Result<(), Error> {
        self.postgres.put(document.clone()).await?;
        match &self.elasticsearch {
            Some(elasticsearch) => elasticsearch.put(document).await,
            None => Ok(()),
        }
    }

    /// Has a document be found nowhere any more.
    ///
    /// # Errors
    /// As [`Searcher::index`].
    pub async fn remove(&self, id: i64, version: i64) -> Result<(), Error> {
        self.postgres.remove(id, version).await?;
        match &self.elasticsearch {
            Some(elasticsearch) => elasticsearch.remove(id, version).await,
            None => Ok(()),
        }
    }

    /// Searches as [`Search::search`] says.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when Elasticsearch is down and nobody may answer instead, or PostgreSQL cannot either.
    pub async fn search(&self, query: &str, limit: u32) -> Result<Found, Error> {
        let Some(elasticsearch) = &self.elasticsearch else { return self.postgres.search(query, limit).await };
        // After an update its index is new, and PostgreSQL has more.
        if self.fallback == Fallback::Postgres && !self.is_complete().await {
            return self.postgres.search(query, limit).await;
        }
        let failed = if self.breaker.allows() {
            match elasticsearch.search(query, limit).await {
                Ok(found) => {
                    if self.breaker.record_success() {
                        tracing::info!("Elasticsearch answers searches again");
                    }
                    return Ok(found);
                }
                Err(error) => {
                    if self.breaker.record_failure() {
                        tracing::warn!(%error, fallback = ?self.fallback, "Elasticsearch does not answer searches");
                    }
                    error
                }
            }
        } else {
            Error::Unavailable("Elasticsearch did not answer a moment ago".into())
        };
        match self.fallback {
            Fallback::Postgres => self.postgres.search(query, limit).await,
            // Whatever it was: it may pass, and a search changes nothing.
            Fallback::None => Err(Error::Unavailable(failed.to_string())),
        }
    }

    /// Whether no document waits to be indexed anew. Once that is so it stays so: this release leaves none.
    async fn is_complete(&self) -> bool {
        if self.is_complete.load(Ordering::Relaxed) {
            return true;
        }
        match answered(store::has_stale(&self.postgres.pool)).await {
            Ok(stale) => {
                self.is_complete.store(!stale, Ordering::Relaxed);
                !stale
            }
            // Elasticsearch may still answer, and PostgreSQL cannot.
            Err(_unavailable) => true,
        }
    }
}
