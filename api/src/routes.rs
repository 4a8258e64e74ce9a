//! The router: maps each path to its [`RouteService`], for the operations of all features and the documentation pages.

use std::collections::HashMap;

use poem::{Endpoint, Request, Response, Route, endpoint::BoxEndpoint, http::Method};
use poem_openapi::{OpenApi, registry::MetaPath};

use crate::{
    auth::Authenticator,
    board::Board,
    client_address::TrustedProxies,
    cors::{AllowedOrigins, CorsPolicy},
    middleware::{RouteService, observe},
};

/// The root endpoint, built from the operations that [`trait@OpenApi`] lists.
///
/// The framework's own service is not used: it returns 405 without `Allow`, does not support HEAD, and hides the route
/// pattern from its middleware.
pub struct Routes {
    /// Paths without parameters, found by one hash lookup. The busiest paths are here.
    fixed: HashMap<String, RouteService>,
    /// Paths with parameters, then a fallback for all other paths.
    patterns: Route,
    unmatched: RouteService,
    authenticator: Option<Authenticator>,
    proxies: TrustedProxies,
    cors: Option<CorsPolicy>,
    board: Option<Board>,
}

impl Routes {
    /// Routes for all operations of `api`, and for `pages`, which support GET.
    pub fn new<A: OpenApi>(api: A, pages: Vec<(&'static str, BoxEndpoint<'static>)>) -> Self {
        let mut table = HashMap::new();
        api.add_routes(&mut table);
        for (path, page) in pages {
            table.entry(path.to_owned()).or_default().insert(Method::GET, page);
        }
        // The framework names parameters `param0`, `param1` here; the document has their real names.
        let documented: HashMap<String, MetaPath> = A::meta()
            .into_iter()
            .flat_map(|api| api.paths)
            .map(|path| (without_parameter_names(&path.path), path))
            .collect();
        register_success_metrics::<A>();
        let mut fixed = HashMap::new();
        let mut patterns = Route::new().at("/*rest", RouteService::unmatched());
        for (path, operations) in table {
            let meta = documented.get(&without_parameter_names(&path));
            let protected = meta.map(methods_with_credentials).unwrap_or_default();
            if path.contains(':') {
                let name = meta.map_or(&path, |meta| &meta.path).clone();
                patterns =
                    patterns.at(&path, RouteService::new(name, operations).with_credentials_required(&protected));
            } else {
                fixed.insert(path.clone(), RouteService::new(path, operations).with_credentials_required(&protected));
            }
        }
        Self {
            fixed,
            patterns,
            unmatched: RouteService::unmatched(),
            authenticator: None,
            proxies: TrustedProxies::default(),
            cors: None,
            board: None,
        }
    }

    /// Authenticates requests with this authenticator.
    #[must_use]
    pub fn with_authenticator(self, authenticator: Authenticator) -> Self {
        Self { authenticator: Some(authenticator), ..self }
    }

    /// Takes client addresses from the headers of these proxies.
    #[must_use]
    pub fn with_trusted_proxies(self, proxies: &TrustedProxies) -> Self {
        Self { proxies: proxies.clone(), ..self }
    }

    /// Allows cross-origin requests from these origins.
    #[must_use]
    pub fn with_cors(self, origins: &AllowedOrigins) -> Self {
        Self { cors: CorsPolicy::new(origins), ..self }
    }

    /// Serves the board, which has no part in CORS.
    #[must_use]
    pub fn with_board(self, board: Option<Board>) -> Self {
        Self { board, ..self }
    }

    async fn route(&self, mut request: Request) -> poem::Result<Response> {
        if let Some(authenticator) = &self.authenticator {
            authenticator.attach(&mut request);
        }
        self.proxies.set_client_address(&mut request);
        let path = request.uri().path();
        if let Some(service) = self.fixed.get(path) {
            return service.call(request).await;
        }
        // `OPTIONS *` and `CONNECT host:port` have no path that a pattern could match.
        if path.starts_with('/') { self.patterns.call(request).await } else { self.unmatched.call(request).await }
    }
}

impl Endpoint for Routes {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        if let Some(board) = self.board.as_ref().filter(|_| Board::has_path(request.uri().path())) {
            self.proxies.set_client_address(&mut request);
            return board.call(request).await;
        }
        let Some(cors) = &self.cors else { return self.route(request).await };
        let cors_headers = cors.headers_for(&request);
        let mut response = self.route(request).await?;
        cors_headers.apply_to(&mut response);
        Ok(response)
    }
}

/// Registers the histogram of every documented 2xx status before the first request: a rate needs a zero to start from.
fn register_success_metrics<A: OpenApi>() {
    observe::describe_metrics();
    for path in A::meta().into_iter().flat_map(|api| api.paths) {
        for operation in &path.operations {
            let statuses = operation.responses.responses.iter().filter_map(|response| response.status);
            for status in statuses.filter(|status| (200..300).contains(status)) {
                drop(observe::histogram(&operation.method, path.path.clone().into(), status));
            }
        }
    }
}

/// The methods of a path whose operations require a credential.
fn methods_with_credentials(path: &MetaPath) -> Vec<Method> {
    // An empty requirement among several makes the credential optional (OpenAPI 3.0, Operation Object).
    let required = |security: &[HashMap<_, _>]| !security.is_empty() && security.iter().all(|one| !one.is_empty());
    let protected = path.operations.iter().filter(|operation| required(&operation.security));
    protected.map(|operation| operation.method.clone()).collect()
}

/// A path without the names of its parameters: `/a/:b` and `/a/{c}` both become `/a/{}`.
fn without_parameter_names(path: &str) -> String {
    let segment = |segment: &'_ str| if segment.starts_with([':', '{']) { "{}".to_owned() } else { segment.to_owned() };
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use poem::http::{StatusCode, Uri};
    use poem_openapi::{param::Path, payload::PlainText};

    use super::*;

    #[derive(Clone)]
    struct TestApi;

    #[OpenApi]
    impl TestApi {
        #[oai(path = "/things", method = "get")]
        async fn list(&self) -> PlainText<&'static str> {
            PlainText("all")
        }

        #[oai(path = "/things/:id", method = "get")]
        async fn get(&self, id: Path<String>) -> PlainText<String> {
            PlainText(id.0)
        }
    }

    async fn get(uri: &'static str, method: Method) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(Uri::from_static(uri)).finish();
        let mut response = Routes::new(TestApi, Vec::new()).get_response(request).await;
        assert!(response.header("x-correlation-id").is_some(), "{uri}");
        (response.status(), response.take_body().into_string().await.unwrap_or_default())
    }

    #[tokio::test]
    async fn finds_the_operation() {
        assert_eq!(get("/things", Method::GET).await, (StatusCode::OK, "all".into()));
        assert_eq!(get("/things/a%2Fb%20%C3%A9%25", Method::GET).await, (StatusCode::OK, "a/b é%".into()));
        for uri in ["/", "/thing", "/things/", "/things/a/b", "*", "//things", "/things/%ff"] {
            assert_eq!(get(uri, Method::GET).await.0, StatusCode::NOT_FOUND, "{uri}");
        }
        assert_eq!(get("/things/a", Method::POST).await.0, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(get("*", Method::OPTIONS).await.0, StatusCode::NOT_FOUND);
    }

    #[test]
    fn route_and_openapi_patterns_match() {
        assert_eq!(
            without_parameter_names("/v1/things/:param0/parts/:param1"),
            without_parameter_names("/v1/things/{id}/parts/{part_id}")
        );
        assert_ne!(without_parameter_names("/v1/things/:param0"), without_parameter_names("/v1/things/parts"));
    }
}
