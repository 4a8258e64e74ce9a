//! HTTP clients of other servers.

use reqwest::{Client, ClientBuilder, redirect};

use crate::error::{Error, causes};

const USER_AGENT: &str = concat!("millrace/", env!("CARGO_PKG_VERSION"));

/// Builds a client, with the time limits that `limits` sets.
///
/// It follows no redirect: that would send credentials to another server, and lose the body of a POST or repeat its effect.
///
/// # Errors
/// [`Error::Internal`] when the client cannot be built.
#[expect(clippy::disallowed_methods, reason = "this function is the replacement")]
pub fn client(limits: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Result<Client, Error> {
    limits(Client::builder().redirect(redirect::Policy::none()).user_agent(USER_AGENT))
        .build()
        .map_err(|error| Error::Internal(format!("HTTP client: {}", causes(&error))))
}
