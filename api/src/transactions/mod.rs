//! The transaction endpoints: receive webhooks, look up and list transactions.

mod batch;
mod request;
mod sender;
mod wire;

use jobs::transactions::{self, Ingested, NewTransaction, Status, Transactions};
use poem::{
    Request,
    http::{HeaderName, HeaderValue, StatusCode},
};
use poem_openapi::{ApiResponse, OpenApi, param::Path};
use uuid::Uuid;

pub use self::batch::BatchApi;
use self::{
    sender::Senders,
    wire::{ID_LENGTH, Transaction},
};
use crate::{
    auth::MaybePrivate,
    config::{ConflictPolicy, TransactionsRead},
    context::Context,
    entity_tag,
    middleware::{caching, correlation},
    page::{self, Cursor, Limit},
    problem::{Failure, Problem, errors},
    server::HalfClosed,
    tags::Tag,
    validation::{AllValid, Body, OneOf, Query, Wait},
    wire::{Json, encode, responses},
};

/// Names the fields in which a repeated webhook differs from the stored transaction.
const CONFLICT_HEADER: HeaderName = HeaderName::from_static("idempotency-conflict");

/// The transaction endpoints.
#[derive(Clone)]
pub struct TransactionsApi {
    transactions: Transactions,
    senders: Senders,
    /// The response to a known id with another payload.
    conflict: ConflictPolicy,
    /// Who may read transactions.
    read: TransactionsRead,
}

responses! {
    /// The transaction is committed, together with its processing job. For a known id, the body is the first payload
    /// with the current status.
    ReceiveResponse = 202 Json<Transaction> {
        /// The path of the transaction.
        "Location": String,
        /// `true` if the id was known with the same payload. The transaction is stored once and processed once.
        "Idempotency-Replayed": Option<String>,
        /// The fields that differ from the first payload, which stands; for example `amount, currency`.
        "Idempotency-Conflict": Option<String>,
    };

    /// One page, newest first.
    ListResponse = 200 Json<Vec<Transaction>> {
        /// The next page as `<…>; rel="next"`; absent on the last page.
        "Link": Option<String>,
    };
}

#[derive(ApiResponse)]
enum GetResponse {
    /// The current transaction.
    #[oai(status = 200)]
    Ok(
        Json<Transaction>,
        /// Changes whenever the response changes.
        #[oai(header = "ETag")]
        String,
        /// While PROCESSING: the seconds after which the status is expected to change.
        #[oai(header = "Retry-After")]
        Option<u64>,
        /// While PROCESSING: `private, no-store`. Afterwards `no-cache`: revalidate with the `ETag`.
        #[oai(header = "Cache-Control")]
        String,
    ),
    /// The transaction still has the `ETag` named in `If-None-Match`.
    #[oai(status = 304)]
    NotModified(
        /// Changes whenever the response changes.
        #[oai(header = "ETag")]
        String,
        /// While PROCESSING: the seconds after which the status is expected to change.
        #[oai(header = "Retry-After")]
        Option<u64>,
        /// While PROCESSING: `private, no-store`. Afterwards `no-cache`: revalidate with the `ETag`.
        #[oai(header = "Cache-Control")]
        String,
    ),
}

errors! {
    Receiving: [400, 401, 408, 409, 413, 415, 422, 429, 503];
    Finding: [401, 403, 404, 412, 422, 429, 503];
    Listing: [401, 403, 422, 429, 503];
}

#[OpenApi(tag = "Tag::Transactions")]
impl TransactionsApi {
    /// Receive a transaction
    ///
    /// Stores the transaction and its processing job in one commit before it responds. Sending the same id again is
    /// safe: the transaction is stored once and processed once. Two payloads are the same if their values are equal,
    /// regardless of the order of the fields and the notation of the amount. Unknown fields are ignored.
    ///
    /// If the operator has set a webhook secret, requests must be signed according to Standard Webhooks 1.0, with
    /// `webhook-id`, `webhook-timestamp` (within 5 minutes of now) and `webhook-signature`; otherwise they get a 401 with
    /// `WWW-Authenticate: Signature`. The operator also chooses the response to a known id with another payload: 202 with
    /// `Idempotency-Conflict`, or 409. If the operator has set a quota for each sender, a request above it is a 429.
    #[oai(
        path = "/v1/webhooks/transactions",
        method = "post",
        operation_id = "receive_transaction",
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
        body: Body<NewTransaction>,
    ) -> Result<ReceiveResponse, Failure<Receiving>> {
        let sender = self.senders.identify(request, body.raw())?;
        self.senders.check_quota(&sender, 1).await?;
        let ingested = self.transactions.ingest(body.read()?, correlation::origin(request), sender.clone()).await;
        let ingested = self.senders.refund_refused(&sender, 1, ingested).await?;
        let (transaction, replayed, conflict) = match ingested {
            Ingested::New(transaction) => (transaction, None, None),
            Ingested::Replayed(transaction) => (transaction, Some("true".into()), None),
            Ingested::Conflict(transaction, fields) => (transaction, None, Some(fields.join(", "))),
        };
        if let (Some(fields), ConflictPolicy::Reject) = (&conflict, self.conflict) {
            return Err(conflict_problem(fields).into());
        }
        let location = wire::location(&transaction.transaction_id);
        Ok(ReceiveResponse::Ok(Json::new(&Transaction::new(transaction)?)?, location, replayed, conflict))
    }

    /// Get a transaction
    ///
    /// With `wait`, the response to a PROCESSING transaction is held until its status changes or the time is over. A
    /// client that shuts down its side of the connection ends the wait. With `If-None-Match`, an unchanged response is
    /// a 304. With `TRANSACTIONS_READ=key`, as in prod, the request needs a key or a token.
    #[oai(
        path = "/v1/transactions/:transaction_id",
        method = "get",
        operation_id = "get_transaction",
        request_header(
            name = "If-None-Match",
            ty = "Option<String>",
            description = "The `ETag` of an earlier response."
        ),
        request_header(
            name = "If-Match",
            ty = "Option<String>",
            description = "The expected `ETag`: 412 if the transaction has another."
        )
    )]
    async fn get(
        &self,
        request: &Request,
        caller: MaybePrivate,
        /// The sender's id, percent-encoded.
        transaction_id: Path<String>,
        /// The seconds to hold the response while the transaction is PROCESSING; fractions are allowed.
        wait: Query<Option<Wait>>,
    ) -> Result<GetResponse, Failure<Finding>> {
        self.check_reader(&caller)?;
        let wait = wait.0?;
        let id = &*transaction_id.0;
        let found = match wait {
            // Such an id is never stored, and PostgreSQL rejects a text with NUL.
            _ if id.contains('\0') || !ID_LENGTH.contains(&id.chars().count()) => None,
            Some(wait) if !wait.is_zero() => {
                tokio::select! {
                    found = self.transactions.find_settled(id, wait) => found?,
                    // The client has disconnected, or it expects the current state now.
                    () = wait_for_half_close(request) => self.transactions.find(id).await?,
                }
            }
            _ => self.transactions.find(id).await?,
        };
        let Some(transaction) = found else {
            return Err(Problem::new(StatusCode::NOT_FOUND, "Transaction not found").into());
        };
        let retry_after = wire::retry_after(&transaction);
        let caching = if retry_after.is_some() { caching::PRIVATE_NO_STORE } else { caching::NO_CACHE };
        let json = encode(&Transaction::new(transaction)?)?;
        let etag = wire::etag(&json);
        if entity_tag::is_unchanged(request.headers(), &etag)? {
            return Ok(GetResponse::NotModified(etag, retry_after, caching.into()));
        }
        Ok(GetResponse::Ok(Json::from_body(json), etag, retry_after, caching.into()))
    }

    /// List transactions
    ///
    /// Newest first. The `Link` header names the next page. A client that follows it until it is absent gets every
    /// transaction that existed at the start exactly once. With `TRANSACTIONS_READ=key`, as in prod, the request needs
    /// a key or a token.
    #[oai(path = "/v1/transactions", method = "get", operation_id = "list_transactions")]
    async fn list(
        &self,
        caller: MaybePrivate,
        /// List only transactions with this status.
        status: Query<Option<OneOf<Status>>>,
        /// The largest number of transactions on the page.
        limit: Query<Limit>,
        /// The start of the page, from a `Link` header.
        cursor: Query<Option<Cursor<16>>>,
    ) -> Result<ListResponse, Failure<Listing>> {
        self.check_reader(&caller)?;
        let (status, limit, cursor) = (status.0, limit.0, cursor.0).all_valid()?;
        let cursor = cursor.map(|id| transactions::Cursor(Uuid::from_bytes(id)));
        let mut found = self.transactions.list(status, page::fetch_limit(limit), cursor).await?;
        let status = status.map(|status| format!("?status={}", status.into_str())).unwrap_or_default();
        let path = format!("{}{status}", wire::PATH);
        let link = page::next_link(&mut found, limit, &path, |last| *last.id.as_bytes());
        let transactions = found.into_iter().map(Transaction::new).collect::<Result<Vec<_>, _>>()?;
        Ok(ListResponse::Ok(Json::new(&transactions)?, link))
    }
}

impl TransactionsApi {
    pub(crate) fn new(context: &Context<'_>) -> Self {
        Self {
            transactions: context.app.transactions.clone(),
            senders: Senders::new(context),
            conflict: context.config.webhook.conflict,
            read: context.config.transactions_read,
        }
    }

    /// Checks that the caller may read transactions.
    fn check_reader(&self, caller: &MaybePrivate) -> Result<(), Problem> {
        match self.read {
            TransactionsRead::Open => Ok(()),
            TransactionsRead::Key => caller.require(),
        }
    }
}

/// Waits until the client shuts down its side of the connection.
async fn wait_for_half_close(request: &Request) {
    match request.data::<HalfClosed>() {
        Some(HalfClosed(token)) => token.cancelled().await,
        None => std::future::pending().await,
    }
}

fn conflict_problem(fields: &str) -> Problem {
    let detail =
        format!("This transaction_id was recorded before with other values of: {fields}. The first payload stands.");
    let problem = Problem::new(StatusCode::CONFLICT, detail).kind("urn:millrace:problem:transaction-conflict");
    match HeaderValue::from_str(fields) {
        Ok(fields) => problem.header(CONFLICT_HEADER, fields),
        Err(_) => problem,
    }
}

#[cfg(test)]
mod tests {
    use poem::error::ResponseError;

    use super::*;

    #[test]
    fn a_conflict_names_the_fields() {
        let problem = conflict_problem("amount, currency");
        assert_eq!(problem.status(), StatusCode::CONFLICT);
        assert_eq!(problem.as_response().header("idempotency-conflict"), Some("amount, currency"));
    }
}
