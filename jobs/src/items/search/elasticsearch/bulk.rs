//! Bulk requests: many writes in one request, each of which succeeds or fails separately.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    ALIAS, Elasticsearch, MISSING_INDEX, request,
    transport::{MAX_REASON, is_permanent},
};
use crate::items::search::model::Document;
use runtime::error::Error;

/// How often writes are sent that fail temporarily.
const MAX_ATTEMPTS: u32 = 6;
/// The pause before the second attempt; it doubles with each further attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// One write of a bulk request.
#[derive(Debug, Clone)]
pub enum Write {
    /// Overwrites a document of the same version too: an earlier release may have written it.
    Upsert(Document),
    Remove {
        id: i64,
        version: i64,
    },
}

impl Write {
    /// The lines of this write in the body of the request.
    fn lines(&self) -> Result<String, Error> {
        match self {
            Self::Upsert(document) => {
                let (id, version) = (document.id.to_string(), document.version);
                let action = json!({ "index": { "_id": id, "version": version, "version_type": "external_gte" } });
                let source = request::document(document)?;
                Ok(format!("{action}\n{source}\n"))
            }
            Self::Remove { id, version } => {
                let action =
                    json!({ "delete": { "_id": id.to_string(), "version": version, "version_type": "external_gte" } });
                Ok(format!("{action}\n"))
            }
        }
    }
}

/// The result of one write.
enum WriteResult {
    Done,
    /// It failed temporarily, for this reason.
    Retry(String),
    /// It can never succeed, for this reason.
    Rejected(String),
}

/// The result of a write, which the response has under the name of its action.
fn result(item: &Value) -> &Value {
    if item["index"].is_null() { &item["delete"] } else { &item["index"] }
}

fn status(result: &Value) -> u16 {
    result["status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or_default()
}

fn classify(result: &Value) -> WriteResult {
    let text = |name: &str| result["error"][name].as_str().unwrap_or_default();
    match status(result) {
        // 409: a newer document is stored. 404: the document to remove does not exist.
        200..=299 | 409 | 404 => WriteResult::Done,
        status => {
            let reason: String = text("reason").chars().take(MAX_REASON).collect();
            let reason = format!("{status} {} {reason}", text("type"));
            if is_permanent(status, text("type")) { WriteResult::Rejected(reason) } else { WriteResult::Retry(reason) }
        }
    }
}

impl Elasticsearch {
    /// Writes all of these. Only the writes that fail temporarily are sent again.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when a write still fails at the last attempt; [`Error::Internal`] when Elasticsearch
    /// rejects a write permanently.
    pub async fn write(&self, writes: Vec<Write>) -> Result<(), Error> {
        let mut pending = writes;
        let mut pause = FIRST_PAUSE;
        let mut last_error = String::new();
        for attempt in 0..MAX_ATTEMPTS {
            if pending.is_empty() {
                return Ok(());
            }
            if attempt > 0 {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            match self.send(&pending).await {
                Ok((failed, reason)) => {
                    let mut failed = failed.into_iter();
                    pending.retain(|_| failed.next().unwrap_or(true));
                    last_error = reason;
                }
                Err(Error::Unavailable(reason)) => last_error = reason,
                Err(error) => return Err(error),
            }
        }
        if pending.is_empty() { Ok(()) } else { Err(Error::Unavailable(last_error)) }
    }

    /// Sends these writes once. Returns which of them must be sent again, and why.
    async fn send(&self, writes: &[Write]) -> Result<(Vec<bool>, String), Error> {
        self.prepare().await?;
        let lines = writes.iter().map(Write::lines).collect::<Result<String, Error>>()?;
        let response = self.transport.send_lines(&format!("{ALIAS}/_bulk?require_alias=true"), lines).await?;
        if !response.status.is_success() {
            return Err(response.to_error("write documents"));
        }
        let items = response.body["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let (mut failed, mut reason) = (Vec::with_capacity(writes.len()), String::new());
        for item in items.iter().map(result) {
            let is_missing = self.note_missing_index(status(item), item).await;
            let result = if is_missing { WriteResult::Retry(MISSING_INDEX.into()) } else { classify(item) };
            match result {
                WriteResult::Done => failed.push(false),
                WriteResult::Retry(cause) => {
                    reason = cause;
                    failed.push(true);
                }
                WriteResult::Rejected(cause) => {
                    return Err(Error::Internal(format!("Elasticsearch: could not write documents: {cause}")));
                }
            }
        }
        // A write without a result is sent again, too: its version makes that safe.
        failed.resize(writes.len(), true);
        let count = failed.iter().filter(|failed| **failed).count();
        Ok((failed, format!("Elasticsearch: {count} writes failed temporarily: {reason}")))
    }
}
