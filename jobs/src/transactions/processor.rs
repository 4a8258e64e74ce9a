//! Who decides what becomes of a transaction: a simulation that always agrees, or a service that is asked over HTTP.

mod excerpt;

use std::time::Duration;

use reqwest::{Client, Response, StatusCode, header, redirect};

use self::excerpt::Secrets;
use super::{
    config::ProcessorConfig,
    model::{Settlement, Transaction},
};
use crate::{
    error::{Error, causes},
    queue::Run,
    remote::{retry_after::retry_after, send::send_with_traceparent},
};

/// What a processor answers. Its texts are for the operator; [`for_sender`] makes those that senders read.
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
    Http(Box<Service>),
}

/// A service that is asked over HTTP.
pub struct Service {
    pub config: ProcessorConfig,
    client: Client,
    secrets: Secrets,
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
            .map_err(|error| Error::Internal(format!("HTTP client: {}", causes(&error))))?;
        Ok(Self::Http(Box::new(Service { secrets: Secrets::of(&config.url), client, config })))
    }
}

impl Service {
    /// Posts a transaction. The id of the transaction makes a repeated call harmless on the other side.
    pub async fn ask(&self, transaction: &Transaction, run: &Run) -> Answer {
        let mut request = self
            .client
            .post(self.config.url.clone())
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
        match send_with_traceparent(request, "processor").await {
            Ok(response) => {
                let (status, pause) = (response.status(), retry_after(response.headers()));
                let answer = judge(status, pause);
                if status.is_success() { answer } else { self.explained(answer, response).await }
            }
            Err(error) => {
                let what = if error.is_timeout() { TIMED_OUT } else { UNREACHABLE };
                // Without the URL, which may hold a password.
                trouble(format!("{what}: {}", self.secrets.hide(&causes(&error.without_url()))))
            }
        }
    }

    /// The answer with the beginning of the body, which says why.
    async fn explained(&self, answer: Answer, response: Response) -> Answer {
        let status = response.status();
        let body = self.secrets.excerpt(response).await;
        let with_body = |text: String| if body.is_empty() { text } else { format!("{text}: {body}") };
        match answer {
            Answer::Settled(Settlement::Failed(text)) => Answer::Settled(Settlement::Failed(with_body(text))),
            Answer::Trouble { error, not_before } => Answer::Trouble { error: with_body(error), not_before },
            Answer::Again(pause) => {
                tracing::info!(%status, ?pause, body, "the processor asks to be called again later");
                Answer::Again(pause)
            }
            settled @ Answer::Settled(Settlement::Processed) => settled,
        }
    }
}

/// How each text about a processor begins.
const PROCESSOR: &str = "processor ";
const TIMED_OUT: &str = "processor did not answer in time";
const UNREACHABLE: &str = "processor cannot be reached";

/// What the sender of a transaction reads about its failure: without causes and bodies, which may name what is inside.
pub fn for_sender(reason: String) -> String {
    match reason.split_once(": ") {
        Some((what, _)) if what.starts_with(PROCESSOR) => what.to_owned(),
        _ => reason,
    }
}

fn trouble(error: String) -> Answer {
    Answer::Trouble { error, not_before: Duration::ZERO }
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

/// What a status means: the contract, in one place. `retry_after` is there whenever the header was, readable or not.
fn judge(status: StatusCode, retry_after: Option<Duration>) -> Answer {
    let text = format!("{PROCESSOR}answered {status}");
    match (status, retry_after) {
        (StatusCode::ACCEPTED | StatusCode::SERVICE_UNAVAILABLE, Some(pause)) => Answer::Again(pause),
        (status, _) if status.is_success() => Answer::Settled(Settlement::Processed),
        (status, _) if status.is_client_error() && !may_pass(status) => Answer::Settled(Settlement::Failed(text)),
        (_, pause) => Answer::Trouble { error: text, not_before: pause.unwrap_or_default() },
    }
}

/// Refusals that say nothing about the transaction. The key or the address may be wrong for a while (401, 403, 407, 421);
/// the first call with this idempotency key may still be running (409, 423, 425); the processor may be busy (408, 429).
fn may_pass(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 403 | 407 | 408 | 409 | 421 | 423 | 425 | 429)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_has_its_meaning() {
        let pause = Duration::from_secs(7);
        let status = |status| StatusCode::from_u16(status).expect("a status of this table");
        for code in [200, 201, 202, 204, 299] {
            assert_eq!(judge(status(code), None), Answer::Settled(Settlement::Processed), "{code}");
        }
        assert_eq!(judge(status(204), Some(pause)), Answer::Settled(Settlement::Processed));
        for code in [202, 503] {
            assert_eq!(judge(status(code), Some(pause)), Answer::Again(pause), "{code}");
        }
        for code in [302, 401, 403, 407, 408, 409, 421, 423, 425, 429, 500, 501, 502, 503, 504, 599] {
            let error = format!("processor answered {}", status(code));
            assert_eq!(judge(status(code), None), trouble(error.clone()), "{code}");
            if code != 503 {
                assert_eq!(judge(status(code), Some(pause)), Answer::Trouble { error, not_before: pause }, "{code}");
            }
        }
        for code in (400..500).filter(|code| ![401, 403, 407, 408, 409, 421, 423, 425, 429].contains(code)) {
            let failed = Answer::Settled(Settlement::Failed(format!("processor answered {}", status(code))));
            assert_eq!(judge(status(code), None), failed, "{code}");
            assert_eq!(judge(status(code), Some(pause)), failed, "{code}");
        }
    }

    #[test]
    fn senders_read_what_happened_and_not_what_is_inside() {
        for (reason, shown) in [
            (
                "processor answered 402 Payment Required: {\"host\": \"db-1: internal\"}",
                "processor answered 402 Payment Required",
            ),
            ("processor answered 500 Internal Server Error", "processor answered 500 Internal Server Error"),
            ("processor cannot be reached: error sending request: refused", "processor cannot be reached"),
            ("processor did not answer in time: timed out", "processor did not answer in time"),
            ("quarantined: a worker died during 3 of its runs", "quarantined: a worker died during 3 of its runs"),
            ("cancelled by operator", "cancelled by operator"),
        ] {
            assert_eq!(for_sender(reason.to_owned()), shown);
        }
    }

    #[test]
    fn keys_are_header_values_and_stay_distinct() {
        assert_eq!(key("txn_abc123"), "txn_abc123");
        assert_eq!(key("a b%é"), "a%20b%25%C3%A9");
    }
}
