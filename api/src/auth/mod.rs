//! Authentication of callers: by token, by key, or by either.

mod bearer;
mod caller;
mod credential;
mod key;
mod keys_config;

use std::{fmt, sync::Arc};

use jobs::users::token::Tokens;
use poem::{
    Request,
    http::{HeaderValue, StatusCode, header},
};

pub(crate) use self::{
    bearer::Bearer,
    caller::{Admin, Caller, MaybePrivate, Private, Viewer},
    key::{ApiKey, Key},
    keys_config::KeysConfig,
};
use crate::{problem::Problem, rate_limit::Limit};

/// Checks the tokens and keys of callers. Clones share its state.
#[derive(Clone)]
pub struct Authenticator(Arc<Credentials>);

struct Credentials {
    tokens: Tokens,
    keys: key::Keys,
    wrong_keys: Limit,
}

impl Authenticator {
    /// An authenticator for these tokens and keys. `wrong_keys` limits each client address that sends wrong keys.
    pub fn new(tokens: Tokens, keys: &KeysConfig, wrong_keys: Limit) -> Self {
        Self(Arc::new(Credentials { tokens, keys: key::Keys::new(keys), wrong_keys }))
    }

    /// Attaches the authenticator to a request that has credentials. Other requests do not need it.
    pub fn attach(&self, request: &mut Request) {
        if has_credentials(request) {
            request.set_data(self.clone());
        }
    }

    /// Identifies a key that did not come in a header; `None` if it is wrong.
    pub fn identify(&self, key: &[u8]) -> Option<Key> {
        self.0.keys.identify(key)
    }

    /// What the authenticator that [`Self::attach`] attached checks against.
    fn of(request: &Request) -> Result<&Credentials, Problem> {
        let attached = request.data::<Self>();
        attached
            .map(|attached| &*attached.0)
            .ok_or_else(|| Problem::internal("no authenticator is attached to this request"))
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authenticator(…)")
    }
}

/// Whether a request has any credential, valid or not.
pub fn has_credentials(request: &Request) -> bool {
    [header::AUTHORIZATION, key::API_KEY, key::X_API_KEY].iter().any(|name| request.headers().contains_key(name))
}

/// 401 with the scheme to use in `WWW-Authenticate`.
pub fn unauthorized(detail: &'static str) -> Problem {
    let problem = Problem::new(StatusCode::UNAUTHORIZED, detail);
    problem.header(header::WWW_AUTHENTICATE, HeaderValue::from_static(bearer::SCHEME))
}

/// 403 with this detail.
pub(crate) fn forbidden(detail: &'static str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, detail)
}

#[cfg(test)]
mod testing {
    use runtime::secret::Secret;

    use super::*;
    use crate::rate_limit::Policy;

    pub(super) const API: &str = "key-of-private-routes";
    pub(super) const ADMIN: &str = "key-of-admin-routes";
    pub(super) const VIEWER: &str = "key-of-viewers";

    /// An authenticator for these tokens and the keys [`API`], [`ADMIN`] and [`VIEWER`].
    pub(super) fn authenticator(tokens: &Tokens) -> Authenticator {
        let viewer = Some(Secret::new(VIEWER));
        let keys = KeysConfig { api: Secret::new(API), admin: Secret::new(ADMIN), viewer, jwt: None };
        Authenticator::new(tokens.clone(), &keys, Limit::new(Policy::WRONG_KEYS))
    }

    /// A request with these headers and an attached authenticator.
    pub(super) fn request(tokens: &Tokens, headers: &[(&'static str, &[u8])]) -> Request {
        let mut request = Request::default();
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_bytes(value).expect("a header"));
        }
        authenticator(tokens).attach(&mut request);
        request
    }
}
