//! Spans, by the names of the semantic conventions; without an exporter each of these is one load and nothing else.

use std::{future::Future, time::SystemTime};

use futures_util::future::Either;
use opentelemetry::{
    Context, KeyValue, Value,
    context::FutureExt,
    trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer},
};
use opentelemetry_sdk::trace::SdkTracer;

use super::{TRACER, statement::Summary};

/// Longer texts are cut: a path may be as long as a request.
const LONGEST: usize = 256;

/// Something that takes time; it ends when this is dropped. Nothing, when nothing is exported.
#[derive(Debug)]
pub struct Span(Option<Context>);

/// Whose work it is, for work that is shared or done later.
#[derive(Debug, Clone, Default)]
pub struct Caller(Option<Context>);

/// Whether anything is exported at all.
pub fn on() -> bool {
    TRACER.get().is_some()
}

/// Whether this is called within a span that is exported.
pub fn in_trace() -> bool {
    on() && Context::map_current(|current| current.span().span_context().is_sampled())
}

/// The id of the trace in which this is called, for log lines.
pub fn trace_id() -> Option<String> {
    TRACER.get()?;
    Context::map_current(|current| {
        let span = current.span().span_context().clone();
        span.is_valid().then(|| span.trace_id().to_string())
    })
}

impl Span {
    /// What is not traced.
    pub const NONE: Self = Self(None);

    /// A request that came in, continuing its caller's trace. `path` without the query, which may hold anything.
    pub fn server(method: &'static str, route: &str, path: &str, from: Option<&str>, correlation_id: &str) -> Self {
        let Some(tracer) = TRACER.get() else { return Self::NONE };
        let parent = from.and_then(read).map(|from| Context::new().with_remote_span_context(from)).unwrap_or_default();
        let known = route.starts_with('/');
        // The word of the conventions for a method that somebody made up.
        let verb = if method == "other" { "HTTP" } else { method };
        let name = if known { format!("{verb} {route}") } else { verb.to_owned() };
        let mut attributes = vec![
            KeyValue::new("http.request.method", if method == "other" { "_OTHER" } else { method }),
            KeyValue::new("url.path", cut(path)),
            KeyValue::new("url.scheme", "http"),
            KeyValue::new("millrace.correlation_id", correlation_id.to_owned()),
        ];
        if known {
            attributes.push(KeyValue::new("http.route", route.to_owned()));
        }
        begin(tracer, &parent, name, SpanKind::Server, attributes, Vec::new())
    }

    /// A step of what is under way here; nothing, when that is not sampled.
    pub fn step(name: &'static str) -> Self {
        child(|tracer, parent| begin(tracer, parent, name, SpanKind::Internal, Vec::new(), Vec::new()))
    }

    /// A request that goes out. `peer` says who is asked: the URL may hold a key.
    pub fn client(method: &str, host: &str, port: Option<u16>, peer: &'static str) -> Self {
        child(|tracer, parent| {
            let mut attributes = vec![
                KeyValue::new("http.request.method", method.to_owned()),
                KeyValue::new("server.address", cut(host)),
                KeyValue::new("peer.service", peer),
            ];
            attributes.extend(port.map(|port| KeyValue::new("server.port", i64::from(port))));
            begin(tracer, parent, method.to_owned(), SpanKind::Client, attributes, Vec::new())
        })
    }

    /// An SQL statement, without its values and without its text.
    pub fn statement(sql: impl FnOnce() -> String) -> Self {
        child(|tracer, parent| {
            let sql = sql();
            let summary = Summary::of(&sql);
            let mut attributes = vec![
                KeyValue::new("db.system.name", "postgresql"),
                KeyValue::new("db.operation.name", summary.operation.clone()),
                KeyValue::new("db.query.summary", summary.text()),
            ];
            attributes.extend(summary.table.map(|table| KeyValue::new("db.collection.name", table.to_owned())));
            begin(tracer, parent, summary.text(), SpanKind::Client, attributes, Vec::new())
        })
    }

    /// What is done at once for all of these: a trace of its own, linked to each of them, and each to it.
    pub fn shared<'a>(name: &'static str, callers: impl Iterator<Item = &'a Caller> + Clone) -> Self {
        let Some(tracer) = TRACER.get() else { return Self::NONE };
        let contexts = callers.filter_map(|caller| caller.0.as_ref());
        let links: Vec<Link> =
            contexts.clone().map(|context| Link::with_context(context.span().span_context().clone())).collect();
        if links.is_empty() {
            return Self::NONE;
        }
        let size = links.len() as i64;
        let attributes = vec![KeyValue::new("millrace.batch.size", size)];
        let span = begin(tracer, &Context::new(), name, SpanKind::Internal, attributes, links);
        if let Some(shared) = &span.0 {
            contexts.for_each(|context| context.span().add_link(shared.span().span_context().clone(), Vec::new()));
        }
        span
    }

    /// A job that is being enqueued on behalf of `from`; the trace's [`Span::traceparent`] goes with the job.
    pub fn enqueue(queue: &'static str, id: &str, from: &str, correlation_id: Option<&str>) -> Self {
        let Some(tracer) = TRACER.get() else { return Self::NONE };
        let Some(from) = read(from).filter(SpanContext::is_sampled) else { return Self::NONE };
        // The commit that it shares with others.
        let shared = Context::map_current(|current| current.span().span_context().clone());
        let links = if shared.is_sampled() && shared.trace_id() != from.trace_id() {
            vec![Link::with_context(shared)]
        } else {
            Vec::new()
        };
        let parent = Context::new().with_remote_span_context(from);
        let attributes = message(queue, "enqueue", "send", Some(id), correlation_id);
        begin(tracer, &parent, format!("enqueue {queue}"), SpanKind::Producer, attributes, links)
    }

    /// Jobs that a worker has just taken, in a statement that began then: a trace of its own, linked to who enqueued them.
    pub fn claimed<'a>(
        queue: &'static str,
        began: SystemTime,
        enqueued: impl ExactSizeIterator<Item = Option<&'a str>>,
    ) {
        let Some(tracer) = TRACER.get() else { return };
        let mut attributes = message(queue, "claim", "receive", None, None);
        attributes.push(KeyValue::new("messaging.batch.message_count", enqueued.len() as i64));
        let links =
            enqueued.flatten().filter_map(read).filter(SpanContext::is_sampled).map(Link::with_context).collect();
        let span = tracer
            .span_builder(format!("claim {queue}"))
            .with_kind(SpanKind::Client)
            .with_start_time(began)
            .with_attributes(attributes)
            .with_links(links);
        drop(span.start_with_context(tracer, &Context::new()));
    }

    /// A run of a job: a trace of its own, linked to who enqueued it, and sampled as that was.
    pub fn run(queue: &'static str, id: &str, enqueued: Option<&str>, correlation_id: Option<&str>, run: i32) -> Self {
        let Some(tracer) = TRACER.get() else { return Self::NONE };
        let links = enqueued.and_then(read).map(Link::with_context).into_iter().collect();
        let mut attributes = message(queue, "run", "process", Some(id), correlation_id);
        attributes.push(KeyValue::new("millrace.job.run", i64::from(run)));
        begin(tracer, &Context::new(), format!("run {queue}"), SpanKind::Consumer, attributes, links)
    }

    /// Runs `work` as a part of this: what it begins is below.
    pub fn around<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        match &self.0 {
            Some(context) => Either::Left(work.with_context(context.clone())),
            None => Either::Right(work),
        }
    }

    /// This as W3C `traceparent`, sampled or not; nothing when nothing is exported.
    pub fn traceparent(&self) -> Option<String> {
        self.0.as_ref().and_then(|context| write(context.span().span_context()))
    }

    /// As [`Span::traceparent`], but nothing either when this is not sampled: then let the one before it stand.
    pub fn sampled_traceparent(&self) -> Option<String> {
        let context = self.0.as_ref()?;
        context.span().span_context().is_sampled().then(|| self.traceparent()).flatten()
    }

    /// Says something more about it.
    pub fn set(&self, name: &'static str, value: impl Into<Value>) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new(name, value));
        }
    }

    /// The status of an answer; of those that we give, only what is our own fault is an error.
    pub fn answered(&self, status: u16, errors_from: u16) {
        if self.0.is_some() {
            self.set("http.response.status_code", i64::from(status));
            if status >= errors_from {
                self.failed(status.to_string());
            }
        }
    }

    /// Says what kind of error it ended in: a word, not a message, which could repeat anything.
    pub fn failed(&self, kind: impl Into<String>) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new("error.type", kind.into()));
            context.span().set_status(Status::error(""));
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        // What it was around may live longer.
        if let Some(context) = &self.0 {
            context.span().end();
        }
    }
}

impl Caller {
    /// Whatever is under way here.
    pub fn here() -> Self {
        match TRACER.get() {
            Some(_) => Self(Some(Context::current()).filter(|current| current.span().span_context().is_sampled())),
            None => Self(None),
        }
    }
}

fn child(make: impl FnOnce(&SdkTracer, &Context) -> Span) -> Span {
    let Some(tracer) = TRACER.get() else { return Span::NONE };
    let current = Context::current();
    if current.span().span_context().is_sampled() { make(tracer, &current) } else { Span::NONE }
}

fn begin(
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

fn message(
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
    attributes.extend(id.map(|id| KeyValue::new("messaging.message.id", id.to_owned())));
    attributes.extend(correlation_id.map(|id| KeyValue::new("messaging.message.conversation_id", id.to_owned())));
    attributes
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

/// Reads a `traceparent`; those of later versions as far as they are the same.
fn read(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-').skip(1);
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    let span = SpanId::from_hex(parts.next()?).ok()?;
    let flags = u8::from_str_radix(parts.next()?, 16).ok()? & TraceFlags::SAMPLED.to_u8();
    let context = SpanContext::new(trace, span, TraceFlags::new(flags), true, TraceState::default());
    context.is_valid().then_some(context)
}

fn write(context: &SpanContext) -> Option<String> {
    let flags = u8::from(context.is_sampled());
    context.is_valid().then(|| format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_written_as_it_is_read() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        for flags in ["00", "01"] {
            let text = format!("00-{trace}-b7ad6b7169203331-{flags}");
            assert_eq!(read(&text).as_ref().and_then(write), Some(text));
        }
        let later = read(&format!("01-{trace}-b7ad6b7169203331-03-more")).expect("a later version");
        assert!(later.is_sampled() && later.is_remote());
        for wrong in ["", "00", "00-0-0-01", &format!("00-{}-b7ad6b7169203331-01", "0".repeat(32))] {
            assert!(read(wrong).is_none(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn nothing_is_traced_without_an_exporter() {
        assert!(!on() && trace_id().is_none());
        let span = Span::server("GET", "/x", "/x", None, "c");
        assert!(span.traceparent().is_none());
        assert_eq!(span.around(async { 7 }).await, 7);
        assert!(Span::run("q", "id", None, None, 1).0.is_none() && Caller::here().0.is_none());
    }
}
