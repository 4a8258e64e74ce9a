//! Which path leads where: the operations of every feature and the pages, each path behind its [`Edge`].

use std::collections::HashMap;

use poem::{Endpoint, Request, Response, Route, endpoint::BoxEndpoint, http::Method};
use poem_openapi::{OpenApi, registry::MetaPath};

use crate::{
    auth::Callers,
    client_address::TrustedProxies,
    cors::{Cors, Origins},
    middleware::{Edge, observe},
};

/// The root endpoint. Made by hand out of what [`trait@OpenApi`] lists, because the framework's own service answers 405
/// without `Allow`, knows no HEAD, and hides the route's pattern from the layers around it.
pub struct Routes {
    /// Paths without parameters, among them the busiest: found in one step.
    fixed: HashMap<String, Edge>,
    /// Paths with parameters, and after them everything else.
    patterns: Route,
    unmatched: Edge,
    callers: Option<Callers>,
    proxies: TrustedProxies,
    cors: Option<Cors>,
}

impl Routes {
    /// All operations of `api`, and `pages` that answer GET.
    pub fn new<A: OpenApi>(api: A, pages: Vec<(&'static str, BoxEndpoint<'static>)>) -> Self {
        let mut table = HashMap::new();
        api.add_routes(&mut table);
        for (path, page) in pages {
            table.entry(path.to_owned()).or_default().insert(Method::GET, page);
        }
        // The table names parameters `param0`, `param1`; the document has the names that people know.
        let documented: HashMap<String, MetaPath> =
            A::meta().into_iter().flat_map(|api| api.paths).map(|path| (shape(&path.path), path)).collect();
        show_every_success::<A>();
        let mut fixed = HashMap::new();
        let mut patterns = Route::new().at("/*rest", Edge::unmatched());
        for (path, operations) in table {
            let meta = documented.get(&shape(&path));
            let keyed = meta.map(keyed).unwrap_or_default();
            if path.contains(':') {
                let name = meta.map_or(&path, |meta| &meta.path).clone();
                patterns = patterns.at(&path, Edge::new(name, operations).keyed(&keyed));
            } else {
                fixed.insert(path.clone(), Edge::new(path, operations).keyed(&keyed));
            }
        }
        Self {
            fixed,
            patterns,
            unmatched: Edge::unmatched(),
            callers: None,
            proxies: TrustedProxies::default(),
            cors: None,
        }
    }

    /// The same, for these callers.
    #[must_use]
    pub fn known_by(self, callers: Callers) -> Self {
        Self { callers: Some(callers), ..self }
    }

    /// The same, behind these proxies.
    #[must_use]
    pub fn behind(self, proxies: &TrustedProxies) -> Self {
        Self { proxies: proxies.clone(), ..self }
    }

    /// The same, for pages of these origins too.
    #[must_use]
    pub fn open_to(self, origins: &Origins) -> Self {
        Self { cors: Cors::new(origins), ..self }
    }

    async fn route(&self, mut request: Request) -> poem::Result<Response> {
        if let Some(callers) = &self.callers {
            callers.equip(&mut request);
        }
        self.proxies.adopt(&mut request);
        let path = request.uri().path();
        if let Some(edge) = self.fixed.get(path) {
            return edge.call(request).await;
        }
        // `OPTIONS *` and `CONNECT host:port` have no path that a pattern could match.
        if path.starts_with('/') { self.patterns.call(request).await } else { self.unmatched.call(request).await }
    }
}

impl Endpoint for Routes {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let Some(cors) = &self.cors else { return self.route(request).await };
        let permission = cors.permission(&request);
        let mut response = self.route(request).await?;
        permission.tell(&mut response);
        Ok(response)
    }
}

/// Makes the metric of every documented success visible before the first request: a rate needs a zero to start from.
fn show_every_success<A: OpenApi>() {
    observe::describe();
    for path in A::meta().into_iter().flat_map(|api| api.paths) {
        for operation in &path.operations {
            let statuses = operation.responses.responses.iter().filter_map(|response| response.status);
            for status in statuses.filter(|status| (200..300).contains(status)) {
                drop(observe::histogram(&operation.method, path.path.clone().into(), status));
            }
        }
    }
}

/// The methods of a path whose operations want a credential.
fn keyed(path: &MetaPath) -> Vec<Method> {
    // An empty requirement among several means that a credential may be left out (OpenAPI 3.0, Operation Object).
    let wants_key = |security: &[HashMap<_, _>]| !security.is_empty() && security.iter().all(|one| !one.is_empty());
    let keyed = path.operations.iter().filter(|operation| wants_key(&operation.security));
    keyed.map(|operation| operation.method.clone()).collect()
}

/// A path without the names of its parameters: `/a/:b` and `/a/{c}` are both `/a/{}`.
fn shape(path: &str) -> String {
    let segment = |segment: &'_ str| if segment.starts_with([':', '{']) { "{}".to_owned() } else { segment.to_owned() };
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use poem::http::{StatusCode, Uri};
    use poem_openapi::{param::Path, payload::PlainText};

    use super::*;

    #[derive(Clone)]
    struct Things;

    #[OpenApi]
    impl Things {
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
        let mut response = Routes::new(Things, Vec::new()).get_response(request).await;
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
    fn writes_patterns_as_openapi_does() {
        assert_eq!(shape("/v1/things/:param0/parts/:param1"), shape("/v1/things/{id}/parts/{part_id}"));
        assert_ne!(shape("/v1/things/:param0"), shape("/v1/things/parts"));
    }
}
