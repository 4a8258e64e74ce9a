//! API keys: compares a key in a request header with the configured keys.

use poem::{
    Request,
    http::{HeaderName, HeaderValue},
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{
    Authenticator, bearer,
    credential::{Credential, Scheme, extractor},
    forbidden,
    keys_config::KeysConfig,
};
use crate::{problem::Problem, rate_limit};

/// The header of [`ApiKey`].
pub(super) const API_KEY: HeaderName = HeaderName::from_static("api_key");
/// The header of [`Private`](super::Private) and [`Admin`](super::Admin).
pub(super) const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// The detail of a 403 without a credential.
pub(super) const MISSING: &str = "No API key provided";
/// The detail of a 403 for a wrong key.
pub(super) const WRONG: &str = "Invalid API key";

/// The name of the scheme in `openapi.json`.
const SCHEME: &str = "ApiKey";

/// One of the configured keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    /// `API_KEY`.
    Api,
    /// `ADMIN_API_KEY`.
    Admin,
    /// `VIEWER_API_KEY`.
    Viewer,
}

/// The configured keys as hashes.
///
/// All hashes have the same length, so each comparison takes the same time. A direct comparison would reveal by its
/// duration the length of a key, or how many bytes of a guess are right.
pub(super) struct Keys {
    api: [u8; 32],
    admin: [u8; 32],
    viewer: Option<[u8; 32]>,
}

impl Keys {
    pub(super) fn new(config: &KeysConfig) -> Self {
        Self {
            api: hash(config.api.expose()),
            admin: hash(config.admin.expose()),
            viewer: config.viewer.as_ref().map(|key| hash(key.expose())),
        }
    }

    /// Identifies a key. All keys are always compared. If two are equal, the admin key comes first, then the private key.
    pub(super) fn identify(&self, key: &[u8]) -> Option<Key> {
        let hash = hash(key);
        let (api, admin) = (hash.ct_eq(&self.api), hash.ct_eq(&self.admin));
        let viewer = self.viewer.is_some_and(|viewer| hash.ct_eq(&viewer).into());
        match (bool::from(admin), bool::from(api)) {
            (true, _) => Some(Key::Admin),
            (false, true) => Some(Key::Api),
            (false, false) => viewer.then_some(Key::Viewer),
        }
    }

    /// Whether these bytes are `API_KEY`.
    fn is_api_key(&self, bytes: &[u8]) -> bool {
        hash(bytes).ct_eq(&self.api).into()
    }
}

fn hash(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// Proof that the header `api_key` holds `API_KEY`.
///
/// A handler with this argument returns 401 for an invalid token and 403 for a missing or wrong key; list both in its
/// [`ErrorStatuses`](crate::problem::ErrorStatuses).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ApiKey(());

impl Credential for ApiKey {
    const SCHEMES: &'static [Scheme] =
        &[Scheme::key(SCHEME, "api_key", "The `API_KEY` that the service was started with.")];

    async fn authenticate(request: &Request) -> Result<Self, Problem> {
        limit_wrong_keys(request, &API_KEY).await?;
        authenticate(request)
    }
}

extractor!(ApiKey, optional: false);

/// Counts a wrong key in this header by the client's address.
///
/// This slows guessing down. A caller with a right key is never limited by other callers at the same address.
///
/// # Errors
/// 429 for a wrong key from an address that has sent too many.
pub(super) async fn limit_wrong_keys(request: &Request, header: &HeaderName) -> Result<(), Problem> {
    let Ok(Some(key)) = key_bytes(request, header) else { return Ok(()) };
    let credentials = Authenticator::of(request)?;
    if credentials.keys.identify(key).is_none() {
        credentials.wrong_keys.acquire(rate_limit::client_network(request)).await?;
    }
    Ok(())
}

/// Checks the key, and the token if there is one: an invalid token is 401 on every route.
fn authenticate(request: &Request) -> Result<ApiKey, Problem> {
    bearer::claims(request)?;
    let key = key_bytes(request, &API_KEY)?.ok_or_else(|| forbidden(MISSING))?;
    if Authenticator::of(request)?.keys.is_api_key(key) { Ok(ApiKey(())) } else { Err(forbidden(WRONG)) }
}

/// The key in the header `X-API-Key`; `None` if the header is absent or empty.
///
/// # Errors
/// 403 when the key is wrong or the header is repeated.
pub(super) fn x_api_key(request: &Request) -> Result<Option<Key>, Problem> {
    let Some(key) = key_bytes(request, &X_API_KEY)? else { return Ok(None) };
    Authenticator::of(request)?.keys.identify(key).map(Some).ok_or_else(|| forbidden(WRONG))
}

/// Whether the request has a key in the header `X-API-Key`, right or wrong. An empty header is no key.
pub(super) fn has_x_api_key(request: &Request) -> bool {
    !matches!(key_bytes(request, &X_API_KEY), Ok(None))
}

/// The bytes of the key in this header; `None` if the header is absent or empty.
///
/// # Errors
/// 403 when the header is repeated, which is ambiguous.
fn key_bytes<'a>(request: &'a Request, name: &HeaderName) -> Result<Option<&'a [u8]>, Problem> {
    let mut lines = request.headers().get_all(name).iter().map(HeaderValue::as_bytes);
    match (lines.next(), lines.next()) {
        (_, Some(_)) => Err(forbidden(WRONG)),
        (key, None) => Ok(key.filter(|key| !key.trim_ascii().is_empty())),
    }
}

#[cfg(test)]
mod tests {
    use jobs::users::token::Tokens;
    use poem::{Endpoint, error::ResponseError};
    use poem_openapi::{OpenApi, OpenApiService, payload::PlainText};
    use runtime::secret::Secret;

    use super::*;
    use crate::{
        auth::testing,
        problem::{CONTENT_TYPE, Failure, errors},
        routes::Routes,
    };

    struct TestApi;

    errors! {
        AccessDenied: [401, 403];
    }

    #[OpenApi]
    impl TestApi {
        #[oai(path = "/rate", method = "get")]
        async fn rate(&self, _caller: ApiKey) -> Result<PlainText<&'static str>, Failure<AccessDenied>> {
            Ok(PlainText("rate"))
        }
    }

    #[tokio::test]
    async fn an_operation_without_the_key_returns_403() {
        let routes = Routes::new(TestApi, Vec::new()).with_authenticator(testing::authenticator(&Tokens::random()));
        let get = async |key: Option<&str>| {
            let request = Request::builder().uri_str("/rate");
            let request = key.into_iter().fold(request, |request, key| request.header("api_key", key));
            let mut response = routes.get_response(request.finish()).await;
            let is_problem = response.content_type() == Some(CONTENT_TYPE);
            (response.status().as_u16(), is_problem, response.take_body().into_string().await.unwrap_or_default())
        };
        assert_eq!(get(Some(testing::API)).await, (200, false, "rate".into()));
        for (key, detail) in
            [(None, MISSING), (Some(""), MISSING), (Some("guess-of-mine"), WRONG), (Some(testing::ADMIN), WRONG)]
        {
            let (status, is_problem, body) = get(key).await;
            assert_eq!((status, is_problem), (403, true), "{key:?}");
            assert!(body.contains(&format!("\"detail\":\"{detail}\"")), "{key:?}: {body}");
            assert!([testing::API, testing::ADMIN, "guess-of-mine"].iter().all(|key| !body.contains(key)), "{body}");
        }
    }

    /// The clock stands still: on a machine that stalls, a token would refill after two seconds.
    #[tokio::test(start_paused = true)]
    async fn wrong_keys_are_limited_and_right_ones_are_not() {
        let routes = Routes::new(TestApi, Vec::new()).with_authenticator(testing::authenticator(&Tokens::random()));
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
        assert_eq!(get(testing::API).await.status().as_u16(), 200, "a right key from the same address is not limited");
        assert_eq!(
            get(testing::ADMIN).await.status().as_u16(),
            403,
            "the other configured key does not count as wrong"
        );
    }

    #[test]
    fn the_document_lists_the_security_scheme() {
        let spec = OpenApiService::new(TestApi, "t", "1").spec();
        let document: serde_json::Value = serde_json::from_str(&spec).expect("JSON");
        assert_eq!(document["paths"]["/rate"]["get"]["security"], serde_json::json!([{"ApiKey": []}]));
        let scheme = &document["components"]["securitySchemes"]["ApiKey"];
        assert_eq!(
            (&scheme["type"], &scheme["in"], &scheme["name"]),
            (&"apiKey".into(), &"header".into(), &"api_key".into())
        );
    }

    type Header<'a> = (&'static str, &'a [u8]);

    fn outcome(headers: &[Header]) -> String {
        match authenticate(&testing::request(&Tokens::random(), headers)) {
            Ok(ApiKey(())) => "authenticated".into(),
            Err(problem) => {
                assert_eq!(problem.status().as_u16(), 403);
                problem.to_string().replace("403 Forbidden: ", "")
            }
        }
    }

    #[test]
    fn distinguishes_a_missing_key_from_a_wrong_one() {
        let key = testing::API.as_bytes();
        assert_eq!(outcome(&[("api_key", key)]), "authenticated");
        let missing: [&[Header]; 4] = [&[], &[("api_key", b"")], &[("api_key", b"  ")], &[("x-api-key", key)]];
        for headers in missing {
            assert_eq!(outcome(headers), MISSING, "{headers:?}");
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
            assert_eq!(outcome(headers), WRONG, "{headers:?}");
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
    fn equal_keys_identify_the_admin_then_the_private_key() {
        let one = || Secret::new("one");
        let keys = Keys::new(&KeysConfig { api: one(), admin: one(), viewer: Some(one()), jwt: None });
        assert_eq!(keys.identify(b"one"), Some(Key::Admin));
        assert!(keys.is_api_key(b"one") && !keys.is_api_key(b"two"));
        let keys = Keys::new(&KeysConfig { api: one(), admin: Secret::new("two"), viewer: Some(one()), jwt: None });
        assert_eq!([keys.identify(b"one"), keys.identify(b"two")], [Some(Key::Api), Some(Key::Admin)]);
    }

    #[test]
    fn debug_output_and_problems_contain_no_key() {
        let tokens = Tokens::random();
        let printed = format!("{:?} {:?}", testing::authenticator(&tokens), Key::Api);
        let request = testing::request(&tokens, &[("api_key", b"guess-of-mine")]);
        let problem = authenticate(&request).expect_err("wrong");
        let printed = format!("{printed} {problem:?} {problem} {:?}", problem.as_response());
        assert!([testing::API, testing::ADMIN, "guess-of-mine"].iter().all(|key| !printed.contains(key)), "{printed}");
    }
}
