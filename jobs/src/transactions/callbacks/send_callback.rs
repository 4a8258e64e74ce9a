//! The job that sends one callback: it ends with a 2xx, and is given up three days after the settlement.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Callbacks,
    client::{Message, TryFailure, TryResult},
    destinations::random_wait,
    limits::SLOTS,
    model::{CallbackKind, label},
    store::{self, Loaded},
};
use crate::transactions::{
    json::{JsonTime, Progress, TransactionJson},
    model::{NewTransaction, Status},
};
use queue::{Failure, Job, Outcome, Policy, Replayable, Run, Tx, retry::Backoff};
use runtime::error::Error;

/// The time decides when a callback is given up, not the number of its tries.
const UNLIMITED_ATTEMPTS: u32 = 1_000_000;
/// After the settlement. A destination that has failed for as long without a success is disabled.
pub(super) const GIVE_UP_AFTER: Duration = Duration::from_secs(3 * 24 * 3600);
/// The pause before another run when the database is not available.
const DATABASE_RETRY_DELAY: Duration = Duration::from_secs(1);
/// The least ceiling of the pause before another run when this worker has no URL for it. Another worker may have one.
const URL_RETRY_DELAY: Duration = Duration::from_secs(5);

/// Sends the callback of one settlement. Everything that the body contains is here, or in columns that never change: the
/// transaction may be replayed meanwhile, and every try must have the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendCallback {
    /// The id of the settlement.
    pub id: Uuid,
    /// The internal id of the transaction.
    pub transaction: Uuid,
    /// The sender; empty for the common URL.
    pub destination: String,
    pub kind: CallbackKind,
    /// The reason of the failure; only with [`CallbackKind::Failed`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    pub settled_at: OffsetDateTime,
}

impl Job for SendCallback {
    const NAME: &'static str = "send_callback";
    type Context = Callbacks;

    fn policy(callbacks: &Callbacks) -> Policy {
        let backoff = Backoff { base: Duration::from_secs(5), cap: Duration::from_secs(3600) };
        // A try takes 10 s; the rest is for the database.
        Policy {
            attempts: UNLIMITED_ATTEMPTS,
            backoff,
            deadline: Duration::from_secs(30),
            concurrency: SLOTS,
            fair: callbacks.destinations.are_several(),
            ..Policy::default()
        }
    }

    async fn run(self, callbacks: Callbacks, _: Run) -> Result<Outcome, Failure> {
        match self.deliver(&callbacks).await {
            Ok(outcome) => Ok(outcome),
            Err(Unfinished::Failed(failure)) => Err(failure),
            // The receiver did not fail. If it has the message already, it gets the same one again.
            Err(Unfinished::Database(error @ (Error::Unavailable(_) | Error::Overloaded(_)))) => {
                Ok(Outcome::SnoozeBecause(DATABASE_RETRY_DELAY, format!("could not use the database: {error}")))
            }
            Err(Unfinished::Database(error)) => Err(error.into()),
        }
    }

    async fn on_discard(self, callbacks: Callbacks, reason: String) -> Result<(), Failure> {
        Ok(callbacks.give_up(self.id, &reason).await?)
    }
}

impl Replayable for SendCallback {
    async fn on_replay(self, _: Callbacks, tx: &mut Tx) -> Result<(), Error> {
        store::resume(tx, self.id).await
    }
}

/// Why a run has no outcome.
enum Unfinished {
    Failed(Failure),
    Database(Error),
}

impl From<Error> for Unfinished {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

impl SendCallback {
    /// Sends the message once, unless it is delivered, or its destination is disabled or busy. Only a request that was sent can
    /// be a failure: everything else is a snooze, which leaves the backoff as it is.
    async fn deliver(&self, callbacks: &Callbacks) -> Result<Outcome, Unfinished> {
        // Deleted with its age.
        let Some(loaded) = callbacks.loads.call(self.id).await? else { return Ok(Outcome::Done) };
        if loaded.is_delivered {
            return Ok(Outcome::Done);
        }
        if let Some((since, because)) = &loaded.disabled {
            return Ok(Outcome::Reject(self.disabled_text(*since, because)));
        }
        let now = loaded.now;
        // Both times are those of the database's clock.
        let age = Duration::try_from(now - self.settled_at).unwrap_or_default();
        let Some(destination) = callbacks.destinations.get(&self.destination) else {
            return Ok(self.wait_for_url(age));
        };
        let call = match destination.begin_call() {
            Ok(call) => call,
            Err(busy) => return Ok(Outcome::SnoozeBecause(busy.wait(age), busy.to_string())),
        };
        let (message, begun) = (Message { id: self.id, at: now, body: self.body(loaded)? }, Instant::now());
        let (failure, is_gone) = match callbacks.send(destination, call, &message).await {
            TryResult::Delivered { status } => {
                callbacks.record_delivery(self.id, status, age + begun.elapsed()).await?;
                return Ok(Outcome::Done);
            }
            TryResult::Gone { error } => {
                (TryFailure { status: Some(410), error, not_before: Duration::ZERO, is_outage: false }, true)
            }
            TryResult::Failed(failure) => (failure, false),
        };
        match self.record_failure(callbacks, &failure, is_gone).await {
            Ok(Some(because)) => return Ok(Outcome::Reject(self.disabled_text(now, &because))),
            Ok(None) => {}
            // The request has failed all the same: a snooze would send the next one after a second, before `Retry-After`.
            Err(error) => tracing::warn!(%error, "could not record a failed callback"),
        }
        retry(age, failure.error, failure.not_before)
    }

    /// Records a failed request. Returns why its destination is disabled, if it is.
    async fn record_failure(
        &self,
        callbacks: &Callbacks,
        failure: &TryFailure,
        is_gone: bool,
    ) -> Result<Option<String>, Error> {
        let is_over = callbacks.record_failure(self, failure.status, &failure.error).await?;
        let because = match (is_gone, is_over) {
            (true, _) => "410 Gone".to_owned(),
            (false, true) => format!("it failed for three days: {}", failure.error),
            (false, false) => return Ok(None),
        };
        callbacks.disable(&self.destination, &because).await?;
        Ok(Some(because))
    }

    /// Another run, perhaps in a worker that has the URL, unless it is too late for one.
    fn wait_for_url(&self, age: Duration) -> Outcome {
        let destination = label(&self.destination);
        let reason = format!("callback was not sent: CALLBACK_URL of this worker has no URL for {destination}");
        if age >= GIVE_UP_AFTER {
            return too_late(&reason);
        }
        tracing::warn!(destination, "callback was not sent, because CALLBACK_URL of this worker has no URL for it");
        Outcome::SnoozeBecause(random_wait(age.max(URL_RETRY_DELAY)), reason)
    }

    fn disabled_text(&self, since: OffsetDateTime, because: &str) -> String {
        let since = since.replace_nanosecond(0).unwrap_or(since).format(&Rfc3339).unwrap_or_default();
        format!("callbacks to {} are disabled since {since}: {because}", label(&self.destination))
    }

    /// The body, the same for every try.
    fn body(&self, Loaded { new, created_at, .. }: Loaded) -> Result<Vec<u8>, Error> {
        self.body_of(new, created_at).map_err(|error| Error::Internal(format!("body of callback {}: {error}", self.id)))
    }

    fn body_of(&self, new: NewTransaction, created_at: OffsetDateTime) -> serde_json::Result<Vec<u8>> {
        #[derive(Serialize)]
        struct Body {
            r#type: &'static str,
            timestamp: JsonTime,
            data: TransactionJson,
        }
        let status = match self.kind {
            CallbackKind::Processed => Status::Processed,
            CallbackKind::Failed => Status::Failed,
        };
        let (processed_at, error) = (Some(self.settled_at), self.error.clone());
        let data = TransactionJson::of(new, Progress { status, created_at, processed_at, error })?;
        serde_json::to_vec(&Body { r#type: self.kind.into_str(), timestamp: JsonTime(self.settled_at), data })
    }
}

/// Another try after a failure, so long after the settlement, unless it is too late for one.
fn retry(age: Duration, error: String, not_before: Duration) -> Result<Outcome, Unfinished> {
    if age >= GIVE_UP_AFTER {
        return Ok(too_late(&error));
    }
    Err(Unfinished::Failed(Failure::new(error).not_before(not_before)))
}

fn too_late(error: &str) -> Outcome {
    Outcome::Reject(format!("{error}; given up three days after the settlement"))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn job(kind: CallbackKind, error: Option<&str>) -> SendCallback {
        SendCallback {
            id: Uuid::from_u128(7),
            transaction: Uuid::from_u128(8),
            destination: "acme".into(),
            kind,
            error: error.map(str::to_owned),
            settled_at: datetime!(2026-11-29 10:30:30.000001 UTC),
        }
    }

    fn body(job: &SendCallback) -> String {
        let new = NewTransaction {
            transaction_id: "t".into(),
            source_account: "a".into(),
            destination_account: "b".into(),
            amount: "1500.00".parse().expect("an amount"),
            currency: "INR".into(),
        };
        let body = job.body_of(new, datetime!(2026-11-29 10:30 UTC)).expect("a body");
        String::from_utf8(body).expect("UTF-8")
    }

    #[test]
    fn the_body_is_the_settled_transaction_and_the_same_after_the_payload_was_stored() {
        let at = "2026-11-29T10:30:30.000001Z";
        let data = r#""data":{"transaction_id":"t","source_account":"a","destination_account":"b","amount":1500.00,"currency":"INR","status":"#;
        let created = r#""created_at":"2026-11-29T10:30:00.000000Z","processed_at":"#;
        for (job, expected) in [
            (
                job(CallbackKind::Processed, None),
                format!(r#"{{"type":"transaction.processed","timestamp":"{at}",{data}"PROCESSED",{created}"{at}"}}}}"#),
            ),
            (
                job(CallbackKind::Failed, Some("declined")),
                format!(
                    r#"{{"type":"transaction.failed","timestamp":"{at}",{data}"FAILED",{created}"{at}","error":"declined"}}}}"#
                ),
            ),
        ] {
            assert_eq!(body(&job), expected);
            let stored: SendCallback =
                serde_json::from_str(&serde_json::to_string(&job).expect("JSON")).expect("a payload");
            assert_eq!(stored, job);
            assert_eq!(body(&stored), expected);
        }
    }

    /// Payloads stay readable as long as old jobs wait.
    #[test]
    fn a_stored_payload_is_read() {
        let payload = r#"{"id":"00000000-0000-0000-0000-000000000007","transaction":"00000000-0000-0000-0000-000000000008",
                          "destination":"acme","kind":"transaction.processed","settled_at":"2026-11-29T10:30:30.000001Z"}"#;
        assert_eq!(serde_json::from_str::<SendCallback>(payload).ok(), Some(job(CallbackKind::Processed, None)));
    }

    #[test]
    fn a_callback_is_retried_for_three_days() {
        let at = |age| retry(age, "x".into(), Duration::from_secs(9));
        let Err(Unfinished::Failed(failure)) = at(GIVE_UP_AFTER - Duration::from_nanos(1)) else { panic!("too early") };
        assert_eq!(failure, Failure::new("x").not_before(Duration::from_secs(9)));
        assert!(
            matches!(at(GIVE_UP_AFTER), Ok(Outcome::Reject(reason)) if reason == "x; given up three days after the settlement")
        );
    }

    #[test]
    fn a_callback_waits_for_a_url_for_three_days_without_a_failure() {
        let job = job(CallbackKind::Processed, None);
        for (age, most) in [(0, 5), (60, 60), (3 * 24 * 3600 - 1, 3600)] {
            let outcome = job.wait_for_url(Duration::from_secs(age));
            let Outcome::SnoozeBecause(wait, reason) = outcome else { panic!("{age}: {outcome:?}") };
            assert!(wait <= Duration::from_secs(most), "{age}: {wait:?}");
            assert_eq!(reason, "callback was not sent: CALLBACK_URL of this worker has no URL for acme");
        }
        assert!(
            matches!(job.wait_for_url(GIVE_UP_AFTER), Outcome::Reject(reason) if reason.ends_with("the settlement"))
        );
    }

    #[test]
    fn a_disabled_destination_is_explained() {
        let mut job = job(CallbackKind::Processed, None);
        let text = job.disabled_text(datetime!(2026-11-29 10:30:30.5 UTC), "410 Gone");
        assert_eq!(text, "callbacks to acme are disabled since 2026-11-29T10:30:30Z: 410 Gone");
        job.destination = String::new();
        assert!(job.disabled_text(job.settled_at, "410 Gone").starts_with("callbacks to the common URL are disabled"));
    }
}
