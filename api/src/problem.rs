//! Every error answer and its status: the one place where a failure becomes what a client sees (RFC 9457).

mod repeats;

use std::{
    borrow::Cow,
    fmt,
    marker::PhantomData,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use jobs::error::Error;
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
use serde::Serialize;

use self::repeats::Repeats;
use crate::validation::ValidationError;

/// The media type of every error answer.
pub const CONTENT_TYPE: &str = "application/problem+json";
/// What a client is told to wait when the database cannot take its write: long enough for a failover's next try.
const RETRY_AFTER_SECONDS: &str = "1";
/// The name of the schema in `openapi.json`.
const SCHEMA: &str = "Problem";

/// An error answer in the making. Boxed, so that a handler's `Result` stays as small as its success.
#[derive(Debug)]
pub struct Problem(Box<Answer>);

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    kind: &'static str,
    detail: Detail,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// What really happened, for the log only.
    cause: Option<String>,
}

/// What `detail` holds; clients of each kind of error parse its own shape.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Detail {
    Text(Cow<'static, str>),
    Invalid(Vec<ValidationError>),
    Object(serde_json::Value),
}

/// The wire form, in the order of RFC 9457.
#[derive(Serialize)]
struct Wire<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a Detail,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
}

impl Problem {
    /// A plain error: what is wrong, in one sentence that the client may read.
    pub fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::with_detail(status, "about:blank", Detail::Text(detail.into()))
    }

    /// A validation error: all that is wrong with the input.
    pub fn invalid(errors: Vec<ValidationError>) -> Self {
        Self::with_detail(StatusCode::UNPROCESSABLE_ENTITY, "urn:millrace:problem:validation", Detail::Invalid(errors))
    }

    /// All that is wrong with the input, for the log; `None` when this is no validation error.
    pub fn failures(&self) -> Option<String> {
        let Detail::Invalid(errors) = &self.0.detail else { return None };
        Some(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
    }

    /// A domain error of a service whose clients parse an object.
    pub fn domain(status: StatusCode, detail: serde_json::Value) -> Self {
        Self::with_detail(status, "about:blank", Detail::Object(detail))
    }

    /// A fault of ours. The cause goes to the log and nowhere else.
    pub fn internal(cause: impl Into<String>) -> Self {
        let mut problem = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong on our side.");
        problem.0.cause = Some(cause.into());
        problem
    }

    /// Something that passes: the client may try again. The cause goes to the log and nowhere else.
    pub fn unavailable(cause: impl Into<String>) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "Not available at the moment, please try again.")
            .header(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        problem.0.cause = Some(cause.into());
        problem
    }

    /// Names this kind of problem by a URN that stays the same for ever.
    pub fn kind(mut self, kind: &'static str) -> Self {
        self.0.kind = kind;
        self
    }

    /// Adds a header to the answer.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    fn with_detail(status: StatusCode, kind: &'static str, detail: Detail) -> Self {
        Self(Box::new(Answer { status, kind, detail, headers: Vec::new(), cause: None }))
    }

    /// Writes what the client must not see to the log; the caller stands inside the request's span, and calls it once. A
    /// cause of a 503 that comes again within 10 s is only counted.
    pub fn log(&self) {
        match &self.0.cause {
            Some(cause) if self.0.status == StatusCode::INTERNAL_SERVER_ERROR => {
                tracing::error!(cause, "REQUEST_FAILED")
            }
            Some(cause) => {
                static REPEATS: Mutex<Repeats> = Mutex::new(Repeats::new());
                let seen = REPEATS.lock().unwrap_or_else(PoisonError::into_inner).see(cause, Instant::now());
                match seen {
                    None => {}
                    Some(0) => tracing::warn!(cause, "REQUEST_UNAVAILABLE"),
                    Some(left_out) => tracing::warn!(cause, left_out, "REQUEST_UNAVAILABLE"),
                }
            }
            None => {}
        }
    }

    /// The body of the answer.
    pub fn text(&self, correlation_id: Option<&str>) -> Vec<u8> {
        let Answer { status, kind, detail, .. } = &*self.0;
        let title = status.canonical_reason().unwrap_or("Error");
        let wire = Wire { kind, title, status: status.as_u16(), detail, correlation_id };
        // Writing strings and numbers to memory does not fail; should it ever, the status alone still says what counts.
        let mut text = serde_json::to_vec(&wire).unwrap_or_default();
        text.push(b'\n');
        text
    }

    /// The answer itself.
    pub fn respond(&self, correlation_id: Option<&str>) -> Response {
        let Answer { status, headers, .. } = &*self.0;
        let body = self.text(correlation_id);
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
        self.respond(None)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Unavailable(cause) => Self::unavailable(cause),
            Error::Internal(cause) => Self::internal(cause),
        }
    }
}

impl From<poem::Error> for Problem {
    /// Takes any error of the framework over: its status stays, and its text too as long as it is about the client's input.
    fn from(error: poem::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(problem) => problem,
            // A path that is not UTF-8 leads nowhere.
            Err(error) if error.is::<ParsePathError>() => Self::new(StatusCode::NOT_FOUND, "Not Found"),
            Err(error) if error.status().is_server_error() => Self::internal(error.to_string()),
            Err(error) => Self::new(error.status(), error.to_string()),
        }
    }
}

/// Which statuses the errors of one operation can have, for `openapi.json`. 500 is always one of them.
pub trait Statuses: Send + Sync + 'static {
    /// All but 500.
    const ALL: &'static [u16];
}

/// A [`Problem`] of an operation that is documented to answer the statuses of `S`.
#[derive(Debug)]
pub struct Fails<S>(Problem, PhantomData<S>);

impl<S, P: Into<Problem>> From<P> for Fails<S> {
    fn from(problem: P) -> Self {
        Self(problem.into(), PhantomData)
    }
}

impl<S> From<Fails<S>> for poem::Error {
    fn from(fails: Fails<S>) -> Self {
        fails.0.into()
    }
}

impl<S: Statuses> IntoResponse for Fails<S> {
    fn into_response(self) -> Response {
        self.0.respond(None)
    }
}

impl<S: Statuses> ApiResponse for Fails<S> {
    fn meta() -> MetaResponses {
        let mut statuses = [S::ALL, &[500]].concat();
        statuses.sort_unstable();
        MetaResponses { responses: statuses.into_iter().map(documented).collect() }
    }

    fn register(registry: &mut Registry) {
        registry.create_schema::<Problem, _>(SCHEMA.into(), |_| schema());
    }
}

/// One error status as `openapi.json` describes it.
fn documented(status: u16) -> MetaResponse {
    let description = match status {
        400 => "The body is not JSON in UTF-8.",
        401 => "The signature or token is missing or wrong.",
        403 => "The API key is missing or wrong, or this is not yours.",
        404 => "There is no such thing.",
        408 => "The body did not arrive in time.",
        409 => "It conflicts with what is recorded; `detail` says how.",
        412 => "It is not in the state that `If-Match` names.",
        413 => "The body is larger than 1 MiB.",
        415 => "The body is not declared as JSON.",
        422 => "The input is not valid; `detail` lists all failing fields.",
        429 => "Too many requests.",
        500 => "A fault of ours. Nothing of it is shown; the correlation id finds it in our log.",
        503 => "Not available at the moment; try again after `Retry-After` seconds.",
        _ => "",
    };
    let retry_after = || MetaHeader {
        name: "RETRY-AFTER".into(),
        description: Some("Seconds to wait before the next attempt.".into()),
        required: true,
        deprecated: false,
        schema: MetaSchemaRef::Inline(Box::new(MetaSchema::new("integer"))),
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
    let inline = |schema| MetaSchemaRef::Inline(Box::new(schema));
    let text = |description| inline(MetaSchema { description: Some(description), ..MetaSchema::new("string") });
    let detail = MetaSchema {
        description: Some("A sentence; for a validation error all failing fields; for some services an object."),
        one_of: vec![
            inline(MetaSchema::new("string")),
            inline(MetaSchema { items: Some(Box::new(inline(ValidationError::schema()))), ..MetaSchema::new("array") }),
            inline(MetaSchema::new("object")),
        ],
        ..MetaSchema::ANY
    };
    MetaSchema {
        description: Some("Every error answer (RFC 9457)."),
        required: vec!["type", "title", "status", "detail", "correlation_id"],
        properties: vec![
            ("type", text("A URI that names the kind of problem; `about:blank` when the status says it all.")),
            ("title", text("The status in words.")),
            ("status", inline(MetaSchema::new_with_format("integer", "int32"))),
            ("detail", inline(detail)),
            ("correlation_id", text("The `X-Correlation-Id` of this answer.")),
        ],
        ..MetaSchema::new("object")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn body(problem: Problem) -> serde_json::Value {
        let body = problem.respond(Some("c-1")).into_body().into_vec().await;
        serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default()
    }

    #[tokio::test]
    async fn shows_no_internals() {
        let problem = Problem::from(Error::Internal("relation \"secret\" does not exist".into()));
        assert_eq!(
            body(problem).await,
            serde_json::json!({
                "type": "about:blank", "title": "Internal Server Error", "status": 500,
                "detail": "Something went wrong on our side.", "correlation_id": "c-1",
            })
        );
    }

    #[test]
    fn unavailable_says_when_to_try_again() {
        let response = Problem::from(Error::Unavailable("connection refused".into())).respond(None);
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.header("retry-after"), Some("1"));
        assert_eq!(response.content_type(), Some(CONTENT_TYPE));
    }

    #[test]
    fn keeps_a_problem_that_went_through_the_framework() {
        let error = poem::Error::from(Problem::new(StatusCode::CONFLICT, "x"));
        assert_eq!(Problem::from(error).to_string(), "409 Conflict: x");
        let error = poem::Error::from(StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(Problem::from(error).status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
