//! Full-text search for items: documents are always stored in PostgreSQL, and in Elasticsearch as well if configured.

mod analysis;
pub mod config;
pub mod elasticsearch;
mod highlight;
pub mod model;
pub mod postgres;
pub mod reindex;
pub mod searcher;
mod store;
mod words;

pub use config::{Config, Fallback, Server};
pub use elasticsearch::Elasticsearch;
pub use model::{Document, Hit, MAX_COUNTED, SearchResults};
pub use postgres::Postgres;
pub use searcher::Searcher;

use runtime::error::Error;

/// A search index.
///
/// The item's version orders the writes, not their arrival. An older document never replaces a newer one, and never
/// reappears after a newer removal. At equal versions the removal wins.
pub trait Search: Send + Sync {
    /// Writes a document, unless a newer one or its removal is stored.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the index is not available.
    fn upsert(&self, document: Document) -> impl Future<Output = Result<(), Error>> + Send;

    /// Removes a document, unless a newer one is stored.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the index is not available.
    fn remove(&self, id: i64, version: i64) -> impl Future<Output = Result<(), Error>> + Send;

    /// Returns at most `limit` documents, in this order: the exact title, all words, the last word as a prefix,
    /// misspelt words. In each group matches in the title come first, then shorter titles, then smaller ids.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the index is not available.
    fn search(&self, query: &str, limit: u32) -> impl Future<Output = Result<SearchResults, Error>> + Send;
}
