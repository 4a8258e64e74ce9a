//! The board: pages under `/board` for operators, rendered on the server. Every page works without JavaScript.
//!
//! A browser logs in with a key and gets a signed cookie ([`session`]). The pages ask the same service layer as
//! `/admin/queue` and `millrace`. They are not part of `openapi.json`.

mod assets;
mod audit;
mod callbacks;
mod chart;
mod database;
mod dead;
mod events;
mod find;
mod form;
mod format;
mod jobs;
mod live;
mod login;
mod now;
mod page;
mod part;
mod queues;
mod replays;
mod routing;
mod scale;
mod schedules;
mod session;
mod state;
mod trend_chart;
mod trends;
mod visit;
mod workers;

use std::sync::Arc;

use poem::{
    Endpoint, EndpointExt, Request, Response,
    endpoint::make,
    http::{HeaderName, HeaderValue, Method, header},
};

use crate::{auth::Authenticator, context::Context, middleware::RouteService, problem};

use self::{
    live::Snapshots,
    session::Sessions,
    state::{LivePages, State},
};

/// The root of all pages.
const ROOT: &str = "/board";
/// Only our own files, no inline code, no frames, no other hosts.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; form-action 'self'; \
                      frame-ancestors 'none'; base-uri 'none'; connect-src 'self'";
/// Headers of every response.
const HEADERS: [(HeaderName, &str); 4] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
];

/// The endpoint of all pages.
pub struct Board(RouteService);

impl Board {
    /// Creates the board, which checks keys with this authenticator.
    pub fn new(context: &Context<'_>, authenticator: Authenticator) -> Self {
        let snapshots = |render| Snapshots::new(render, context.draining.clone());
        let state = Arc::new(State {
            app: context.views.clone(),
            snapshots: LivePages {
                now: snapshots(now::snapshots(context.views)),
                workers: snapshots(workers::snapshots(context.views)),
                replays: snapshots(replays::snapshots(context.views)),
            },
            sessions: Sessions::new(&context.config.keys, context.config.environment),
            authenticator,
            logins: context.limits.new_limit(login::POLICY),
        });
        let pages = make(move |request: Request| {
            let state = Arc::clone(&state);
            async move { routing::respond(&state, request).await.map_err(poem::Error::from) }
        });
        let pages = Arc::new(pages.map_to_response());
        let operations = [Method::GET, Method::POST].map(|method| (method, Arc::clone(&pages).boxed()));
        Self(RouteService::new(ROOT.into(), operations))
    }

    /// Whether a path belongs to the board.
    pub fn has_path(path: &str) -> bool {
        path.strip_prefix(ROOT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl Endpoint for Board {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let mut response = self.0.call(request).await?;
        if response.content_type() == Some(problem::CONTENT_TYPE) {
            response = page::of_problem(response).await;
        }
        for (name, value) in HEADERS {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        Ok(response)
    }
}
