//! The log export endpoint: an admin downloads the log lines of a time range.

mod wire;

use futures_util::stream;
use jobs::logs::{ExportError, Format, Logs, Range};
use poem::{
    Body, IntoResponse, Request, Response,
    http::{Method, StatusCode, header},
};
use poem_openapi::{
    ApiResponse, OpenApi,
    payload::{Binary, Payload},
    registry::{MetaMediaType, MetaResponse, MetaResponses, Registry},
};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    auth::Admin,
    context::Context,
    problem::{Failure, Problem, errors},
    rate_limit::Limit,
    tags::Tag,
    validation::{AllValid, FieldError, FirstOr, Moment, Query},
};

/// The length of an export's time range if `from` is absent.
const DEFAULT_RANGE: Duration = Duration::days(1);

/// The log export endpoint.
#[derive(Clone)]
pub struct LogsApi {
    logs: Logs,
    limit: Limit,
}

impl LogsApi {
    /// The endpoint, within the rate limit that all admin routes share.
    pub(crate) fn new(Context { app, limits, .. }: &Context<'_>) -> Self {
        Self { logs: app.logs.clone(), limit: limits.admin.clone() }
    }
}

/// The response with the log lines. Its OpenAPI metadata is written by hand, since the framework supports only one
/// media type for each status.
struct ExportResponse {
    body: Body,
    format: Format,
    /// The suggested file name.
    name: String,
}

impl ExportResponse {
    fn media_type(format: Format) -> &'static str {
        match format {
            Format::Lines => "application/x-ndjson",
            Format::Gzip => "application/gzip",
        }
    }
}

impl IntoResponse for ExportResponse {
    fn into_response(self) -> Response {
        Response::builder()
            .content_type(Self::media_type(self.format))
            .header(header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", self.name))
            // Only operators may see logs, so no cache may store them.
            .header(header::CACHE_CONTROL, "no-store")
            .body(self.body)
    }
}

impl ApiResponse for ExportResponse {
    fn meta() -> MetaResponses {
        let content = [Format::Lines, Format::Gzip].map(|format| MetaMediaType {
            content_type: Self::media_type(format),
            schema: Binary::<Body>::schema_ref(),
        });
        let description =
            "One JSON object per line, nearly in the order of time; the same compressed as `application/gzip`.";
        let response = MetaResponse {
            description,
            status: Some(200),
            status_range: None,
            content: content.into(),
            headers: Vec::new(),
        };
        MetaResponses { responses: vec![response] }
    }

    fn register(_: &mut Registry) {}
}

errors! {
    Exporting: [401, 403, 404, 422, 429, 503];
}

#[OpenApi(tag = "Tag::Logs")]
impl LogsApi {
    /// Export logs
    ///
    /// The lines of all processes that share this one's `LOG_DIR`, nearly in the order of time: lines of the same moment
    /// may be swapped. Rotated and compressed files are included. Lines are read while they are sent, at the client's
    /// speed; an export ends if the client reads nothing for a minute. The newest lines may be missing. 404 if no logs
    /// are kept; 503 while four exports are running, or if the files cannot be read. One credential may send 60 requests
    /// a minute to all admin routes together.
    #[oai(path = "/logs/export", method = "get", operation_id = "export_logs")]
    async fn export(
        &self,
        request: &Request,
        caller: Admin,
        /// The time from which lines are included; by default a day before `to`.
        from: Query<Option<Moment>>,
        /// The time before which lines are included; by default now.
        to: Query<Option<Moment>>,
        /// The format of the lines.
        format: Query<FirstOr<Format>>,
    ) -> Result<ExportResponse, Failure<Exporting>> {
        let Admin(caller) = caller;
        self.limit.acquire(&caller).await?;
        let now = OffsetDateTime::now_utc();
        let (from, to, format) = (from.0, to.0, format.0).all_valid()?;
        let to = to.unwrap_or(now);
        let range = Range::new(from.unwrap_or(to.saturating_sub(DEFAULT_RANGE)), to).ok_or_else(|| {
            let input = from.and_then(|from| from.format(&Rfc3339).ok()).unwrap_or_default();
            FieldError::value_error("from must not be after to").at_text("query", "from", &input)
        })?;
        let name = wire::file_name(&range, format);
        // Before the response begins: afterwards an error could only cut the connection.
        let export = self.logs.open(range).await.map_err(refusal)?;
        let body = if request.method() == Method::HEAD {
            // A stream of unknown length, which is never read: HEAD has the headers of GET.
            Body::from_bytes_stream(stream::pending::<std::io::Result<Vec<u8>>>())
        } else {
            Body::from_bytes_stream(export.stream(format, caller.to_string()))
        };
        Ok(ExportResponse { body, format, name })
    }
}

fn refusal(refused: ExportError) -> Problem {
    match refused {
        ExportError::NoLogDir => Problem::new(StatusCode::NOT_FOUND, "LOG_DIR is not set: no logs are kept"),
        ExportError::Busy => Problem::unavailable("the maximum number of exports is running"),
        ExportError::Unreadable(reason) => Problem::unavailable(format!("LOG_DIR cannot be read: {reason}")),
    }
}
