//! Search in PostgreSQL: full text first, then corrections of misspelt words if there are few matches.

use super::{
    Search,
    highlight::hit,
    model::{Document, ENOUGH_MATCHES, MAX_COUNTED, SearchResults},
    store::{self, Matches, SameVersion, TextQuery},
    words::{Field, Match, Terms, corrections},
};
use runtime::{db::Pool, error::Error};

/// How many of the trigrams of two words must agree, for one to be compared with the other as its correction.
const SIMILAR: &str = "0.3";
/// The same for a query without any match. Two wrong letters leave few trigrams: with 0.3, two thirds of such words have
/// corrections, with this nine in ten. It takes three times as long.
const HARDLY_SIMILAR: &str = "0.15";

/// The search index in PostgreSQL.
#[derive(Debug, Clone)]
pub struct Postgres {
    pub(super) pool: Pool,
}

impl Postgres {
    /// Searches in this database.
    pub fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// The documents that match only with corrected words. `matches` is how many match as it was typed.
    async fn find_misspelt(
        &self,
        terms: &Terms,
        query: &TextQuery,
        matches: i64,
        limit: u32,
    ) -> Result<Matches, Error> {
        let correctable = terms.correctable();
        if correctable.is_empty() {
            return Ok(Matches::default());
        }
        let threshold = if matches == 0 { HARDLY_SIMILAR } else { SIMILAR };
        let corrections = corrections(&store::find_similar_words(&self.pool, &correctable, threshold).await?);
        if corrections.is_empty() {
            return Ok(Matches::default());
        }
        let corrected = field_queries(terms, Match::Corrected(&corrections));
        store::find_misspelt(&self.pool, &corrected, query, limit).await
    }
}

impl Search for Postgres {
    async fn upsert(&self, document: Document) -> Result<(), Error> {
        store::upsert(&self.pool, &[document], SameVersion::Keep).await
    }

    async fn remove(&self, id: i64, version: i64) -> Result<(), Error> {
        store::remove(&self.pool, id, version).await
    }

    async fn search(&self, query: &str, limit: u32) -> Result<SearchResults, Error> {
        let terms = Terms::parse(query);
        if terms.is_empty() {
            return Ok(SearchResults::default());
        }
        let query = TextQuery {
            title_key: terms.title_key().to_owned(),
            whole: terms.tsquery(Match::Whole, Field::Any),
            prefix: terms.has_prefix.then(|| field_queries(&terms, Match::Prefix)),
        };
        let Matches { mut total, mut documents } = store::find(&self.pool, &query, limit).await?;
        if total < ENOUGH_MATCHES {
            let misspelt = self.find_misspelt(&terms, &query, total, limit).await?;
            total = MAX_COUNTED.min(total + misspelt.total);
            documents.extend(misspelt.documents);
            documents.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        }
        Ok(SearchResults { total, hits: documents.into_iter().map(|document| hit(document, &terms)).collect() })
    }
}

/// The `tsquery` for any field, and the one for titles.
fn field_queries(terms: &Terms, how: Match<'_>) -> [String; 2] {
    [Field::Any, Field::Title].map(|field| terms.tsquery(how, field))
}
