//! The middleware around every handler, in this order: correlation id, scope and span, log line and metric, body limit, panic
//! guard.

pub mod body_limit;
pub mod caching;
pub mod correlation;
pub mod observe;

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use http_body_util::combinators::BoxBody;
use hyper::body::{Body as _, Bytes};
use poem::{
    Endpoint, Request, Response,
    endpoint::BoxEndpoint,
    http::{HeaderValue, Method, StatusCode, header},
};
use runtime::error::panic_message;

use crate::{
    auth,
    problem::{self, Problem},
    rate_limit::{self, LimitHeaders},
    server::RequestRejection,
};

/// All operations of one path, with the middleware around them.
///
/// It is one layer for all concerns, because each separate layer would cost a boxed future per request.
pub struct RouteService {
    /// The path's pattern, such as `/v1/transactions/{transaction_id}`.
    route: metrics::SharedString,
    operations: Vec<Operation>,
    /// The value of `Allow`.
    allow: HeaderValue,
}

struct Operation {
    method: Method,
    endpoint: BoxEndpoint<'static>,
    histograms: observe::DurationHistograms,
    /// Whether the operation requires a credential.
    requires_credentials: bool,
}

impl RouteService {
    /// A service for one path.
    pub fn new(route: String, operations: impl IntoIterator<Item = (Method, BoxEndpoint<'static>)>) -> Self {
        let operation = |(method, endpoint)| Operation {
            method,
            endpoint,
            histograms: observe::DurationHistograms::default(),
            requires_credentials: false,
        };
        let mut operations: Vec<_> = operations.into_iter().map(operation).collect();
        operations.sort_by(|a, b| a.method.as_str().cmp(b.method.as_str()));
        let mut allow: Vec<_> = operations.iter().map(|operation| operation.method.as_str()).collect();
        if allow.contains(&"GET") && !allow.contains(&"HEAD") {
            allow.push("HEAD");
        }
        allow.push("OPTIONS");
        // Method names are always valid header values.
        let allow = HeaderValue::from_str(&allow.join(", ")).unwrap_or(HeaderValue::from_static("OPTIONS"));
        Self { route: Arc::<str>::from(route).into(), operations, allow }
    }

    /// Marks the operations of these methods as requiring a credential.
    #[must_use]
    pub fn with_credentials_required(mut self, methods: &[Method]) -> Self {
        for operation in &mut self.operations {
            operation.requires_credentials = methods.contains(&operation.method);
        }
        self
    }

    /// The service for all unknown paths: it returns 404.
    pub fn unmatched() -> Self {
        Self::new("unmatched".into(), [])
    }

    /// The operation of a method; HEAD uses that of GET.
    fn operation(&self, method: &Method) -> Option<&Operation> {
        let find = |method: &Method| self.operations.iter().find(|operation| operation.method == *method);
        find(method).or_else(|| if *method == Method::HEAD { find(&Method::GET) } else { None })
    }

    async fn handle(
        &self,
        operation: Option<&Operation>,
        request: Request,
    ) -> (Result<Response, Problem>, LimitHeaders) {
        if let Err(problem) = self.check_rejection(&request) {
            return (Err(problem), LimitHeaders::default());
        }
        let Some(operation) = operation else { return (self.without_operation(&request), LimitHeaders::default()) };
        if let Err(problem) = body_limit::check_declared(&request, body_limit::max_bytes(&self.route)) {
            return (Err(problem), LimitHeaders::default());
        }
        match AssertUnwindSafe(rate_limit::with_limit_headers(operation.endpoint.call(request))).catch_unwind().await {
            Ok((result, limits)) => (result.map_err(Problem::from), limits),
            Err(panic) => {
                let problem = Problem::internal(format!("panic: {}", panic_message(&*panic)));
                (Err(problem), LimitHeaders::default())
            }
        }
    }

    /// Refuses a request that its connection has rejected. An overloaded process still serves monitoring routes.
    fn check_rejection(&self, request: &Request) -> Result<(), Problem> {
        match request.data::<RequestRejection>() {
            None => Ok(()),
            Some(RequestRejection::Overloaded) if correlation::is_monitoring_route(&self.route) => Ok(()),
            Some(rejection) => Err(rejection.problem()),
        }
    }

    /// The response when no operation supports the method: 404, 405, or the response to OPTIONS.
    fn without_operation(&self, request: &Request) -> Result<Response, Problem> {
        if self.operations.is_empty() {
            return Err(Problem::new(StatusCode::NOT_FOUND, "Not Found"));
        }
        if request.method() == Method::OPTIONS {
            let response = Response::builder().status(StatusCode::NO_CONTENT);
            return Ok(response.header(header::ALLOW, self.allow.clone()).finish());
        }
        let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        Err(problem.header(header::ALLOW, self.allow.clone()))
    }
}

impl Endpoint for RouteService {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let correlation_id = correlation::assign_id(&mut request);
        let id = correlation_id.to_str().unwrap_or_default();
        let scope = observe::scope(correlation_id.clone(), self.route.clone());
        let trace = correlation::start_span(&mut request, &self.route, id);
        let responding = async {
            let operation = self.operation(request.method());
            let histograms = operation.map(|operation| &operation.histograms);
            let mut log = observe::RequestLog::start(&request, &self.route, histograms);
            let is_head = request.method() == Method::HEAD;
            let private =
                operation.is_some_and(|operation| operation.requires_credentials) || auth::has_credentials(&request);
            let (result, limits) = self.handle(operation, request).await;
            let mut response = match result {
                Ok(response) if is_plain_error(&response) => {
                    Problem::from(poem::Error::from(response.status())).to_response(Some(id))
                }
                Ok(response) => response,
                Err(problem) => {
                    problem.log();
                    problem.to_response(Some(id))
                }
            };
            if is_head {
                response = without_body(response);
            }
            limits.add_to(&mut response);
            caching::set_cache_control(response.headers_mut(), private);
            response.headers_mut().insert(correlation::HEADER, correlation_id.clone());
            log.set_response(&response);
            trace.record_status(response.status().as_u16(), 500);
            response
        };
        Ok(scope.attach_to(trace.attach_to(responding)).await)
    }
}

/// Whether this is an error response that is neither a page of the board nor built from a [`Problem`].
fn is_plain_error(response: &Response) -> bool {
    (response.status().is_client_error() || response.status().is_server_error())
        && !matches!(response.content_type(), Some(problem::CONTENT_TYPE | "text/html; charset=utf-8"))
}

/// Removes the body for HEAD and keeps the headers of GET, with `Content-Length`.
///
/// The length is left out for a stream, which is not read, and for 204 and 304: these never have a body, so its length
/// would not be that of GET.
fn without_body(mut response: Response) -> Response {
    let body: BoxBody<Bytes, std::io::Error> = response.take_body().into();
    let never_has_body = matches!(response.status(), StatusCode::NOT_MODIFIED | StatusCode::NO_CONTENT);
    if let Some(length) = body.size_hint().exact().filter(|_| !never_has_body) {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

#[cfg(test)]
mod tests {
    use poem::{EndpointExt, endpoint::make_sync};

    use super::*;

    fn service() -> RouteService {
        let echo = make_sync(|request| {
            let origin = correlation::origin(&request);
            origin.correlation_id.unwrap_or_default()
        });
        let broken = make_sync(|request| -> Response { panic!("with a secret: {}", request.method()) });
        let plain_error = make_sync(|_| StatusCode::IM_A_TEAPOT);
        RouteService::new(
            "/x".into(),
            [
                (Method::GET, echo.map_to_response().boxed()),
                (Method::POST, broken.boxed()),
                (Method::PUT, plain_error.map_to_response().boxed()),
            ],
        )
    }

    async fn call(service: &RouteService, method: Method, headers: &[(&str, &str)]) -> (Response, serde_json::Value) {
        let request = headers.iter().fold(Request::builder(), |request, (name, value)| request.header(*name, *value));
        let mut response = service.get_response(request.method(method).finish()).await;
        let body = response.take_body().into_vec().await.unwrap_or_default();
        (response, serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into()))
    }

    #[tokio::test]
    async fn every_response_has_the_correlation_id() {
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::HEAD] {
            let (response, _) = call(&service(), method.clone(), &[("X-Correlation-Id", "my/id-1")]).await;
            assert_eq!(response.header("x-correlation-id"), Some("my/id-1"), "{method}");
        }
        let (response, body) = call(&service(), Method::GET, &[("X-Correlation-Id", "has blanks")]).await;
        let id = response.header("x-correlation-id").unwrap_or_default().to_owned();
        assert_eq!(uuid::Uuid::parse_str(&id).map(|id| id.get_version_num()), Ok(7));
        assert_eq!(body, id, "the handler sees the same id");
    }

    #[tokio::test]
    async fn every_error_is_a_problem() {
        let (response, body) = call(&service(), Method::POST, &[("X-Correlation-Id", "c")]).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.content_type(), Some(problem::CONTENT_TYPE));
        assert_eq!(body["correlation_id"], "c");
        assert!(!body.to_string().contains("secret"), "{body}");

        let (response, body) = call(&service(), Method::PUT, &[]).await;
        assert_eq!((response.status(), &body["status"]), (StatusCode::IM_A_TEAPOT, &418.into()));

        let (response, body) = call(&service(), Method::DELETE, &[]).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.header("allow"), Some("GET, POST, PUT, HEAD, OPTIONS"));
        assert_eq!(body["detail"], "Method Not Allowed");

        let (response, body) = call(&RouteService::unmatched(), Method::GET, &[]).await;
        assert_eq!((response.status(), &body["detail"]), (StatusCode::NOT_FOUND, &"Not Found".into()));
    }

    #[tokio::test]
    async fn head_is_get_without_a_body() {
        let (response, body) = call(&service(), Method::HEAD, &[("X-Correlation-Id", "four")]).await;
        assert_eq!((response.status(), body), (StatusCode::OK, "".into()));
        assert_eq!(response.header("content-length"), Some("4"));
    }

    #[tokio::test]
    async fn a_body_declared_too_large_is_refused_before_reading() {
        let (response, _) = call(&service(), Method::GET, &[("Content-Length", "1048576")]).await;
        assert_eq!(response.status(), StatusCode::OK);
        let (response, _) = call(&service(), Method::GET, &[("Content-Length", "1048577")]).await;
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
