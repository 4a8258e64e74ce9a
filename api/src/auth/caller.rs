//! Callers that authenticate by a key or a token: the extractors [`Private`], [`Admin`], [`Viewer`] and
//! [`MaybePrivate`].

use std::fmt;

use jobs::users::{Role, UserId};
use poem::{Request, http::header};

use super::{
    bearer,
    credential::{Credential, Scheme, extractor},
    forbidden,
    key::{self, Key},
};
use crate::problem::Problem;

/// The name of the scheme of [`Private`] in `openapi.json`.
const PRIVATE_SCHEME: &str = "PrivateKey";
/// The name of the scheme of [`Admin`] in `openapi.json`.
const ADMIN_SCHEME: &str = "AdminKey";
/// The name of the scheme of [`Viewer`] in `openapi.json`.
const VIEWER_SCHEME: &str = "ViewerKey";
/// The detail of a 403 for a viewer on a route of admins.
const READ_ONLY: &str =
    "VIEWER_API_KEY may only read queues, jobs and the audit: this needs ADMIN_API_KEY or an admin's token";

/// An authenticated caller. It is equal for all requests of one caller, so rate limits use it as their key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Caller {
    /// A holder of this key.
    Key(Key),
    /// The user that a token names.
    User(UserId),
    /// The subject of a token that is not a user's id. Another service signed it with our `JWT_SECRET`.
    Subject(String),
}

/// The most characters of the name of an operator.
const MAX_NAME: usize = 100;

impl Caller {
    /// The name under which the audit records the actions of a caller that gives none.
    pub(crate) fn operator_name(&self) -> String {
        match self {
            Self::Key(Key::Admin) => "admin key".into(),
            // Cut, because another service may issue subjects of any length.
            other => other.to_string().chars().take(MAX_NAME).collect(),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(Key::Api) => f.write_str("API_KEY"),
            Self::Key(Key::Admin) => f.write_str("ADMIN_API_KEY"),
            Self::Key(Key::Viewer) => f.write_str("VIEWER_API_KEY"),
            Self::User(user) => write!(f, "user {}", user.0),
            Self::Subject(subject) => write!(f, "subject {subject}"),
        }
    }
}

/// A caller with `API_KEY` or `ADMIN_API_KEY` in `X-API-Key`, or with a token.
///
/// A handler with this argument returns 401 for an invalid token and 403 otherwise; list both in its
/// [`ErrorStatuses`](crate::problem::ErrorStatuses).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Private(pub Caller);

/// A caller with `ADMIN_API_KEY` in `X-API-Key`, or with an admin's token.
///
/// A handler with this argument returns 401 for an invalid token and 403 otherwise; list both in its
/// [`ErrorStatuses`](crate::problem::ErrorStatuses).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Admin(pub Caller);

impl Credential for Private {
    const SCHEMES: &'static [Scheme] =
        &[Scheme::key(PRIVATE_SCHEME, "X-API-Key", "The `API_KEY` that the service was started with."), bearer::TOKEN];

    async fn authenticate(request: &Request) -> Result<Self, Problem> {
        key::limit_wrong_keys(request, &key::X_API_KEY).await?;
        private(request)
    }
}

extractor!(Private, optional: false);

impl Credential for Admin {
    const SCHEMES: &'static [Scheme] = &[
        Scheme::key(ADMIN_SCHEME, "X-API-Key", "The `ADMIN_API_KEY` that the service was started with."),
        bearer::TOKEN,
    ];

    async fn authenticate(request: &Request) -> Result<Self, Problem> {
        key::limit_wrong_keys(request, &key::X_API_KEY).await?;
        admin(request)
    }
}

extractor!(Admin, optional: false);

/// A caller with `VIEWER_API_KEY` in `X-API-Key`, or an [`Admin`]. It may read operator routes.
///
/// A handler with this argument returns 401 for an invalid token and 403 otherwise; list both in its
/// [`ErrorStatuses`](crate::problem::ErrorStatuses).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Viewer(pub Caller);

impl Viewer {
    /// Requires that the caller may also act.
    ///
    /// # Errors
    /// 403 for `VIEWER_API_KEY`.
    pub(crate) fn require_admin(self) -> Result<Admin, Problem> {
        match self.0 {
            Caller::Key(Key::Viewer) => Err(forbidden(READ_ONLY)),
            caller => Ok(Admin(caller)),
        }
    }
}

impl Credential for Viewer {
    const SCHEMES: &'static [Scheme] = &[
        Admin::SCHEMES[0],
        Scheme::key(
            VIEWER_SCHEME,
            "X-API-Key",
            "The `VIEWER_API_KEY` that the service was started with: it only reads.",
        ),
        bearer::TOKEN,
    ];

    async fn authenticate(request: &Request) -> Result<Self, Problem> {
        key::limit_wrong_keys(request, &key::X_API_KEY).await?;
        viewer(request)
    }
}

extractor!(Viewer, optional: false);

/// A caller as in [`Private`], or a request without credentials. A credential that is present must be valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MaybePrivate(Option<Caller>);

impl MaybePrivate {
    /// Requires a credential.
    ///
    /// # Errors
    /// 403 when the request has no credential.
    pub(crate) fn require(&self) -> Result<(), Problem> {
        if self.0.is_some() { Ok(()) } else { Err(forbidden(key::MISSING)) }
    }
}

impl Credential for MaybePrivate {
    const SCHEMES: &'static [Scheme] = Private::SCHEMES;

    async fn authenticate(request: &Request) -> Result<Self, Problem> {
        if !key::has_x_api_key(request) && !request.headers().contains_key(header::AUTHORIZATION) {
            return Ok(Self(None));
        }
        Private::authenticate(request).await.map(|Private(caller)| Self(Some(caller)))
    }
}

extractor!(MaybePrivate, optional: true);

fn private(request: &Request) -> Result<Private, Problem> {
    match identify(request)? {
        (Caller::Key(Key::Viewer), _) => Err(forbidden(key::WRONG)),
        (caller, _) => Ok(Private(caller)),
    }
}

fn admin(request: &Request) -> Result<Admin, Problem> {
    viewer(request)?.require_admin()
}

fn viewer(request: &Request) -> Result<Viewer, Problem> {
    let (caller, role) = identify(request)?;
    match (&caller, role) {
        (Caller::Key(Key::Api), _) => Err(forbidden(key::WRONG)),
        (Caller::Key(Key::Admin | Key::Viewer), _) | (_, Some(Role::Admin)) => Ok(Viewer(caller)),
        _ => Err(forbidden("Admin only")),
    }
}

/// Returns the caller, and the role if there is a token. With both a key and a token, both must be valid and the key
/// identifies the caller.
fn identify(request: &Request) -> Result<(Caller, Option<Role>), Problem> {
    let claims = bearer::claims(request)?;
    if let Some(key) = key::x_api_key(request)? {
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
        problem::{Failure, errors},
    };

    struct TestApi;

    errors! {
        AccessDenied: [401, 403];
    }

    #[OpenApi]
    impl TestApi {
        #[oai(path = "/price", method = "get")]
        async fn price(&self, _caller: Private) -> Result<PlainText<&'static str>, Failure<AccessDenied>> {
            Ok(PlainText("price"))
        }

        #[oai(path = "/logs", method = "get")]
        async fn logs(&self, _caller: Admin) -> Result<PlainText<&'static str>, Failure<AccessDenied>> {
            Ok(PlainText("logs"))
        }
    }

    #[test]
    fn the_document_lists_key_and_token_as_alternatives() {
        let spec = OpenApiService::new(TestApi, "t", "1").spec();
        let document: serde_json::Value = serde_json::from_str(&spec).expect("JSON");
        for (path, scheme) in [("/price", PRIVATE_SCHEME), ("/logs", ADMIN_SCHEME)] {
            let either = serde_json::json!([{scheme: []}, {"Bearer": []}]);
            assert_eq!(document["paths"][path]["get"]["security"], either);
            let scheme = &document["components"]["securitySchemes"][scheme];
            assert_eq!((&scheme["type"], &scheme["name"]), (&"apiKey".into(), &"X-API-Key".into()));
        }
        assert_eq!(document["components"]["securitySchemes"]["Bearer"]["scheme"], "bearer");
    }

    /// The results of [`Private`], [`Admin`] and [`Viewer`] for these headers.
    fn authenticate(tokens: &Tokens, headers: &[(&'static str, &str)]) -> [Result<Caller, String>; 3] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let request = testing::request(tokens, &headers);
        let (private, admin, viewer) = (private(&request), admin(&request), viewer(&request));
        [private.map(|Private(caller)| caller), admin.map(|Admin(caller)| caller), viewer.map(|Viewer(caller)| caller)]
            .map(|result| result.map_err(|problem| problem.to_string()))
    }

    #[test]
    fn a_key_or_a_token_grants_access_to_its_routes() {
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
            assert_eq!(authenticate(&tokens, headers), [private, admin.clone(), admin], "{headers:?}");
        }
    }

    #[test]
    fn the_viewer_key_reads_operator_routes_and_nothing_else() {
        let tokens = Tokens::random();
        let refused = |detail: &str| Err(format!("403 Forbidden: {detail}"));
        let expected = [refused(key::WRONG), refused(READ_ONLY), Ok(Caller::Key(Key::Viewer))];
        assert_eq!(authenticate(&tokens, &[("x-api-key", testing::VIEWER)]), expected);
        // The key identifies the caller, so a token next to it adds no right.
        let token = format!("Bearer {}", tokens.issue(UserId(7), Role::Admin).expect("a token"));
        let both = [("x-api-key", testing::VIEWER), ("authorization", &*token)];
        assert_eq!(authenticate(&tokens, &both), expected);
    }

    #[test]
    fn a_signed_token_may_have_a_subject_that_is_not_a_user() {
        let tokens = Tokens::random();
        let token = format!("Bearer {}", tokens.issue(UserId(0), Role::Admin).expect("a token"));
        let caller = Ok(Caller::Subject("0".into()));
        assert_eq!(authenticate(&tokens, &[("authorization", &token)]), [caller.clone(), caller.clone(), caller]);
    }

    #[test]
    fn no_credential_is_403_and_a_bad_token_is_401() {
        let tokens = Tokens::random();
        let nothing = Err("403 Forbidden: No API key provided".to_owned());
        for headers in [&[][..], &[("x-api-key", "")], &[("api_key", testing::API)]] {
            assert_eq!(
                authenticate(&tokens, headers),
                [nothing.clone(), nothing.clone(), nothing.clone()],
                "{headers:?}"
            );
        }
        let bad = Err("401 Unauthorized: Invalid or expired token".to_owned());
        for headers in
            [&[("authorization", "Bearer x")][..], &[("authorization", "Bearer x"), ("x-api-key", testing::API)]]
        {
            assert_eq!(authenticate(&tokens, headers), [bad.clone(), bad.clone(), bad.clone()], "{headers:?}");
        }
    }
}
