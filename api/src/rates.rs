//! The interest rate endpoints: submit assets, read their average rate and its history.

mod view;

use std::time::Duration;

use jobs::interest_rates::{self, Rates, SubmissionOutcome};
use poem::{
    Request,
    http::{HeaderValue, StatusCode, header},
};
use poem_openapi::{ApiResponse, OpenApi};

use self::view::{AssetRequest, IdempotencyKey, InterestRate, Outcome};
use crate::{
    auth::ApiKey,
    middleware::correlation,
    problem::{ErrorStatuses, Failure, Problem},
    rate_limit::{self, Limits, client_network},
    tags::Tag,
    validation::{Body, Cursor, Limit, List, Query, require_no_errors},
    wire::Json,
};

/// The rate limits of submissions and reads per network address, far above the needs of a client that is not in a loop.
const POLICIES: [rate_limit::Policy; 2] = [
    rate_limit::Policy { name: "asset", quota: 1200, window: Duration::from_secs(60) },
    rate_limit::Policy { name: "interest-rate", quota: 6000, window: Duration::from_secs(60) },
];
/// `Retry-After` of a submission that the chain has not confirmed yet: about one block.
const BLOCK_SECONDS: &str = "5";

/// The interest rate endpoints.
#[derive(Clone)]
pub struct RatesApi {
    rates: Rates,
    submissions: rate_limit::Limit,
    readings: rate_limit::Limit,
}

impl RatesApi {
    /// The endpoints; all processes share their rate limits.
    pub fn new(rates: Rates, limits: &Limits) -> Self {
        let [submissions, readings] = POLICIES.map(|policy| limits.new_limit(policy));
        Self { rates, submissions, readings }
    }
}

#[derive(ApiResponse)]
enum SubmitResponse {
    /// The average is saved.
    #[oai(status = 200)]
    Ok(
        Json<Outcome>,
        /// `true` if the key was submitted before with the same assets.
        #[oai(header = "Idempotency-Replayed")]
        Option<String>,
    ),
}

#[derive(ApiResponse)]
enum CurrentResponse {
    /// The newest average.
    #[oai(status = 200)]
    Ok(Json<InterestRate>),
}

#[derive(ApiResponse)]
enum HistoryResponse {
    /// One page, the current one first.
    #[oai(status = 200)]
    Ok(
        Json<Vec<InterestRate>>,
        /// The next page as `rel="next"`, if there is one.
        #[oai(header = "Link")]
        Option<String>,
    ),
}

#[derive(Debug)]
struct Submitting;

impl ErrorStatuses for Submitting {
    const ALL: &'static [u16] = &[400, 401, 403, 408, 413, 415, 422, 429, 503];
}

#[derive(Debug)]
struct Finding;

impl ErrorStatuses for Finding {
    const ALL: &'static [u16] = &[401, 403, 404, 429, 503];
}

#[derive(Debug)]
struct Paging;

impl ErrorStatuses for Paging {
    const ALL: &'static [u16] = &[401, 403, 422, 429, 503];
}

#[OpenApi(tag = "Tag::InterestRates")]
impl RatesApi {
    /// Submit assets
    ///
    /// Saves the average of the assets' interest rates, in exact decimal arithmetic, rounded once, half to even, to 18
    /// places. With `STORAGE_BACKEND=smart_contract` the response is sent after the chain has confirmed the average. A
    /// submission that is repeated with the same `Idempotency-Key` is saved once. One network address may send 1,200
    /// submissions a minute.
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
        body: Body<List<AssetRequest>>,
    ) -> Result<SubmitResponse, Failure<Submitting>> {
        self.submissions.acquire(client_network(request)).await?;
        let submission = view::submission(body.read()?, view::idempotency_key(request.headers())?);
        let replayed = match self.rates.submit(submission, correlation::origin(request)).await? {
            SubmissionOutcome::Saved => None,
            SubmissionOutcome::Replayed => Some("true".into()),
            SubmissionOutcome::Conflict => return Err(key_reused().into()),
            SubmissionOutcome::Outstanding => return Err(unconfirmed().into()),
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
        cursor: Query<Cursor<16>>,
    ) -> Result<HistoryResponse, Failure<Paging>> {
        self.readings.acquire(client_network(request)).await?;
        let mut errors = Vec::new();
        let limit = limit.value_or_record(&mut errors).unwrap_or(Limit::DEFAULT);
        let cursor =
            cursor.value_or_record(&mut errors).map(|Cursor(bytes)| interest_rates::Cursor(u128::from_be_bytes(bytes)));
        require_no_errors(errors)?;
        // One average more than the page holds is fetched: it shows whether there is a next page.
        let mut found = self.rates.history(cursor, u32::from(limit.0) + 1).await?;
        let more = found.len() > usize::from(limit.0);
        found.truncate(limit.0.into());
        let link = found.last().filter(|_| more).map(|last| view::next_link(limit, last.cursor));
        let averages: Vec<InterestRate> = found.iter().map(InterestRate::from).collect();
        Ok(HistoryResponse::Ok(Json::new(&averages)?, link))
    }
}

fn key_reused() -> Problem {
    let detail = "This Idempotency-Key was used before with other assets. The first submission stands.";
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).kind("urn:millrace:problem:idempotency-key-reused")
}

fn unconfirmed() -> Problem {
    let detail = "The chain has not confirmed the average yet. It will be saved exactly once. Repeat the request with \
                  the same Idempotency-Key to get the result.";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        .kind("urn:millrace:problem:unconfirmed")
        .header(header::RETRY_AFTER, HeaderValue::from_static(BLOCK_SECONDS))
}
