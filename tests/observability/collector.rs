//! A fake trace collector: it accepts OTLP over HTTP and records every span, or never responds.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value},
    trace::v1::Span,
};
use poem::{Request, Response, Server, endpoint::make, http::StatusCode, listener::TcpAcceptor};
use prost::Message as _;

/// A received span with its service name.
#[derive(Debug, Clone)]
pub(super) struct ReceivedSpan {
    pub service: String,
    pub span: Span,
}

/// The running collector; it ends with the test.
pub(super) struct Collector {
    pub url: String,
    spans: Arc<Mutex<Vec<ReceivedSpan>>>,
    /// The API keys of all exports.
    keys: Arc<Mutex<Vec<String>>>,
}

/// How the collector handles an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CollectorMode {
    Accepts,
    Hangs,
}

impl Collector {
    pub(super) async fn start(mode: CollectorMode) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (spans, keys) = (Arc::<Mutex<Vec<ReceivedSpan>>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (received, received_keys) = (spans.clone(), keys.clone());
        let endpoint = make(move |mut request: Request| {
            let (received, received_keys) = (received.clone(), received_keys.clone());
            async move {
                assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/v1/traces"));
                assert_eq!(request.content_type(), Some("application/x-protobuf"));
                received_keys.lock().unwrap().extend(request.header("x-api-key").map(str::to_owned));
                let body = request.take_body().into_bytes().await.expect("a body");
                let export = ExportTraceServiceRequest::decode(body).expect("an export");
                for part in export.resource_spans {
                    let resource = part.resource.expect("a resource");
                    let service = text(&resource.attributes, "service.name").expect("a name");
                    let found = part.scope_spans.into_iter().flat_map(|scope| scope.spans);
                    received.lock().unwrap().extend(found.map(|span| ReceivedSpan { service: service.clone(), span }));
                }
                if mode == CollectorMode::Hangs {
                    std::future::pending::<()>().await;
                }
                Response::builder().status(StatusCode::OK).content_type("application/x-protobuf").body("")
            }
        });
        let acceptor = TcpAcceptor::from_tokio(listener).expect("an acceptor");
        tokio::spawn(Server::new_with_acceptor(acceptor).run(endpoint));
        Self { url, spans, keys }
    }

    /// All spans received so far.
    pub(super) fn spans(&self) -> Vec<ReceivedSpan> {
        self.spans.lock().unwrap().clone()
    }

    /// The API keys of all exports so far.
    pub(super) fn keys(&self) -> Vec<String> {
        self.keys.lock().unwrap().clone()
    }

    /// The first span that matches.
    pub(super) fn find(&self, matches: impl Fn(&ReceivedSpan) -> bool) -> Option<Span> {
        self.spans().into_iter().find(matches).map(|received| received.span)
    }

    /// The direct children of a span.
    pub(super) fn children(&self, parent: &Span) -> Vec<Span> {
        let is_child = |span: &Span| span.trace_id == parent.trace_id && span.parent_span_id == parent.span_id;
        self.spans().into_iter().map(|received| received.span).filter(is_child).collect()
    }
}

/// Whether one span has a link to another.
pub(super) fn has_link(from: &Span, to: &Span) -> bool {
    from.links.iter().any(|link| link.trace_id == to.trace_id && link.span_id == to.span_id)
}

/// The value of an attribute, as text.
pub(super) fn text(attributes: &[KeyValue], name: &str) -> Option<String> {
    let value = attributes.iter().find(|attribute| attribute.key == name)?.value.clone();
    match value {
        Some(AnyValue { value: Some(any_value::Value::StringValue(text)) }) => Some(text),
        Some(AnyValue { value: Some(any_value::Value::IntValue(number)) }) => Some(number.to_string()),
        other => panic!("{name}: {other:?}"),
    }
}

/// Bytes in hexadecimal, as in a `traceparent` header.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
