//! JSON log lines. Each is one flat object: time, level and event, then the fields of the event and of its spans.

use std::fmt::{self, Write as _};

use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, format::Writer},
    registry::LookupSpan,
};

use super::traces::span;

/// The beginning of every line. The timestamp follows: RFC 3339 in UTC, without trailing zeros in the fraction.
pub const LINE_PREFIX: &str = r#"{"timestamp":""#;

/// Formats an event as a JSON line.
pub(super) struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = JsonVisitor::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let now = OffsetDateTime::now_utc().format(&Rfc3339).map_err(|_| fmt::Error)?;
        let level = metadata.level().as_str().to_ascii_lowercase();
        let message = Value::String(fields.message);
        write!(writer, r#"{LINE_PREFIX}{now}","level":"{level}","event":{message}{}"#, fields.text)?;
        for scope in ctx.event_scope().into_iter().flatten() {
            if let Some(fields) = scope.extensions().get::<FormattedFields<N>>() {
                write!(writer, "{fields}")?;
            }
        }
        if let Some(trace) = span::trace_id() {
            write!(writer, r#","trace_id":"{trace}""#)?;
        }
        writeln!(writer, r#","target":"{}"}}"#, metadata.target())
    }
}

/// Formats fields as `,"name":value`, so that they can be inserted into an object.
pub(super) struct JsonFields;

impl<'a> FormatFields<'a> for JsonFields {
    fn format_fields<R: tracing_subscriber::field::RecordFields>(
        &self,
        mut writer: Writer<'a>,
        fields: R,
    ) -> fmt::Result {
        let mut visitor = JsonVisitor::default();
        fields.record(&mut visitor);
        writer.write_str(&visitor.text)
    }
}

#[derive(Default)]
struct JsonVisitor {
    message: String,
    text: String,
}

impl JsonVisitor {
    fn append(&mut self, field: &Field, value: impl Into<Value>) {
        let value = value.into();
        // Writing to a String cannot fail.
        let _ = write!(self.text, r#","{}":{value}"#, field.name());
    }
}

impl Visit for JsonVisitor {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" { self.message = value.to_owned() } else { self.append(field, value) }
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.append(field, value);
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.append(field, value);
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.append(field, value);
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.append(field, value);
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" { self.message = text } else { self.append(field, text) }
    }
}
