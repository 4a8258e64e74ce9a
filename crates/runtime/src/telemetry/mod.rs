//! Logs, metrics and traces of a process. Log lines are readable or JSON; all processes use the same fields.

mod cleaner;
pub mod files;
pub mod json;
mod line_queue;
mod pretty;
pub mod scope;
pub mod traces;
mod writer;

use std::{
    ffi::OsString,
    io::{IsTerminal, Write as _},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt, util::SubscriberInitExt};

pub use self::cleaner::FileLimits;
use self::{
    json::{JsonFields, JsonLine},
    line_queue::{LineQueue, WriterGuard},
    pretty::PrettyFields,
    traces::Traces,
};
use super::version;
use crate::config::{EnvReader, Environment};

/// The filter without `RUST_LOG`: info, but of these libraries only warnings.
const DEFAULT_FILTER: &str =
    "info,apalis_core=warn,hyper=warn,poem=warn,reqwest=warn,sqlx=warn,tokio_cron_scheduler=warn";
/// Upper bounds of histogram buckets in seconds. 0.5 is the latency promised to webhook senders; 30 and more are for the
/// wait times of jobs.
const BUCKETS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// The counter of lost log lines, by output.
const DROPPED_LINES: &str = "millrace_log_lines_dropped_total";
/// Between two aggregations of the samples of histograms.
const AGGREGATION_INTERVAL: Duration = Duration::from_secs(5);

/// What is logged and traced, and where to.
#[derive(Debug, Clone)]
pub struct Config {
    /// `LOG_FORMAT`: JSON lines instead of readable ones.
    pub json: bool,
    /// `LOG_DIR`: a folder for JSON lines, in addition to standard output.
    pub directory: Option<PathBuf>,
    /// `LOG_FILE_MB`, `LOG_KEEP_MB`: the limits of that folder.
    pub file_limits: FileLimits,
    /// `RUST_LOG`: what is logged, in tracing's notation.
    pub filter: String,
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` and related variables: where traces are exported to. `None` exports none.
    pub traces: Option<traces::Config>,
}

impl Config {
    /// Reads the variables that the fields name.
    pub fn read(vars: &mut EnvReader, environment: Environment) -> Self {
        let json = vars.read("LOG_FORMAT", environment == Environment::Prod, |text| match text {
            "json" => Ok(true),
            "pretty" => Ok(false),
            _ => Err("must be pretty or json, such as LOG_FORMAT=json".into()),
        });
        Self {
            json,
            directory: vars.text("LOG_DIR").map(PathBuf::from),
            file_limits: FileLimits::read(vars),
            filter: vars.read("RUST_LOG", DEFAULT_FILTER.to_owned(), |text| match EnvFilter::try_new(text) {
                Ok(_) => Ok(text.to_owned()),
                Err(_) => Err("must be in tracing's notation, such as RUST_LOG=info,jobs=debug".to_owned()),
            }),
            traces: traces::Config::read(vars),
        }
    }
}

/// Logging, metrics and tracing of the process. They run until this is dropped.
pub struct Telemetry {
    /// Declared first, so that it is dropped first: what it logs then is still written.
    _traces: Option<Traces>,
    /// Dropping them writes the last lines.
    _writers: (WriterGuard, Option<WriterGuard>),
    metrics: PrometheusHandle,
    /// Ends the thread of [`aggregate`].
    _aggregation: mpsc::Sender<()>,
    /// The metrics `process_*`: processor time, memory, open files.
    process_metrics: metrics_process::Collector,
    dropped: DroppedLines,
}

/// The counters of lost log lines.
#[derive(Clone)]
struct DroppedLines {
    /// Counts lines that did not fit into it, because the reader of standard output hung.
    stdout: LineQueue,
    /// Counts the same, and lines that could not be written to a file.
    files: Option<(LineQueue, Arc<AtomicU64>)>,
}

impl DroppedLines {
    fn update_metric(&self) {
        metrics::counter!(DROPPED_LINES, "output" => "stdout").absolute(self.stdout.dropped_lines());
        let files = self
            .files
            .as_ref()
            .map_or(0, |(late, unwritten)| late.dropped_lines().saturating_add(unwritten.load(Ordering::Relaxed)));
        metrics::counter!(DROPPED_LINES, "output" => "files").absolute(files);
    }
}

impl Telemetry {
    /// Starts logging, metrics and tracing, once per process. `process` is a part of the names of log files.
    ///
    /// # Errors
    /// When a part cannot start, such as a `LOG_DIR` that is not writable; the text names the variable and the reason.
    pub fn start(config: &Config, process: &str) -> Result<Self, String> {
        // One filter for both outputs: with two, an event after an `enabled!` of another crate can be lost.
        let colour = has_colour(std::io::stdout().is_terminal(), |name| std::env::var_os(name));
        let filter = EnvFilter::try_new(&config.filter).map_err(|error| format!("RUST_LOG: {error}"))?;
        let no_thread = |error: std::io::Error| format!("cannot start the thread that writes log lines: {error}");
        let (queue, stdout_guard) = LineQueue::start(|lines| {
            let mut stdout = std::io::stdout().lock();
            // An error is ignored: the process works on without a reader of its standard output.
            let _ = stdout.write_all(lines.text()).and_then(|()| stdout.flush());
        })
        .map_err(no_thread)?;
        let mut dropped = DroppedLines { stdout: queue.clone(), files: None };
        let stdout = if config.json {
            tracing_subscriber::fmt::layer().event_format(JsonLine).fmt_fields(JsonFields).with_writer(queue).boxed()
        } else {
            let layer = tracing_subscriber::fmt::layer().with_ansi(colour).with_target(false);
            layer.fmt_fields(PrettyFields).with_writer(queue).boxed()
        };
        let (files, file_guard) = match &config.directory {
            None => (None, None),
            Some(directory) => {
                let mut writer =
                    writer::FileWriter::start(directory, process, config.file_limits).map_err(|error| {
                        let directory = directory.display();
                        format!("LOG_DIR: cannot write to {directory}: {error}; name a folder that can be written")
                    })?;
                let unwritten = writer.lost_lines();
                let (queue, guard) = LineQueue::start(move |lines| {
                    // The writer handles its errors, and counts the lines that it loses.
                    for line in lines.iter() {
                        let _ = writer.write_all(line);
                    }
                    let _ = writer.flush();
                })
                .map_err(no_thread)?;
                dropped.files = Some((queue.clone(), unwritten));
                let layer =
                    tracing_subscriber::fmt::layer().event_format(JsonLine).fmt_fields(JsonFields).with_writer(queue);
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
        metrics::describe_counter!(DROPPED_LINES, "Log lines that were lost, by output.");
        version::describe();
        let aggregation = aggregate(metrics.clone())
            .map_err(|error| format!("cannot start the thread that aggregates metrics: {error}"))?;
        let process_metrics = metrics_process::Collector::default();
        process_metrics.describe();
        let traces = config.traces.as_ref().map(|traces| Traces::start(traces, process)).transpose()?;
        let writers = (stdout_guard, file_guard);
        Ok(Self { _traces: traces, _writers: writers, metrics, _aggregation: aggregation, process_metrics, dropped })
    }

    /// Returns a function that renders all metrics in Prometheus' text format.
    pub fn metrics(&self) -> impl Fn() -> String + Clone + Send + Sync + 'static {
        let (handle, dropped) = (self.metrics.clone(), self.dropped.clone());
        let process_metrics = self.process_metrics.clone();
        move || {
            dropped.update_metric();
            process_metrics.collect();
            handle.run_upkeep();
            handle.render()
        }
    }
}

/// Starts a thread that aggregates the samples of histograms, until the returned sender is dropped. The recorder keeps each
/// sample until then, 16 bytes, so that a process whose `/metrics` is not read would grow: by 2.7 GB a day at 1,000 jobs/s.
///
/// # Errors
/// When the system cannot start the thread.
fn aggregate(metrics: PrometheusHandle) -> std::io::Result<mpsc::Sender<()>> {
    let (handle, dropped) = mpsc::channel();
    std::thread::Builder::new().name("metrics".into()).spawn(move || {
        while dropped.recv_timeout(AGGREGATION_INTERVAL) == Err(RecvTimeoutError::Timeout) {
            metrics.run_upkeep();
        }
    })?;
    Ok(handle)
}

/// Whether readable log lines are coloured: on a terminal that supports colour, unless `NO_COLOR` has a value.
fn has_colour(is_terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let is_refused = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    is_terminal && !is_refused && variable("TERM").is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_coloured_on_capable_terminals_without_no_color() {
        for (is_terminal, variables, expected) in [
            (true, &[][..], true),
            (false, &[], false),
            (true, &[("NO_COLOR", "1")], false),
            // https://no-color.org: an empty value has no effect.
            (true, &[("NO_COLOR", "")], true),
            (true, &[("TERM", "dumb")], false),
            (true, &[("TERM", "xterm-256color")], true),
        ] {
            let variable =
                |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into());
            assert_eq!(has_colour(is_terminal, variable), expected, "{variables:?}");
        }
    }
}
