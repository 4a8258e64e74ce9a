//! JSON log lines. Each is one flat object: time, level and event, then the fields of the event and of its scope.
//!
//! A line is written straight into the buffer of its thread, without an allocation: every request and every job has one.

use std::fmt::{self, Write as _};

use serde_json::Number;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, format::Writer},
    registry::LookupSpan,
};

use super::{
    scope::{self, Value},
    traces::span,
};

/// The beginning of every line. The timestamp follows: RFC 3339 in UTC, without trailing zeros in the fraction.
pub const LINE_PREFIX: &str = r#"{"timestamp":""#;
/// The field with the text of an event. In a line it is `event`.
const MESSAGE: &str = "message";

/// Formats an event as a JSON line.
pub(super) struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        writer.write_str(LINE_PREFIX)?;
        write_time(&mut writer, OffsetDateTime::now_utc())?;
        writer.write_str(r#"","level":""#)?;
        writer.write_str(level_name(*metadata.level()))?;
        writer.write_str(r#"","event":""#)?;
        let mut message = MessageVisitor { writer: &mut writer, result: Ok(()) };
        event.record(&mut message);
        message.result?;
        writer.write_str("\"")?;
        let mut fields = FieldVisitor { writer: &mut writer, result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        scope::visit_current(&mut |name, value| {
            // A name occurs once in a line: readers of JSON may refuse a second one.
            if metadata.fields().field(name).is_some() {
                return Ok(());
            }
            write_field(&mut writer, name, |to| match value {
                Value::Text(text) => write_text(to, text),
                Value::Number(number) => write!(to, "{number}"),
            })
        })?;
        // Libraries may have spans.
        for span in ctx.event_scope().into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                writer.write_str(&fields.fields)?;
            }
        }
        if let Some(trace) = span::trace_id() {
            write!(writer, r#","trace_id":"{trace}""#)?;
        }
        writer.write_str(r#","target":""#)?;
        writer.write_str(metadata.target())?;
        writer.write_str("\"}\n")
    }
}

/// Formats fields as `,"name":value`, so that they can be inserted into an object.
pub(super) struct JsonFields;

impl<'a> FormatFields<'a> for JsonFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'a>, fields: R) -> fmt::Result {
        let mut visitor = FieldVisitor { writer: &mut writer, result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        _ => "trace",
    }
}

fn write_time(to: &mut dyn fmt::Write, time: OffsetDateTime) -> fmt::Result {
    // The longest, with nanoseconds, has 30 bytes.
    let mut buffer = [0; 40];
    let mut rest = &mut buffer[..];
    time.format_into(&mut rest, &Rfc3339).map_err(|_| fmt::Error)?;
    let unused = rest.len();
    let text = &buffer[..buffer.len() - unused];
    to.write_str(std::str::from_utf8(text).map_err(|_| fmt::Error)?)
}

/// Writes a part of a JSON string, escaped as `serde_json` does.
fn write_escaped(to: &mut dyn fmt::Write, text: &str) -> fmt::Result {
    // Without an early end, the compiler checks many bytes at once.
    let must_escape = |byte: u8| (byte < b' ') | (byte == b'"') | (byte == b'\\');
    if !text.bytes().fold(false, |found, byte| found | must_escape(byte)) {
        return to.write_str(text);
    }
    let mut written = 0;
    for (at, byte) in text.bytes().enumerate().filter(|(_, byte)| must_escape(*byte)) {
        to.write_str(&text[written..at])?;
        written = at + 1;
        match byte {
            b'"' => to.write_str("\\\"")?,
            b'\\' => to.write_str("\\\\")?,
            b'\n' => to.write_str("\\n")?,
            b'\r' => to.write_str("\\r")?,
            b'\t' => to.write_str("\\t")?,
            0x08 => to.write_str("\\b")?,
            0x0c => to.write_str("\\f")?,
            _ => write!(to, "\\u{byte:04x}")?,
        }
    }
    to.write_str(&text[written..])
}

/// Escapes what is formatted into it.
struct Escaped<'w>(&'w mut dyn fmt::Write);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write_escaped(self.0, text)
    }
}

/// Writes the text of an event, and nothing else.
struct MessageVisitor<'w> {
    writer: &'w mut dyn fmt::Write,
    result: fmt::Result,
}

impl Visit for MessageVisitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == MESSAGE {
            self.result = write_escaped(self.writer, value);
        }
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == MESSAGE {
            self.result = write!(Escaped(self.writer), "{value:?}");
        }
    }
}

/// Writes all fields except the text of the event.
struct FieldVisitor<'w> {
    writer: &'w mut dyn fmt::Write,
    result: fmt::Result,
}

impl FieldVisitor<'_> {
    fn write(&mut self, field: &Field, value: impl FnOnce(&mut dyn fmt::Write) -> fmt::Result) {
        if field.name() != MESSAGE && self.result.is_ok() {
            self.result = write_field(self.writer, field.name(), value);
        }
    }
}

fn write_field(
    to: &mut dyn fmt::Write,
    name: &str,
    value: impl FnOnce(&mut dyn fmt::Write) -> fmt::Result,
) -> fmt::Result {
    to.write_str(",\"")?;
    to.write_str(name)?;
    to.write_str("\":")?;
    value(to)
}

fn write_text(to: &mut dyn fmt::Write, text: &str) -> fmt::Result {
    to.write_str("\"")?;
    write_escaped(to, text)?;
    to.write_str("\"")
}

impl Visit for FieldVisitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, |to| write_text(to, value));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.write(field, |to| write!(to, "{value}"));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, |to| write!(to, "{value}"));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinite numbers.
        self.write(field, |to| match Number::from_f64(value) {
            Some(number) => write!(to, "{number}"),
            None => to.write_str("null"),
        });
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.write(field, |to| to.write_str(if value { "true" } else { "false" }));
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, |to| {
            to.write_str("\"")?;
            write!(Escaped(to), "{value:?}")?;
            to.write_str("\"")
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use time::macros::datetime;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::{
        super::scope::{Fields, Scope, Visit as VisitScope},
        *,
    };

    struct Job;

    impl Fields for Job {
        fn visit(&self, visit: &mut VisitScope<'_>) -> fmt::Result {
            visit("job", Value::Text("\"j\""))?;
            visit("run", Value::Number(3))
        }
    }

    /// The lines that `work` logs.
    fn logged(work: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Log(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Log {
            fn write(&mut self, line: &[u8]) -> io::Result<usize> {
                self.0.lock().expect("not poisoned").extend_from_slice(line);
                Ok(line.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let log = Log::default();
        let writer = log.clone();
        let layer = tracing_subscriber::fmt::layer()
            .event_format(JsonLine)
            .fmt_fields(JsonFields)
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        let lines = log.0.lock().expect("not poisoned").clone();
        String::from_utf8(lines).expect("UTF-8")
    }

    /// A line without its time.
    fn after_time(line: &str) -> &str {
        let (time, rest) =
            line.strip_prefix(LINE_PREFIX).and_then(|rest| rest.split_once("\",\"level\"")).expect("a line");
        OffsetDateTime::parse(time, &Rfc3339).expect("a time");
        rest
    }

    #[test]
    fn a_line_has_the_fields_of_its_event_its_scope_and_its_spans() {
        let log = || {
            let _span = tracing::info_span!("of a library", id = 7).entered();
            tracing::warn!(
                text = "a\tb\u{1}é",
                int = -7_i64,
                uint = u64::MAX,
                whole = 2.0,
                float = 0.1,
                infinite = f64::INFINITY,
                flag = true,
                debug = ?Some("x\n"),
                display = %"say \"x\"",
                absent = None::<&str>,
                "an {} with \"quotes\"",
                "event",
            );
        };
        let line = logged(|| Scope::new(Arc::new(Job)).run(log));
        let expected = concat!(
            r#":"warn","event":"an event with \"quotes\"","text":"a\tb\u0001é","int":-7,"uint":18446744073709551615,"#,
            r#""whole":2.0,"float":0.1,"infinite":null,"flag":true,"debug":"Some(\"x\\n\")","display":"say \"x\"","#,
            r#""job":"\"j\"","run":3,"id":7,"target":"runtime::telemetry::json::tests"}"#,
            "\n"
        );
        assert_eq!(after_time(&line), expected);
    }

    #[test]
    fn a_field_of_the_event_replaces_that_of_its_scope() {
        let line = logged(|| Scope::new(Arc::new(Job)).run(|| tracing::info!(run = 4, "event")));
        let expected = r#":"info","event":"event","run":4,"job":"\"j\"","target""#;
        assert!(after_time(&line).starts_with(expected), "{line}");
    }

    #[test]
    fn each_level_has_its_name_and_an_event_may_have_no_text() {
        let lines = logged(|| {
            tracing::error!("e");
            tracing::info!("i");
            tracing::debug!("d");
            tracing::trace!(n = 1);
        });
        let starts: Vec<&str> =
            lines.lines().map(|line| after_time(line).split_once(",\"target\"").expect("a target").0).collect();
        let expected = [
            r#":"error","event":"e""#,
            r#":"info","event":"i""#,
            r#":"debug","event":"d""#,
            r#":"trace","event":"","n":1"#,
        ];
        assert_eq!(starts, expected);
    }

    #[test]
    fn texts_are_escaped_as_serde_json_does() {
        let every = (0..=0x2ff).filter_map(char::from_u32).collect::<String>();
        for text in ["", "plain", "\"", "a\\", "\u{7f}\u{2028}😀\0", &every, &every.repeat(3)] {
            let mut written = String::new();
            write_text(&mut written, text).expect("a String");
            assert_eq!(written, serde_json::Value::from(text).to_string());
        }
    }

    #[test]
    fn times_have_no_trailing_zeros() {
        for (time, expected) in [
            (datetime!(2026-11-21 15:53:05 UTC), "2026-11-21T15:53:05Z"),
            (datetime!(2026-11-21 15:53:05.120 UTC), "2026-11-21T15:53:05.12Z"),
            (datetime!(9999-12-31 23:59:59.999999999 UTC), "9999-12-31T23:59:59.999999999Z"),
        ] {
            let mut written = String::new();
            write_time(&mut written, time).expect("a time");
            assert_eq!(written, expected);
        }
    }
}
