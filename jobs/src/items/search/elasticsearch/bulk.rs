//! Many writes in one request, of which each may fail by itself.

use std::time::Duration;

use serde_json::{Value, json};

use super::{ALIAS, Elasticsearch, request};
use crate::{error::Error, items::search::model::Document};

/// How often what was refused for the moment is sent again, and the first pause, doubled each time.
const TRIES: u32 = 6;
const PAUSE: Duration = Duration::from_millis(200);

/// One write of many.
#[derive(Debug, Clone)]
pub enum Write {
    /// Also over a document of the same version, which an older program may have written.
    Put(Document),
    Remove {
        id: i64,
        version: i64,
    },
}

impl Write {
    fn lines(&self) -> Result<String, Error> {
        match self {
            Self::Put(document) => {
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

/// What became of one write.
enum Fate {
    Done,
    Again,
    Refused(String),
}

fn fate(item: &Value) -> Fate {
    let result = item["index"].as_object().or(item["delete"].as_object());
    let Some(result) = result else { return Fate::Again };
    match result.get("status").and_then(Value::as_u64) {
        // 409: a newer one is there. 404: what was to be removed is not there.
        Some(200..=299 | 409) => Fate::Done,
        Some(404) if result.get("result").is_some_and(|result| result == "not_found") => Fate::Done,
        Some(429 | 500..=599) | None => Fate::Again,
        Some(status) => {
            let error = result.get("error").unwrap_or(&Value::Null);
            let text = |name: &str| error[name].as_str().unwrap_or_default().chars().take(200).collect::<String>();
            Fate::Refused(format!("{status} {} {}", text("type"), text("reason")))
        }
    }
}

impl Elasticsearch {
    /// Writes all of these. What is refused for the moment is sent again, the rest of the request is not.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when something was still refused after several tries; [`Error::Internal`] for what is
    /// refused for good.
    pub async fn write(&self, writes: Vec<Write>) -> Result<(), Error> {
        self.prepare().await?;
        let mut left = writes;
        let mut pause = PAUSE;
        let mut last = String::new();
        for attempt in 0..TRIES {
            if left.is_empty() {
                return Ok(());
            }
            if attempt > 0 {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            let lines = left.iter().map(Write::lines).collect::<Result<String, Error>>()?;
            let path = format!("{ALIAS}/_bulk?require_alias=true");
            let answer = match self.transport.ask_lines(&path, lines).await {
                Ok(answer) if answer.status.is_success() => answer,
                Ok(answer) => match answer.error("a bulk") {
                    Error::Unavailable(why) => {
                        last = why;
                        continue;
                    }
                    ours => return Err(ours),
                },
                Err(error) => {
                    last = error.to_string();
                    continue;
                }
            };
            let items = answer.body["items"].as_array().map(Vec::as_slice).unwrap_or_default();
            let mut again = Vec::new();
            // A write without an answer is sent again: its version makes that harmless.
            for (index, write) in left.into_iter().enumerate() {
                match items.get(index).map_or(Fate::Again, fate) {
                    Fate::Done => {}
                    Fate::Again => again.push(write),
                    Fate::Refused(why) => return Err(Error::Internal(format!("Elasticsearch: a bulk: {why}"))),
                }
            }
            last = format!("Elasticsearch: {} writes are refused for the moment", again.len());
            left = again;
        }
        if left.is_empty() { Ok(()) } else { Err(Error::Unavailable(last)) }
    }
}
