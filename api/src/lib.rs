//! The HTTP API of Millrace: parses requests, checks them and builds responses. The crate `jobs` does the work itself.
//!
//! Start with [`build`], which joins the features' endpoints, then read [`transactions`], a feature with most aspects.
//! [`middleware`] surrounds every handler, and [`validation`] reads every input.

pub mod auth;
mod board;
mod client_address;
pub mod config;
mod context;
pub mod cors;
pub mod docs;
mod entity_tag;
pub mod health;
pub mod interest_rates;
pub mod items;
mod link;
pub mod logs;
pub mod mars_probes;
pub mod middleware;
pub mod operators;
mod page;
pub mod prices;
pub mod problem;
pub mod program;
pub mod rate_limit;
pub mod routes;
mod schema;
pub mod search;
pub mod server;
pub mod transactions;
pub mod users;
pub mod validation;
mod validation_error;
pub mod wire;

use jobs::{
    app::{App, Metrics},
    users::token::Tokens,
};
use poem_openapi::{ExtraHeader, OpenApiService};
pub use program::program;
use tokio_util::sync::CancellationToken;

use self::{
    auth::Authenticator,
    board::Board,
    config::ApiConfig,
    context::Context,
    rate_limit::{Limits, Policy},
    routes::Routes,
};

/// The title of `openapi.json`.
const TITLE: &str = "Millrace";
/// The introduction of `openapi.json`: facts about every endpoint.
const DESCRIPTION: &str = "A durable job queue behind five services.\n\n\
    JSON in UTF-8; times are RFC 3339 in UTC; money is decimal and exact. Every response carries `X-Correlation-Id`: \
    yours, if it matches `[A-Za-z0-9._:@/+=-]{1,128}`, else a new one; it is in every log line and job that the request \
    leads to. W3C `traceparent` goes the same way.\n\n\
    Errors are `application/problem+json`. `detail` is a sentence, or for a validation error (422) the list of all \
    failing fields as `{\"loc\", \"msg\", \"type\", \"input\"}`. Rate-limited routes report the remaining quota in \
    `RateLimit` and the policy in `RateLimit-Policy`, also when they fail. Every response has a `Cache-Control`: \
    `private, no-store` for requests with a key or a token, `no-cache` where an `ETag` can be revalidated, `no-store` \
    otherwise. A 2xx is sent only after its write is committed. \
    Bodies are at most 1 MiB, those of batches 4 MiB, and arrive within 30 s.";

/// Lists the endpoints of all features; each is made from the [`Context`]. The framework takes tuples of up to 16.
macro_rules! features {
    ($([$($Api:ty,)+])+) => {
        type Apis = ($(($($Api,)+),)+);

        fn apis(context: &Context<'_>) -> Apis {
            ($(($(<$Api>::new(context),)+),)+)
        }
    };
}

// A new feature adds a line here, a tag below and its module above. The order is that of `openapi.json`.
features! {
    [
        transactions::TransactionsApi,
        transactions::BatchApi,
        users::UsersApi,
        items::ItemsApi,
        search::SearchApi,
        interest_rates::RatesApi,
        mars_probes::ProbesApi,
        prices::PricesApi,
    ]
    [
        operators::QueuesApi,
        operators::JobsApi,
        operators::DeadLettersApi,
        operators::ReplaysApi,
        operators::WorkersApi,
        operators::SchedulesApi,
        operators::CallbacksApi,
        operators::HistoryApi,
        operators::CapacityApi,
        operators::DatabaseApi,
    ]
    [
        logs::LogsApi,
        health::HealthApi,
    ]
}

/// The tags of the OpenAPI document: one per feature.
mod tags {
    use poem_openapi::Tags;
    use serde::Deserialize;

    /// The tag of an operation. The order is that of the documentation: the main feature first, health last.
    #[derive(Tags, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) enum Tag {
        /// Webhooks that are recorded once, processed once in effect, and looked up by their senders.
        Transactions,
        /// Items that users offer: written by their owners, readable by everyone.
        Items,
        /// Full-text search for items.
        Search,
        /// The average of submitted interest rates, stored in PostgreSQL or in a smart contract.
        #[oai(rename = "Interest rates")]
        #[serde(rename = "Interest rates")]
        InterestRates,
        /// Probes on Mars, each on its own grid. A list of commands is executed completely or not at all.
        #[oai(rename = "Mars probes")]
        #[serde(rename = "Mars probes")]
        Probes,
        /// Prices of crypto assets, fetched daily and on request.
        #[oai(rename = "Crypto prices")]
        #[serde(rename = "Crypto prices")]
        Prices,
        /// Registration, and the login that returns a token.
        Users,
        /// Queues, jobs, dead letters and workers: what operators see and do.
        Operators,
        /// The structured logs of all processes.
        Logs,
        /// Liveness, readiness and metrics of the process.
        Health,
    }
}

/// Builds the whole API as one endpoint, for [`server::serve`]. `draining` is cancelled when this process starts to drain.
pub fn build(app: &App, config: &ApiConfig, metrics: Metrics, draining: CancellationToken) -> Routes {
    let tokens = config.keys.jwt.as_ref().map_or_else(Tokens::random, |key| Tokens::new(key.expose()));
    let limits = Limits::new(app.redis.clone(), config.prices_limit, config.webhook.quota);
    let authenticator = Authenticator::new(tokens.clone(), &config.keys, limits.new_limit(Policy::WRONG_KEYS));
    let views = &app.for_views();
    let context = Context { app, views, config, limits, tokens, metrics, draining };
    Routes::new(apis(&context), docs::pages(document()))
        .with_board(config.board.then(|| Board::new(&context, authenticator.clone())))
        .with_authenticator(authenticator)
        .with_trusted_proxies(&config.trusted_proxies)
        .with_cors(&config.allowed_origins)
}

/// The OpenAPI document as committed in `api/openapi.json`. It is the same on every machine.
pub fn openapi_json() -> String {
    docs::text(&document()) + "\n"
}

fn document() -> docs::Document<Apis> {
    OpenApiService::new(docs::DocumentedApi::default(), TITLE, env!("CARGO_PKG_VERSION"))
        .description(DESCRIPTION)
        .license("MIT")
        .server("/")
        .extra_response_header::<String, _>(
            ExtraHeader::new("X-Correlation-Id").description("Identifies this request in logs, traces and jobs."),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_reproducible() {
        let json = openapi_json();
        assert_eq!(json, openapi_json());
        for local in ["localhost", "127.0.0.1", env!("CARGO_MANIFEST_DIR")] {
            assert!(!json.contains(local), "{local}");
        }
    }

    #[test]
    fn the_published_document_is_up_to_date() {
        let published = include_str!("../openapi.json");
        let command = "cargo run -q -p api --example openapi > openapi.json && mv openapi.json api/";
        assert!(published == openapi_json(), "the API has changed; publish it with: {command}");
    }

    #[test]
    fn the_document_lists_every_operation_with_its_errors() {
        let json: serde_json::Value = serde_json::from_str(&openapi_json()).expect("JSON");
        for (path, method, statuses) in [
            (
                "/v1/webhooks/transactions",
                "post",
                vec!["202", "400", "401", "408", "409", "413", "415", "422", "429", "500", "503"],
            ),
            (
                "/v1/webhooks/transactions/batch",
                "post",
                vec!["200", "400", "401", "408", "413", "415", "422", "429", "500", "503"],
            ),
            (
                "/v1/transactions/{transaction_id}",
                "get",
                vec!["200", "304", "401", "403", "404", "412", "422", "429", "500", "503"],
            ),
            ("/v1/transactions", "get", vec!["200", "401", "403", "422", "429", "500", "503"]),
            (
                "/api/v1/users/register",
                "post",
                vec!["201", "400", "408", "409", "413", "415", "422", "429", "500", "503"],
            ),
            ("/api/v1/users/login", "post", vec!["200", "400", "401", "408", "413", "415", "422", "429", "500", "503"]),
            ("/api/v1/items", "get", vec!["200", "422", "500", "503"]),
            ("/api/v1/items", "post", vec!["201", "400", "401", "403", "408", "413", "415", "422", "500", "503"]),
            ("/api/v1/items/{item_id}", "get", vec!["200", "304", "404", "412", "422", "500", "503"]),
            (
                "/api/v1/items/{item_id}",
                "put",
                vec!["200", "400", "401", "403", "404", "408", "412", "413", "415", "422", "500", "503"],
            ),
            ("/api/v1/items/{item_id}", "delete", vec!["204", "401", "403", "404", "412", "422", "500", "503"]),
            ("/api/v1/search/items", "get", vec!["200", "422", "500", "503"]),
            ("/asset", "post", vec!["200", "400", "401", "403", "408", "413", "415", "422", "429", "500", "503"]),
            ("/interest_rate", "get", vec!["200", "401", "403", "404", "429", "500", "503"]),
            ("/interest_rate/history", "get", vec!["200", "401", "403", "422", "429", "500", "503"]),
            ("/api/v1/setup", "post", vec!["200", "400", "408", "413", "415", "422", "500", "503"]),
            ("/api/v1/move", "patch", vec!["200", "400", "404", "408", "413", "415", "422", "500", "503"]),
            ("/api/v1/check", "get", vec!["200", "422", "500", "503"]),
            ("/logs/export", "get", vec!["200", "401", "403", "404", "422", "429", "500", "503"]),
            ("/simple_price", "get", vec!["200", "401", "403", "404", "422", "429", "500", "503"]),
            ("/market_chart", "get", vec!["200", "401", "403", "404", "422", "429", "500", "503"]),
            ("/admin/prices/fetch", "post", vec!["202", "401", "403", "429", "500", "503"]),
            (
                "/v1/transactions/{transaction_id}/timeline",
                "get",
                vec!["200", "401", "403", "404", "429", "500", "503"],
            ),
            ("/admin/queue/overview", "get", vec!["200", "401", "403", "429", "500", "503"]),
            ("/admin/queue/queues/{name}", "get", vec!["200", "401", "403", "404", "429", "500", "503"]),
            (
                "/admin/queue/queues/{name}/pause",
                "post",
                vec!["200", "400", "401", "403", "404", "408", "413", "415", "422", "429", "500", "503"],
            ),
            (
                "/admin/queue/queues/{name}/resume",
                "post",
                vec!["200", "400", "401", "403", "404", "408", "409", "413", "415", "422", "429", "500", "503"],
            ),
            ("/admin/queue/jobs", "get", vec!["200", "401", "403", "422", "429", "500", "503"]),
            ("/admin/queue/jobs/{id}", "get", vec!["200", "401", "403", "404", "422", "429", "500", "503"]),
            (
                "/admin/queue/jobs/{id}/cancel",
                "post",
                vec!["200", "400", "401", "403", "404", "408", "409", "413", "415", "422", "429", "500", "503"],
            ),
            (
                "/admin/queue/cancel",
                "post",
                vec!["200", "400", "401", "403", "404", "408", "413", "415", "422", "429", "500", "503"],
            ),
            (
                "/admin/queue/dead/replay",
                "post",
                vec!["200", "202", "400", "401", "403", "404", "408", "409", "413", "415", "422", "429", "500", "503"],
            ),
            (
                "/admin/queue/dead/discard",
                "post",
                vec!["200", "400", "401", "403", "404", "408", "413", "415", "422", "429", "500", "503"],
            ),
            (
                "/admin/queue/replays/{id}/stop",
                "post",
                vec!["200", "400", "401", "403", "404", "408", "409", "413", "415", "422", "429", "500", "503"],
            ),
            (
                "/admin/queue/workers/{id}/drain",
                "post",
                vec!["200", "400", "401", "403", "404", "408", "413", "415", "422", "429", "500", "503"],
            ),
            ("/admin/queue/schedules", "get", vec!["200", "401", "403", "429", "500", "503"]),
            (
                "/admin/queue/schedules/{name}/fires",
                "get",
                vec!["200", "401", "403", "404", "422", "429", "500", "503"],
            ),
            (
                "/admin/queue/schedules/{name}/fire",
                "post",
                vec!["200", "400", "401", "403", "404", "408", "413", "415", "422", "429", "500", "503"],
            ),
            (
                "/admin/queue/schedules/{name}/skip-next",
                "post",
                vec!["200", "400", "401", "403", "404", "408", "409", "413", "415", "422", "429", "500", "503"],
            ),
            ("/admin/queue/callbacks", "get", vec!["200", "401", "403", "429", "500", "503"]),
            (
                "/admin/queue/callbacks/enable",
                "post",
                vec!["200", "400", "401", "403", "404", "408", "409", "413", "415", "422", "429", "500", "503"],
            ),
            ("/v1/callbacks/test", "post", vec!["200", "401", "403", "404", "409", "422", "429", "500", "503"]),
            ("/admin/queue/scale", "get", vec!["200", "401", "403", "422", "429", "500", "503"]),
            ("/admin/queue/queues/{name}/trends", "get", vec!["200", "401", "403", "404", "422", "429", "500", "503"]),
            ("/admin/queue/doctor", "get", vec!["200", "401", "403", "429", "500"]),
            ("/admin/queue/actions", "get", vec!["200", "401", "403", "422", "429", "500", "503"]),
            ("/", "get", vec!["200", "500"]),
            ("/livez", "get", vec!["200", "500"]),
            ("/readyz", "get", vec!["200", "500", "503"]),
            ("/api/v1/ready", "get", vec!["200", "500", "503"]),
            ("/api/v1/health", "get", vec!["200", "500"]),
            ("/api/v1/health/ready", "get", vec!["200", "500", "503"]),
            ("/metrics", "get", vec!["200", "500"]),
        ] {
            let operation = &json["paths"][path][method];
            assert!(operation["summary"].is_string(), "{method} {path}");
            let responses = operation["responses"].as_object().cloned().unwrap_or_default();
            let mut listed: Vec<_> = responses.keys().map(String::as_str).collect();
            listed.sort_unstable();
            assert_eq!(listed, statuses, "{method} {path}");
        }
    }
}
