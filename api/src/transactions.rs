//! The transactions endpoints: webhooks in, states out.

mod page;
mod request;
mod view;

use std::time::Duration;

use jobs::transactions::{
    self, Ingested, NewTransaction, Transactions,
    signature::{self, SignatureHeaders},
};
use poem::{
    Request,
    http::{HeaderName, HeaderValue, StatusCode},
};
use poem_openapi::{ApiResponse, OpenApi, param::Path};
use time::OffsetDateTime;
use uuid::Uuid;

use self::{
    page::Page,
    view::{ID_LENGTH, State, Transaction},
};
use crate::{
    auth::MaybePrivate,
    config::{Conflict, TransactionsRead, WebhookConfig},
    entity_tag,
    middleware::{caching, correlation},
    problem::{Fails, Problem, Statuses},
    server::HalfClosed,
    tags::Tag,
    validation::{Body, Cursor, Limit, Query, Wait},
    wire::Json,
};

/// Names the fields in which a repeated webhook differs from the recorded one.
const CONFLICT_HEADER: HeaderName = HeaderName::from_static("idempotency-conflict");

/// The transactions endpoints.
#[derive(Clone)]
pub struct TransactionsApi {
    /// The feature.
    pub transactions: Transactions,
    /// How webhooks are received.
    pub webhook: WebhookConfig,
    /// Who may look transactions up.
    pub read: TransactionsRead,
}

#[derive(ApiResponse)]
enum Received {
    /// Recorded, and its processing with it: both are committed. For an id that is known already, the transaction as
    /// it was recorded first and as it now stands.
    #[oai(status = 202)]
    Accepted(
        Json<Transaction>,
        /// Where to look it up.
        #[oai(header = "Location")]
        String,
        /// `true` when the id was known with the same payload: one transaction, processed once.
        #[oai(header = "Idempotency-Replayed")]
        Option<String>,
        /// The fields that differ from the recorded payload, which stands, such as `amount, currency`.
        #[oai(header = "Idempotency-Conflict")]
        Option<String>,
    ),
}

#[derive(ApiResponse)]
enum Found {
    /// As it now stands.
    #[oai(status = 200)]
    Ok(
        Json<Transaction>,
        /// Changes whenever the answer does.
        #[oai(header = "ETag")]
        String,
        /// While PROCESSING: the seconds after which it is expected to have changed.
        #[oai(header = "Retry-After")]
        Option<u64>,
        /// While PROCESSING: `private, no-store`; from then on `no-cache`, which is to ask again with the `ETag`.
        #[oai(header = "Cache-Control")]
        String,
    ),
    /// Nothing has changed since the answer with the `ETag` named in `If-None-Match`.
    #[oai(status = 304)]
    NotModified(
        /// Changes whenever the answer does.
        #[oai(header = "ETag")]
        String,
        /// While PROCESSING: the seconds after which it is expected to have changed.
        #[oai(header = "Retry-After")]
        Option<u64>,
        /// While PROCESSING: `private, no-store`; from then on `no-cache`, which is to ask again with the `ETag`.
        #[oai(header = "Cache-Control")]
        String,
    ),
}

#[derive(ApiResponse)]
enum Listed {
    /// One page, newest first.
    #[oai(status = 200)]
    Ok(
        Json<Vec<Transaction>>,
        /// The next page, as `<…>; rel="next"`; absent on the last one.
        #[oai(header = "Link")]
        Option<String>,
    ),
}

#[derive(Debug)]
struct Receiving;

impl Statuses for Receiving {
    const ALL: &'static [u16] = &[400, 401, 408, 409, 413, 415, 422, 503];
}

#[derive(Debug)]
struct Finding;

impl Statuses for Finding {
    const ALL: &'static [u16] = &[401, 403, 404, 412, 422, 503];
}

#[derive(Debug)]
struct Listing;

impl Statuses for Listing {
    const ALL: &'static [u16] = &[401, 403, 422, 503];
}

#[OpenApi(tag = "Tag::Transactions")]
impl TransactionsApi {
    /// Receive a transaction
    ///
    /// Records the transaction and its processing in one commit, and only then answers. Sending the same id again is
    /// safe: it is recorded once and processed once. The same payload means equal values, whatever the order of the
    /// fields and however the amount is written; unknown fields are ignored.
    ///
    /// When the operator has set a webhook secret, requests must be signed as Standard Webhooks 1.0 says, with
    /// `webhook-id`, `webhook-timestamp` (within 5 minutes of now) and `webhook-signature`; 401 otherwise. The operator
    /// also chooses whether a known id with another payload is answered by 202 with `Idempotency-Conflict` or by 409.
    #[oai(
        path = "/v1/webhooks/transactions",
        method = "post",
        operation_id = "receive_transaction",
        request_header(name = "webhook-id", ty = "Option<String>", description = "Part of what is signed."),
        request_header(
            name = "webhook-timestamp",
            ty = "Option<String>",
            description = "When it was signed, in seconds."
        ),
        request_header(
            name = "webhook-signature",
            ty = "Option<String>",
            description = "`v1,` and the HMAC-SHA256 in base64; several separated by blanks, or in a line each, while a secret is \
                           replaced."
        )
    )]
    async fn receive(&self, request: &Request, body: Body<NewTransaction>) -> Result<Received, Fails<Receiving>> {
        check_signature(&self.webhook, request, body.raw())?;
        let ingested = self.transactions.ingest(body.read()?, correlation::origin(request)).await?;
        let (transaction, replayed, conflict) = match ingested {
            Ingested::New(transaction) => (transaction, None, None),
            Ingested::Replayed(transaction) => (transaction, Some("true".into()), None),
            Ingested::Conflict(transaction, fields) => (transaction, None, Some(fields.join(", "))),
        };
        if let (Some(fields), Conflict::Reject) = (&conflict, self.webhook.conflict) {
            return Err(rejected(fields).into());
        }
        let location = page::location(&transaction.transaction_id);
        Ok(Received::Accepted(Json::new(&Transaction::new(transaction)?)?, location, replayed, conflict))
    }

    /// Look a transaction up
    ///
    /// With `wait`, a transaction that is PROCESSING is answered as soon as that changes, or as it stands when the time
    /// is over. A client that shuts down its side of the connection ends the wait. With `If-None-Match`, an answer that has
    /// not changed is 304. With `TRANSACTIONS_READ=key`, as in prod, it wants a key or a token.
    #[oai(
        path = "/v1/transactions/:transaction_id",
        method = "get",
        operation_id = "get_transaction",
        request_header(
            name = "If-None-Match",
            ty = "Option<String>",
            description = "The `ETag` of an earlier answer."
        ),
        request_header(
            name = "If-Match",
            ty = "Option<String>",
            description = "An `ETag` that is wanted: 412 for another."
        )
    )]
    async fn get(
        &self,
        request: &Request,
        caller: MaybePrivate,
        /// The sender's id, percent-encoded.
        transaction_id: Path<String>,
        /// Seconds to hold the answer while the transaction is PROCESSING; fractions are allowed.
        wait: Query<Wait>,
    ) -> Result<Found, Fails<Finding>> {
        self.check_reader(&caller)?;
        let mut errors = Vec::new();
        let wait = wait.or_note(&mut errors);
        if !errors.is_empty() {
            return Err(Problem::invalid(errors).into());
        }
        let id = &*transaction_id.0;
        let found = match wait {
            // No such id was ever recorded, and PostgreSQL would not even take it as a text.
            _ if id.contains('\0') || !ID_LENGTH.contains(&id.chars().count()) => None,
            Some(Wait(seconds)) if seconds > 0.0 => {
                tokio::select! {
                    found = self.transactions.find_settled(id, Duration::from_secs_f64(seconds)) => found?,
                    // Gone, or waiting for what there is.
                    () = half_closed(request) => self.transactions.find(id).await?,
                }
            }
            _ => self.transactions.find(id).await?,
        };
        let Some(transaction) = found else {
            return Err(Problem::new(StatusCode::NOT_FOUND, "Transaction not found").into());
        };
        let retry_after = view::retry_after(&transaction);
        let caching = if retry_after.is_some() { caching::PRIVATE } else { caching::REVALIDATED };
        let json = Json::new(&Transaction::new(transaction)?)?;
        let etag = view::etag(json.text());
        entity_tag::check_expected(request.headers(), &etag)?;
        if entity_tag::is_known(request.headers(), &etag) {
            return Ok(Found::NotModified(etag, retry_after, caching.into()));
        }
        Ok(Found::Ok(json, etag, retry_after, caching.into()))
    }

    /// List transactions
    ///
    /// Newest first. The `Link` header names the next page; following it until it is absent visits every transaction
    /// that was there at the start exactly once. With `TRANSACTIONS_READ=key`, as in prod, it wants a key or a token.
    #[oai(path = "/v1/transactions", method = "get", operation_id = "list_transactions")]
    async fn list(
        &self,
        caller: MaybePrivate,
        /// Only those in this state.
        status: Query<State>,
        /// How many at most.
        limit: Query<Limit>,
        /// Where the page begins, as a `Link` header gave it.
        cursor: Query<Cursor<16>>,
    ) -> Result<Listed, Fails<Listing>> {
        self.check_reader(&caller)?;
        let mut errors = Vec::new();
        let page =
            Page { status: status.or_note(&mut errors), limit: limit.or_note(&mut errors).unwrap_or(Limit::DEFAULT) };
        let cursor = cursor.or_note(&mut errors);
        if !errors.is_empty() {
            return Err(Problem::invalid(errors).into());
        }
        let status = page.status.map(Into::into);
        // One more than shown tells whether there is a next page.
        let asked = u32::from(page.limit.0) + 1;
        let mut found = self
            .transactions
            .list(status, asked, cursor.map(|Cursor(id)| transactions::Cursor(Uuid::from_bytes(id))))
            .await?;
        let more = found.len() > usize::from(page.limit.0);
        found.truncate(page.limit.0.into());
        let link = found.last().filter(|_| more).map(|last| page.next_link(last));
        let shown = found.into_iter().map(Transaction::new).collect::<Result<Vec<_>, _>>()?;
        Ok(Listed::Ok(Json::new(&shown)?, link))
    }
}

impl TransactionsApi {
    /// Makes sure that this caller may look transactions up.
    fn check_reader(&self, caller: &MaybePrivate) -> Result<(), Problem> {
        match self.read {
            TransactionsRead::Open => Ok(()),
            TransactionsRead::Key => caller.require(),
        }
    }
}

/// Waits until the client of this request has shut down its side.
async fn half_closed(request: &Request) {
    match request.data::<HalfClosed>() {
        Some(HalfClosed(token)) => token.cancelled().await,
        None => std::future::pending().await,
    }
}

/// Checks the signature over the bytes as they came, before anything reads them as JSON.
fn check_signature(webhook: &WebhookConfig, request: &Request, body: &[u8]) -> Result<(), Problem> {
    if webhook.secrets.is_empty() {
        return Ok(());
    }
    let unauthorized = |why: String| Problem::new(StatusCode::UNAUTHORIZED, why);
    let lines = |name: &'static str| {
        let lines: Vec<_> = request.headers().get_all(name).iter().map(HeaderValue::as_bytes).collect();
        if lines.is_empty() { Err(unauthorized(format!("{name} is missing"))) } else { Ok(lines) }
    };
    // Two ids or times are two opinions about what is signed; signatures are several by their nature.
    let only = |name: &'static str| match lines(name)?[..] {
        [line] => Ok(line),
        _ => Err(unauthorized(format!("{name} must be given once"))),
    };
    let (id, timestamp) = (only("webhook-id")?, only("webhook-timestamp")?);
    let signatures = lines("webhook-signature")?.join(&b' ');
    let signed = SignatureHeaders { id, timestamp, signature: &signatures };
    let secrets = webhook.secrets.iter().map(|secret| secret.expose());
    signature::verify(signed, body, secrets, OffsetDateTime::now_utc()).map_err(|error| unauthorized(error.to_string()))
}

fn rejected(fields: &str) -> Problem {
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
    use crate::config::Secret;

    #[test]
    fn a_secret_makes_signatures_required() {
        let open = WebhookConfig::default();
        let closed = WebhookConfig { secrets: vec![Secret::new([7; 24])], ..open.clone() };
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let signed = |timestamp: i64, signature: &str| {
            let request =
                Request::builder().header("webhook-id", "m").header("webhook-timestamp", timestamp.to_string());
            request.header("webhook-signature", signature).finish()
        };
        assert!(check_signature(&open, &Request::default(), b"{}").is_ok());
        for (request, why) in [
            (Request::default(), "webhook-id is missing"),
            (signed(now, "v1,AAAA"), "webhook-signature does not match"),
            (signed(now - 3600, "v1,AAAA"), "webhook-timestamp is more than 5 minutes from now"),
        ] {
            let problem = check_signature(&closed, &request, b"{}").expect_err(why);
            assert_eq!(problem.to_string(), format!("401 Unauthorized: {why}"));
        }
    }

    #[test]
    fn a_rejected_payload_names_its_fields() {
        let problem = rejected("amount, currency");
        assert_eq!(problem.status(), StatusCode::CONFLICT);
        assert_eq!(problem.as_response().header("idempotency-conflict"), Some("amount, currency"));
    }
}
