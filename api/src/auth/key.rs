//! Who calls by a key: whoever shows the one that this system was started with.

use poem::{
    Request, RequestBody,
    http::{HeaderName, HeaderValue},
};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaSecurityScheme, Registry},
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Callers, bearer, forbidden};
use crate::{config::KeysConfig, problem::Problem, rate_limit};

/// The header of [`ApiKey`].
pub(super) const API_KEY: HeaderName = HeaderName::from_static("api_key");
/// The header of [`Private`](super::Private) and [`Admin`](super::Admin).
pub(super) const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// What a caller without any credential is told.
pub(super) const MISSING: &str = "No API key provided";
/// What a caller with a wrong key is told.
pub(super) const WRONG: &str = "Invalid API key";

/// The name of the scheme in `openapi.json`.
const SCHEME: &str = "ApiKey";

/// Which of the keys a caller has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    /// `API_KEY`.
    Api,
    /// `ADMIN_API_KEY`.
    Admin,
}

/// The keys, as their hashes: these have one length, and so comparing them takes one time, whatever is shown. Compared
/// directly, keys would tell by the time that it takes how long they are, or how far a guess is right.
pub(super) struct Keys {
    api: [u8; 32],
    admin: [u8; 32],
}

impl Keys {
    pub(super) fn new(config: &KeysConfig) -> Self {
        Self { api: hash(config.api.expose()), admin: hash(config.admin.expose()) }
    }

    /// Which key this is. Both are compared, whichever it is; where they are the same, it is the admin's.
    fn which(&self, shown: &[u8]) -> Option<Key> {
        let shown = hash(shown);
        let (api, admin) = (shown.ct_eq(&self.api), shown.ct_eq(&self.admin));
        if admin.into() {
            return Some(Key::Admin);
        }
        bool::from(api).then_some(Key::Api)
    }

    fn is(&self, key: Key, shown: &[u8]) -> bool {
        let own = match key {
            Key::Api => &self.api,
            Key::Admin => &self.admin,
        };
        hash(shown).ct_eq(own).into()
    }
}

fn hash(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// Proof that the header `api_key` holds `API_KEY`. As an argument of a handler it makes the operation return 401 for a bad
/// token and 403 for a missing or wrong key: name both among its [`Statuses`](crate::problem::Statuses).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiKey(());

impl<'a> ApiExtractor<'a> for ApiKey {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        register(registry, SCHEME, "api_key", "The `API_KEY` that the service was started with.");
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![SCHEME]
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        count_wrong(request, &API_KEY).await?;
        Ok(authenticate(request)?)
    }
}

/// Counts a key in this header that is not one of ours, by the address that it comes from: guessing is slow, and a caller who
/// has a right key is never limited by those who have not.
///
/// # Errors
/// 429 for a wrong key from an address that has shown too many.
pub(super) async fn count_wrong(request: &Request, header: &HeaderName) -> Result<(), Problem> {
    let Ok(Some(shown)) = shown(request, header) else { return Ok(()) };
    let callers = Callers::of(request)?;
    if callers.keys().which(shown).is_none() {
        callers.wrong_keys().take(rate_limit::address(request)).await?;
    }
    Ok(())
}

/// Of two credentials both must be good, here too: a bad token is 401 anywhere.
fn authenticate(request: &Request) -> Result<ApiKey, Problem> {
    bearer::claims(request)?;
    let shown = shown(request, &API_KEY)?.ok_or_else(|| forbidden(MISSING))?;
    if Callers::of(request)?.keys().is(Key::Api, shown) { Ok(ApiKey(())) } else { Err(forbidden(WRONG)) }
}

/// Documents the scheme of a header that holds a key.
pub(super) fn register(registry: &mut Registry, scheme: &'static str, header: &'static str, description: &'static str) {
    registry.create_security_scheme(
        scheme,
        MetaSecurityScheme {
            ty: "apiKey",
            description: Some(description),
            name: Some(header),
            key_in: Some("header"),
            scheme: None,
            bearer_format: None,
            flows: None,
            openid_connect_url: None,
        },
    );
}

/// Which key the header `X-API-Key` holds: `None` when there is no such header.
///
/// # Errors
/// 403 when it is none of ours.
pub(super) fn of_header(request: &Request) -> Result<Option<Key>, Problem> {
    let Some(shown) = shown(request, &X_API_KEY)? else { return Ok(None) };
    Callers::of(request)?.keys().which(shown).map(Some).ok_or_else(|| forbidden(WRONG))
}

/// Whether there is a header `X-API-Key`.
pub(super) fn is_shown(request: &Request) -> bool {
    request.headers().contains_key(X_API_KEY)
}

/// The bytes of the key that is shown. An empty header shows none.
///
/// # Errors
/// 403 for two headers, which are two opinions about who calls.
fn shown<'a>(request: &'a Request, name: &HeaderName) -> Result<Option<&'a [u8]>, Problem> {
    let mut given = request.headers().get_all(name).iter().map(HeaderValue::as_bytes);
    match (given.next(), given.next()) {
        (_, Some(_)) => Err(forbidden(WRONG)),
        (shown, None) => Ok(shown.filter(|shown| !shown.trim_ascii().is_empty())),
    }
}

#[cfg(test)]
mod tests {
    use jobs::users::token::Tokens;
    use poem::{Endpoint, error::ResponseError};
    use poem_openapi::{OpenApi, OpenApiService, payload::PlainText};

    use super::*;
    use crate::{
        auth::testing,
        config::Secret,
        problem::{CONTENT_TYPE, Fails, Statuses},
        routes::Routes,
    };

    struct Things;

    struct Asking;

    impl Statuses for Asking {
        const ALL: &'static [u16] = &[401, 403];
    }

    #[OpenApi]
    impl Things {
        #[oai(path = "/rate", method = "get")]
        async fn rate(&self, _caller: ApiKey) -> Result<PlainText<&'static str>, Fails<Asking>> {
            Ok(PlainText("rate"))
        }
    }

    #[tokio::test]
    async fn an_operation_wants_the_key_or_answers_403() {
        let routes = Routes::new(Things, Vec::new()).known_by(testing::callers(&Tokens::random()));
        let get = async |key: Option<&str>| {
            let request = Request::builder().uri_str("/rate");
            let request = key.into_iter().fold(request, |request, key| request.header("api_key", key));
            let mut response = routes.get_response(request.finish()).await;
            let kind = response.content_type() == Some(CONTENT_TYPE);
            (response.status().as_u16(), kind, response.take_body().into_string().await.unwrap_or_default())
        };
        assert_eq!(get(Some(testing::API)).await, (200, false, "rate".into()));
        for (key, why) in
            [(None, MISSING), (Some(""), MISSING), (Some("guess-of-mine"), WRONG), (Some(testing::ADMIN), WRONG)]
        {
            let (status, problem, body) = get(key).await;
            assert_eq!((status, problem), (403, true), "{key:?}");
            assert!(body.contains(&format!("\"detail\":\"{why}\"")), "{key:?}: {body}");
            assert!([testing::API, testing::ADMIN, "guess-of-mine"].iter().all(|key| !body.contains(key)), "{body}");
        }
    }

    #[tokio::test]
    async fn wrong_keys_are_limited_and_right_ones_are_not() {
        let routes = Routes::new(Things, Vec::new()).known_by(testing::callers(&Tokens::random()));
        let get = async |key: &str| {
            let request = Request::builder().uri_str("/rate").header("api_key", key).finish();
            routes.get_response(request).await
        };
        for number in 0..rate_limit::Policy::WRONG_KEYS.quota {
            assert_eq!(get(&format!("guess {number}")).await.status().as_u16(), 403);
        }
        let response = get("one more").await;
        assert_eq!(response.status().as_u16(), 429);
        assert!(response.header("retry-after").is_some());
        assert_eq!(get(testing::API).await.status().as_u16(), 200, "others behind the address are served");
        assert_eq!(get(testing::ADMIN).await.status().as_u16(), 403, "a key of ours is no guess");
    }

    #[test]
    fn the_document_shows_the_key() {
        let spec = OpenApiService::new(Things, "t", "1").spec();
        let document: serde_json::Value = serde_json::from_str(&spec).expect("JSON");
        assert_eq!(document["paths"]["/rate"]["get"]["security"], serde_json::json!([{"ApiKey": []}]));
        let scheme = &document["components"]["securitySchemes"]["ApiKey"];
        assert_eq!(
            (&scheme["type"], &scheme["in"], &scheme["name"]),
            (&"apiKey".into(), &"header".into(), &"api_key".into())
        );
    }

    type Header<'a> = (&'static str, &'a [u8]);

    fn told(headers: &[Header]) -> String {
        match authenticate(&testing::request(&Tokens::random(), headers)) {
            Ok(ApiKey(())) => "welcome".into(),
            Err(problem) => {
                assert_eq!(problem.status().as_u16(), 403);
                problem.to_string().replace("403 Forbidden: ", "")
            }
        }
    }

    #[test]
    fn tells_a_missing_key_from_a_wrong_one() {
        let key = testing::API.as_bytes();
        assert_eq!(told(&[("api_key", key)]), "welcome");
        let missing: [&[Header]; 4] = [&[], &[("api_key", b"")], &[("api_key", b"  ")], &[("x-api-key", key)]];
        for headers in missing {
            assert_eq!(told(headers), MISSING, "{headers:?}");
        }
        let longer = [key, b"x"].concat();
        let wrong: [&[Header]; 8] = [
            &[("api_key", &key[1..])],
            &[("api_key", &longer)],
            &[("api_key", b"x")],
            &[("api_key", &[b'x'; 100_000])],
            &[("api_key", "schl\u{fc}ssel".as_bytes())],
            &[("api_key", b"\xff\xfe")],
            &[("api_key", key), ("api_key", key)],
            &[("api_key", b""), ("api_key", key)],
        ];
        for headers in wrong {
            assert_eq!(told(headers), WRONG, "{headers:?}");
        }
    }

    #[test]
    fn a_bad_token_next_to_a_good_key_is_401() {
        let tokens = Tokens::random();
        let good = tokens.issue(jobs::users::UserId(7), jobs::users::Role::User).expect("a token");
        let status = |authorization: &[&str]| {
            let lines = authorization.iter().map(|value| ("authorization", value.as_bytes()));
            let headers: Vec<Header> = [("api_key", testing::API.as_bytes())].into_iter().chain(lines).collect();
            authenticate(&testing::request(&tokens, &headers)).map_or_else(|problem| problem.status().as_u16(), |_| 200)
        };
        let good = format!("Bearer {good}");
        assert_eq!(status(&[]), 200);
        assert_eq!(status(&[&good]), 200);
        for bad in [&["Bearer garbage"][..], &["Bearer"], &[""], &["Basic YTpi"], &[&good, &good], &["Bearer x.y.z"]] {
            assert_eq!(status(bad), 401, "{bad:?}");
        }
        let without_a_key = testing::request(&tokens, &[("authorization", b"Bearer garbage")]);
        assert_eq!(authenticate(&without_a_key).map_or_else(|problem| problem.status().as_u16(), |_| 200), 401);
    }

    #[test]
    fn one_key_for_both_is_the_admins() {
        let one = || Secret::new("one");
        let keys = Keys::new(&KeysConfig { api: one(), admin: one(), jwt: None });
        assert_eq!(keys.which(b"one"), Some(Key::Admin));
        assert!(keys.is(Key::Api, b"one") && keys.is(Key::Admin, b"one") && !keys.is(Key::Api, b"two"));
    }

    #[test]
    fn nothing_prints_a_key() {
        let tokens = Tokens::random();
        let printed = format!("{:?} {:?}", testing::callers(&tokens), Key::Api);
        let request = testing::request(&tokens, &[("api_key", b"guess-of-mine")]);
        let problem = authenticate(&request).expect_err("wrong");
        let printed = format!("{printed} {problem:?} {problem} {:?}", problem.as_response());
        assert!([testing::API, testing::ADMIN, "guess-of-mine"].iter().all(|key| !printed.contains(key)), "{printed}");
    }
}
