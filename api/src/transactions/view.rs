//! Wire types of the transaction endpoints: responses and the status parameter.

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

/// The allowed number of characters in a transaction id.
pub const ID_LENGTH: RangeInclusive<usize> = 1..=255;

/// A transaction.
#[derive(Object, Serialize)]
pub struct Transaction {
    /// The sender's id, unique for each transaction.
    transaction_id: String,
    /// The account that the money comes from.
    source_account: String,
    /// The account that the money goes to.
    destination_account: String,
    /// Exactly the value of the webhook.
    amount: Decimal,
    /// ISO 4217 code.
    currency: String,
    /// The status never reverts, except when an operator replays a failed transaction.
    status: TransactionStatus,
    /// The time when the transaction was stored.
    created_at: Timestamp,
    /// The time when the transaction was processed or failed; null until then.
    processed_at: Nullable<Timestamp>,
    /// The reason of a failure; only present if `FAILED`.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Transaction {
    /// The response for a stored transaction.
    ///
    /// # Errors
    /// 500 if the amount is not a number, which the database rules out.
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

/// The seconds until the transaction is expected to leave PROCESSING. At least 1, since an immediate retry is useless.
pub fn retry_after(transaction: &transactions::Transaction) -> Option<u64> {
    let remaining = transaction.remaining;
    let whole = remaining.as_secs() + u64::from(remaining.subsec_nanos() > 0);
    (transaction.status == Status::Processing).then(|| whole.max(1))
}

/// The entity tag of a response body. The hash has fixed keys, so all processes of one build return the same tag. After
/// a compiler update the tag may change; a client then gets a response that it already has.
pub fn etag(body: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

/// The status of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Serialize)]
#[oai(rename_all = "UPPERCASE")]
#[serde(rename_all = "UPPERCASE")]
pub enum TransactionStatus {
    /// Stored; its processing is pending or running.
    Processing,
    /// Processed successfully.
    Processed,
    /// Failed for good; `error` has the reason.
    Failed,
}

impl From<Status> for TransactionStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Processing => Self::Processing,
            Status::Processed => Self::Processed,
            Status::Failed => Self::Failed,
        }
    }
}

impl From<TransactionStatus> for Status {
    fn from(state: TransactionStatus) -> Self {
        match state {
            TransactionStatus::Processing => Self::Processing,
            TransactionStatus::Processed => Self::Processed,
            TransactionStatus::Failed => Self::Failed,
        }
    }
}

impl TransactionStatus {
    const ALL: [Self; 3] = [Self::Processing, Self::Processed, Self::Failed];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Processing => "PROCESSING",
            Self::Processed => "PROCESSED",
            Self::Failed => "FAILED",
        }
    }
}

impl QueryValue for TransactionStatus {
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

    fn json(status: Status) -> String {
        let response = Transaction::new(transaction(status, Duration::ZERO)).ok();
        response.and_then(|response| serde_json::to_string(&response).ok()).unwrap_or_default()
    }

    #[test]
    fn serialises_the_fields_of_the_contract_in_their_order() {
        let start = r#"{"transaction_id":"txn_abc123","source_account":"acc_user_1","destination_account":"acc_merchant_1","amount":1500.50,"currency":"INR","status":"#;
        let created = r#""created_at":"2024-01-15T10:30:00.000000Z","processed_at":"#;
        let at = r#""2024-01-15T10:30:30.500000Z""#;
        assert_eq!(json(Status::Processing), format!("{start}\"PROCESSING\",{created}null}}"));
        assert_eq!(json(Status::Processed), format!("{start}\"PROCESSED\",{created}{at}}}"));
        assert_eq!(json(Status::Failed), format!("{start}\"FAILED\",{created}{at},\"error\":\"declined\"}}"));
    }

    #[test]
    fn retry_after_is_the_remaining_time() {
        let after = |status, millis| retry_after(&transaction(status, Duration::from_millis(millis)));
        assert_eq!(after(Status::Processing, 0), Some(1));
        assert_eq!(after(Status::Processing, 1000), Some(1));
        assert_eq!(after(Status::Processing, 29_001), Some(30));
        assert_eq!(after(Status::Processed, 0), None);
    }

    #[test]
    fn an_entity_tag_changes_with_the_body() {
        assert_eq!(etag(b"body"), etag(b"body"));
        assert_ne!(etag(b"body"), etag(b"other body"));
    }

    #[test]
    fn parses_statuses() {
        assert_eq!(TransactionStatus::read("FAILED"), Ok(TransactionStatus::Failed));
        assert!(TransactionStatus::read("failed").is_err());
    }
}
