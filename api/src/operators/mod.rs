//! The operators' endpoints: what the queues do, and every action of an operator.
//!
//! `ADMIN_API_KEY` and tokens of admins may do everything here; `VIEWER_API_KEY` only reads.

mod actor;
mod callbacks;
mod capacity;
mod database;
mod dead_letters;
mod history;
mod jobs;
mod queues;
mod replays;
mod schedules;
mod wire;
mod workers;

use std::borrow::Cow;

use ::jobs::app::App;
use poem::http::StatusCode;
use queue::Operator;

use crate::{
    auth::{Admin, Viewer},
    context::Context,
    problem::Problem,
    rate_limit::Limit,
};

/// No name or id is longer; a longer one in a path is unknown.
const MAX_NAME: usize = 500;

/// Declares the endpoints of each topic, which its own file implements.
macro_rules! endpoints {
    ($($Api:ident),+) => {$(
        #[derive(Clone)]
        pub(crate) struct $Api(Access);

        impl $Api {
            /// The endpoints, within the rate limit that all operators' routes share.
            pub(crate) fn new(context: &Context<'_>) -> Self {
                Self(Access::new(context))
            }
        }
    )+};
}

endpoints!(
    QueuesApi,
    JobsApi,
    DeadLettersApi,
    ReplaysApi,
    WorkersApi,
    SchedulesApi,
    CallbacksApi,
    HistoryApi,
    CapacityApi,
    DatabaseApi
);

/// What the operators' endpoints share: the features, and one rate limit.
#[derive(Clone)]
struct Access {
    /// For actions.
    app: App,
    /// For reading, with sessions of its own.
    views: App,
    limit: Limit,
}

impl Access {
    fn new(Context { app, views, limits, .. }: &Context<'_>) -> Self {
        Self { app: (*app).clone(), views: (*views).clone(), limit: limits.operators.clone() }
    }

    /// Counts a request that reads.
    ///
    /// # Errors
    /// 429 after too many.
    async fn read(&self, Viewer(caller): &Viewer) -> Result<&Operator, Problem> {
        self.limit.acquire(caller).await?;
        Ok(&self.views.operator)
    }

    /// Counts a request that acts.
    ///
    /// # Errors
    /// 429 after too many.
    async fn act(&self, Admin(caller): &Admin) -> Result<&Operator, Problem> {
        self.limit.acquire(caller).await?;
        Ok(&self.app.operator)
    }
}

/// Checks that a name or id in a path can exist: PostgreSQL rejects a text with NUL.
///
/// # Errors
/// 404 with this detail.
fn check_name<'a>(name: &'a str, unknown: &'static str) -> Result<&'a str, Problem> {
    if name.contains('\0') || name.chars().count() > MAX_NAME { Err(not_found(unknown)) } else { Ok(name) }
}

fn not_found(detail: &'static str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, detail)
}

fn conflict(detail: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(StatusCode::CONFLICT, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_cannot_exist_is_unknown() {
        assert!(check_name("process_transaction", "Unknown queue").is_ok());
        for name in ["a\0b", &"a".repeat(501)] {
            assert!(check_name(name, "Unknown queue").is_err(), "{name}");
        }
    }
}
