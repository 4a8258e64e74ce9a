//! Payloads, and the panics of the code that reads and runs them.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::{job::Job, storable::StorableText};
use runtime::error::panic_message;

/// Decodes a payload. The decoder of a feature may panic too, which must not end the worker.
pub(crate) fn decode<J: Job>(payload: &[u8]) -> Result<J, StorableText> {
    let decoded = catch_unwind(AssertUnwindSafe(|| serde_json::from_slice(payload)));
    match decoded {
        Ok(Ok(payload)) => Ok(payload),
        Ok(Err(error)) => Err(format!("undecodable payload: {error}").into()),
        Err(panic) => Err(format!("undecodable payload: {}", panic_text(&*panic)).into()),
    }
}

/// The error of a run that panicked.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    format!("panicked: {}", panic_message(panic))
}
