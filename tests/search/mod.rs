//! Search: one behaviour on PostgreSQL and on Elasticsearch, the fallback between them, and the endpoint.

mod conformance;
mod elasticsearch_types;
mod endpoint;
mod engine;
mod fake;
mod fallback;
mod lost_index;
mod matching;
mod reindex;
mod responses;
mod upgrade;

use jobs::items::search::Document;
use time::macros::datetime;

/// The document of an item. Items with an even id have a price.
fn document(id: i64, version: i64, title: &str, description: Option<&str>) -> Document {
    Document {
        id,
        version,
        title: title.into(),
        description: description.map(Into::into),
        price_cents: (id % 2 == 0).then_some(id * 100),
        owner_id: 7,
        created_at: datetime!(2026-11-21 10:00:00.123456 UTC),
        updated_at: datetime!(2026-11-21 11:00:00 UTC),
    }
}
