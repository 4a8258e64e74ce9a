//! The context from which each feature builds its endpoints.

use jobs::{
    app::{App, Metrics},
    users::token::Tokens,
};
use tokio_util::sync::CancellationToken;

use crate::{config::ApiConfig, rate_limit::Limits};

/// Everything that the endpoints of a feature may need. They clone what they use.
pub struct Context<'a> {
    /// The features themselves.
    pub app: &'a App,
    /// The same features on database sessions of their own, for the views of operators.
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
