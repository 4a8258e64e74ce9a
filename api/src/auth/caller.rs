//! Who calls by a key or a token, whichever is shown.

use std::fmt;

use jobs::users::{Role, UserId};
use poem::{Request, RequestBody, http::header};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions, registry::Registry};

use super::{
    bearer, forbidden,
    key::{self, Key},
};
use crate::problem::Problem;

/// The name of the scheme of [`Private`] in `openapi.json`.
const PRIVATE_SCHEME: &str = "PrivateKey";
/// The name of the scheme of [`Admin`] in `openapi.json`.
const ADMIN_SCHEME: &str = "AdminKey";

/// Who it is, the same for every request of one caller: what a rate limit counts by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Caller {
    /// Whoever has this key.
    Key(Key),
    /// The user that a token names.
    User(UserId),
    /// The subject of a token that somebody else made under our key, and that is no user's id.
    Subject(String),
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(Key::Api) => f.write_str("API_KEY"),
            Self::Key(Key::Admin) => f.write_str("ADMIN_API_KEY"),
            Self::User(user) => write!(f, "user {}", user.0),
            Self::Subject(subject) => write!(f, "subject {subject}"),
        }
    }
}

/// Whoever shows `API_KEY` or `ADMIN_API_KEY` in `X-API-Key`, or a token. As an argument of a handler it makes the
/// operation answer 401 to a bad token and 403 to everybody else: name both among its
/// [`Statuses`](crate::problem::Statuses).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Private(pub Caller);

/// Whoever shows `ADMIN_API_KEY` in `X-API-Key`, or the token of an admin. As an argument of a handler it makes the
/// operation answer 401 to a bad token and 403 to everybody else: name both among its
/// [`Statuses`](crate::problem::Statuses).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin(pub Caller);

impl<'a> ApiExtractor<'a> for Private {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        key::register(registry, PRIVATE_SCHEME, "X-API-Key", "The `API_KEY` that the service was started with.");
        bearer::register(registry);
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![PRIVATE_SCHEME, bearer::SCHEME]
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        key::count_wrong(request, &key::X_API_KEY).await?;
        Ok(private(request)?)
    }
}

impl<'a> ApiExtractor<'a> for Admin {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        key::register(registry, ADMIN_SCHEME, "X-API-Key", "The `ADMIN_API_KEY` that the service was started with.");
        bearer::register(registry);
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![ADMIN_SCHEME, bearer::SCHEME]
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        key::count_wrong(request, &key::X_API_KEY).await?;
        Ok(admin(request)?)
    }
}

/// A caller as for [`Private`], or one without any credential. A credential that is shown must be good all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaybePrivate(Option<Caller>);

impl MaybePrivate {
    /// Makes sure that there is a credential.
    ///
    /// # Errors
    /// 403 without a credential.
    pub fn require(&self) -> Result<(), Problem> {
        if self.0.is_some() { Ok(()) } else { Err(forbidden(key::MISSING)) }
    }
}

impl<'a> ApiExtractor<'a> for MaybePrivate {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        Private::register(registry);
    }

    fn security_schemes() -> Vec<&'static str> {
        Private::security_schemes()
    }

    fn has_security_fallback() -> bool {
        true
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        let nothing = !key::is_shown(request) && !request.headers().contains_key(header::AUTHORIZATION);
        if nothing { Ok(Self(None)) } else { Ok(private(request).map(|Private(caller)| Self(Some(caller)))?) }
    }
}

fn private(request: &Request) -> Result<Private, Problem> {
    shown(request).map(|(caller, _)| Private(caller))
}

fn admin(request: &Request) -> Result<Admin, Problem> {
    let (caller, role) = shown(request)?;
    match (&caller, role) {
        (Caller::Key(Key::Api), _) => Err(forbidden(key::WRONG)),
        (Caller::Key(Key::Admin), _) | (_, Some(Role::Admin)) => Ok(Admin(caller)),
        _ => Err(forbidden("Admin only")),
    }
}

/// Who calls, and what a token allows. Of two credentials both must be good, and the key says who it is.
fn shown(request: &Request) -> Result<(Caller, Option<Role>), Problem> {
    let claims = bearer::claims(request)?;
    if let Some(key) = key::of_header(request)? {
        return Ok((Caller::Key(key), claims.map(|claims| claims.role)));
    }
    let claims = claims.ok_or_else(|| forbidden(key::MISSING))?;
    let caller = claims.user().map_or(Caller::Subject(claims.subject), Caller::User);
    Ok((caller, Some(claims.role)))
}

#[cfg(test)]
mod tests {
    use jobs::users::token::Tokens;
    use poem_openapi::{OpenApi, OpenApiService, payload::PlainText};

    use super::*;
    use crate::{
        auth::testing,
        problem::{Fails, Statuses},
    };

    struct Things;

    struct Asking;

    impl Statuses for Asking {
        const ALL: &'static [u16] = &[401, 403];
    }

    #[OpenApi]
    impl Things {
        #[oai(path = "/price", method = "get")]
        async fn price(&self, _caller: Private) -> Result<PlainText<&'static str>, Fails<Asking>> {
            Ok(PlainText("price"))
        }

        #[oai(path = "/logs", method = "get")]
        async fn logs(&self, _caller: Admin) -> Result<PlainText<&'static str>, Fails<Asking>> {
            Ok(PlainText("logs"))
        }
    }

    #[test]
    fn the_document_shows_either() {
        let spec = OpenApiService::new(Things, "t", "1").spec();
        let document: serde_json::Value = serde_json::from_str(&spec).expect("JSON");
        for (path, scheme) in [("/price", PRIVATE_SCHEME), ("/logs", ADMIN_SCHEME)] {
            let either = serde_json::json!([{scheme: []}, {"Bearer": []}]);
            assert_eq!(document["paths"][path]["get"]["security"], either);
            let scheme = &document["components"]["securitySchemes"][scheme];
            assert_eq!((&scheme["type"], &scheme["name"]), (&"apiKey".into(), &"X-API-Key".into()));
        }
        assert_eq!(document["components"]["securitySchemes"]["Bearer"]["scheme"], "bearer");
    }

    /// What [`Private`] and [`Admin`] make of these headers.
    fn told(tokens: &Tokens, headers: &[(&'static str, &str)]) -> [Result<Caller, String>; 2] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let request = testing::request(tokens, &headers);
        let (private, admin) = (private(&request), admin(&request));
        [private.map(|Private(caller)| caller), admin.map(|Admin(caller)| caller)]
            .map(|told| told.map_err(|problem| problem.to_string()))
    }

    #[test]
    fn a_key_or_a_token_opens_what_it_is_for() {
        let tokens = Tokens::random();
        let bearer = |role| format!("Bearer {}", tokens.issue(UserId(7), role).expect("a token"));
        let (user, admin) = (bearer(Role::User), bearer(Role::Admin));
        let wrong = || Err("403 Forbidden: Invalid API key".to_owned());
        let (by_api, by_admin) = (Caller::Key(Key::Api), Caller::Key(Key::Admin));
        let seven = Caller::User(UserId(7));
        for (headers, private, admin) in [
            (&[("x-api-key", testing::API)][..], Ok(by_api), wrong()),
            (&[("x-api-key", testing::ADMIN)], Ok(by_admin.clone()), Ok(by_admin.clone())),
            (&[("authorization", &user)], Ok(seven.clone()), Err("403 Forbidden: Admin only".into())),
            (&[("authorization", &admin)], Ok(seven.clone()), Ok(seven)),
            (&[("authorization", &user), ("x-api-key", testing::ADMIN)], Ok(by_admin.clone()), Ok(by_admin)),
            (&[("authorization", &user), ("x-api-key", "x")], wrong(), wrong()),
            (&[("x-api-key", testing::API), ("x-api-key", testing::API)], wrong(), wrong()),
            (&[("x-api-key", "x")], wrong(), wrong()),
        ] {
            assert_eq!(told(&tokens, headers), [private, admin], "{headers:?}");
        }
    }

    #[test]
    fn a_token_under_our_key_need_not_be_a_users() {
        let tokens = Tokens::random();
        let token = format!("Bearer {}", tokens.issue(UserId(0), Role::Admin).expect("a token"));
        let caller = Ok(Caller::Subject("0".into()));
        assert_eq!(told(&tokens, &[("authorization", &token)]), [caller.clone(), caller]);
    }

    #[test]
    fn nothing_is_403_and_a_bad_token_401() {
        let tokens = Tokens::random();
        let nothing = Err("403 Forbidden: No API key provided".to_owned());
        for headers in [&[][..], &[("x-api-key", "")], &[("api_key", testing::API)]] {
            assert_eq!(told(&tokens, headers), [nothing.clone(), nothing.clone()], "{headers:?}");
        }
        let bad = Err("401 Unauthorized: Invalid or expired token".to_owned());
        for headers in
            [&[("authorization", "Bearer x")][..], &[("authorization", "Bearer x"), ("x-api-key", testing::API)]]
        {
            assert_eq!(told(&tokens, headers), [bad.clone(), bad.clone()], "{headers:?}");
        }
    }
}
