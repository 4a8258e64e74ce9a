//! Search in PostgreSQL: full text first, and when nothing matches as it was typed, the words that were meant.

use sqlx::PgPool;

use super::{
    Search,
    highlight::highlight,
    model::{Document, Found, Hit},
    store::{self, Asked, Equal},
    words::{Terms, completes},
};
use crate::{boot::db::answered, error::Error};

/// The documents in PostgreSQL.
#[derive(Debug, Clone)]
pub struct Postgres {
    pub(super) pool: PgPool,
}

impl Postgres {
    /// Searches in this database.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }
}

impl Search for Postgres {
    async fn put(&self, document: Document) -> Result<(), Error> {
        answered(store::put(&self.pool, &[document], Equal::Keep)).await
    }

    async fn remove(&self, id: i64, version: i64) -> Result<(), Error> {
        answered(store::remove(&self.pool, id, version)).await
    }

    async fn search(&self, query: &str, limit: u32) -> Result<Found, Error> {
        let terms = Terms::read(query);
        if terms.words().is_empty() {
            return Ok(Found::default());
        }
        let typed = Asked::Typed { text: query, completes: completes(query) };
        let (total, documents) = answered(store::find(&self.pool, typed, limit)).await?;
        if total > 0 {
            return Ok(shown(total, documents, &terms));
        }
        let known = answered(store::resembling(&self.pool, terms.words())).await?;
        let Some((query, meant)) = terms.corrected(&known) else { return Ok(Found::default()) };
        let (total, documents) = answered(store::find(&self.pool, Asked::Query(&query), limit)).await?;
        Ok(shown(total, documents, &meant))
    }
}

fn shown(total: i64, documents: Vec<Document>, terms: &Terms) -> Found {
    let hit = |document: Document| Hit { highlight: highlight(&document, terms), document };
    Found { total, hits: documents.into_iter().map(hit).collect() }
}
