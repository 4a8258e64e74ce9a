//! A collector of traces: takes OTLP over HTTP as a real one does, and remembers every span. Or never answers.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value},
    trace::v1::Span,
};
use poem::{Request, Response, Server, endpoint::make, http::StatusCode, listener::TcpAcceptor};
use prost::Message as _;

/// A span as it came, and whose it is.
#[derive(Debug, Clone)]
pub struct Seen {
    pub service: String,
    pub span: Span,
}

/// The service; it ends with the test.
pub struct Collector {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// The keys that came with exports.
    keys: Arc<Mutex<Vec<String>>>,
}

/// What it does with an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Takes,
    Hangs,
}

impl Collector {
    pub async fn start(manner: Manner) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (seen, keys) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (spans, given) = (seen.clone(), keys.clone());
        let endpoint = make(move |mut request: Request| {
            let (spans, given) = (spans.clone(), given.clone());
            async move {
                assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/v1/traces"));
                assert_eq!(request.content_type(), Some("application/x-protobuf"));
                given.lock().unwrap().extend(request.header("x-api-key").map(str::to_owned));
                let body = request.take_body().into_bytes().await.expect("a body");
                let export = ExportTraceServiceRequest::decode(body).expect("an export");
                for part in export.resource_spans {
                    let resource = part.resource.expect("a resource");
                    let service = text(&resource.attributes, "service.name").expect("a name");
                    let found = part.scope_spans.into_iter().flat_map(|scope| scope.spans);
                    spans.lock().unwrap().extend(found.map(|span| Seen { service: service.clone(), span }));
                }
                if manner == Manner::Hangs {
                    std::future::pending::<()>().await;
                }
                Response::builder().status(StatusCode::OK).content_type("application/x-protobuf").body("")
            }
        });
        let acceptor = TcpAcceptor::from_tokio(listener).expect("an acceptor");
        tokio::spawn(Server::new_with_acceptor(acceptor).run(endpoint));
        Self { url, seen, keys }
    }

    /// Everything that came so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The keys that came with it.
    pub fn keys(&self) -> Vec<String> {
        self.keys.lock().unwrap().clone()
    }

    /// The first span for which this holds.
    pub fn find(&self, wanted: impl Fn(&Seen) -> bool) -> Option<Span> {
        self.seen().into_iter().find(wanted).map(|seen| seen.span)
    }

    /// What was begun directly below this span.
    pub fn below(&self, parent: &Span) -> Vec<Span> {
        let is_child = |span: &Span| span.trace_id == parent.trace_id && span.parent_span_id == parent.span_id;
        self.seen().into_iter().map(|seen| seen.span).filter(is_child).collect()
    }
}

/// Whether one span is linked to another.
pub fn links(from: &Span, to: &Span) -> bool {
    from.links.iter().any(|link| link.trace_id == to.trace_id && link.span_id == to.span_id)
}

/// The value of an attribute, as text.
pub fn text(attributes: &[KeyValue], name: &str) -> Option<String> {
    let value = attributes.iter().find(|attribute| attribute.key == name)?.value.clone();
    match value {
        Some(AnyValue { value: Some(any_value::Value::StringValue(text)) }) => Some(text),
        Some(AnyValue { value: Some(any_value::Value::IntValue(number)) }) => Some(number.to_string()),
        other => panic!("{name}: {other:?}"),
    }
}

/// Bytes as a `traceparent` has them.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
