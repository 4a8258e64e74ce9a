//! The search endpoint: finds items by the words of a query.

use jobs::{
    items::search::{self, Searcher},
    text::is_blank,
};
use poem_openapi::{Object, OpenApi, registry::MetaSchema};
use serde::Serialize;

use crate::{
    context::Context,
    page::Limit,
    problem::{Failure, errors},
    tags::Tag,
    validation::{AllValid, FieldError, Query, QueryValue, VISIBLE_PATTERN},
    wire::{Json, Nullable, Timestamp, responses},
};

/// The highest number of characters in a query.
const MAX_LENGTH: usize = 200;

/// The search endpoint.
#[derive(Clone)]
pub struct SearchApi {
    search: Searcher,
}

impl SearchApi {
    pub(crate) fn new(context: &Context<'_>) -> Self {
        Self { search: context.app.search.clone() }
    }
}

/// The result of a search.
#[derive(Object, Serialize)]
struct Results {
    /// The query without outer blanks.
    query: String,
    /// The number of items that match, including those beyond the limit; counted up to 1,000.
    total: i64,
    /// The best matches, best first.
    items: Vec<FoundItem>,
}

/// An item that matches a query.
#[derive(Object, Serialize)]
struct FoundItem {
    id: i64,
    /// The name of the item.
    title: String,
    /// A longer description.
    description: Nullable<String>,
    /// The price in hundredths of the currency.
    price_cents: Nullable<i64>,
    /// The `id` of the owner.
    owner_id: i64,
    /// The time of its creation.
    created_at: Timestamp,
    /// The time of its last change.
    updated_at: Timestamp,
    /// The matching text as HTML: each match is in `<em>`, everything else is escaped.
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

/// The text of a query.
struct QueryText;

impl QueryValue for QueryText {
    type Out = String;

    fn schema() -> MetaSchema {
        MetaSchema {
            pattern: Some(VISIBLE_PATTERN.into()),
            max_length: Some(MAX_LENGTH),
            example: Some("wireless keyb".into()),
            ..MetaSchema::new("string")
        }
    }

    fn read(text: &str) -> Result<String, FieldError> {
        if is_blank(text) {
            return Err(FieldError::too_short(1));
        }
        if text.chars().count() > MAX_LENGTH {
            return Err(FieldError::too_long(MAX_LENGTH));
        }
        Ok(text.to_owned())
    }
}

responses! {
    /// The matching items; an empty list if no item matches.
    SearchResponse = 200 Json<Results>;
}

errors! {
    Searching: [422, 503];
}

#[OpenApi(tag = "Tag::Search")]
impl SearchApi {
    /// Search items
    ///
    /// Finds the items that contain all words of the query, in title or description. Words are split at every character
    /// that is not a letter, mark or digit. Case, accents and character width are ignored; there are no operators. In
    /// Chinese, Japanese, Korean, Thai, Lao, Khmer and Burmese any part of a text matches; of two characters that occur
    /// together more than 256 times in one item, only the first 256 places count.
    ///
    /// Order: the item whose title equals the query; items with all the words; items in which the last word is only a
    /// prefix. If fewer than 100 items match, those with one wrong letter in a word follow, and most of those with two
    /// in a word of six letters or more. Within each group, matches in the title come first, and shorter titles before
    /// longer ones. Search finds a changed item shortly after the response to the change.
    #[oai(path = "/api/v1/search/items", method = "get", operation_id = "search_items")]
    async fn search(
        &self,
        /// The words to search for.
        q: Query<QueryText>,
        /// The largest number of items in the response.
        limit: Query<Limit>,
    ) -> Result<SearchResponse, Failure<Searching>> {
        let (query, limit) = (q.0, limit.0).all_valid()?;
        let found = self.search.search(&query, limit.into()).await?;
        let items = found.hits.into_iter().map(FoundItem::from).collect();
        Ok(SearchResponse::Ok(Json::new(&Results { query, total: found.total, items })?))
    }
}
