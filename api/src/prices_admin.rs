//! The admin endpoint that starts the daily price fetch at once.

use jobs::prices::{Prices, fetch::EnqueuedFetches};
use poem::Request;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Serialize;

use crate::{
    auth::Admin,
    middleware::correlation,
    problem::{ErrorStatuses, Failure},
    rate_limit::{Limit, Limits},
    tags::Tag,
    wire::Json,
};

/// The price endpoints for admins.
#[derive(Clone)]
pub struct PricesAdminApi {
    prices: Prices,
    limit: Limit,
}

impl PricesAdminApi {
    /// The endpoints, within the rate limit that all admin routes share.
    pub fn new(prices: Prices, limits: &Limits) -> Self {
        Self { prices, limit: limits.admin.clone() }
    }
}

/// The result of a request for the day's fetch.
#[derive(Debug, Object, Serialize)]
pub struct Fetch {
    /// The day in UTC; its fetch covers the days before it.
    day: String,
    /// The number of fetches enqueued by this request, each of one asset from one provider.
    enqueued: usize,
    /// The number of fetches that existed before.
    already: usize,
}

impl From<EnqueuedFetches> for Fetch {
    fn from(asked: EnqueuedFetches) -> Self {
        Self { day: asked.day.to_string(), enqueued: asked.enqueued, already: asked.already }
    }
}

#[derive(ApiResponse)]
enum FetchResponse {
    /// The day's fetch is enqueued, by this request or an earlier one.
    #[oai(status = 202)]
    Ok(Json<Fetch>),
}

#[derive(Debug)]
struct Asking;

impl ErrorStatuses for Asking {
    const ALL: &'static [u16] = &[401, 403, 429, 503];
}

#[OpenApi(tag = "Tag::Prices")]
impl PricesAdminApi {
    /// Fetch prices now
    ///
    /// Enqueues today's daily fetch (in UTC): one job for each asset and provider. Each job of a day exists once,
    /// regardless of the number of requests; a job that has failed for good starts again. A request body is ignored.
    /// One admin may send 60 requests a minute to all admin routes together.
    #[oai(path = "/admin/prices/fetch", method = "post", operation_id = "fetch_prices")]
    async fn fetch(&self, request: &Request, Admin(caller): Admin) -> Result<FetchResponse, Failure<Asking>> {
        self.limit.acquire(&caller).await?;
        let asked = self.prices.fetch_today(correlation::origin(request)).await?;
        Ok(FetchResponse::Ok(Json::new(&Fetch::from(asked))?))
    }
}
