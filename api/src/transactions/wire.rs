//! Wire types of the transaction endpoints: responses and the status parameter.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    ops::RangeInclusive,
};

use jobs::transactions::{self, Status, json::TransactionJson};
use poem_openapi::{Enum, Object};
use serde::Serialize;
use strum::VariantArray;

use crate::{
    link::encoded,
    problem::{Problem, whole_seconds},
    validation::Choice,
    wire::{Decimal, Nullable, Timestamp, openapi_response_type},
};

/// The allowed number of characters in a transaction id.
pub(super) const ID_LENGTH: RangeInclusive<usize> = 1..=255;

/// A transaction.
// Only the schema: `jobs::transactions::json` writes the fields, here and in callbacks.
#[derive(Object)]
#[oai(rename = "Transaction")]
struct TransactionSchema {
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
    error: Option<String>,
}

/// A transaction.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Transaction(TransactionJson);

openapi_response_type!({} Transaction, "Transaction", TransactionSchema::schema_ref(), refers to TransactionSchema);

impl Transaction {
    /// The response for a stored transaction.
    ///
    /// # Errors
    /// 500 if the amount is not a number, which the database rules out.
    pub(super) fn new(from: transactions::Transaction) -> Result<Self, Problem> {
        Ok(Self(TransactionJson::new(from)?))
    }
}

/// The path of the list; a transaction's path is below it.
pub(super) const PATH: &str = "/v1/transactions";

/// The path of a transaction. Its id is always one segment.
pub(super) fn location(transaction_id: &str) -> String {
    // Most clients resolve a segment `.` or `..` as a relative path, even if it is encoded. There is no other notation;
    // encoded dots at least survive in clients that do not resolve paths.
    match transaction_id {
        "." => format!("{PATH}/%2E"),
        ".." => format!("{PATH}/%2E%2E"),
        _ => format!("{PATH}/{}", encoded(transaction_id)),
    }
}

/// The seconds until the transaction is expected to leave PROCESSING. At least 1, since an immediate retry is useless.
pub(super) fn retry_after(transaction: &transactions::Transaction) -> Option<u64> {
    (transaction.status == Status::Processing).then(|| whole_seconds(transaction.remaining))
}

/// The entity tag of a response body. The hash has fixed keys, so all processes of one build return the same tag. After
/// a compiler update the tag may change; a client then gets a response that it already has.
pub(super) fn etag(body: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

/// The status of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Serialize)]
#[oai(rename_all = "UPPERCASE", remote = "Status")]
#[serde(rename_all = "UPPERCASE")]
pub enum TransactionStatus {
    /// Stored; its processing is pending or running.
    Processing,
    /// Processed successfully.
    Processed,
    /// Failed for good; `error` has the reason.
    Failed,
}

impl Choice for Status {
    const ALL: &'static [Self] = Self::VARIANTS;

    fn name(self) -> &'static str {
        self.into_str()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::macros::datetime;

    use super::*;
    use crate::validation::{OneOf, QueryValue};

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
            correlation_id: None,
            trace_id: None,
            sender: None,
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
    fn a_location_has_the_id_as_one_segment() {
        for (id, path) in [
            ("txn_abc123", "/v1/transactions/txn_abc123"),
            ("a/b c?é%", "/v1/transactions/a%2Fb%20c%3F%C3%A9%25"),
            ("..", "/v1/transactions/%2E%2E"),
        ] {
            assert_eq!(location(id), path);
        }
    }

    #[test]
    fn parses_statuses() {
        let read = <OneOf<Status> as QueryValue>::read;
        assert_eq!(read("FAILED"), Ok(Status::Failed));
        let error = read("failed").expect_err("lower case");
        assert_eq!(error.msg, "Input should be 'PROCESSING', 'PROCESSED' or 'FAILED'");
    }
}
