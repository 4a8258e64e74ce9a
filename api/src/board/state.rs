//! What all pages are made from.

use jobs::app::App;
use queue::Operator;

use super::{live::Snapshots, session::Sessions};
use crate::{auth::Authenticator, rate_limit::Limit};

/// What all pages are made from.
pub(super) struct State {
    /// The features for views.
    pub app: App,
    /// The first page, rendered for everyone who watches it.
    pub snapshots: Snapshots,
    pub sessions: Sessions,
    pub authenticator: Authenticator,
    /// Limits login attempts by address.
    pub logins: Limit,
}

impl State {
    /// The service layer. Its actions use the sessions of all features, and its reads those of the views.
    pub(super) fn operator(&self) -> &Operator {
        &self.app.operator
    }
}
