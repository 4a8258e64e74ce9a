//! What happens around every handler, in this order: correlation, span, log line and metric, body limit, panic guard.

pub mod body_limit;
pub mod caching;
pub mod correlation;
pub mod observe;

use std::{any::Any, panic::AssertUnwindSafe};

use futures_util::FutureExt;
use http_body_util::combinators::BoxBody;
use hyper::body::{Body as _, Bytes};
use poem::{
    Endpoint, Request, Response,
    endpoint::BoxEndpoint,
    http::{HeaderValue, Method, StatusCode, header},
};
use tracing::Instrument;

use crate::{
    auth,
    problem::{self, Problem},
    rate_limit::{self, LimitHeaders},
    server::Refused,
};

/// All operations on one path, and everything that surrounds them. One layer instead of one for each concern: every
/// layer of its own costs a boxed future per request.
pub struct Edge {
    /// The path's pattern, such as `/v1/transactions/{transaction_id}`.
    route: metrics::SharedString,
    operations: Vec<Operation>,
    /// The value of `Allow`.
    allow: HeaderValue,
}

struct Operation {
    method: Method,
    endpoint: BoxEndpoint<'static>,
    timings: observe::Timings,
    /// Whether it wants a credential.
    keyed: bool,
}

impl Edge {
    /// The edge of a path.
    pub fn new(route: String, operations: impl IntoIterator<Item = (Method, BoxEndpoint<'static>)>) -> Self {
        let operation =
            |(method, endpoint)| Operation { method, endpoint, timings: observe::Timings::default(), keyed: false };
        let mut operations: Vec<_> = operations.into_iter().map(operation).collect();
        operations.sort_by(|a, b| a.method.as_str().cmp(b.method.as_str()));
        let mut allow: Vec<_> = operations.iter().map(|operation| operation.method.as_str()).collect();
        if allow.contains(&"GET") && !allow.contains(&"HEAD") {
            allow.push("HEAD");
        }
        allow.push("OPTIONS");
        // Method names are always valid in a header.
        let allow = HeaderValue::from_str(&allow.join(", ")).unwrap_or(HeaderValue::from_static("OPTIONS"));
        Self { route: route.into(), operations, allow }
    }

    /// The same, where the operations of these methods want a credential.
    #[must_use]
    pub fn keyed(mut self, methods: &[Method]) -> Self {
        for operation in &mut self.operations {
            operation.keyed = methods.contains(&operation.method);
        }
        self
    }

    /// The edge of all paths that do not exist.
    pub fn unmatched() -> Self {
        Self::new("unmatched".into(), [])
    }

    /// The operation for a method; HEAD is GET without its body.
    fn operation(&self, method: &Method) -> Option<&Operation> {
        let find = |method: &Method| self.operations.iter().find(|operation| operation.method == *method);
        find(method).or_else(|| if *method == Method::HEAD { find(&Method::GET) } else { None })
    }

    async fn answer(
        &self,
        operation: Option<&Operation>,
        request: Request,
    ) -> (Result<Response, Problem>, LimitHeaders) {
        if let Err(problem) = self.admit(&request) {
            return (Err(problem), LimitHeaders::default());
        }
        let Some(operation) = operation else { return (self.no_operation(&request), LimitHeaders::default()) };
        if let Err(problem) = body_limit::check_declared(&request) {
            return (Err(problem), LimitHeaders::default());
        }
        match AssertUnwindSafe(rate_limit::telling(operation.endpoint.call(request))).catch_unwind().await {
            Ok((answer, limits)) => (answer.map_err(Problem::from), limits),
            Err(panic) => {
                let problem = Problem::internal(format!("panic: {}", panic_message(&*panic)));
                (Err(problem), LimitHeaders::default())
            }
        }
    }

    /// Refuses what its connection refuses. A full process is no reason not to say how it is.
    fn admit(&self, request: &Request) -> Result<(), Problem> {
        match request.data::<Refused>() {
            None => Ok(()),
            Some(Refused::Full) if correlation::is_watched(&self.route) => Ok(()),
            Some(refused) => Err(refused.problem()),
        }
    }

    fn no_operation(&self, request: &Request) -> Result<Response, Problem> {
        if self.operations.is_empty() {
            return Err(Problem::new(StatusCode::NOT_FOUND, "Not Found"));
        }
        if request.method() == Method::OPTIONS {
            let answer = Response::builder().status(StatusCode::NO_CONTENT);
            return Ok(answer.header(header::ALLOW, self.allow.clone()).finish());
        }
        let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        Err(problem.header(header::ALLOW, self.allow.clone()))
    }
}

impl Endpoint for Edge {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let correlation_id = correlation::adopt(&mut request);
        let shown_id = correlation_id.to_str().unwrap_or_default();
        let span = tracing::info_span!("request", correlation_id = shown_id, route = &*self.route,);
        let trace = correlation::trace(&mut request, &self.route, shown_id);
        let answering = async {
            let operation = self.operation(request.method());
            let mut line = observe::Line::begin(&request, &self.route, operation.map(|operation| &operation.timings));
            let head = request.method() == Method::HEAD;
            let keyed = operation.is_some_and(|operation| operation.keyed) || auth::shows_credentials(&request);
            let (answer, limits) = self.answer(operation, request).await;
            let mut response = match answer {
                Ok(response) if is_error(&response) => {
                    Problem::from(poem::Error::from(response.status())).respond(Some(shown_id))
                }
                Ok(response) => response,
                Err(problem) => {
                    problem.log();
                    problem.respond(Some(shown_id))
                }
            };
            if head {
                response = without_body(response);
            }
            limits.add_to(&mut response);
            caching::instruct(response.headers_mut(), keyed);
            response.headers_mut().insert(correlation::HEADER, correlation_id.clone());
            line.finish(response.status());
            trace.answered(response.status().as_u16(), 500);
            response
        };
        Ok(trace.around(answering.instrument(span)).await)
    }
}

/// An error that something answered by itself, not as a [`Problem`].
fn is_error(response: &Response) -> bool {
    (response.status().is_client_error() || response.status().is_server_error())
        && response.content_type() != Some(problem::CONTENT_TYPE)
}

/// The answer to HEAD: the headers of GET, its length included, unless that is known only at the end of a stream, which
/// is left unread, or is another one: an answer that never has a body says nothing of the one that GET would have had.
fn without_body(mut response: Response) -> Response {
    let body: BoxBody<Bytes, std::io::Error> = response.take_body().into();
    let bodiless = matches!(response.status(), StatusCode::NOT_MODIFIED | StatusCode::NO_CONTENT);
    if let Some(length) = body.size_hint().exact().filter(|_| !bodiless) {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&'static str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use poem::{EndpointExt, endpoint::make_sync};

    use super::*;

    fn edge() -> Edge {
        let echo = make_sync(|request| {
            let origin = correlation::origin(&request);
            origin.correlation_id.unwrap_or_default()
        });
        let broken = make_sync(|request| -> Response { panic!("with a secret: {}", request.method()) });
        let bare = make_sync(|_| StatusCode::IM_A_TEAPOT);
        Edge::new(
            "/x".into(),
            [
                (Method::GET, echo.map_to_response().boxed()),
                (Method::POST, broken.boxed()),
                (Method::PUT, bare.map_to_response().boxed()),
            ],
        )
    }

    async fn call(edge: &Edge, method: Method, headers: &[(&str, &str)]) -> (Response, serde_json::Value) {
        let request = headers.iter().fold(Request::builder(), |request, (name, value)| request.header(*name, *value));
        let mut response = edge.get_response(request.method(method).finish()).await;
        let body = response.take_body().into_vec().await.unwrap_or_default();
        (response, serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into()))
    }

    #[tokio::test]
    async fn every_answer_carries_the_correlation_id() {
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::HEAD] {
            let (response, _) = call(&edge(), method.clone(), &[("X-Correlation-Id", "my/id-1")]).await;
            assert_eq!(response.header("x-correlation-id"), Some("my/id-1"), "{method}");
        }
        let (response, body) = call(&edge(), Method::GET, &[("X-Correlation-Id", "has blanks")]).await;
        let id = response.header("x-correlation-id").unwrap_or_default().to_owned();
        assert_eq!(uuid::Uuid::parse_str(&id).map(|id| id.get_version_num()), Ok(4));
        assert_eq!(body, id, "the handler sees the same id");
    }

    #[tokio::test]
    async fn every_error_is_a_problem() {
        let (response, body) = call(&edge(), Method::POST, &[("X-Correlation-Id", "c")]).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.content_type(), Some(problem::CONTENT_TYPE));
        assert_eq!(body["correlation_id"], "c");
        assert!(!body.to_string().contains("secret"), "{body}");

        let (response, body) = call(&edge(), Method::PUT, &[]).await;
        assert_eq!((response.status(), &body["status"]), (StatusCode::IM_A_TEAPOT, &418.into()));

        let (response, body) = call(&edge(), Method::DELETE, &[]).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.header("allow"), Some("GET, POST, PUT, HEAD, OPTIONS"));
        assert_eq!(body["detail"], "Method Not Allowed");

        let (response, body) = call(&Edge::unmatched(), Method::GET, &[]).await;
        assert_eq!((response.status(), &body["detail"]), (StatusCode::NOT_FOUND, &"Not Found".into()));
    }

    #[tokio::test]
    async fn head_is_get_without_its_body() {
        let (response, body) = call(&edge(), Method::HEAD, &[("X-Correlation-Id", "four")]).await;
        assert_eq!((response.status(), body), (StatusCode::OK, "".into()));
        assert_eq!(response.header("content-length"), Some("4"));
    }

    #[tokio::test]
    async fn a_body_declared_too_long_is_refused_unread() {
        let (response, _) = call(&edge(), Method::GET, &[("Content-Length", "1048576")]).await;
        assert_eq!(response.status(), StatusCode::OK);
        let (response, _) = call(&edge(), Method::GET, &[("Content-Length", "1048577")]).await;
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
