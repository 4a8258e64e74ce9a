//! Trace spans, named by OpenTelemetry's semantic conventions. Without an exporter each function costs one load.

use std::time::SystemTime;

use futures_util::future::Either;
use opentelemetry::{
    Context, KeyValue, Value,
    context::FutureExt,
    trace::{Link, SpanContext, SpanKind, Status, TraceContextExt, Tracer},
};
use opentelemetry_sdk::trace::SdkTracer;

use super::{TRACER, statement::Summary, traceparent};

/// Longer attributes are truncated: a path may be as long as a request.
const MAX_ATTRIBUTE_CHARS: usize = 256;

/// The attribute with the id of a job.
const MESSAGE_ID: &str = "messaging.message.id";

/// A span that ends when this is dropped. Empty if nothing is exported.
#[derive(Debug)]
pub struct Span(Option<Context>);

/// The trace context of a caller, for work that is done in a batch or later.
#[derive(Debug, Clone, Default)]
pub struct TraceContext(Option<Context>);

/// Whether this process exports traces.
pub fn is_exporting() -> bool {
    TRACER.get().is_some()
}

/// Whether the current span is sampled and exported.
pub fn is_traced() -> bool {
    is_exporting() && Context::map_current(|current| current.span().span_context().is_sampled())
}

/// The id of the current trace, for log lines.
pub fn trace_id() -> Option<String> {
    TRACER.get()?;
    Context::map_current(|current| {
        let span = current.span().span_context().clone();
        span.is_valid().then(|| span.trace_id().to_string())
    })
}

impl Span {
    /// The empty span, for work that is not traced.
    pub const NONE: Self = Self(None);

    /// Starts the span of an incoming request, which continues the trace of the client. `path` excludes the query, since
    /// that may contain secrets.
    pub fn server(method: &'static str, route: &str, path: &str, from: Option<&str>, correlation_id: &str) -> Self {
        let Some(tracer) = TRACER.get() else { return Self::NONE };
        let parent = from
            .and_then(traceparent::parse)
            .map(|from| Context::new().with_remote_span_context(from))
            .unwrap_or_default();
        let known = route.starts_with('/');
        // The word of the semantic conventions for an unknown method.
        let verb = if method == "other" { "HTTP" } else { method };
        let name = if known { format!("{verb} {route}") } else { verb.to_owned() };
        let mut attributes = vec![
            KeyValue::new("http.request.method", if method == "other" { "_OTHER" } else { method }),
            KeyValue::new("url.path", truncate(path)),
            KeyValue::new("url.scheme", "http"),
            KeyValue::new("millrace.correlation_id", correlation_id.to_owned()),
        ];
        if known {
            attributes.push(KeyValue::new("http.route", route.to_owned()));
        }
        start(tracer, &parent, name, SpanKind::Server, attributes, Vec::new())
    }

    /// Starts the span of an internal step within the current span; empty if that is not sampled.
    pub fn internal(name: &'static str) -> Self {
        start_child(|tracer, parent| start(tracer, parent, name, SpanKind::Internal, Vec::new(), Vec::new()))
    }

    /// Starts the span of an outgoing request. `peer` names the called service, since the URL may contain a key.
    pub fn client(method: &str, host: &str, port: Option<u16>, peer: &'static str) -> Self {
        start_child(|tracer, parent| {
            let mut attributes = vec![
                KeyValue::new("http.request.method", method.to_owned()),
                KeyValue::new("server.address", truncate(host)),
                KeyValue::new("peer.service", peer),
            ];
            attributes.extend(port.map(|port| KeyValue::new("server.port", i64::from(port))));
            start(tracer, parent, method.to_owned(), SpanKind::Client, attributes, Vec::new())
        })
    }

    /// Starts the span of an SQL statement. It contains neither the text of the statement nor values.
    pub fn statement(sql: impl FnOnce() -> String) -> Self {
        start_child(|tracer, parent| {
            let sql = sql();
            let summary = Summary::of(&sql);
            let mut attributes = vec![
                KeyValue::new("db.system.name", "postgresql"),
                KeyValue::new("db.operation.name", summary.operation.clone()),
                KeyValue::new("db.query.summary", summary.text()),
            ];
            attributes.extend(summary.table.map(|table| KeyValue::new("db.collection.name", table.to_owned())));
            start(tracer, parent, summary.text(), SpanKind::Client, attributes, Vec::new())
        })
    }

    /// Starts the span of a batch, in a separate trace. It is linked to the span of each caller, and each of those to it.
    pub fn batch<'a>(name: &'static str, callers: impl Iterator<Item = &'a TraceContext> + Clone) -> Self {
        let Some(tracer) = TRACER.get() else { return Self::NONE };
        let contexts = callers.filter_map(|caller| caller.0.as_ref());
        let links: Vec<Link> =
            contexts.clone().map(|context| Link::with_context(context.span().span_context().clone())).collect();
        if links.is_empty() {
            return Self::NONE;
        }
        let size = links.len() as i64;
        let attributes = vec![KeyValue::new("millrace.batch.size", size)];
        let span = start(tracer, &Context::new(), name, SpanKind::Internal, attributes, links);
        if let Some(shared) = &span.0 {
            contexts.for_each(|context| context.span().add_link(shared.span().span_context().clone(), Vec::new()));
        }
        span
    }

    /// Starts the span of enqueuing a job within the trace `from`. The job stores the [`Span::traceparent`] of this span. Its id
    /// may be known later: see [`Span::record_message_id`].
    pub fn enqueue(queue: &'static str, from: &str, correlation_id: Option<&str>) -> Self {
        let Some(tracer) = TRACER.get() else { return Self::NONE };
        let Some(from) = traceparent::parse(from).filter(SpanContext::is_sampled) else { return Self::NONE };
        // The span of the batch whose commit includes this job.
        let shared = Context::map_current(|current| current.span().span_context().clone());
        let links = if shared.is_sampled() && shared.trace_id() != from.trace_id() {
            vec![Link::with_context(shared)]
        } else {
            Vec::new()
        };
        let parent = Context::new().with_remote_span_context(from);
        let attributes = messaging_attributes(queue, "enqueue", "send", None, correlation_id);
        start(tracer, &parent, format!("enqueue {queue}"), SpanKind::Producer, attributes, links)
    }

    /// Records a claim of jobs by a statement that started at `began`. The span is a separate trace, linked to the spans
    /// that enqueued the jobs.
    pub fn record_claim<'a>(
        queue: &'static str,
        began: SystemTime,
        enqueued: impl ExactSizeIterator<Item = Option<&'a str>>,
    ) {
        let Some(tracer) = TRACER.get() else { return };
        let mut attributes = messaging_attributes(queue, "claim", "receive", None, None);
        attributes.push(KeyValue::new("messaging.batch.message_count", enqueued.len() as i64));
        let links = enqueued
            .flatten()
            .filter_map(traceparent::parse)
            .filter(SpanContext::is_sampled)
            .map(Link::with_context)
            .collect();
        let span = tracer
            .span_builder(format!("claim {queue}"))
            .with_kind(SpanKind::Client)
            .with_start_time(began)
            .with_attributes(attributes)
            .with_links(links);
        drop(span.start_with_context(tracer, &Context::new()));
    }

    /// Starts the span of a job's run, in a separate trace. It is linked to the span that enqueued the job, and sampled if
    /// that is.
    pub fn run(queue: &'static str, id: &str, enqueued: Option<&str>, correlation_id: Option<&str>, run: i32) -> Self {
        let Some(tracer) = TRACER.get() else { return Self::NONE };
        let links = enqueued.and_then(traceparent::parse).map(Link::with_context).into_iter().collect();
        let mut attributes = messaging_attributes(queue, "run", "process", Some(id), correlation_id);
        attributes.push(KeyValue::new("millrace.job.run", i64::from(run)));
        start(tracer, &Context::new(), format!("run {queue}"), SpanKind::Consumer, attributes, links)
    }

    /// Attaches this span to a future, so that the spans it starts become children.
    pub fn attach_to<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        match &self.0 {
            Some(context) => Either::Left(work.with_context(context.clone())),
            None => Either::Right(work),
        }
    }

    /// The W3C `traceparent` of this span, whether it is sampled or not; `None` if nothing is exported.
    pub fn traceparent(&self) -> Option<String> {
        self.0.as_ref().and_then(|context| traceparent::format(context.span().span_context()))
    }

    /// The W3C `traceparent` of this span if it is sampled; otherwise the caller keeps the previous one.
    pub fn sampled_traceparent(&self) -> Option<String> {
        let context = self.0.as_ref()?;
        context.span().span_context().is_sampled().then(|| self.traceparent()).flatten()
    }

    /// Sets an attribute.
    pub fn set_attribute(&self, name: &'static str, value: impl Into<Value>) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new(name, value));
        }
    }

    /// Records the id of an enqueued job.
    pub fn record_message_id(&self, id: impl FnOnce() -> String) {
        if self.0.is_some() {
            self.set_attribute(MESSAGE_ID, id());
        }
    }

    /// Records the status of a response. Statuses from `errors_from` on are errors: 500 for our own responses, since 4xx is
    /// the client's error.
    pub fn record_status(&self, status: u16, errors_from: u16) {
        if self.0.is_some() {
            self.set_attribute("http.response.status_code", i64::from(status));
            if status >= errors_from {
                self.record_error(status.to_string());
            }
        }
    }

    /// Ends the span before it is dropped. What happens later is not recorded.
    pub fn end(&self) {
        if let Some(context) = &self.0 {
            context.span().end();
        }
    }

    /// Records an error by its kind, which is one word. A message could contain secrets.
    pub fn record_error(&self, kind: impl Into<String>) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new("error.type", kind.into()));
            context.span().set_status(Status::error(""));
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        // Explicit, since the instrumented future may keep the context alive for longer.
        self.end();
    }
}

impl TraceContext {
    /// The current trace context; empty if the current span is not sampled.
    pub fn current() -> Self {
        let current = TRACER.get().map(|_| Context::current());
        Self(current.filter(|current| current.span().span_context().is_sampled()))
    }
}

fn start_child(create: impl FnOnce(&SdkTracer, &Context) -> Span) -> Span {
    let Some(tracer) = TRACER.get() else { return Span::NONE };
    let current = Context::current();
    if current.span().span_context().is_sampled() { create(tracer, &current) } else { Span::NONE }
}

fn start(
    tracer: &SdkTracer,
    parent: &Context,
    name: impl Into<std::borrow::Cow<'static, str>>,
    kind: SpanKind,
    attributes: Vec<KeyValue>,
    links: Vec<Link>,
) -> Span {
    let span = tracer.span_builder(name).with_kind(kind).with_attributes(attributes).with_links(links);
    let span = span.start_with_context(tracer, parent);
    Span(Some(Context::new().with_span(span)))
}

fn messaging_attributes(
    queue: &'static str,
    operation: &'static str,
    kind: &'static str,
    id: Option<&str>,
    correlation_id: Option<&str>,
) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("messaging.system", "apalis"),
        KeyValue::new("messaging.destination.name", queue),
        KeyValue::new("messaging.operation.name", operation),
        KeyValue::new("messaging.operation.type", kind),
    ];
    attributes.extend(id.map(|id| KeyValue::new(MESSAGE_ID, id.to_owned())));
    attributes.extend(correlation_id.map(|id| KeyValue::new("messaging.message.conversation_id", id.to_owned())));
    attributes
}

fn truncate(text: &str) -> String {
    text.chars().take(MAX_ATTRIBUTE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_traced_without_an_exporter() {
        assert!(!is_exporting() && trace_id().is_none());
        let span = Span::server("GET", "/x", "/x", None, "c");
        assert!(span.traceparent().is_none());
        assert_eq!(span.attach_to(async { 7 }).await, 7);
        assert!(Span::run("q", "id", None, None, 1).0.is_none() && TraceContext::current().0.is_none());
    }
}
