//! What an admin does about prices: have them fetched now.

use std::time::Duration;

use jobs::prices::{Prices, fetch::Asked};
use poem::Request;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Serialize;

use crate::{
    auth::Admin,
    middleware::correlation,
    problem::{Fails, Statuses},
    rate_limit,
    tags::Tag,
    wire::Json,
};

/// What one admin may ask for in a minute: asking again changes nothing, but writes all the same.
const POLICY: rate_limit::Policy =
    rate_limit::Policy { name: "prices-fetch", quota: 30, window: Duration::from_secs(60) };

/// The admin's endpoints of prices.
#[derive(Clone)]
pub struct PricesAdminApi {
    prices: Prices,
    fetches: rate_limit::Limit,
}

impl PricesAdminApi {
    /// Endpoints of this feature.
    pub fn new(prices: Prices) -> Self {
        Self { prices, fetches: rate_limit::Limit::new(POLICY) }
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

impl From<Asked> for Fetch {
    fn from(asked: Asked) -> Self {
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
    /// 30 requests a minute are taken from one admin.
    #[oai(path = "/admin/prices/fetch", method = "post", operation_id = "fetch_prices")]
    async fn fetch(&self, request: &Request, Admin(caller): Admin) -> Result<Accepted, Fails<Asking>> {
        self.fetches.take(caller)?;
        let asked = self.prices.fetch_today(correlation::origin(request)).await?;
        Ok(Accepted::Ok(Json::new(&Fetch::from(asked))?))
    }
}
