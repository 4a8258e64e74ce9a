//! A transaction and its parts.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::amount::Amount;

/// A transaction as its sender describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTransaction {
    /// The sender's id, unique for ever; 1–255 characters.
    pub transaction_id: String,
    /// Where the money comes from; 1–255 characters.
    pub source_account: String,
    /// Where the money goes; 1–255 characters.
    pub destination_account: String,
    /// How much.
    pub amount: Amount,
    /// ISO 4217 code.
    pub currency: String,
}

/// Where a transaction stands. States only move forward, except by an operator's replay of a failed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Processing,
    Processed,
    Failed,
}

impl Status {
    pub const ALL: [Self; 3] = [Self::Processing, Self::Processed, Self::Failed];

    /// The word on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Processing => "PROCESSING",
            Self::Processed => "PROCESSED",
            Self::Failed => "FAILED",
        }
    }

    /// Reads [`Status::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// A recorded transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Ours; also the id of its job. A UUID v7 of `created_at`: ids are in the order of creation, to the microsecond.
    pub id: Uuid,
    pub transaction_id: String,
    pub source_account: String,
    pub destination_account: String,
    pub amount: Amount,
    pub currency: String,
    pub status: Status,
    /// Why it failed; only when [`Status::Failed`].
    pub error: Option<String>,
    pub created_at: OffsetDateTime,
    /// When it left [`Status::Processing`].
    pub processed_at: Option<OffsetDateTime>,
    /// How long until it is expected to leave [`Status::Processing`]; zero when it is due or has left.
    pub remaining: Duration,
}

/// What came of an ingestion. The transaction is the recorded one, as it now stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ingested {
    /// Recorded now, with its job, and committed.
    New(Transaction),
    /// Was there already with equal values.
    Replayed(Transaction),
    /// Was there already with other values in these fields; the first payload stands.
    Conflict(Transaction, Vec<&'static str>),
}

impl Transaction {
    /// The fields in which a webhook differs from what is recorded. Amounts compare by value.
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

/// Where a page of the list begins: after this transaction, in the order newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub Uuid);

/// The end of processing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    Processed,
    /// With the reason.
    Failed(String),
}

/// A transaction about to be settled.
#[derive(Debug, Clone)]
pub struct Settling {
    pub id: Uuid,
    pub settlement: Settlement,
}
