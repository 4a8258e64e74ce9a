//! A transaction as the wire shows it.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    ops::RangeInclusive,
};

use jobs::transactions::{self, Status};
use poem_openapi::{Enum, Object, registry::MetaSchema};
use serde::Serialize;

use crate::{
    problem::Problem,
    validation::{FieldError, QueryValue},
    wire::{Decimal, Nullable, Timestamp},
};

/// How many characters an id or account has.
pub const ID_LENGTH: RangeInclusive<usize> = 1..=255;

/// A recorded transaction.
#[derive(Object, Serialize)]
pub struct Transaction {
    /// The sender's id: it never names another transaction.
    transaction_id: String,
    /// Where the money comes from.
    source_account: String,
    /// Where the money goes.
    destination_account: String,
    /// How much: exactly the value that came in.
    amount: Decimal,
    /// ISO 4217 code.
    currency: String,
    /// States only move forward, except by an operator's replay of a failed one.
    status: State,
    /// When it was recorded.
    created_at: Timestamp,
    /// When it was processed or failed; null until then.
    processed_at: Nullable<Timestamp>,
    /// Why it failed; only when `FAILED`.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Transaction {
    /// Shows one.
    ///
    /// # Errors
    /// 500, when its amount were not a number.
    pub fn new(from: transactions::Transaction) -> Result<Self, Problem> {
        Ok(Self {
            transaction_id: from.transaction_id,
            source_account: from.source_account,
            destination_account: from.destination_account,
            amount: Decimal::new(from.amount.to_string())?,
            currency: from.currency,
            status: from.status.into(),
            created_at: Timestamp(from.created_at),
            processed_at: Nullable(from.processed_at.map(Timestamp)),
            error: if from.status == Status::Failed { Some(from.error.unwrap_or_default()) } else { None },
        })
    }
}

/// The seconds after which it is expected to have left PROCESSING; at least one, since asking at once tells nothing.
pub fn retry_after(transaction: &transactions::Transaction) -> Option<u64> {
    let remaining = transaction.remaining;
    let whole = remaining.as_secs() + u64::from(remaining.subsec_nanos() > 0);
    (transaction.status == Status::Processing).then(|| whole.max(1))
}

/// An entity tag for an answer. The hash has fixed keys, so all processes of one build agree on it; after an update of
/// the compiler a client is at worst sent an answer it already had.
pub fn etag(body: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

/// Where a transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Serialize)]
#[oai(rename = "TransactionStatus", rename_all = "UPPERCASE")]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    /// Recorded, waiting for its processing or in the midst of it.
    Processing,
    /// Done.
    Processed,
    /// Given up; `error` says why.
    Failed,
}

impl From<Status> for State {
    fn from(status: Status) -> Self {
        match status {
            Status::Processing => Self::Processing,
            Status::Processed => Self::Processed,
            Status::Failed => Self::Failed,
        }
    }
}

impl From<State> for Status {
    fn from(state: State) -> Self {
        match state {
            State::Processing => Self::Processing,
            State::Processed => Self::Processed,
            State::Failed => Self::Failed,
        }
    }
}

impl State {
    const ALL: [Self; 3] = [Self::Processing, Self::Processed, Self::Failed];

    /// As the wire writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Processing => "PROCESSING",
            Self::Processed => "PROCESSED",
            Self::Failed => "FAILED",
        }
    }
}

impl QueryValue for State {
    fn schema() -> MetaSchema {
        MetaSchema { enum_items: Self::ALL.map(|state| state.name().into()).into(), ..MetaSchema::new("string") }
    }

    fn read(text: &str) -> Result<Self, FieldError> {
        let state = Self::ALL.into_iter().find(|state| state.name() == text);
        state.ok_or_else(|| FieldError::new("enum", "Input should be 'PROCESSING', 'PROCESSED' or 'FAILED'"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::macros::datetime;

    use super::*;

    fn transaction(status: Status, remaining: Duration) -> transactions::Transaction {
        transactions::Transaction {
            id: uuid::Uuid::nil(),
            transaction_id: "txn_abc123".into(),
            source_account: "acc_user_1".into(),
            destination_account: "acc_merchant_1".into(),
            amount: "1500.50".parse().expect("an amount"),
            currency: "INR".into(),
            status,
            error: (status == Status::Failed).then(|| "declined".into()),
            created_at: datetime!(2024-01-15 10:30 UTC),
            processed_at: (status != Status::Processing).then_some(datetime!(2024-01-15 10:30:30.5 UTC)),
            remaining,
        }
    }

    fn shown(status: Status) -> String {
        let shown = Transaction::new(transaction(status, Duration::ZERO)).ok();
        shown.and_then(|shown| serde_json::to_string(&shown).ok()).unwrap_or_default()
    }

    #[test]
    fn shows_the_fields_of_the_contract_in_their_order() {
        let start = r#"{"transaction_id":"txn_abc123","source_account":"acc_user_1","destination_account":"acc_merchant_1","amount":1500.50,"currency":"INR","status":"#;
        let created = r#""created_at":"2024-01-15T10:30:00.000000Z","processed_at":"#;
        let at = r#""2024-01-15T10:30:30.500000Z""#;
        assert_eq!(shown(Status::Processing), format!("{start}\"PROCESSING\",{created}null}}"));
        assert_eq!(shown(Status::Processed), format!("{start}\"PROCESSED\",{created}{at}}}"));
        assert_eq!(shown(Status::Failed), format!("{start}\"FAILED\",{created}{at},\"error\":\"declined\"}}"));
    }

    #[test]
    fn retries_after_what_remains() {
        let after = |status, millis| retry_after(&transaction(status, Duration::from_millis(millis)));
        assert_eq!(after(Status::Processing, 0), Some(1));
        assert_eq!(after(Status::Processing, 1000), Some(1));
        assert_eq!(after(Status::Processing, 29_001), Some(30));
        assert_eq!(after(Status::Processed, 0), None);
    }

    #[test]
    fn a_tag_changes_with_the_answer() {
        assert_eq!(etag(b"body"), etag(b"body"));
        assert_ne!(etag(b"body"), etag(b"other body"));
    }

    #[test]
    fn reads_states() {
        assert_eq!(State::read("FAILED"), Ok(State::Failed));
        assert!(State::read("failed").is_err());
    }
}
