//! Search: one behaviour on PostgreSQL and on Elasticsearch, the fallback between them, and the endpoint.

mod conformance;
mod endpoint;
mod fake;
mod fallback;
mod refusals;
mod reindex;
mod types;
mod upgrade;
mod words;

use jobs::items::search::Document;
use time::macros::datetime;

/// A document as an item of some owner would give it.
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
