//! Search for items: documents in PostgreSQL always, in Elasticsearch as well when there is one.
//!
//! | file | what |
//! |---|---|
//! | [`model`] | what is searched and found |
//! | [`config`] | who is asked, and who instead |
//! | [`postgres`], `store` | full text, prefixes and typos in PostgreSQL; all SQL |
//! | `analysis` | the words of a document, the same for both |
//! | `words`, `highlight` | the words of a search; what of a document is shown |
//! | [`elasticsearch`] | the same on Elasticsearch 8 and 9 and OpenSearch |
//! | [`searcher`] | what the rest of the system uses: both, and the fallback |
//! | [`reindex`] | everything anew, while serving |

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
pub use model::{COUNTED, Document, Found, Hit};
pub use postgres::Postgres;
pub use searcher::Searcher;

use crate::error::Error;

/// Something that finds items.
///
/// Writes are ordered by the item's version, whatever order they arrive in: an older document never replaces a newer
/// one or comes back after a newer removal. Of one version, the removal is the newer.
pub trait Search: Send + Sync {
    /// Has a document be found, unless a newer one, or its removal, is there.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it cannot be written now.
    fn put(&self, document: Document) -> impl Future<Output = Result<(), Error>> + Send;

    /// Has a document not be found any more, unless a newer one is there.
    ///
    /// # Errors
    /// As [`Search::put`].
    fn remove(&self, id: i64, version: i64) -> impl Future<Output = Result<(), Error>> + Send;

    /// At most `limit` documents: first those whose title is the search, then those with all its words, then those with
    /// the last word begun, then those with nearly these words. In each group matches in the title come first, then
    /// shorter titles, then smaller ids.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when nothing can be asked now.
    fn search(&self, query: &str, limit: u32) -> impl Future<Output = Result<Found, Error>> + Send;
}
