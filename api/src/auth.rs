//! Who calls: by a token, by a key, or by either.

mod bearer;
mod caller;
mod key;

use std::{fmt, sync::Arc};

use jobs::users::token::Tokens;
use poem::{
    Request,
    http::{HeaderValue, StatusCode, header},
};

pub use self::{
    bearer::{Bearer, claims},
    caller::{Admin, Caller, MaybePrivate, Private},
    key::{ApiKey, Key},
};
use crate::{config::KeysConfig, problem::Problem, rate_limit::Limit};

/// Everything that callers are known by. Clones share it.
#[derive(Clone)]
pub struct Callers(Arc<Known>);

struct Known {
    tokens: Tokens,
    keys: key::Keys,
    wrong_keys: Limit,
}

impl Callers {
    /// Callers who show one of these tokens or keys; `wrong_keys` limits each address that shows others.
    pub fn new(tokens: Tokens, keys: &KeysConfig, wrong_keys: Limit) -> Self {
        Self(Arc::new(Known { tokens, keys: key::Keys::new(keys), wrong_keys }))
    }

    /// Leaves with a request what it is checked by; one that shows nothing needs nothing.
    pub fn equip(&self, request: &mut Request) {
        if shows_credentials(request) {
            request.set_data(self.clone());
        }
    }

    /// What [`Self::equip`] left.
    fn of(request: &Request) -> Result<&Self, Problem> {
        request.data().ok_or_else(|| Problem::internal("nothing with this request that callers are known by"))
    }

    fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    fn keys(&self) -> &key::Keys {
        &self.0.keys
    }

    fn wrong_keys(&self) -> &Limit {
        &self.0.wrong_keys
    }
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callers(…)")
    }
}

/// Whether a request shows any credential, be it a good one or not.
pub fn shows_credentials(request: &Request) -> bool {
    [header::AUTHORIZATION, key::API_KEY, key::X_API_KEY].iter().any(|name| request.headers().contains_key(name))
}

/// 401, with the scheme that would be right.
pub fn unauthorized(why: &'static str) -> Problem {
    let problem = Problem::new(StatusCode::UNAUTHORIZED, why);
    problem.header(header::WWW_AUTHENTICATE, HeaderValue::from_static(bearer::SCHEME))
}

fn forbidden(why: &'static str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, why)
}

#[cfg(test)]
mod testing {
    use super::*;
    use crate::{config::Secret, rate_limit::Policy};

    pub(super) const API: &str = "key-of-private-routes";
    pub(super) const ADMIN: &str = "key-of-admin-routes";

    /// Callers with these tokens, [`API`] and [`ADMIN`].
    pub(super) fn callers(tokens: &Tokens) -> Callers {
        let keys = KeysConfig { api: Secret::new(API), admin: Secret::new(ADMIN), jwt: None };
        Callers::new(tokens.clone(), &keys, Limit::new(Policy::WRONG_KEYS))
    }

    /// A request with these headers, equipped.
    pub(super) fn request(tokens: &Tokens, headers: &[(&'static str, &[u8])]) -> Request {
        let mut request = Request::default();
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_bytes(value).expect("a header"));
        }
        callers(tokens).equip(&mut request);
        request
    }
}
