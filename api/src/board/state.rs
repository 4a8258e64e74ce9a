//! What all pages are made from.

use jobs::app::App;
use queue::Operator;

use super::session::Sessions;
use crate::{auth::Authenticator, rate_limit::Limit};

/// What all pages are made from.
pub(super) struct State {
    pub app: App,
    pub sessions: Sessions,
    pub authenticator: Authenticator,
    /// Limits login attempts by address.
    pub logins: Limit,
}

impl State {
    /// The service layer.
    pub(super) fn operator(&self) -> &Operator {
        &self.app.operator
    }
}
