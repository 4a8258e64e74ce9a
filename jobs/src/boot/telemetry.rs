//! Logs and metrics of a process: readable lines for people, JSON lines for machines, one schema for every process.

use std::{
    fmt::{self, Write as _},
    io::{BufWriter, IsTerminal},
    path::{Path, PathBuf},
    time::Duration,
};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_appender::{
    non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard},
    rolling,
};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::config::{Environment, Vars};

/// What is logged when `RUST_LOG` does not say otherwise: our own information, others' warnings.
const DEFAULT_FILTER: &str = "info,apalis_core=warn,sqlx=warn,hyper=warn,reqwest=warn";
/// Upper edges in seconds; 0.5 is the promise to webhook senders, 30 and beyond the waits of jobs.
const BUCKETS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Files in `LOG_DIR` go this long after their last line.
const KEPT: Duration = Duration::from_secs(14 * 24 * 3600);

/// Where logs go.
#[derive(Debug, Clone)]
pub struct Config {
    /// `LOG_FORMAT`: JSON lines instead of readable ones.
    pub json: bool,
    /// `LOG_DIR`: a folder for JSON lines beside standard output.
    pub directory: Option<PathBuf>,
}

impl Config {
    /// Reads the variables named at the fields.
    pub fn read(vars: &mut Vars, environment: Environment) -> Self {
        let json = vars.read("LOG_FORMAT", environment == Environment::Prod, |text| match text {
            "json" => Ok(true),
            "pretty" => Ok(false),
            _ => Err("must be pretty or json, such as LOG_FORMAT=json".into()),
        });
        Self { json, directory: vars.text("LOG_DIR").map(PathBuf::from) }
    }
}

/// Keeps logs flowing and metrics readable for as long as it lives.
pub struct Telemetry {
    /// Write their last lines when they are dropped.
    _writers: (WorkerGuard, Option<WorkerGuard>),
    metrics: PrometheusHandle,
}

impl Telemetry {
    /// Starts logging and counting, once a process; `process` names the log files.
    ///
    /// # Errors
    /// What cannot be used, and why.
    pub fn start(config: &Config, process: &str) -> Result<Self, String> {
        // One filter above both outputs: with one each, an event after an `enabled!` of another crate can get lost.
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
        let terminal = std::io::stdout().is_terminal();
        let (stdout, stdout_guard) = gathered(std::io::stdout());
        let stdout = if config.json {
            tracing_subscriber::fmt::layer().event_format(JsonLine).fmt_fields(JsonFields).with_writer(stdout).boxed()
        } else {
            tracing_subscriber::fmt::layer().with_ansi(terminal).with_target(false).with_writer(stdout).boxed()
        };
        let (files, file_guard) = match &config.directory {
            None => (None, None),
            Some(directory) => {
                let unusable = |error: &dyn fmt::Display| {
                    format!(
                        "LOG_DIR: cannot write to {}: {error}; name a folder that can be written",
                        directory.display()
                    )
                };
                std::fs::create_dir_all(directory).map_err(|error| unusable(&error))?;
                remove_old_files(directory);
                // The process id keeps processes that share the folder out of each other's files.
                let appender = rolling::Builder::new()
                    .rotation(rolling::Rotation::DAILY)
                    .filename_prefix(format!("{process}-{}", std::process::id()))
                    .filename_suffix("jsonl")
                    .build(directory)
                    .map_err(|error| unusable(&error))?;
                let (writer, guard) = gathered(appender);
                let layer =
                    tracing_subscriber::fmt::layer().event_format(JsonLine).fmt_fields(JsonFields).with_writer(writer);
                (Some(layer), Some(guard))
            }
        };
        tracing_subscriber::registry()
            .with(filter)
            .with(stdout)
            .with(files)
            .try_init()
            .map_err(|error| error.to_string())?;
        let metrics = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), BUCKETS)
            .and_then(|builder| builder.install_recorder())
            .map_err(|error| error.to_string())?;
        Ok(Self { _writers: (stdout_guard, file_guard), metrics })
    }

    /// Renders all metrics in Prometheus' text format.
    pub fn metrics(&self) -> impl Fn() -> String + Clone + Send + Sync + 'static {
        let handle = self.metrics.clone();
        move || {
            handle.run_upkeep();
            handle.render()
        }
    }
}

/// A thread that writes lines for everybody: what comes while it writes goes with its next write. One write for each
/// line, by whoever had it, took a quarter of a busy worker's time. A reader that hangs costs lines, not the service.
fn gathered(out: impl std::io::Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    /// Lines that wait; a slot each is allocated at the start.
    const WAITING: usize = 16_384;
    NonBlockingBuilder::default()
        .buffered_lines_limit(WAITING)
        .lossy(true)
        .finish(BufWriter::with_capacity(1 << 16, out))
}

/// Removes what nobody wrote to for long; a file that cannot be asked or removed stays.
fn remove_old_files(directory: &Path) {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    for path in files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|ending| ending == "jsonl")) {
        let written = path.metadata().and_then(|file| file.modified()).ok();
        if written.and_then(|time| time.elapsed().ok()).is_some_and(|age| age > KEPT) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// One flat JSON object a line: time, level, event, then the fields of the event and of the spans around it.
struct JsonLine;

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
        write!(writer, r#"{{"timestamp":"{now}","level":"{level}","event":{message}{}"#, fields.text)?;
        for span in ctx.event_scope().into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                write!(writer, "{fields}")?;
            }
        }
        writeln!(writer, r#","target":"{}"}}"#, metadata.target())
    }
}

/// Fields as `,"name":value`, ready to stand within an object.
struct JsonFields;

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
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        let value = value.into();
        // Infallible: writing to a String.
        let _ = write!(self.text, r#","{}":{value}"#, field.name());
    }
}

impl Visit for JsonVisitor {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" { self.message = value.to_owned() } else { self.put(field, value) }
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" { self.message = text } else { self.put(field, text) }
    }
}
