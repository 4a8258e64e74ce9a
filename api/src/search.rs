//! The search endpoint: what somebody types, and the items that it finds.

use std::ops::RangeInclusive;

use jobs::{
    items::search::{self, Searcher},
    text::is_blank,
};
use poem_openapi::{ApiResponse, Object, OpenApi, registry::MetaSchema};
use serde::Serialize;

use crate::{
    problem::{Fails, Problem, Statuses},
    tags::Tag,
    validation::{FieldError, Limit, Query, QueryValue, VISIBLE},
    wire::{Json, Nullable, Timestamp},
};

/// How many characters a search has.
const LENGTH: RangeInclusive<usize> = 1..=200;

/// The search endpoint.
#[derive(Clone)]
pub struct SearchApi {
    /// Finds items.
    pub search: Searcher,
}

/// What was found.
#[derive(Object, Serialize)]
struct Results {
    /// What was searched for, free of outer blanks.
    query: String,
    /// How many items match, those beyond the limit included; counted up to 5,000.
    total: i64,
    /// The best ones, best first.
    items: Vec<FoundItem>,
}

/// An item that was found.
#[derive(Object, Serialize)]
struct FoundItem {
    id: i64,
    /// What it is.
    title: String,
    /// More about it.
    description: Nullable<String>,
    /// What it costs, in hundredths.
    price_cents: Nullable<i64>,
    /// Whose it is.
    owner_id: i64,
    /// When it was created.
    created_at: Timestamp,
    /// When it was last changed.
    updated_at: Timestamp,
    /// Where it matches, as HTML: everything is escaped but the `<em>` around what was searched for.
    highlight: String,
}

impl From<search::Hit> for FoundItem {
    fn from(search::Hit { document, highlight }: search::Hit) -> Self {
        Self {
            id: document.id,
            title: document.title,
            description: Nullable(document.description),
            price_cents: Nullable(document.price_cents),
            owner_id: document.owner_id,
            created_at: Timestamp(document.created_at),
            updated_at: Timestamp(document.updated_at),
            highlight,
        }
    }
}

/// What somebody typed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Text(String);

impl QueryValue for Text {
    const REQUIRED: bool = true;

    fn schema() -> MetaSchema {
        MetaSchema {
            pattern: Some(VISIBLE.into()),
            max_length: Some(*LENGTH.end()),
            example: Some("wireless keyb".into()),
            ..MetaSchema::new("string")
        }
    }

    fn read(text: &str) -> Result<Self, FieldError> {
        if is_blank(text) {
            return Err(FieldError::too_short(*LENGTH.start()));
        }
        if text.chars().count() > *LENGTH.end() {
            return Err(FieldError::too_long(*LENGTH.end()));
        }
        Ok(Self(text.to_owned()))
    }
}

#[derive(ApiResponse)]
enum Searched {
    /// What was found, be it nothing.
    #[oai(status = 200)]
    Ok(Json<Results>),
}

#[derive(Debug)]
struct Searching;

impl Statuses for Searching {
    const ALL: &'static [u16] = &[422, 503];
}

#[OpenApi(tag = "Tag::Search")]
impl SearchApi {
    /// Search items
    ///
    /// Finds the items that have all the words, in title or description. Words end at everything that is no letter, mark
    /// or digit; capital letters, accents and width make no difference; there are no operators. In Chinese, Japanese,
    /// Korean, Thai, Lao, Khmer and Burmese any part of a text is found.
    ///
    /// First the item whose title is the search, then those with all the words, then those in which the last word is
    /// only the beginning of one, then, if fewer than a hundred items match, those with one wrong letter in a word, or
    /// two in longer ones. Within each group, matches in the title come first, and shorter titles before longer ones. A
    /// change of an item is found shortly after it was answered.
    #[oai(path = "/api/v1/search/items", method = "get", operation_id = "search_items")]
    async fn search(
        &self,
        /// What to search for.
        q: Query<Text>,
        /// How many at most.
        limit: Query<Limit>,
    ) -> Result<Searched, Fails<Searching>> {
        let mut errors = Vec::new();
        let text = q.value_or_record(&mut errors);
        if text.is_none() && errors.is_empty() {
            errors.push(FieldError::missing().at("query", "q", None));
        }
        let limit = limit.value_or_record(&mut errors).unwrap_or(Limit::DEFAULT);
        let Some(Text(query)) = text.filter(|_| errors.is_empty()) else { return Err(Problem::invalid(errors).into()) };
        let found = self.search.search(&query, limit.0.into()).await?;
        let items = found.hits.into_iter().map(FoundItem::from).collect();
        Ok(Searched::Ok(Json::new(&Results { query, total: found.total, items })?))
    }
}
