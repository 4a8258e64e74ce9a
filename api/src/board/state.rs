//! What all pages are made from.

use jobs::app::App;
use queue::Operator;

use super::{live::Snapshots, session::Sessions};
use crate::{auth::Authenticator, rate_limit::Limit};

/// What all pages are made from.
pub(super) struct State {
    /// The features for views.
    pub app: App,
    pub snapshots: LivePages,
    pub sessions: Sessions,
    pub authenticator: Authenticator,
    /// Limits login attempts by address.
    pub logins: Limit,
}

/// The pages that are rendered for all who watch them.
pub(super) struct LivePages {
    pub now: Snapshots,
    pub workers: Snapshots,
    pub replays: Snapshots,
}

impl LivePages {
    /// The snapshots of the page whose stream has this path below `/board/events`.
    pub(super) fn of(&self, path: &[&str]) -> Option<&Snapshots> {
        match path {
            [] => Some(&self.now),
            ["workers"] => Some(&self.workers),
            ["replays"] => Some(&self.replays),
            _ => None,
        }
    }
}

impl State {
    /// The service layer. Its actions use the sessions of all features, and its reads those of the views.
    pub(super) fn operator(&self) -> &Operator {
        &self.app.operator
    }
}
