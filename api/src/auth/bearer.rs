//! Bearer tokens: extracts the user that a token names.

use jobs::users::{Role, UserId, token::Claims};
use poem::{Request, http::header};

use super::{
    Authenticator,
    credential::{Credential, Scheme, extractor},
    unauthorized,
};
use crate::problem::Problem;

/// The name of the scheme in `openapi.json`.
pub(super) const SCHEME: &str = "Bearer";

/// The token of a login.
pub(super) const TOKEN: Scheme =
    Scheme { name: SCHEME, description: "The `access_token` of a login, valid for one hour.", header: None };

/// The authenticated user. A handler with this argument returns 401 to all other callers; list 401 in its
/// [`ErrorStatuses`](crate::problem::ErrorStatuses).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bearer {
    /// The user's id.
    pub user: UserId,
    /// The user's role.
    pub role: Role,
}

impl Credential for Bearer {
    const SCHEMES: &'static [Scheme] = &[TOKEN];

    async fn authenticate(request: &Request) -> Result<Self, Problem> {
        let claims = claims(request)?.ok_or_else(|| unauthorized("Not authenticated"))?;
        let user = claims.user().ok_or_else(|| unauthorized("Invalid or expired token"))?;
        Ok(Self { user, role: claims.role })
    }
}

extractor!(Bearer, optional: false);

/// The claims of the caller's token; `None` without an `Authorization` header.
///
/// # Errors
/// 401 when the header is malformed or repeated, or when the token is not valid.
pub(crate) fn claims(request: &Request) -> Result<Option<Claims>, Problem> {
    let mut lines = request.headers().get_all(header::AUTHORIZATION).iter();
    let Some(value) = lines.next() else { return Ok(None) };
    // A repeated header is ambiguous, so it is refused.
    let value = if lines.next().is_none() { value.to_str().ok() } else { None };
    let token = value.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(SCHEME));
    let Some((_, token)) = token else { return Err(unauthorized("Not authenticated")) };
    match Authenticator::of(request)?.tokens.check(token.trim()) {
        Ok(claims) => Ok(Some(claims)),
        Err(reason) => {
            tracing::debug!(%reason, "token refused");
            Err(unauthorized("Invalid or expired token"))
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use jobs::users::token::Tokens;
    use poem::{
        Endpoint,
        error::ResponseError,
        http::{HeaderValue, StatusCode},
    };
    use poem_openapi::{OpenApi, OpenApiService, payload::PlainText};

    use super::*;
    use crate::{
        auth::testing,
        problem::{CONTENT_TYPE, Failure, errors},
        routes::Routes,
    };

    struct TestApi;

    errors! {
        Unauthenticated: [401];
    }

    #[OpenApi]
    impl TestApi {
        #[oai(path = "/me", method = "get")]
        async fn me(&self, caller: Bearer) -> Result<PlainText<String>, Failure<Unauthenticated>> {
            Ok(PlainText(format!("{} {}", caller.user, caller.role.into_str())))
        }
    }

    #[tokio::test]
    async fn an_operation_gets_its_caller_or_returns_401() {
        let tokens = Tokens::random();
        let routes = Routes::new(TestApi, Vec::new()).with_authenticator(testing::authenticator(&tokens));
        let get = async |authorization: Option<String>| {
            let request = Request::builder().uri_str("/me");
            let request =
                authorization.into_iter().fold(request, |request, value| request.header("authorization", value));
            routes.get_response(request.finish()).await
        };
        let token = tokens.issue(UserId(7), Role::User).expect("a token");
        let mut response = get(Some(format!("Bearer {token}"))).await;
        assert_eq!(response.take_body().into_string().await.ok().as_deref(), Some("7 user"));
        for authorization in [None, Some("Bearer x".into()), Some(format!("Basic {token}"))] {
            let mut response = get(authorization.clone()).await;
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{authorization:?}");
            assert_eq!(response.content_type(), Some(CONTENT_TYPE), "{authorization:?}");
            assert_eq!(response.header("www-authenticate"), Some("Bearer"), "{authorization:?}");
            let body = response.take_body().into_string().await.unwrap_or_default();
            assert!(body.contains("\"correlation_id\":\"") && !body.contains(&token), "{body}");
        }
    }

    #[test]
    fn the_document_lists_the_security_scheme() {
        let spec = OpenApiService::new(TestApi, "t", "1").spec();
        let document: serde_json::Value = serde_json::from_str(&spec).expect("JSON");
        assert_eq!(document["paths"]["/me"]["get"]["security"], serde_json::json!([{"Bearer": []}]));
        let scheme = &document["components"]["securitySchemes"]["Bearer"];
        assert_eq!((&scheme["type"], &scheme["scheme"]), (&"http".into(), &"bearer".into()));
    }

    fn authenticate_with(headers: &[&str], tokens: &Tokens) -> Result<Bearer, Problem> {
        let mut request = Request::default();
        for value in headers {
            request.headers_mut().append(header::AUTHORIZATION, HeaderValue::from_str(value).expect("a header"));
        }
        testing::authenticator(tokens).attach(&mut request);
        Bearer::authenticate(&request).now_or_never().expect("it waits for nothing")
    }

    #[test]
    fn a_valid_token_authenticates_in_any_case_of_the_scheme() {
        let tokens = Tokens::random();
        let token = tokens.issue(UserId(7), Role::Admin).expect("a token");
        for scheme in ["Bearer", "bearer", "BEARER", "Bearer "] {
            let caller = authenticate_with(&[&format!("{scheme} {token}")], &tokens).expect("authenticated");
            assert_eq!(caller, Bearer { user: UserId(7), role: Role::Admin });
        }
    }

    #[test]
    fn refuses_all_other_headers() {
        let tokens = Tokens::random();
        let good = format!("Bearer {}", tokens.issue(UserId(7), Role::User).expect("a token"));
        let foreign = format!("Bearer {}", Tokens::random().issue(UserId(7), Role::User).expect("a token"));
        let no_user = format!("Bearer {}", tokens.issue(UserId(0), Role::User).expect("a token"));
        let refused: [&[&str]; 11] = [
            &[],
            &[""],
            &["Bearer"],
            &["Bearer "],
            &["Basic YWRhOnNlY3JldA=="],
            &["Bearer x.y.z"],
            &[&good[7..]],
            &[&foreign],
            &[&no_user],
            &[&good, &good],
            &["Bearer é"],
        ];
        for headers in refused {
            let problem = authenticate_with(headers, &tokens).expect_err("refused");
            assert_eq!(problem.status(), StatusCode::UNAUTHORIZED, "{headers:?}");
            assert_eq!(problem.as_response().header("www-authenticate"), Some("Bearer"), "{headers:?}");
        }
    }
}
