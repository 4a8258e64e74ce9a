//! The endpoint that receives many webhooks in one request.

use jobs::transactions::{IngestedRow, NewTransaction, Transactions};
use poem::Request;
use poem_openapi::{Enum, Object, OpenApi};
use serde::Serialize;

use super::sender::Senders;
use crate::{
    context::Context,
    middleware::correlation,
    problem::{Failure, errors},
    schema::list_of,
    tags::Tag,
    validation::{InvalidRow, Row, Rows, ValidationError},
    wire::{Json, Nullable, openapi_response_type, responses},
};

/// Receives many webhooks in one request.
#[derive(Clone)]
pub struct BatchApi {
    transactions: Transactions,
    senders: Senders,
}

/// What became of one row.
#[derive(Object, Serialize)]
struct Verdict {
    /// The sender's id; null if the row has none.
    transaction_id: Nullable<String>,
    /// 202: recorded, now or before. 409: another payload is recorded, and stands. 422 and 500: not recorded.
    status: u16,
    outcome: RowOutcome,
    /// The fields that differ from the recorded payload; only of a conflict.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<Vec<String>>,
    /// All invalid fields, as in a 422; only of an invalid row.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Errors>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Serialize)]
#[oai(rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
enum RowOutcome {
    /// Recorded now, together with its processing job.
    New,
    /// Recorded before with the same payload.
    Replayed,
    /// Recorded before with another payload.
    Conflict,
    /// Not a valid transaction.
    Invalid,
    /// Valid, but refused by the database. The log has the cause, and sending it again does not help.
    Refused,
}

/// The errors of a row.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
struct Errors(Vec<ValidationError>);

openapi_response_type!(Errors, "row_errors", list_of(ValidationError::schema()));

responses! {
    /// One verdict for each row, in the order of the rows.
    BatchResponse = 200 Json<Vec<Verdict>>;
}

errors! {
    Receiving: [400, 401, 408, 413, 415, 422, 429, 503];
}

#[OpenApi(tag = "Tag::Transactions")]
impl BatchApi {
    /// Receive many transactions
    ///
    /// The body is a JSON array of up to 1,000 transactions, or NDJSON (`application/x-ndjson`): one transaction a line. It may have 4 MiB, and is
    /// signed as a whole, in the way of a single webhook. Each row is recorded, or not, by itself, and has a verdict of its
    /// own. Of several rows with one id the first counts; the others are repetitions of it. A conflict is always a 409
    /// here. After a 503 send the same body again: what was recorded before is then `replayed`.
    ///
    /// If the operator has set a quota for each sender, a batch counts as its rows, and a batch above it is a 429 as a whole. A
    /// batch with more rows than the whole quota must be split; `detail` says so, with both numbers.
    #[oai(
        path = "/v1/webhooks/transactions/batch",
        method = "post",
        operation_id = "receive_transactions",
        request_header(
            name = "webhook-id",
            ty = "Option<String>",
            description = "The id of the message; part of the signed content."
        ),
        request_header(
            name = "webhook-timestamp",
            ty = "Option<String>",
            description = "The time of the signature, in seconds of Unix time."
        ),
        request_header(
            name = "webhook-signature",
            ty = "Option<String>",
            description = "`v1,` and the HMAC-SHA256 in base64. Several signatures, used while a secret is rotated, are \
                           separated by blanks or sent in one header each."
        )
    )]
    async fn receive(
        &self,
        request: &Request,
        body: Rows<NewTransaction>,
    ) -> Result<BatchResponse, Failure<Receiving>> {
        let sender = self.senders.identify(request, body.raw())?;
        let rows = body.read()?;
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        self.senders.check_quota(&sender, count).await?;
        let mut valid = Vec::with_capacity(rows.len());
        let mut take = |new: NewTransaction| {
            let id = new.transaction_id.clone();
            valid.push(new);
            id
        };
        // The rows themselves are handed over, and their ids stay here.
        let rows: Vec<Row<String>> = rows.into_iter().map(|row| row.map(&mut take)).collect();
        let ingested = self.transactions.ingest_all(valid, correlation::origin(request), sender.clone()).await;
        let ingested = self.senders.refund_refused(&sender, count, ingested).await?;
        let mut ingested = ingested.into_iter();
        let verdict = |row: Row<String>| match row {
            // There is one result for each valid row.
            Ok(id) => ingested.next().map(|ingested| Verdict::of(id, ingested)),
            Err(row) => Some(Verdict::invalid(row)),
        };
        let verdicts: Vec<Verdict> = rows.into_iter().filter_map(verdict).collect();
        Ok(BatchResponse::Ok(Json::new(&verdicts)?))
    }
}

impl BatchApi {
    pub(crate) fn new(context: &Context<'_>) -> Self {
        Self { transactions: context.app.transactions.clone(), senders: Senders::new(context) }
    }
}

impl Verdict {
    fn of(transaction_id: String, ingested: IngestedRow) -> Self {
        let (status, outcome, fields) = match ingested {
            IngestedRow::New => (202, RowOutcome::New, None),
            IngestedRow::Replayed => (202, RowOutcome::Replayed, None),
            IngestedRow::Conflict(fields) => {
                (409, RowOutcome::Conflict, Some(fields.into_iter().map(str::to_owned).collect()))
            }
            IngestedRow::Refused => (500, RowOutcome::Refused, None),
        };
        Self { transaction_id: Nullable(Some(transaction_id)), status, outcome, fields, errors: None }
    }

    fn invalid(InvalidRow { id, errors }: InvalidRow) -> Self {
        Self {
            transaction_id: Nullable(id),
            status: 422,
            outcome: RowOutcome::Invalid,
            fields: None,
            errors: Some(Errors(errors)),
        }
    }
}
