//! The fields of readable log lines: those of the event, then those of its scope.

use std::fmt;

use tracing_subscriber::{
    field::RecordFields,
    fmt::{
        FormatFields,
        format::{DefaultFields, Writer},
    },
};

use super::scope::{self, Value};

/// Formats fields as `name=value`, in the style of `tracing`.
pub(super) struct PrettyFields;

impl<'a> FormatFields<'a> for PrettyFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'a>, fields: R) -> fmt::Result {
        DefaultFields::new().format_fields(writer.by_ref(), fields)?;
        // Italic, dimmed and plain.
        let [name_style, equals_style, plain] =
            if writer.has_ansi_escapes() { ["\x1b[3m", "\x1b[2m", "\x1b[0m"] } else { [""; 3] };
        scope::visit_current(&mut |name, value| {
            write!(writer, " {name_style}{name}{plain}{equals_style}={plain}")?;
            match value {
                Value::Text(text) => write!(writer, "{text:?}"),
                Value::Number(number) => write!(writer, "{number}"),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::{
        super::scope::{Fields, Scope, Visit},
        *,
    };

    struct Job;

    impl Fields for Job {
        fn visit(&self, visit: &mut Visit<'_>) -> fmt::Result {
            visit("job", Value::Text("a \"b\""))?;
            visit("run", Value::Number(2))
        }
    }

    /// The line of an event in the scope of a job.
    fn line(ansi: bool) -> String {
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
        let layer = tracing_subscriber::fmt::layer().with_ansi(ansi).with_target(false).without_time();
        let layer = layer.fmt_fields(PrettyFields).with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            Scope::new(Arc::new(Job)).run(|| tracing::info!(status = 200, "job done"));
        });
        let lines = log.0.lock().expect("not poisoned").clone();
        String::from_utf8(lines).expect("UTF-8")
    }

    #[test]
    fn a_line_ends_with_the_fields_of_its_scope() {
        assert_eq!(line(false).trim_start(), "INFO job done status=200 job=\"a \\\"b\\\"\" run=2\n");
    }

    #[test]
    fn fields_of_the_scope_have_the_colours_of_other_fields() {
        let coloured = line(true);
        for name in ["status", "job", "run"] {
            assert!(coloured.contains(&format!("\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")), "{coloured:?}");
        }
    }
}
