//! Traces: OTLP over HTTP to `OTEL_EXPORTER_OTLP_ENDPOINT`, and nothing at all when that is unset.
//!
//! Spans are made by hand and not out of log spans: what `RUST_LOG` says does not decide what is traced, no log line gets
//! a field more, and nothing reaches a trace but what [`span`] puts there, so no secret does.
//!
//! | file | what |
//! |---|---|
//! | [`span`] | what the rest of Millrace sees: begin, around, link, end |
//! | [`statement`] | the name of an SQL statement, without its values |
//! | `config` | the standard variables |
//! | `sampler` | one decision for a request and for all that comes of it |
//! | `carrier` | takes finished spans to the collector, on tokio's threads |

mod carrier;
pub mod config;
mod sampler;
pub mod span;
pub mod statement;

use std::{sync::OnceLock, time::Duration};

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracer, SdkTracerProvider},
};

pub use self::config::Config;
use self::{carrier::Carrier, sampler::FollowLinks};

/// Set once, by a process that exports; everything else asks this first, which is one load.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Finished spans that wait for the collector; more than these are dropped, so that a collector that is down costs no
/// memory either. About 2 MiB.
const WAITING: usize = 4096;
/// How long a finished span waits for others, unless a batch is full before.
const GATHER: Duration = Duration::from_secs(1);
/// What is left at the stop gets this long; a stop as a whole has 30 s, of which requests and jobs have 25.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// Exports for as long as it lives; when it is dropped, what is left is sent, within two seconds.
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Starts exporting, once a process and inside its runtime; `process` is what it is called there.
    ///
    /// # Errors
    /// When the client cannot be built.
    pub fn start(config: &Config, process: &str) -> Result<Self, String> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Carrier::start(config.endpoint())?)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(config.endpoint().as_str())
            .with_headers(config.headers())
            .build()
            .map_err(|error| format!("OTEL_EXPORTER_OTLP_ENDPOINT: cannot export traces: {error}"))?;
        let limits = BatchConfigBuilder::default().with_max_queue_size(WAITING).with_scheduled_delay(GATHER).build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(limits).build())
            .with_sampler(FollowLinks(config.sampler()))
            .with_resource(resource(config, process))
            .build();
        let _ = TRACER.set(provider.tracer("millrace"));
        Ok(Self(provider))
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        // Whether they arrived: the carrier has said so when they did not.
        let _ = self.0.shutdown_with_timeout(LAST_SPANS);
    }
}

/// Who exports: what the variables say comes last, and so stands.
fn resource(config: &Config, process: &str) -> Resource {
    let name = if process == "millrace" { process.to_owned() } else { format!("millrace-{process}") };
    let ours = [
        KeyValue::new("service.name", name),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", uuid::Uuid::new_v4().to_string()),
        KeyValue::new("process.pid", i64::from(std::process::id())),
    ];
    Resource::builder_empty().with_attributes(ours).with_attributes(config.resource()).build()
}
