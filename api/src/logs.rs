//! The endpoint of logs: an operator takes a range of time away.

mod view;

use futures_util::stream;
use jobs::logs::{self, Logs, Range, Refused};
use poem::{
    Body, IntoResponse, Request, Response,
    http::{Method, StatusCode, header},
};
use poem_openapi::{
    ApiResponse, OpenApi,
    payload::{Binary, Payload},
    registry::{MetaMediaType, MetaResponse, MetaResponses, Registry},
};
use time::{Duration, OffsetDateTime};

use self::view::{Format, Moment};
use crate::{
    auth::Admin,
    problem::{Fails, Problem, Statuses},
    rate_limit::{Limit, Limits},
    tags::Tag,
    validation::{FieldError, Query},
};

/// How far back an export begins that does not say.
const BACK: Duration = Duration::days(1);

/// The endpoint of logs.
#[derive(Clone)]
pub struct LogsApi {
    logs: Logs,
    limit: Limit,
}

impl LogsApi {
    /// The endpoint of these logs, within the limit of all admin routes.
    pub fn new(logs: Logs, limits: &Limits) -> Self {
        Self { logs, limit: limits.admin.clone() }
    }
}

/// What is sent. Described by hand: the framework has one media type for each status.
struct Exported {
    body: Body,
    format: Format,
    /// The name of a file to keep it in.
    name: String,
}

impl Exported {
    fn media_type(Format(format): Format) -> &'static str {
        match format {
            logs::Format::Lines => "application/x-ndjson",
            logs::Format::Gzip => "application/gzip",
        }
    }
}

impl IntoResponse for Exported {
    fn into_response(self) -> Response {
        Response::builder()
            .content_type(Self::media_type(self.format))
            .header(header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", self.name))
            // Logs are for operators alone.
            .header(header::CACHE_CONTROL, "no-store")
            .body(self.body)
    }
}

impl ApiResponse for Exported {
    fn meta() -> MetaResponses {
        let content = [logs::Format::Lines, logs::Format::Gzip].map(|format| MetaMediaType {
            content_type: Self::media_type(Format(format)),
            schema: Binary::<Body>::schema_ref(),
        });
        let description =
            "A JSON object a line, in the order of their times; as `application/gzip`, the same compressed.";
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

#[derive(Debug)]
struct Exporting;

impl Statuses for Exporting {
    const ALL: &'static [u16] = &[401, 403, 404, 422, 429, 503];
}

#[OpenApi(tag = "Tag::Logs")]
impl LogsApi {
    /// Export logs
    ///
    /// The lines of all processes that share this one's `LOG_DIR`, rotated and compressed ones included, in the order of
    /// their times. They are read while they are sent, at the speed at which they are taken; an export of which nothing
    /// is taken for a minute ends. What was logged less than a moment ago may be missing. 404 when no logs are kept, 503
    /// when four exports are under way. At most 60 requests a minute to all admin routes are taken from one credential.
    #[oai(path = "/logs/export", method = "get", operation_id = "export_logs")]
    async fn export(
        &self,
        request: &Request,
        caller: Admin,
        /// The time of the first line; a day before `to`, when it is not given.
        from: Query<Moment>,
        /// The time before which the last line is; now, when it is not given.
        to: Query<Moment>,
        /// How lines are sent.
        format: Query<Format>,
    ) -> Result<Exported, Fails<Exporting>> {
        let Admin(caller) = caller;
        self.limit.take(&caller).await?;
        let now = OffsetDateTime::now_utc();
        let mut errors = Vec::new();
        let from = from.value_or_record(&mut errors).map(|Moment(from)| from);
        let to = to.value_or_record(&mut errors).map_or(now, |Moment(to)| to);
        let Format(format) = format.value_or_record(&mut errors).unwrap_or_default();
        if !errors.is_empty() {
            return Err(Problem::invalid(errors).into());
        }
        let range = Range::new(from.unwrap_or(to.saturating_sub(BACK)), to).ok_or_else(|| {
            let input = from.and_then(|from| serde_json::to_string(&view::text(from)).ok());
            let wrong = FieldError::rule("from must not be after to");
            Problem::invalid(vec![wrong.at("query", "from", input.as_deref())])
        })?;
        let name = view::file_name(&range, format);
        let body = if request.method() == Method::HEAD && self.logs.are_kept() {
            // A stream of unknown length, of which nothing is read.
            Body::from_bytes_stream(stream::pending::<std::io::Result<Vec<u8>>>())
        } else {
            Body::from_bytes_stream(self.logs.export(range, format, caller.to_string()).map_err(refused)?)
        };
        Ok(Exported { body, format: Format(format), name })
    }
}

fn refused(why: Refused) -> Problem {
    match why {
        Refused::NotKept => Problem::new(StatusCode::NOT_FOUND, "LOG_DIR is not set: no logs are kept"),
        Refused::Busy => Problem::unavailable("as many exports as there can be are under way"),
    }
}
