//! Processor client: decides whether a transaction succeeds, by an HTTP call to a service or by a simulation.

pub(super) mod excerpt;

use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use reqwest::{Client, Response, StatusCode, header};
use serde::Serialize;
use serde_json::value::RawValue;

use self::excerpt::Secrets;
use super::{
    config::ProcessorConfig,
    model::{Settlement, Transaction},
};
use queue::Run;
use runtime::{
    clients::{http, retry_after::retry_after, send::send_with_traceparent},
    error::{Error, causes},
};

/// The outcome of a call. Its texts are for the operator; [`sender_error`] derives the text for the sender.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CallOutcome {
    Settled(Settlement),
    /// The processor asks for another call after this time. This is not a failure.
    CallLater(Duration),
    /// A temporary failure.
    Failed {
        error: String,
        not_before: Duration,
    },
}

/// A processor.
pub(super) enum Processor {
    /// Accepts every transaction. Its delay is the due time of the job, so a run does not wait.
    Simulated,
    /// Calls a service.
    Http(Box<ProcessorClient>),
}

/// An HTTP client of a processing service.
pub(super) struct ProcessorClient {
    pub config: ProcessorConfig,
    client: Client,
    secrets: Secrets,
}

impl Processor {
    /// The configured processor.
    pub(super) fn new(config: Option<&ProcessorConfig>) -> Result<Self, Error> {
        let Some(config) = config.cloned() else { return Ok(Self::Simulated) };
        let client = http::client(|client| client.timeout(config.timeout))?;
        Ok(Self::Http(Box::new(ProcessorClient { secrets: Secrets::of(&config.url), client, config })))
    }
}

impl ProcessorClient {
    /// POSTs a transaction. Its id is the idempotency key, so that the processor can recognise a repeated call.
    ///
    /// # Errors
    /// [`Error::Internal`] when the transaction cannot be serialised.
    pub(super) async fn call(&self, transaction: &Transaction, run: &Run) -> Result<CallOutcome, Error> {
        let mut request = self
            .client
            .post(self.config.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header("Idempotency-Key", idempotency_key(&transaction.transaction_id))
            .body(payload(transaction)?);
        for (name, value) in
            [("X-Correlation-Id", &run.origin.correlation_id), ("traceparent", &run.origin.traceparent)]
        {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        Ok(match send_with_traceparent(request, "processor").await {
            Ok(response) => {
                let (status, pause) = (response.status(), retry_after(response.headers()));
                let outcome = classify(status, pause);
                if status.is_success() { outcome } else { self.add_body_excerpt(outcome, response).await }
            }
            Err(error) => {
                let what = if error.is_timeout() { TIMED_OUT } else { UNREACHABLE };
                // Without the URL, which may contain a password.
                failed(format!("{what}: {}", self.secrets.redact(&causes(&error.without_url()))))
            }
        })
    }

    /// Adds the beginning of the response's body, which usually contains the reason.
    async fn add_body_excerpt(&self, outcome: CallOutcome, response: Response) -> CallOutcome {
        let status = response.status();
        let body = self.secrets.excerpt(response).await;
        let with_body = |text: String| if body.is_empty() { text } else { format!("{text}: {body}") };
        match outcome {
            CallOutcome::Settled(Settlement::Failed(text)) => CallOutcome::Settled(Settlement::Failed(with_body(text))),
            CallOutcome::Failed { error, not_before } => CallOutcome::Failed { error: with_body(error), not_before },
            CallOutcome::CallLater(pause) => {
                tracing::info!(%status, ?pause, body, "the processor asked for a later call");
                CallOutcome::CallLater(pause)
            }
            processed @ CallOutcome::Settled(Settlement::Processed) => processed,
        }
    }
}

/// The prefix of every error text about the processor.
const PROCESSOR: &str = "processor ";
const TIMED_OUT: &str = "processor did not respond in time";
const UNREACHABLE: &str = "processor cannot be reached";

/// The error text for the sender of a transaction: without causes and bodies, which may reveal internals.
pub(super) fn sender_error(reason: String) -> String {
    match reason.split_once(": ") {
        Some((what, _)) if what.starts_with(PROCESSOR) => what.to_owned(),
        _ => reason,
    }
}

fn failed(error: String) -> CallOutcome {
    CallOutcome::Failed { error, not_before: Duration::ZERO }
}

/// The characters of an id that are percent-encoded: all that are not visible ASCII, and `%` itself.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// The id as the value of a header, which may only contain visible ASCII.
fn idempotency_key(transaction_id: &str) -> String {
    utf8_percent_encode(transaction_id, ENCODED).to_string()
}

/// The JSON body of a call.
#[derive(Serialize)]
struct Payload<'a> {
    transaction_id: &'a str,
    source_account: &'a str,
    destination_account: &'a str,
    /// A JSON number with exactly the digits of the amount, not through a float.
    amount: Box<RawValue>,
    currency: &'a str,
}

fn payload(transaction: &Transaction) -> Result<String, Error> {
    let payload = RawValue::from_string(transaction.amount.to_string()).and_then(|amount| {
        serde_json::to_string(&Payload {
            transaction_id: &transaction.transaction_id,
            source_account: &transaction.source_account,
            destination_account: &transaction.destination_account,
            amount,
            currency: &transaction.currency,
        })
    });
    payload.map_err(|error| Error::Internal(format!("processor payload: {error}")))
}

/// Maps a status to an outcome, as the API contract defines. `retry_after` is set if the header is present, even if it
/// cannot be parsed.
fn classify(status: StatusCode, retry_after: Option<Duration>) -> CallOutcome {
    let text = format!("{PROCESSOR}returned {status}");
    match (status, retry_after) {
        (StatusCode::ACCEPTED | StatusCode::SERVICE_UNAVAILABLE, Some(pause)) => CallOutcome::CallLater(pause),
        (status, _) if status.is_success() => CallOutcome::Settled(Settlement::Processed),
        (status, _) if status.is_client_error() && !is_temporary(status) => {
            CallOutcome::Settled(Settlement::Failed(text))
        }
        (_, pause) => CallOutcome::Failed { error: text, not_before: pause.unwrap_or_default() },
    }
}

/// Whether a 4xx status says nothing about the transaction, so that a retry may succeed. The key or the address may be
/// wrong for a while (401, 403, 407, 421). The first call with this idempotency key may still run (409, 423, 425). The
/// processor may be busy (408, 429).
fn is_temporary(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 403 | 407 | 408 | 409 | 421 | 423 | 425 | 429)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_an_outcome() {
        let pause = Duration::from_secs(7);
        let status = |status| StatusCode::from_u16(status).expect("a valid status");
        for code in [200, 201, 202, 204, 299] {
            assert_eq!(classify(status(code), None), CallOutcome::Settled(Settlement::Processed), "{code}");
        }
        assert_eq!(classify(status(204), Some(pause)), CallOutcome::Settled(Settlement::Processed));
        for code in [202, 503] {
            assert_eq!(classify(status(code), Some(pause)), CallOutcome::CallLater(pause), "{code}");
        }
        for code in [302, 401, 403, 407, 408, 409, 421, 423, 425, 429, 500, 501, 502, 503, 504, 599] {
            let error = format!("processor returned {}", status(code));
            assert_eq!(classify(status(code), None), failed(error.clone()), "{code}");
            if code != 503 {
                assert_eq!(
                    classify(status(code), Some(pause)),
                    CallOutcome::Failed { error, not_before: pause },
                    "{code}"
                );
            }
        }
        for code in (400..500).filter(|code| ![401, 403, 407, 408, 409, 421, 423, 425, 429].contains(code)) {
            let rejected = CallOutcome::Settled(Settlement::Failed(format!("processor returned {}", status(code))));
            assert_eq!(classify(status(code), None), rejected, "{code}");
            assert_eq!(classify(status(code), Some(pause)), rejected, "{code}");
        }
    }

    #[test]
    fn the_error_for_the_sender_has_no_internals() {
        for (reason, expected) in [
            (
                "processor returned 402 Payment Required: {\"host\": \"db-1: internal\"}",
                "processor returned 402 Payment Required",
            ),
            ("processor returned 500 Internal Server Error", "processor returned 500 Internal Server Error"),
            ("processor cannot be reached: error sending request: refused", "processor cannot be reached"),
            ("processor did not respond in time: timed out", "processor did not respond in time"),
            ("quarantined: a worker died during 3 of its runs", "quarantined: a worker died during 3 of its runs"),
            ("cancelled by operator", "cancelled by operator"),
        ] {
            assert_eq!(sender_error(reason.to_owned()), expected);
        }
    }

    #[test]
    fn idempotency_keys_are_distinct_header_values() {
        assert_eq!(idempotency_key("txn_abc123"), "txn_abc123");
        assert_eq!(idempotency_key("a b%é"), "a%20b%25%C3%A9");
    }
}
