//! Error responses in the problem format (RFC 9457). Every failure becomes a response and a status here.

mod log_throttle;

use std::{
    borrow::Cow,
    fmt,
    marker::PhantomData,
    sync::Mutex,
    time::{Duration, Instant},
};

use poem::{
    IntoResponse, Response,
    error::ResponseError,
    http::{HeaderName, HeaderValue, StatusCode, header},
};
use poem_openapi::{
    ApiResponse,
    error::ParsePathError,
    registry::{MetaHeader, MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry},
};
use runtime::{error::Error, mutex::lock};
use serde::Serialize;

use self::log_throttle::LogThrottle;
use crate::{
    schema::{described, inline, list_of, object},
    validation_error::ValidationError,
};

/// The media type of every error response.
pub const CONTENT_TYPE: &str = "application/problem+json";
/// `Retry-After` of most 503s. By then, during a failover, the next attempt to connect is due.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The name of the schema in `openapi.json`.
const SCHEMA: &str = "Problem";

/// An error response. Boxed, so that a handler's `Result` is no larger than its success value.
#[derive(Debug)]
pub struct Problem(Box<ProblemParts>);

#[derive(Debug)]
struct ProblemParts {
    status: StatusCode,
    kind: &'static str,
    detail: Detail,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The internal cause, for the log only.
    cause: Option<String>,
}

/// The value of `detail`; its shape depends on the kind of error.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Detail {
    Text(Cow<'static, str>),
    Invalid(Vec<ValidationError>),
    Object(serde_json::Value),
}

/// The JSON body, with its members in the order of RFC 9457.
#[derive(Serialize)]
struct ProblemBody<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a Detail,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
}

impl Problem {
    /// A plain error: one sentence for the client.
    pub fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::with_detail(status, "about:blank", Detail::Text(detail.into()))
    }

    /// A validation error (422) with all invalid fields.
    pub fn invalid(errors: Vec<ValidationError>) -> Self {
        Self::with_detail(StatusCode::UNPROCESSABLE_ENTITY, "urn:millrace:problem:validation", Detail::Invalid(errors))
    }

    /// All invalid fields as one text for the log; `None` if this is not a validation error.
    pub fn validation_failures(&self) -> Option<String> {
        let Detail::Invalid(errors) = &self.0.detail else { return None };
        Some(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
    }

    /// All invalid fields; the problem itself if it is not a validation error.
    pub fn into_validation_errors(mut self) -> Result<Vec<ValidationError>, Self> {
        match &mut self.0.detail {
            Detail::Invalid(errors) => Ok(std::mem::take(errors)),
            _ => Err(self),
        }
    }

    /// A domain error whose `detail` is an object.
    pub fn domain(status: StatusCode, detail: serde_json::Value) -> Self {
        Self::with_detail(status, "about:blank", Detail::Object(detail))
    }

    /// An internal error (500). Only the log gets the cause.
    pub fn internal(cause: impl Into<String>) -> Self {
        let mut problem = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong on our side.");
        problem.0.cause = Some(cause.into());
        problem
    }

    /// A temporary failure (503) with `Retry-After`. Only the log gets the cause.
    pub fn unavailable(cause: impl Into<String>) -> Self {
        Self::unavailable_until(RETRY_AFTER, cause)
    }

    /// A refusal of a process that has too much to do (503): by this time it expects to have room.
    pub fn overloaded(retry_after: Duration) -> Self {
        Self::unavailable_until(retry_after, "too many callers wait")
    }

    fn unavailable_until(retry_after: Duration, cause: impl Into<String>) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "Not available at the moment, please try again.")
            .header(header::RETRY_AFTER, HeaderValue::from(whole_seconds(retry_after)));
        problem.0.cause = Some(cause.into());
        problem
    }

    /// Sets the problem's `type`, a URN. It is part of the API and never changes.
    pub fn kind(mut self, kind: &'static str) -> Self {
        self.0.kind = kind;
        self
    }

    /// Replaces the sentence for the client.
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.0.detail = Detail::Text(detail.into());
        self
    }

    /// Adds a header to the response.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    fn with_detail(status: StatusCode, kind: &'static str, detail: Detail) -> Self {
        Self(Box::new(ProblemParts { status, kind, detail, headers: Vec::new(), cause: None }))
    }

    /// Logs the internal cause. Call it once, in the scope of the request.
    ///
    /// Repeats of a 503's cause within 10 s are counted instead of logged.
    pub fn log(&self) {
        match &self.0.cause {
            Some(cause) if self.0.status == StatusCode::INTERNAL_SERVER_ERROR => {
                tracing::error!(cause, "request failed: internal error")
            }
            Some(cause) => {
                static THROTTLE: Mutex<LogThrottle> = Mutex::new(LogThrottle::new());
                let mut throttle = lock(&THROTTLE);
                let suppressed = throttle.register(cause, Instant::now());
                drop(throttle);
                match suppressed {
                    None => {}
                    Some(0) => tracing::warn!(cause, "request failed: service unavailable"),
                    Some(suppressed) => tracing::warn!(cause, suppressed, "request failed: service unavailable"),
                }
            }
            None => {}
        }
    }

    /// The JSON body of the response.
    pub fn to_json(&self, correlation_id: Option<&str>) -> Vec<u8> {
        let ProblemParts { status, kind, detail, .. } = &*self.0;
        let title = status.canonical_reason().unwrap_or("Error");
        let body = ProblemBody { kind, title, status: status.as_u16(), detail, correlation_id };
        // Serialising strings and numbers does not fail. If it ever did, the client would still get the status.
        let mut text = serde_json::to_vec(&body).unwrap_or_default();
        text.push(b'\n');
        text
    }

    /// Builds the response.
    pub fn to_response(&self, correlation_id: Option<&str>) -> Response {
        let ProblemParts { status, headers, .. } = &*self.0;
        let body = self.to_json(correlation_id);
        let mut response = Response::builder().status(*status).content_type(CONTENT_TYPE).body(body);
        for (name, value) in headers {
            response.headers_mut().insert(name.clone(), value.clone());
        }
        response
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.detail {
            Detail::Text(text) => write!(f, "{}: {text}", self.0.status),
            _ => write!(f, "{}", self.0.status),
        }
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status(&self) -> StatusCode {
        self.0.status
    }

    fn as_response(&self) -> Response {
        self.to_response(None)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Unavailable(cause) => Self::unavailable(cause),
            Error::Overloaded(retry_after) => Self::overloaded(retry_after),
            Error::Internal(cause) => Self::internal(cause),
        }
    }
}

impl From<serde_json::Error> for Problem {
    /// A response that cannot be serialised. Requests are read by [`crate::validation`], which has its own errors.
    fn from(error: serde_json::Error) -> Self {
        Self::internal(error.to_string())
    }
}

impl From<ValidationError> for Problem {
    fn from(error: ValidationError) -> Self {
        Self::invalid(vec![error])
    }
}

impl From<poem::Error> for Problem {
    /// Converts any error of the framework. The status is kept; the text is kept only for a client error.
    fn from(error: poem::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(problem) => problem,
            // A path that is not UTF-8 matches no route.
            Err(error) if error.is::<ParsePathError>() => Self::new(StatusCode::NOT_FOUND, "Not Found"),
            Err(error) if error.status().is_server_error() => Self::internal(error.to_string()),
            Err(error) => Self::new(error.status(), error.to_string()),
        }
    }
}

/// The seconds of a `Retry-After`, at least 1. Rounds up, so that a client that retries after this time finds a change.
pub fn whole_seconds(time: Duration) -> u64 {
    (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1)
}

/// The error statuses of one operation, for `openapi.json`. 500 is added to every list. Declared with `errors!`.
pub trait ErrorStatuses: Send + Sync + 'static {
    /// All statuses except 500.
    const ALL: &'static [u16];
}

/// Declares types that list the error statuses of operations: `errors! { Login: [401, 422]; }`.
macro_rules! errors {
    ($($name:ident: [$($status:literal),*];)+) => {$(
        #[derive(Debug)]
        struct $name;

        impl $crate::problem::ErrorStatuses for $name {
            const ALL: &'static [u16] = &[$($status),*];
        }
    )+};
}
pub(crate) use errors;

/// The error type of an operation: a [`Problem`], documented with the statuses of `S`.
#[derive(Debug)]
pub struct Failure<S>(Problem, PhantomData<S>);

impl<S, P: Into<Problem>> From<P> for Failure<S> {
    fn from(problem: P) -> Self {
        Self(problem.into(), PhantomData)
    }
}

impl<S> From<Failure<S>> for poem::Error {
    fn from(failure: Failure<S>) -> Self {
        failure.0.into()
    }
}

impl<S: ErrorStatuses> IntoResponse for Failure<S> {
    fn into_response(self) -> Response {
        self.0.to_response(None)
    }
}

impl<S: ErrorStatuses> ApiResponse for Failure<S> {
    fn meta() -> MetaResponses {
        let mut statuses = [S::ALL, &[500]].concat();
        statuses.sort_unstable();
        MetaResponses { responses: statuses.into_iter().map(document_status).collect() }
    }

    fn register(registry: &mut Registry) {
        registry.create_schema::<Problem, _>(SCHEMA.into(), |_| schema());
    }
}

/// The description of one error status in `openapi.json`.
fn document_status(status: u16) -> MetaResponse {
    let description = match status {
        400 => "The body is not JSON in UTF-8.",
        401 => "The signature or token is missing or wrong.",
        403 => "The API key is missing, wrong or not sufficient, or the resource belongs to another user.",
        404 => "The resource does not exist.",
        408 => "The body did not arrive in time.",
        409 => "The request conflicts with the stored state; `detail` explains how.",
        412 => "The resource is not in the state that `If-Match` names.",
        413 => "The body is too large.",
        415 => "The body is not declared as JSON.",
        422 => "The input is not valid; `detail` lists all failing fields, of a body at most 100.",
        429 => "Too many requests.",
        500 => "An internal error. The response shows no details; the correlation id finds them in the log.",
        503 => "Not available at the moment; try again after `Retry-After` seconds.",
        _ => "",
    };
    let retry_after = || MetaHeader {
        name: "RETRY-AFTER".into(),
        description: Some("Seconds to wait before the next attempt.".into()),
        required: true,
        deprecated: false,
        schema: inline(MetaSchema::new("integer")),
    };
    MetaResponse {
        description,
        status: Some(status),
        status_range: None,
        content: vec![MetaMediaType { content_type: CONTENT_TYPE, schema: MetaSchemaRef::Reference(SCHEMA.into()) }],
        headers: if matches!(status, 429 | 503) { vec![retry_after()] } else { Vec::new() },
    }
}

fn schema() -> MetaSchema {
    let text = |description| described(description, MetaSchema::new("string"));
    let forms = [MetaSchema::new("string"), list_of(ValidationError::schema()), MetaSchema::new("object")];
    let detail = MetaSchema {
        description: Some("A sentence; for a validation error all failing fields; for some services an object."),
        one_of: forms.map(inline).into(),
        ..MetaSchema::ANY
    };
    let fields = [
        ("type", text("A URI that names the kind of problem; `about:blank` if the status alone describes it.")),
        ("title", text("The status in words.")),
        ("status", MetaSchema::new_with_format("integer", "int32")),
        ("detail", detail),
        ("correlation_id", text("The `X-Correlation-Id` of this response.")),
    ];
    described("An error response (RFC 9457).", object(5, fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn json(problem: Problem) -> serde_json::Value {
        let body = problem.to_response(Some("c-1")).into_body().into_vec().await;
        serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default()
    }

    #[tokio::test]
    async fn hides_internal_causes() {
        let problem = Problem::from(Error::Internal("relation \"secret\" does not exist".into()));
        assert_eq!(
            json(problem).await,
            serde_json::json!({
                "type": "about:blank", "title": "Internal Server Error", "status": 500,
                "detail": "Something went wrong on our side.", "correlation_id": "c-1",
            })
        );
    }

    #[test]
    fn unavailable_has_retry_after() {
        let response = Problem::from(Error::Unavailable("connection refused".into())).to_response(None);
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.header("retry-after"), Some("1"));
        assert_eq!(response.content_type(), Some(CONTENT_TYPE));
    }

    #[test]
    fn a_problem_survives_the_framework() {
        let error = poem::Error::from(Problem::new(StatusCode::CONFLICT, "x"));
        assert_eq!(Problem::from(error).to_string(), "409 Conflict: x");
        let error = poem::Error::from(StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(Problem::from(error).status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
