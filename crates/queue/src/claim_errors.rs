//! Why claims of this worker fail.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use runtime::error::causes;
use serde::Serialize;
use sqlx::types::JsonValue;
use time::OffsetDateTime;

use super::storable::StorableText;

/// Why claims of this worker fail, by queue. Each heartbeat writes it into the worker's row for operators.
#[derive(Default)]
pub struct ClaimErrors(Mutex<BTreeMap<&'static str, ClaimError>>);

#[derive(Serialize)]
struct ClaimError {
    error: String,
    #[serde(with = "time::serde::rfc3339")]
    since: OffsetDateTime,
}

impl ClaimErrors {
    pub(super) fn record(&self, queue: &'static str, error: &sqlx::Error) {
        let error = StorableText::from(causes(error)).to_string();
        let mut errors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = errors.get(queue).map_or_else(OffsetDateTime::now_utc, |earlier| earlier.since);
        errors.insert(queue, ClaimError { error, since });
    }

    pub(super) fn clear(&self, queue: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(queue);
    }

    /// The value for the worker's row; `None` while all claims succeed.
    pub fn as_json(&self) -> Option<JsonValue> {
        let errors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if errors.is_empty() { None } else { serde_json::to_value(&*errors).ok() }
    }
}
