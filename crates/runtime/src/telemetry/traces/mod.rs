//! Traces: exported by OTLP over HTTP to `OTEL_EXPORTER_OTLP_ENDPOINT`. If that is unset, nothing is traced.
//!
//! Trace spans are created explicitly, not derived from log spans. So `RUST_LOG` does not decide what is traced, log lines
//! get no extra fields, and a trace contains only what [`span`] writes into it, which excludes secrets.

pub mod config;
mod export_client;
mod sampler;
pub mod span;
pub mod statement;
pub mod traceparent;

use std::{sync::OnceLock, time::Duration};

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracer, SdkTracerProvider},
};

pub use self::config::Config;
use self::{export_client::ExportClient, sampler::LinkBasedSampler};

/// Set once if the process exports traces. All functions check it first, which costs one load.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// The capacity of the queue of finished spans, about 2 MiB. Further spans are dropped, so that an unreachable collector
/// does not fill the memory.
const MAX_QUEUED_SPANS: usize = 4096;
/// The maximal time between the end of a span and its export; a full batch is exported earlier.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// The time for the last spans at a stop. A stop takes at most 30 s; requests and jobs have 25 s of them.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Exports traces. Dropping it sends the remaining spans within two seconds.
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Starts the export, once per process and inside its tokio runtime. `process` is a part of the service name.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn start(config: &Config, process: &str) -> Result<Self, String> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(ExportClient::start(&config.endpoint)?)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(config.endpoint.as_str())
            .with_headers(config.headers.clone())
            .build()
            .map_err(|error| format!("OTEL_EXPORTER_OTLP_ENDPOINT: cannot export traces: {error}"))?;
        let limits = BatchConfigBuilder::default()
            .with_max_queue_size(MAX_QUEUED_SPANS)
            .with_scheduled_delay(BATCH_DELAY)
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(limits).build())
            .with_sampler(LinkBasedSampler(config.sampler.clone()))
            .with_resource(resource(config, process))
            .build();
        let _ = TRACER.set(provider.tracer("millrace"));
        Ok(Self(provider))
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        // The error is ignored, since the export client has logged it already.
        let _ = self.0.shutdown_with_timeout(SHUTDOWN_TIMEOUT);
    }
}

/// The resource attributes of this process. Those of the variables come last, so that they override ours.
fn resource(config: &Config, process: &str) -> Resource {
    let name = if process == "millrace" { process.to_owned() } else { format!("millrace-{process}") };
    let ours = [
        KeyValue::new("service.name", name),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", uuid::Uuid::new_v4().to_string()),
        KeyValue::new("process.pid", i64::from(std::process::id())),
    ];
    Resource::builder_empty().with_attributes(ours).with_attributes(config.resource.clone()).build()
}
