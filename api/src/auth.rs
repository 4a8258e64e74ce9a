//! Who calls: the user that a Bearer token names.

use jobs::users::{
    Role, UserId,
    token::{Claims, Tokens},
};
use poem::{
    Request, RequestBody,
    http::{HeaderValue, StatusCode, header},
};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaSecurityScheme, Registry},
};

use crate::problem::Problem;

/// The name of the scheme in `openapi.json`.
const SCHEME: &str = "Bearer";

/// The user who calls. As an argument of a handler it makes the operation answer 401 to everybody else: name 401 among
/// its [`Statuses`](crate::problem::Statuses).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bearer {
    /// Who it is.
    pub user: UserId,
    /// What that one may do.
    pub role: Role,
}

impl<'a> ApiExtractor<'a> for Bearer {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        registry.create_security_scheme(
            SCHEME,
            MetaSecurityScheme {
                ty: "http",
                description: Some("The `access_token` of a login, good for an hour."),
                name: None,
                key_in: None,
                scheme: Some("bearer"),
                bearer_format: Some("JWT"),
                flows: None,
                openid_connect_url: None,
            },
        );
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![SCHEME]
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        Ok(authenticate(request)?)
    }
}

/// Leaves with a request what its token is checked by; one without a token needs nothing.
pub fn equip(request: &mut Request, tokens: &Tokens) {
    if request.headers().contains_key(header::AUTHORIZATION) {
        request.set_data(tokens.clone());
    }
}

/// What the caller's token says: `None` when there is no token at all.
///
/// # Errors
/// 401 when there is one that is not good.
pub fn claims(request: &Request) -> Result<Option<Claims>, Problem> {
    let mut given = request.headers().get_all(header::AUTHORIZATION).iter();
    let Some(value) = given.next() else { return Ok(None) };
    // Two are two opinions about who calls.
    let value = if given.next().is_none() { value.to_str().ok() } else { None };
    let token = value.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(SCHEME));
    let Some((_, token)) = token else { return Err(unauthorized("Not authenticated")) };
    let tokens = request.data::<Tokens>().ok_or_else(|| Problem::internal("no tokens with this request"))?;
    match tokens.check(token.trim()) {
        Ok(claims) => Ok(Some(claims)),
        Err(why) => {
            tracing::debug!(%why, "TOKEN_REFUSED");
            Err(unauthorized("Invalid or expired token"))
        }
    }
}

fn authenticate(request: &Request) -> Result<Bearer, Problem> {
    let claims = claims(request)?.ok_or_else(|| unauthorized("Not authenticated"))?;
    let user = claims.user().ok_or_else(|| unauthorized("Invalid or expired token"))?;
    Ok(Bearer { user, role: claims.role })
}

/// 401, with the scheme that would be right.
pub fn unauthorized(why: &'static str) -> Problem {
    let problem = Problem::new(StatusCode::UNAUTHORIZED, why);
    problem.header(header::WWW_AUTHENTICATE, HeaderValue::from_static(SCHEME))
}

#[cfg(test)]
mod tests {
    use poem::error::ResponseError;

    use super::*;

    fn call(headers: &[&str], tokens: &Tokens) -> Result<Bearer, Problem> {
        let mut request = Request::default();
        for value in headers {
            request.headers_mut().append(header::AUTHORIZATION, HeaderValue::from_str(value).expect("a header"));
        }
        equip(&mut request, tokens);
        authenticate(&request)
    }

    #[test]
    fn knows_who_calls() {
        let tokens = Tokens::random();
        let token = tokens.issue(UserId(7), Role::Admin).expect("a token");
        for scheme in ["Bearer", "bearer", "BEARER", "Bearer "] {
            let caller = call(&[&format!("{scheme} {token}")], &tokens).expect("authenticated");
            assert_eq!(caller, Bearer { user: UserId(7), role: Role::Admin });
        }
    }

    #[test]
    fn refuses_everybody_else() {
        let tokens = Tokens::random();
        let good = format!("Bearer {}", tokens.issue(UserId(7), Role::User).expect("a token"));
        let foreign = format!("Bearer {}", Tokens::random().issue(UserId(7), Role::User).expect("a token"));
        let nobody = format!("Bearer {}", tokens.issue(UserId(0), Role::User).expect("a token"));
        let refused: [&[&str]; 11] = [
            &[],
            &[""],
            &["Bearer"],
            &["Bearer "],
            &["Basic YWRhOnNlY3JldA=="],
            &["Bearer x.y.z"],
            &[&good[7..]],
            &[&foreign],
            &[&nobody],
            &[&good, &good],
            &["Bearer é"],
        ];
        for headers in refused {
            let problem = call(headers, &tokens).expect_err("refused");
            assert_eq!(problem.status(), StatusCode::UNAUTHORIZED, "{headers:?}");
            assert_eq!(problem.as_response().header("www-authenticate"), Some("Bearer"), "{headers:?}");
        }
    }
}
