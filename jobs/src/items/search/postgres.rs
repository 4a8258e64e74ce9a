//! Search in PostgreSQL: full text first, and while few match as it was typed, the words that were meant.

use sqlx::PgPool;

use super::{
    Search,
    highlight::highlight,
    model::{COUNTED, Document, Found, Hit},
    store::{self, Equal, Sought},
    words::{Field, Match, Terms, corrections},
};
use crate::{boot::db::answered, error::Error};

/// Misspelt words are looked for while fewer match as it was typed: as many as the longest page shows, so that neither
/// the total nor the order depends on the page that is asked for.
const ENOUGH: i64 = 100;

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

    /// What matches with the words that were meant, and only with them.
    async fn find_misspelt(&self, terms: &Terms, sought: &Sought, limit: u32) -> Result<store::Found, Error> {
        let correctable = terms.correctable();
        if correctable.is_empty() {
            return Ok(store::Found::default());
        }
        let corrections = corrections(&answered(store::resembling(&self.pool, &correctable)).await?);
        if corrections.is_empty() {
            return Ok(store::Found::default());
        }
        let meant = both(terms, Match::Meant(&corrections));
        answered(store::find_misspelt(&self.pool, &meant, sought, limit)).await
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
        if terms.is_empty() {
            return Ok(Found::default());
        }
        let sought = Sought {
            key: terms.key().to_owned(),
            whole: both(&terms, Match::Whole),
            begun: terms.is_begun().then(|| both(&terms, Match::Begun)),
        };
        let store::Found { mut total, mut documents } = answered(store::find(&self.pool, &sought, limit)).await?;
        if total < ENOUGH {
            let misspelt = self.find_misspelt(&terms, &sought, limit).await?;
            total = COUNTED.min(total + misspelt.total);
            documents.extend(misspelt.documents);
            documents.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        }
        let hit = |document: Document| Hit { highlight: highlight(&document, &terms), document };
        Ok(Found { total, hits: documents.into_iter().map(hit).collect() })
    }
}

/// The query for any field, and the same for titles.
fn both(terms: &Terms, how: Match<'_>) -> [String; 2] {
    [Field::Any, Field::Title].map(|field| terms.query(how, field))
}
