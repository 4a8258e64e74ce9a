//! What the endpoints of a feature are made from.

use jobs::{
    app::{App, Metrics},
    users::token::Tokens,
};
use tokio_util::sync::CancellationToken;

use crate::{config::ApiConfig, rate_limit::Limits};

/// What the endpoints of all features are made from.
pub struct Context<'a> {
    /// The features themselves.
    pub app: &'a App,
    /// The same features for what operators look at, with sessions of their own.
    pub views: &'a App,
    /// The configuration.
    pub config: &'a ApiConfig,
    /// The rate limits that all processes share.
    pub limits: Limits,
    /// Issues and checks the tokens of users.
    pub tokens: Tokens,
    /// Renders the metrics.
    pub metrics: Metrics,
    /// Cancelled when this process starts to drain.
    pub draining: CancellationToken,
}
