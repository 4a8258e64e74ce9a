//! The JSON of a transaction, written in one place: responses of the API and the bodies of callbacks have the same fields.

use serde::{Serialize, Serializer, ser::Error};
use serde_json::value::RawValue;
use time::{OffsetDateTime, UtcOffset, format_description::BorrowedFormatItem, macros::format_description};

use super::model::{NewTransaction, Status, Transaction};

/// A transaction as `GET /v1/transactions/{id}` returns it. The order of the fields is that of the contract.
#[derive(Debug, Serialize)]
pub struct TransactionJson {
    transaction_id: String,
    source_account: String,
    destination_account: String,
    /// A JSON number with exactly the digits of the amount, not through a float.
    amount: Box<RawValue>,
    currency: String,
    status: &'static str,
    created_at: JsonTime,
    processed_at: Option<JsonTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What became of a transaction so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    pub status: Status,
    pub created_at: OffsetDateTime,
    pub processed_at: Option<OffsetDateTime>,
    /// Only with [`Status::Failed`].
    pub error: Option<String>,
}

impl TransactionJson {
    /// The JSON of a transaction in its current state.
    ///
    /// # Errors
    /// When the amount is not a JSON number, which [`super::Amount`] rules out.
    pub fn new(transaction: Transaction) -> serde_json::Result<Self> {
        let new = NewTransaction {
            transaction_id: transaction.transaction_id,
            source_account: transaction.source_account,
            destination_account: transaction.destination_account,
            amount: transaction.amount,
            currency: transaction.currency,
        };
        let progress = Progress {
            status: transaction.status,
            created_at: transaction.created_at,
            processed_at: transaction.processed_at,
            error: transaction.error,
        };
        Self::of(new, progress)
    }

    /// The JSON of a transaction in this state, which may be an earlier one.
    ///
    /// # Errors
    /// When the amount is not a JSON number, which [`super::Amount`] rules out.
    pub(super) fn of(new: NewTransaction, progress: Progress) -> serde_json::Result<Self> {
        let Progress { status, created_at, processed_at, error } = progress;
        Ok(Self {
            transaction_id: new.transaction_id,
            source_account: new.source_account,
            destination_account: new.destination_account,
            amount: RawValue::from_string(new.amount.to_string())?,
            currency: new.currency,
            status: status.into_str(),
            created_at: JsonTime(created_at),
            processed_at: processed_at.map(JsonTime),
            error: (status == Status::Failed).then(|| error.unwrap_or_default()),
        })
    }
}

/// A time in UTC with microseconds, written as in RFC 3339: `2024-01-15T10:30:00.000000Z`.
#[derive(Debug, Clone, Copy)]
pub(super) struct JsonTime(pub OffsetDateTime);

impl Serialize for JsonTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const FORMAT: &[BorrowedFormatItem<'_>] =
            format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
        let text = self.0.to_offset(UtcOffset::UTC).format(FORMAT).map_err(S::Error::custom)?;
        serializer.serialize_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    /// The JSON of a transaction with this amount in this state.
    fn json(amount: &str, status: Status) -> String {
        let new = NewTransaction {
            transaction_id: "t \"1\"".into(),
            source_account: "a".into(),
            destination_account: "b".into(),
            amount: amount.parse().expect("an amount"),
            currency: "INR".into(),
        };
        let progress = Progress {
            status,
            created_at: datetime!(2024-01-15 00:30 +5:30),
            processed_at: (status != Status::Processing).then_some(datetime!(2024-01-15 10:30:30.000001 UTC)),
            error: (status == Status::Failed).then(|| "declined".into()),
        };
        serde_json::to_string(&TransactionJson::of(new, progress).expect("a number")).expect("JSON")
    }

    #[test]
    fn fields_are_in_the_order_of_the_contract_and_amounts_keep_their_digits() {
        let start = r#"{"transaction_id":"t \"1\"","source_account":"a","destination_account":"b","amount":"#;
        let created = r#""created_at":"2024-01-14T19:00:00.000000Z","processed_at":"#;
        let at = r#""2024-01-15T10:30:30.000001Z""#;
        for (amount, status, rest) in [
            ("1500.00", Status::Processing, "null}".to_owned()),
            ("999999999999.999999", Status::Processed, format!("{at}}}")),
            ("0.10", Status::Failed, format!("{at},\"error\":\"declined\"}}")),
        ] {
            let expected =
                format!("{start}{amount},\"currency\":\"INR\",\"status\":\"{}\",{created}{rest}", status.into_str());
            assert_eq!(json(amount, status), expected);
        }
    }
}
