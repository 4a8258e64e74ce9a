//! A transaction and its parts.

use std::{sync::Arc, time::Duration};

use strum::{EnumString, IntoStaticStr, VariantArray};
use time::OffsetDateTime;
use uuid::Uuid;

use super::amount::Amount;

/// A transaction as its sender describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTransaction {
    /// The sender's id, permanently unique; 1–255 characters.
    pub transaction_id: String,
    /// The account that is debited; 1–255 characters.
    pub source_account: String,
    /// The account that is credited; 1–255 characters.
    pub destination_account: String,
    pub amount: Amount,
    /// ISO 4217 code.
    pub currency: String,
}

/// The state of a transaction. It only moves forward, except by an operator's replay of a failed one. JSON and the
/// database have the names in upper case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "UPPERCASE", const_into_str)]
pub enum Status {
    Processing,
    Processed,
    Failed,
}

/// A recorded transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// The internal id, which is also the id of its job. A UUID v7 of `created_at`: ids are in the order of creation,
    /// to the microsecond.
    pub id: Uuid,
    pub transaction_id: String,
    pub source_account: String,
    pub destination_account: String,
    pub amount: Amount,
    pub currency: String,
    pub status: Status,
    /// The reason of the failure; only with [`Status::Failed`].
    pub error: Option<String>,
    pub created_at: OffsetDateTime,
    /// The time of the settlement.
    pub processed_at: Option<OffsetDateTime>,
    /// The expected time until the settlement; zero if it is due or settled.
    pub remaining: Duration,
    /// The `X-Correlation-Id` of the request that it came with; `None` if an earlier release recorded it.
    pub correlation_id: Option<String>,
    /// The id of that request's W3C trace, if it had one.
    pub trace_id: Option<Uuid>,
    /// The name of the secret that signed the request; `None` without a signature or a name.
    pub sender: Option<Arc<str>>,
}

/// The result of an ingestion, with the recorded transaction in its current state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ingested {
    /// The transaction is new, and committed with its job.
    New(Transaction),
    /// The id was recorded before with the same payload.
    Replayed(Transaction),
    /// The id was recorded before with other values in these fields; the first payload stands.
    Conflict(Transaction, Vec<&'static str>),
}

/// The result of the ingestion of one row of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IngestedRow {
    /// The transaction is new, and committed with its job.
    New,
    /// The id was recorded before with the same payload.
    Replayed,
    /// The id was recorded before with other values in these fields; the first payload stands.
    Conflict(Vec<&'static str>),
    /// The database refused this row alone. It is not recorded, and a repetition does not help.
    Refused,
}

impl Transaction {
    /// The names of the fields in which a webhook differs from this transaction. Amounts compare by value.
    pub fn differences(&self, new: &NewTransaction) -> Vec<&'static str> {
        let same = [
            ("source_account", self.source_account == new.source_account),
            ("destination_account", self.destination_account == new.destination_account),
            ("amount", self.amount == new.amount),
            ("currency", self.currency == new.currency),
        ];
        same.into_iter().filter(|(_, same)| !same).map(|(field, _)| field).collect()
    }
}

/// The position of a page: it begins after this transaction, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub Uuid);

/// The final result of processing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    Processed,
    /// Failed, with the reason.
    Failed(String),
}

/// A request to settle a transaction.
#[derive(Debug, Clone)]
pub struct SettleRequest {
    pub id: Uuid,
    pub settlement: Settlement,
}

/// A webhook whose payload differs from the recorded transaction.
#[derive(Debug, Clone)]
pub struct Conflict {
    pub new: NewTransaction,
    /// The names of the fields that differ.
    pub fields: Vec<&'static str>,
    pub correlation_id: Option<String>,
}

impl Conflict {
    /// Compares a webhook with the recorded transaction. Returns `None` if they are equal.
    pub fn between(recorded: &Transaction, new: &NewTransaction, correlation_id: Option<&str>) -> Option<Self> {
        let fields = recorded.differences(new);
        let conflict = |fields| Self { new: new.clone(), fields, correlation_id: correlation_id.map(str::to_owned) };
        (!fields.is_empty()).then(|| conflict(fields))
    }

    /// Logs the conflict for the operator.
    pub fn log(&self) {
        tracing::warn!(
            transaction_id = self.new.transaction_id,
            fields = self.fields.join(", "),
            "webhook repeats an id with another payload; the first payload stands",
        );
    }
}
