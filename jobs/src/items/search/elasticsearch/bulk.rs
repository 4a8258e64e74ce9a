//! Bulk requests: many writes in one request, each of which succeeds or fails separately.

use std::time::Duration;

use serde_json::{Value, json};

use super::{ALIAS, Elasticsearch, request};
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
    Retry,
    Rejected(String),
}

fn classify(item: &Value) -> WriteResult {
    let result = item["index"].as_object().or(item["delete"].as_object());
    let Some(result) = result else { return WriteResult::Retry };
    match result.get("status").and_then(Value::as_u64) {
        // 409: a newer document is stored. 404: the document to remove does not exist.
        Some(200..=299 | 409) => WriteResult::Done,
        Some(404) if result.get("result").is_some_and(|result| result == "not_found") => WriteResult::Done,
        Some(429 | 500..=599) | None => WriteResult::Retry,
        Some(status) => {
            let error = result.get("error").unwrap_or(&Value::Null);
            let text = |name: &str| error[name].as_str().unwrap_or_default().chars().take(200).collect::<String>();
            WriteResult::Rejected(format!("{status} {} {}", text("type"), text("reason")))
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
        self.prepare().await?;
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
            let lines = pending.iter().map(Write::lines).collect::<Result<String, Error>>()?;
            let path = format!("{ALIAS}/_bulk?require_alias=true");
            let response = match self.transport.send_lines(&path, lines).await {
                Ok(response) if response.status.is_success() => response,
                Ok(response) => match response.to_error("write documents") {
                    Error::Unavailable(reason) => {
                        last_error = reason;
                        continue;
                    }
                    error => return Err(error),
                },
                Err(error) => {
                    last_error = error.to_string();
                    continue;
                }
            };
            let items = response.body["items"].as_array().map(Vec::as_slice).unwrap_or_default();
            let mut retries = Vec::new();
            // A write without a result is sent again, too: its version makes that safe.
            for (index, write) in pending.into_iter().enumerate() {
                match items.get(index).map_or(WriteResult::Retry, classify) {
                    WriteResult::Done => {}
                    WriteResult::Retry => retries.push(write),
                    WriteResult::Rejected(reason) => {
                        return Err(Error::Internal(format!("Elasticsearch: could not write documents: {reason}")));
                    }
                }
            }
            last_error = format!("Elasticsearch: {} writes failed temporarily", retries.len());
            pending = retries;
        }
        if pending.is_empty() { Ok(()) } else { Err(Error::Unavailable(last_error)) }
    }
}
