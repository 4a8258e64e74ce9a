//! The interest rates endpoints: assets come in, their average is saved and shown.

mod view;

use std::time::Duration;

use jobs::rates::{self, Rates, Submitted};
use poem::{
    Request,
    http::{HeaderValue, StatusCode, header},
};
use poem_openapi::{ApiResponse, OpenApi};

use self::view::{AssetRequest, IdempotencyKey, Outcome, Reading};
use crate::{
    auth::ApiKey,
    middleware::correlation,
    problem::{Fails, Problem, Statuses},
    rate_limit::{self, Limits, address},
    tags::Tag,
    validation::{Body, Cursor, Limit, List, Query},
    wire::Json,
};

/// What one address may submit, and what it may read, in a minute: far more than anybody does who is not in a loop.
const POLICIES: [rate_limit::Policy; 2] = [
    rate_limit::Policy { name: "asset", quota: 1200, window: Duration::from_secs(60) },
    rate_limit::Policy { name: "interest-rate", quota: 6000, window: Duration::from_secs(60) },
];
/// Seconds after which whoever was not told that a chain has confirmed may ask again: about a block.
const BLOCK_SECONDS: &str = "5";

/// The interest rates endpoints.
#[derive(Clone)]
pub struct RatesApi {
    rates: Rates,
    submissions: rate_limit::Limit,
    readings: rate_limit::Limit,
}

impl RatesApi {
    /// Endpoints of this feature, within limits that all processes share.
    pub fn new(rates: Rates, limits: &Limits) -> Self {
        let [submissions, readings] = POLICIES.map(|policy| limits.limit(policy));
        Self { rates, submissions, readings }
    }
}

#[derive(ApiResponse)]
enum Saved {
    /// The average is saved.
    #[oai(status = 200)]
    Ok(
        Json<Outcome>,
        /// `true` when this key had been submitted before, with the same assets.
        #[oai(header = "Idempotency-Replayed")]
        Option<String>,
    ),
}

#[derive(ApiResponse)]
enum Current {
    /// The newest average.
    #[oai(status = 200)]
    Ok(Json<Reading>),
}

#[derive(ApiResponse)]
enum History {
    /// One page, the current one first.
    #[oai(status = 200)]
    Ok(
        Json<Vec<Reading>>,
        /// The next page, `rel="next"`, when there is one.
        #[oai(header = "Link")]
        Option<String>,
    ),
}

#[derive(Debug)]
struct Submitting;

impl Statuses for Submitting {
    const ALL: &'static [u16] = &[400, 401, 403, 408, 413, 415, 422, 429, 503];
}

#[derive(Debug)]
struct Finding;

impl Statuses for Finding {
    const ALL: &'static [u16] = &[401, 403, 404, 429, 503];
}

#[derive(Debug)]
struct Paging;

impl Statuses for Paging {
    const ALL: &'static [u16] = &[401, 403, 422, 429, 503];
}

#[OpenApi(tag = "Tag::InterestRates")]
impl RatesApi {
    /// Submit assets
    ///
    /// Saves the average of their interest rates: exact decimal arithmetic, rounded once, half to even, to 18 places.
    /// With `STORAGE_BACKEND=smart_contract` the chain has confirmed it before this is answered. Repeated with the same
    /// `Idempotency-Key` it is saved once. At most 1,200 submissions a minute are taken from one network address.
    #[oai(
        path = "/asset",
        method = "post",
        operation_id = "submit_assets",
        request_header(
            name = "Idempotency-Key",
            ty = "Option<IdempotencyKey>",
            description = "Names this submission, for ever: 1 to 255 printable ASCII characters."
        )
    )]
    async fn submit(
        &self,
        request: &Request,
        _key: ApiKey,
        body: Body<List<AssetRequest>>,
    ) -> Result<Saved, Fails<Submitting>> {
        self.submissions.take(address(request)).await?;
        let submission = view::submission(body.read()?, view::idempotency_key(request.headers())?);
        let replayed = match self.rates.submit(submission, correlation::origin(request)).await? {
            Submitted::Saved => None,
            Submitted::Replayed => Some("true".into()),
            Submitted::Conflict => return Err(other_assets().into()),
            Submitted::Outstanding => return Err(outstanding().into()),
        };
        Ok(Saved::Ok(Json::new(&Outcome::saved())?, replayed))
    }

    /// The latest average interest rate
    ///
    /// At most 6,000 readings a minute are answered to one network address.
    #[oai(path = "/interest_rate", method = "get", operation_id = "get_interest_rate")]
    async fn current(&self, request: &Request, _key: ApiKey) -> Result<Current, Fails<Finding>> {
        self.readings.take(address(request)).await?;
        match self.rates.current().await? {
            Some(reading) => Ok(Current::Ok(Json::new(&Reading::from(&reading))?)),
            None => {
                Err(Problem::new(StatusCode::NOT_FOUND, "No interest rate found. Please update assets first.").into())
            }
        }
    }

    /// All average interest rates
    ///
    /// The current one first, then the others, the last saved first. The `Link` header names the next page. At most 6,000
    /// readings a minute are answered to one network address.
    #[oai(path = "/interest_rate/history", method = "get", operation_id = "list_interest_rates")]
    async fn history(
        &self,
        request: &Request,
        _key: ApiKey,
        /// How many at most.
        limit: Query<Limit>,
        /// Where the page begins, as a `Link` header gave it.
        cursor: Query<Cursor<16>>,
    ) -> Result<History, Fails<Paging>> {
        self.readings.take(address(request)).await?;
        let mut errors = Vec::new();
        let limit = limit.value_or_record(&mut errors).unwrap_or(Limit::DEFAULT);
        let cursor = cursor.value_or_record(&mut errors).map(|Cursor(bytes)| rates::Cursor(u128::from_be_bytes(bytes)));
        if !errors.is_empty() {
            return Err(Problem::invalid(errors).into());
        }
        // One more than shown tells whether there is a next page.
        let mut found = self.rates.history(cursor, u32::from(limit.0) + 1).await?;
        let more = found.len() > usize::from(limit.0);
        found.truncate(limit.0.into());
        let link = found.last().filter(|_| more).map(|last| view::next_link(limit, last.cursor));
        let shown: Vec<Reading> = found.iter().map(Reading::from).collect();
        Ok(History::Ok(Json::new(&shown)?, link))
    }
}

fn other_assets() -> Problem {
    let detail = "This Idempotency-Key was used before with other assets, which stand.";
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).kind("urn:millrace:problem:idempotency-key-reused")
}

fn outstanding() -> Problem {
    let detail = "The chain has not confirmed it yet. It will be saved, once; repeat it with its Idempotency-Key to learn \
                  when.";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        .kind("urn:millrace:problem:unconfirmed")
        .header(header::RETRY_AFTER, HeaderValue::from_static(BLOCK_SECONDS))
}
