//! Logs, metrics and traces of a process: readable lines for people, JSON lines for machines, one schema for every process.

pub mod files;
pub mod json;
mod keeper;
pub mod traces;
mod writer;

use std::{
    ffi::OsString,
    io::{BufWriter, IsTerminal},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt, util::SubscriberInitExt};

use self::{
    json::{JsonFields, JsonLine},
    traces::Traces,
};
use super::version;
use crate::config::{EnvReader, Environment};

/// What is logged when `RUST_LOG` does not say otherwise: our own information, others' warnings.
const DEFAULT_FILTER: &str =
    "info,apalis_core=warn,hyper=warn,poem=warn,reqwest=warn,sqlx=warn,tokio_cron_scheduler=warn";
/// Upper edges in seconds; 0.5 is the promise to webhook senders, 30 and beyond the waits of jobs.
const BUCKETS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Lines that were lost, by where they were to go.
const DROPPED: &str = "millrace_log_lines_dropped_total";
const MEBIBYTE: u64 = 1 << 20;

/// Where logs go.
#[derive(Debug, Clone)]
pub struct Config {
    /// `LOG_FORMAT`: JSON lines instead of readable ones.
    pub json: bool,
    /// `LOG_DIR`: a folder for JSON lines beside standard output.
    pub directory: Option<PathBuf>,
    /// `LOG_FILE_MB`, `LOG_KEEP_MB`: how much of it.
    pub sizes: Sizes,
    /// `RUST_LOG`: what is logged, in tracing's notation.
    pub filter: String,
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` and what belongs to it: where traces go.
    pub traces: Option<traces::Config>,
}

/// How much may be in `LOG_DIR`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// `LOG_FILE_MB`: a file of this size is full, in bytes.
    pub file: u64,
    /// `LOG_KEEP_MB`: all files together, in bytes; the oldest go first.
    pub keep: u64,
    /// Files go this long after their last line.
    pub age: Duration,
}

impl Sizes {
    fn read(vars: &mut EnvReader) -> Self {
        let file = vars.number("LOG_FILE_MB", 64, 1..=4096);
        let keep = vars.number("LOG_KEEP_MB", 1024, 4..=1 << 20);
        if keep < 4 * file {
            vars.add_error("LOG_KEEP_MB", "must be at least four times LOG_FILE_MB, such as LOG_KEEP_MB=1024");
        }
        Self { file: file * MEBIBYTE, keep: keep * MEBIBYTE, age: Duration::from_secs(14 * 24 * 3600) }
    }
}

impl Config {
    /// Reads the variables named at the fields.
    pub fn read(vars: &mut EnvReader, environment: Environment) -> Self {
        let json = vars.read("LOG_FORMAT", environment == Environment::Prod, |text| match text {
            "json" => Ok(true),
            "pretty" => Ok(false),
            _ => Err("must be pretty or json, such as LOG_FORMAT=json".into()),
        });
        Self {
            json,
            directory: vars.text("LOG_DIR").map(PathBuf::from),
            sizes: Sizes::read(vars),
            filter: vars.read("RUST_LOG", DEFAULT_FILTER.to_owned(), |text| match EnvFilter::try_new(text) {
                Ok(_) => Ok(text.to_owned()),
                Err(_) => Err("must be in tracing's notation, such as RUST_LOG=info,jobs=debug".to_owned()),
            }),
            traces: traces::Config::read(vars),
        }
    }
}

/// Keeps logs flowing and metrics readable for as long as it lives.
pub struct Telemetry {
    /// First: what it has to say when it ends is still logged.
    _traces: Option<Traces>,
    /// Write their last lines when they are dropped.
    _writers: (WorkerGuard, Option<WorkerGuard>),
    metrics: PrometheusHandle,
    /// `process_*`: processor time, memory, open files.
    process_metrics: metrics_process::Collector,
    dropped: Dropped,
}

/// What counts the lines that were lost.
#[derive(Clone)]
struct Dropped {
    /// Whose reader hung.
    stdout: ErrorCounter,
    /// For which there was no time, and those for which there was no place.
    files: Option<(ErrorCounter, Arc<AtomicU64>)>,
}

impl Dropped {
    fn show(&self) {
        metrics::counter!(DROPPED, "output" => "stdout").absolute(self.stdout.dropped_lines() as u64);
        let files = self.files.as_ref().map_or(0, |(late, unwritten)| {
            (late.dropped_lines() as u64).saturating_add(unwritten.load(Ordering::Relaxed))
        });
        metrics::counter!(DROPPED, "output" => "files").absolute(files);
    }
}

impl Telemetry {
    /// Starts logging and counting, once a process; `process` names the log files.
    ///
    /// # Errors
    /// What cannot be used, and why.
    pub fn start(config: &Config, process: &str) -> Result<Self, String> {
        // One filter above both outputs: with one each, an event after an `enabled!` of another crate can get lost.
        let colour = has_colour(std::io::stdout().is_terminal(), |name| std::env::var_os(name));
        let filter = EnvFilter::try_new(&config.filter).map_err(|error| format!("RUST_LOG: {error}"))?;
        let (stdout, stdout_guard) = gathered(BufWriter::with_capacity(1 << 16, std::io::stdout()));
        let stdout_dropped = stdout.error_counter();
        let stdout = if config.json {
            tracing_subscriber::fmt::layer().event_format(JsonLine).fmt_fields(JsonFields).with_writer(stdout).boxed()
        } else {
            tracing_subscriber::fmt::layer().with_ansi(colour).with_target(false).with_writer(stdout).boxed()
        };
        let mut dropped = Dropped { stdout: stdout_dropped, files: None };
        let (files, file_guard) = match &config.directory {
            None => (None, None),
            Some(directory) => {
                let writer = writer::Writer::start(directory, process, config.sizes).map_err(|error| {
                    let directory = directory.display();
                    format!("LOG_DIR: cannot write to {directory}: {error}; name a folder that can be written")
                })?;
                let unwritten = writer.lost();
                let (writer, guard) = gathered(writer);
                dropped.files = Some((writer.error_counter(), unwritten));
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
        metrics::describe_counter!(DROPPED, "Log lines that were lost, by where they were to go.");
        version::describe();
        let process_metrics = metrics_process::Collector::default();
        process_metrics.describe();
        let traces = config.traces.as_ref().map(|traces| Traces::start(traces, process)).transpose()?;
        Ok(Self { _traces: traces, _writers: (stdout_guard, file_guard), metrics, process_metrics, dropped })
    }

    /// Renders all metrics in Prometheus' text format.
    pub fn metrics(&self) -> impl Fn() -> String + Clone + Send + Sync + 'static {
        let (handle, dropped) = (self.metrics.clone(), self.dropped.clone());
        let process_metrics = self.process_metrics.clone();
        move || {
            dropped.show();
            process_metrics.collect();
            handle.run_upkeep();
            handle.render()
        }
    }
}

/// Whether log lines for people are coloured: on a terminal that can show it, unless `NO_COLOR` is set to anything.
fn has_colour(is_terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let refused = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    is_terminal && !refused && variable("TERM").is_none_or(|term| term != "dumb")
}

/// A thread that writes lines for everybody: what comes while it writes goes with its next write. One write for each
/// line, by whoever had it, took a quarter of a busy worker's time. A reader that hangs costs lines, not the service.
fn gathered(out: impl std::io::Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    /// Lines that wait; a slot each is allocated at the start.
    const WAITING: usize = 16_384;
    NonBlockingBuilder::default().buffered_lines_limit(WAITING).lossy(true).finish(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_for_terminals_that_want_it() {
        for (is_terminal, variables, expected) in [
            (true, &[][..], true),
            (false, &[], false),
            (true, &[("NO_COLOR", "1")], false),
            // As https://no-color.org says: only a value counts.
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
