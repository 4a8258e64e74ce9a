//! Who decides what becomes of a transaction: a simulation that always agrees, or a service that is asked over HTTP.

use std::time::Duration;

use reqwest::{Client, StatusCode, header, redirect};
use url::Url;

use super::{
    config::ProcessorConfig,
    model::{Settlement, Transaction},
};
use crate::{
    error::Error,
    queue::Run,
    remote::{retry_after::retry_after, send::send_on},
};

/// What a processor answers.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Settled(Settlement),
    /// Ask again after this time; nothing went wrong.
    Again(Duration),
    /// Something went wrong that may pass.
    Trouble {
        error: String,
        not_before: Duration,
    },
}

/// A processor.
pub enum Processor {
    /// Agrees with everything. Its delay is the due time of the job, not a wait in here.
    Simulated,
    /// Asks a service.
    Http { client: Client, config: ProcessorConfig },
}

impl Processor {
    /// The processor that the configuration asks for.
    pub fn new(config: Option<&ProcessorConfig>) -> Result<Self, Error> {
        let Some(config) = config.cloned() else { return Ok(Self::Simulated) };
        let client = Client::builder()
            .timeout(config.timeout)
            // A redirected POST would lose its body or repeat its effect elsewhere.
            .redirect(redirect::Policy::none())
            .user_agent("millrace")
            .build()
            .map_err(|error| Error::Internal(format!("HTTP client: {error}")))?;
        Ok(Self::Http { client, config })
    }

    /// Posts a transaction. The id of the transaction makes a repeated call harmless on the other side.
    pub async fn ask(client: &Client, url: &Url, transaction: &Transaction, run: &Run) -> Answer {
        let mut request = client
            .post(url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header("Idempotency-Key", key(&transaction.transaction_id))
            .body(body(transaction));
        for (name, value) in
            [("X-Correlation-Id", &run.origin.correlation_id), ("traceparent", &run.origin.traceparent)]
        {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        match send_on(request, "processor").await {
            Ok(response) => judge(response.status(), retry_after(response.headers())),
            Err(error) if error.is_timeout() => trouble("processor did not answer in time"),
            // Without the URL, which may hold a password: this text is shown to the sender.
            Err(error) => trouble(&format!("processor cannot be reached: {}", error.without_url())),
        }
    }
}

fn trouble(error: &str) -> Answer {
    Answer::Trouble { error: error.to_owned(), not_before: Duration::ZERO }
}

/// An HTTP header holds visible ASCII; anything else in an id is percent-encoded.
fn key(transaction_id: &str) -> String {
    let visible = |byte: u8| byte.is_ascii_graphic() && byte != b'%';
    transaction_id
        .bytes()
        .map(|byte| if visible(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn body(transaction: &Transaction) -> String {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    format!(
        r#"{{"transaction_id":{},"source_account":{},"destination_account":{},"amount":{},"currency":{}}}"#,
        quote(&transaction.transaction_id),
        quote(&transaction.source_account),
        quote(&transaction.destination_account),
        transaction.amount,
        quote(&transaction.currency),
    )
}

/// What a status means: the contract, in one place.
fn judge(status: StatusCode, retry_after: Option<Duration>) -> Answer {
    let text = || format!("processor answered {status}");
    match (status, retry_after) {
        (StatusCode::ACCEPTED | StatusCode::SERVICE_UNAVAILABLE, Some(pause)) => Answer::Again(pause),
        (status, _) if status.is_success() => Answer::Settled(Settlement::Processed),
        (StatusCode::TOO_MANY_REQUESTS, pause) => {
            Answer::Trouble { error: text(), not_before: pause.unwrap_or_default() }
        }
        (status, _) if status.is_client_error() => Answer::Settled(Settlement::Failed(text())),
        (_, pause) => Answer::Trouble { error: text(), not_before: pause.unwrap_or_default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_has_its_meaning() {
        let pause = Some(Duration::from_secs(7));
        for (status, retry_after, meaning) in [
            (200, None, Answer::Settled(Settlement::Processed)),
            (204, pause, Answer::Settled(Settlement::Processed)),
            (202, None, Answer::Settled(Settlement::Processed)),
            (202, pause, Answer::Again(Duration::from_secs(7))),
            (503, pause, Answer::Again(Duration::from_secs(7))),
            (503, None, trouble("processor answered 503 Service Unavailable")),
            (500, None, trouble("processor answered 500 Internal Server Error")),
            (302, None, trouble("processor answered 302 Found")),
            (400, None, Answer::Settled(Settlement::Failed("processor answered 400 Bad Request".into()))),
            (
                429,
                pause,
                Answer::Trouble {
                    error: "processor answered 429 Too Many Requests".into(),
                    not_before: Duration::from_secs(7),
                },
            ),
        ] {
            let status = StatusCode::from_u16(status).expect("a status of this table");
            assert_eq!(judge(status, retry_after), meaning, "{status} {retry_after:?}");
        }
    }

    #[test]
    fn keys_are_header_values_and_stay_distinct() {
        assert_eq!(key("txn_abc123"), "txn_abc123");
        assert_eq!(key("a b%é"), "a%20b%25%C3%A9");
    }
}
