//! The interest rate endpoints: submit assets, read their average rate and its history.

mod wire;

use std::time::Duration;

use jobs::interest_rates::{self, Asset, Rates, Submission, SubmissionOutcome};
use poem::{
    Request,
    http::{HeaderValue, StatusCode, header},
};
use poem_openapi::OpenApi;

use self::wire::{IdempotencyKey, InterestRate, Outcome};
use crate::{
    auth::ApiKey,
    context::Context,
    middleware::correlation,
    page::{self, Cursor, Limit},
    problem::{Failure, Problem, errors},
    rate_limit::{self, client_network},
    tags::Tag,
    validation::{AllValid, Body, List, Query},
    wire::{Json, responses},
};

/// The rate limits of submissions and reads per network address, far above the needs of a client that is not in a loop.
const POLICIES: [rate_limit::Policy; 2] = [
    rate_limit::Policy { name: "asset", quota: 1200, window: Duration::from_secs(60) },
    rate_limit::Policy { name: "interest-rate", quota: 6000, window: Duration::from_secs(60) },
];
/// `Retry-After` of a submission that the chain has not confirmed yet: about one block.
const BLOCK_SECONDS: &str = "5";
/// `Retry-After` of a submission of which it is not known whether it is saved: that of other 503s.
const UNKNOWN_SECONDS: &str = "1";

/// The detail of a submission that the chain has not confirmed yet.
const OUTSTANDING: &str = "The chain has not confirmed the average yet. It will be saved exactly once. Repeat the \
                           request with the same Idempotency-Key to get the result.";
/// The detail of a submission of which it is not known whether it is saved.
const UNKNOWN: &str = "It is not known whether the average is saved. Repeat the request with the same Idempotency-Key \
                       to get the result: the average is then saved once. Without a key it may be saved twice.";

/// The interest rate endpoints.
#[derive(Clone)]
pub struct RatesApi {
    rates: Rates,
    submissions: rate_limit::Limit,
    readings: rate_limit::Limit,
}

impl RatesApi {
    pub(crate) fn new(Context { app, limits, .. }: &Context<'_>) -> Self {
        let [submissions, readings] = POLICIES.map(|policy| limits.new_limit(policy));
        Self { rates: app.rates.clone(), submissions, readings }
    }
}

responses! {
    /// The average is saved.
    SubmitResponse = 200 Json<Outcome> {
        /// `true` if the key was submitted before with the same assets.
        "Idempotency-Replayed": Option<String>,
    };

    /// The newest average.
    CurrentResponse = 200 Json<InterestRate>;

    /// One page, the current one first.
    HistoryResponse = 200 Json<Vec<InterestRate>> {
        /// The next page as `rel="next"`, if there is one.
        "Link": Option<String>,
    };
}

errors! {
    Submitting: [400, 401, 403, 408, 413, 415, 422, 429, 503];
    Finding: [401, 403, 404, 429, 503];
    Paging: [401, 403, 422, 429, 503];
}

#[OpenApi(tag = "Tag::InterestRates")]
impl RatesApi {
    /// Submit assets
    ///
    /// Saves the average of the assets' interest rates, in exact decimal arithmetic, rounded once, half to even, to 18
    /// places. With `STORAGE_BACKEND=smart_contract` the response is sent after the chain has confirmed the average. A
    /// submission that is repeated with the same `Idempotency-Key` is saved once. One network address may send 1,200
    /// submissions a minute.
    ///
    /// After a 503 of the type `urn:millrace:problem:unconfirmed` the average may be saved, or may be saved later: repeat
    /// the request with the same `Idempotency-Key` to get the result. After any other 503 it is not saved.
    #[oai(
        path = "/asset",
        method = "post",
        operation_id = "submit_assets",
        request_header(
            name = "Idempotency-Key",
            ty = "Option<IdempotencyKey>",
            description = "The permanent name of this submission: 1 to 255 printable ASCII characters."
        )
    )]
    async fn submit(
        &self,
        request: &Request,
        _key: ApiKey,
        body: Body<List<Asset>>,
    ) -> Result<SubmitResponse, Failure<Submitting>> {
        self.submissions.acquire(client_network(request)).await?;
        let key = wire::idempotency_key(request.headers());
        let (idempotency_key, List(assets)) = (key, body.read()).all_valid()?;
        let submission = Submission { assets, idempotency_key };
        let replayed = match self.rates.submit(submission, correlation::origin(request)).await? {
            SubmissionOutcome::Saved => None,
            SubmissionOutcome::Replayed => Some("true".into()),
            SubmissionOutcome::Conflict => return Err(key_reused().into()),
            SubmissionOutcome::Outstanding => return Err(unconfirmed(OUTSTANDING, BLOCK_SECONDS).into()),
            SubmissionOutcome::Unknown => return Err(unconfirmed(UNKNOWN, UNKNOWN_SECONDS).into()),
        };
        Ok(SubmitResponse::Ok(Json::new(&Outcome::saved())?, replayed))
    }

    /// Get the current average interest rate
    ///
    /// One network address may send 6,000 reads a minute.
    #[oai(path = "/interest_rate", method = "get", operation_id = "get_interest_rate")]
    async fn current(&self, request: &Request, _key: ApiKey) -> Result<CurrentResponse, Failure<Finding>> {
        self.readings.acquire(client_network(request)).await?;
        match self.rates.current().await? {
            Some(reading) => Ok(CurrentResponse::Ok(Json::new(&InterestRate::from(&reading))?)),
            None => {
                Err(Problem::new(StatusCode::NOT_FOUND, "No interest rate found. Please update assets first.").into())
            }
        }
    }

    /// List average interest rates
    ///
    /// The current average comes first, then the others, newest first. The `Link` header names the next page. One
    /// network address may send 6,000 reads a minute.
    #[oai(path = "/interest_rate/history", method = "get", operation_id = "list_interest_rates")]
    async fn history(
        &self,
        request: &Request,
        _key: ApiKey,
        /// The largest number of averages on the page.
        limit: Query<Limit>,
        /// The start of the page, from a `Link` header.
        cursor: Query<Option<Cursor<16>>>,
    ) -> Result<HistoryResponse, Failure<Paging>> {
        self.readings.acquire(client_network(request)).await?;
        let (limit, cursor) = (limit.0, cursor.0).all_valid()?;
        let cursor = cursor.map(|cursor| interest_rates::Cursor(u128::from_be_bytes(cursor)));
        let mut found = self.rates.history(cursor, page::fetch_limit(limit)).await?;
        let link = page::next_link(&mut found, limit, "/interest_rate/history", |last| last.cursor.0.to_be_bytes());
        let averages: Vec<InterestRate> = found.iter().map(InterestRate::from).collect();
        Ok(HistoryResponse::Ok(Json::new(&averages)?, link))
    }
}

fn key_reused() -> Problem {
    let detail = "This Idempotency-Key was used before with other assets. The first submission stands.";
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).kind("urn:millrace:problem:idempotency-key-reused")
}

/// The problem of a submission that is saved or may be saved later.
fn unconfirmed(detail: &'static str, retry_after: &'static str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        .kind("urn:millrace:problem:unconfirmed")
        .header(header::RETRY_AFTER, HeaderValue::from_static(retry_after))
}
