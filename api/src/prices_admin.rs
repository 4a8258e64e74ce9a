//! What an admin does about prices: have them fetched now.

use jobs::prices::{Prices, fetch::EnqueuedFetches};
use poem::Request;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Serialize;

use crate::{
    auth::Admin,
    middleware::correlation,
    problem::{Fails, Statuses},
    rate_limit::{Limit, Limits},
    tags::Tag,
    wire::Json,
};

/// The admin's endpoints of prices.
#[derive(Clone)]
pub struct PricesAdminApi {
    prices: Prices,
    limit: Limit,
}

impl PricesAdminApi {
    /// Endpoints of this feature, within the limit of all admin routes.
    pub fn new(prices: Prices, limits: &Limits) -> Self {
        Self { prices, limit: limits.admin.clone() }
    }
}

/// What became of asking for the day's fetch.
#[derive(Debug, Object, Serialize)]
pub struct Fetch {
    /// The day, in UTC; its fetch is of the days before.
    day: String,
    /// Fetches, each of one asset from one provider, that are on their way now.
    enqueued: usize,
    /// Fetches that had been asked for before.
    already: usize,
}

impl From<EnqueuedFetches> for Fetch {
    fn from(asked: EnqueuedFetches) -> Self {
        Self { day: asked.day.to_string(), enqueued: asked.enqueued, already: asked.already }
    }
}

#[derive(ApiResponse)]
enum Accepted {
    /// The day's fetch is recorded, now or before.
    #[oai(status = 202)]
    Ok(Json<Fetch>),
}

#[derive(Debug)]
struct Asking;

impl Statuses for Asking {
    const ALL: &'static [u16] = &[401, 403, 429, 503];
}

#[OpenApi(tag = "Tag::Prices")]
impl PricesAdminApi {
    /// Fetch prices now
    ///
    /// Enqueues the daily fetch of today in UTC: a job for each asset and provider. The fetch of a day exists once for
    /// each of them, whoever asks for it and how often; one that was given up begins again. A body is not read. At most
    /// 60 requests a minute of all admin routes are taken from one admin.
    #[oai(path = "/admin/prices/fetch", method = "post", operation_id = "fetch_prices")]
    async fn fetch(&self, request: &Request, Admin(caller): Admin) -> Result<Accepted, Fails<Asking>> {
        self.limit.take(&caller).await?;
        let asked = self.prices.fetch_today(correlation::origin(request)).await?;
        Ok(Accepted::Ok(Json::new(&Fetch::from(asked))?))
    }
}
