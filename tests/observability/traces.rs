//! End-to-end tests of traces: one webhook from its request to its settlement, sampling, and failing collectors.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status};
use poem::{Request, Server, endpoint::make_sync, http::StatusCode, listener::TcpAcceptor};
use serde_json::json;

use super::collector::{Collector, CollectorMode, ReceivedSpan, has_link, hex, text};
use crate::harness::{
    database, eventually,
    http::send,
    process::{Api, http_client, start_worker},
};

const SOON: Duration = Duration::from_secs(30);
const COLLECTOR_KEY: &str = "secret-of-the-collector";
const PASSWORD: &str = "secret-of-the-processor";
const QUERY_KEY: &str = "secret-in-a-query";
const DATABASE_PASSWORD: &str = "secret-of-the-database";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const UNSAMPLED: &str = "1bf7651916cd43dd8448eb211c80319d";
const PARENT: &str = "b7ad6b7169203331";
const WEBHOOKS: &str = "POST /v1/webhooks/transactions";

/// Starts a processor that accepts every transaction, and records the `traceparent` of each call.
async fn processor() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let calls = Arc::<Mutex<Vec<String>>>::default();
    let received = calls.clone();
    let endpoint = make_sync(move |request: Request| {
        received.lock().unwrap().push(request.header("traceparent").unwrap_or_default().to_owned());
        StatusCode::OK
    });
    tokio::spawn(Server::new_with_acceptor(TcpAcceptor::from_tokio(listener).expect("an acceptor")).run(endpoint));
    (format!("http://operator:{PASSWORD}@{address}/charge?key={QUERY_KEY}"), calls)
}

/// Sends a webhook as part of a trace.
async fn webhook(api: &Api, id: &str, traceparent: &str) {
    let body = json!({
        "transaction_id": id, "source_account": "secret-account-1", "destination_account": "secret-account-2",
        "amount": 1500, "currency": "INR",
    });
    let request = http_client().post(format!("{}/v1/webhooks/transactions?note={QUERY_KEY}", api.url)).json(&body);
    let response = send(request.header("traceparent", traceparent).header("x-correlation-id", format!("c-{id}"))).await;
    assert_eq!(response.status, 202, "{response:?}");
}

async fn wait_until_processed(api: &Api, id: &str) {
    let response = send(http_client().get(format!("{}/v1/transactions/{id}?wait=30", api.url))).await;
    assert_eq!(response.json()["status"], "PROCESSED", "{response:?}");
}

fn attribute(span: &Span, name: &str) -> Option<String> {
    text(&span.attributes, name)
}

/// Whether the span has this name and belongs to the webhook with this id.
fn is_of(received: &ReceivedSpan, name: &str, id: &str) -> bool {
    let conversation = attribute(&received.span, "messaging.message.conversation_id");
    received.span.name == name && conversation == Some(format!("c-{id}"))
}

fn statements(collector: &Collector, parent: &Span) -> Vec<String> {
    let children = collector.children(parent).into_iter();
    children.filter_map(|span| attribute(&span, "db.query.summary")).collect()
}

/// Waits for the span of the batch that is linked to `caller` and has these statements.
async fn linked_batch(collector: &Collector, caller: &Span, expected: &[&str]) -> Span {
    let mut found = None;
    eventually(&format!("{expected:?} for {}", caller.name), SOON, async || {
        let spans = collector.spans().into_iter().map(|received| received.span);
        found = spans.filter(|span| has_link(span, caller)).find(|batch| {
            let found = statements(collector, batch);
            expected.iter().all(|statement| found.iter().any(|other| other == statement))
        });
        found.is_some()
    })
    .await;
    found.expect("a batch")
}

#[tokio::test]
async fn one_webhook_is_followed_from_its_request_to_its_settlement() {
    let (database, collector) = (database::fresh().await, Collector::start(CollectorMode::Accepts).await);
    let (processor, calls) = processor().await;
    let key = format!("x-api-key={COLLECTOR_KEY}");
    let url = format!("{}&password={DATABASE_PASSWORD}", database.url);
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.url),
        ("OTEL_EXPORTER_OTLP_HEADERS", &key),
        ("PROCESSOR_URL", &processor),
        ("PROCESSING_DELAY_SECONDS", "0.1"),
        ("RUST_LOG", "info,jobs=trace,queue=trace,runtime=trace"),
    ];
    let api = Api::start(&url, &variables).await;
    let worker = start_worker(&url, &variables).await;
    webhook(&api, "t", &format!("00-{TRACE}-{PARENT}-01")).await;
    wait_until_processed(&api, "t").await;

    let mut run = None;
    eventually("the run is exported", SOON, async || {
        run = collector.find(|received| is_of(received, "run process_transaction", "t"));
        run.is_some()
    })
    .await;
    let run = run.expect("a run");
    let mut found = None;
    eventually("the request is exported", SOON, async || {
        found = collector.find(|received| received.span.name == WEBHOOKS);
        found.is_some()
    })
    .await;
    let server = found.expect("a request");
    assert_eq!((hex(&server.trace_id), hex(&server.parent_span_id)), (TRACE.into(), PARENT.into()));
    assert_eq!(server.kind(), SpanKind::Server);
    for (name, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/v1/webhooks/transactions"),
        ("url.path", "/v1/webhooks/transactions"),
        ("http.response.status_code", "202"),
        ("millrace.correlation_id", "c-t"),
    ] {
        assert_eq!(attribute(&server, name).as_deref(), Some(value), "{name}");
    }

    // HTTP -> ingest -> enqueue, in the caller's trace. The commit is linked, because other requests may share it.
    let children = collector.children(&server);
    let ingest = children.iter().find(|span| span.name == "ingest").expect("an ingest below the request");
    let enqueue = collector.children(ingest).into_iter().find(|span| span.name == "enqueue process_transaction");
    let enqueue = enqueue.expect("an enqueueing below the ingest");
    assert_eq!(enqueue.kind(), SpanKind::Producer);
    let commit = linked_batch(&collector, ingest, &["INSERT transactions"]).await;
    assert!(has_link(ingest, &commit) && has_link(&enqueue, &commit), "{ingest:?}\n{enqueue:?}");

    // ~> claim -> run, in traces of the worker, which are linked.
    assert!(has_link(&run, &enqueue) && run.trace_id != enqueue.trace_id && run.parent_span_id.is_empty(), "{run:?}");
    assert_eq!(run.kind(), SpanKind::Consumer);
    let id = attribute(&run, "messaging.message.id");
    assert_eq!(id, attribute(&enqueue, "messaging.message.id"));
    for (span, operation) in [(&enqueue, "send"), (&run, "process")] {
        assert_eq!(attribute(span, "messaging.system").as_deref(), Some("apalis"));
        assert_eq!(attribute(span, "messaging.destination.name").as_deref(), Some("process_transaction"));
        assert_eq!(attribute(span, "messaging.operation.type").as_deref(), Some(operation));
    }
    assert_eq!(attribute(&run, "millrace.job.outcome").as_deref(), Some("done"));
    let is_claim = |span: &Span| span.name == "claim process_transaction" && has_link(span, &enqueue);
    let claim = collector.find(|received| is_claim(&received.span));
    assert_eq!(claim.and_then(|claim| attribute(&claim, "messaging.operation.type")).as_deref(), Some("receive"));

    // -> SQL and outgoing HTTP.
    assert!(statements(&collector, &run).contains(&"SELECT transactions".to_owned()), "{:?}", collector.children(&run));
    let call = collector.children(&run).into_iter().find(|span| span.name == "POST").expect("a call below the run");
    assert_eq!((call.kind(), attribute(&call, "peer.service").as_deref()), (SpanKind::Client, Some("processor")));
    let sent = format!("00-{}-{}-01", hex(&run.trace_id), hex(&call.span_id));
    assert_eq!(*calls.lock().unwrap(), [sent], "the processor continues the trace");
    linked_batch(&collector, &run, &["UPDATE transactions"]).await;

    let services: std::collections::BTreeSet<_> = collector.spans().into_iter().map(|span| span.service).collect();
    assert_eq!(services.into_iter().collect::<Vec<_>>(), ["millrace-api", "millrace-worker"]);
    let is_logged = |log: String, event: &str, trace: &str| {
        let id = format!(r#""trace_id":"{trace}""#);
        log.lines().any(|line| line.contains(event) && line.contains(&id))
    };
    // Other threads write and read the lines, perhaps after the export.
    eventually("both processes have logged the trace", SOON, async || {
        is_logged(api.process.log(), "COMPLETED_REQUEST", TRACE)
            && is_logged(worker.log(), "job done", &hex(&run.trace_id))
    })
    .await;

    assert!(collector.keys().iter().all(|key| key == COLLECTOR_KEY) && !collector.keys().is_empty());
    let everything = format!("{:?}", collector.spans());
    for secret in [COLLECTOR_KEY, PASSWORD, QUERY_KEY, DATABASE_PASSWORD, "secret-account"] {
        assert!(!everything.contains(secret), "{secret} is in a trace");
        for log in [api.process.log(), worker.log()] {
            assert!(!log.contains(secret), "{secret} is in a log");
        }
    }
}

#[tokio::test]
async fn an_unsampled_trace_is_not_exported() {
    let (database, collector) = (database::fresh().await, Collector::start(CollectorMode::Accepts).await);
    let (processor, calls) = processor().await;
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.url),
        ("PROCESSOR_URL", &processor),
        ("PROCESSING_DELAY_SECONDS", "0.1"),
    ];
    let api = Api::start(&database.url, &variables).await;
    let _worker = start_worker(&database.url, &variables).await;
    webhook(&api, "unsampled", &format!("00-{UNSAMPLED}-{PARENT}-00")).await;
    wait_until_processed(&api, "unsampled").await;
    webhook(&api, "sampled", &format!("00-{TRACE}-{PARENT}-01")).await;
    wait_until_processed(&api, "sampled").await;
    // Spans are exported in the order in which they end, so spans of the first webhook would have arrived before.
    eventually("both processes have exported the later webhook", SOON, async || {
        collector.find(|received| received.span.name == WEBHOOKS).is_some()
            && collector.find(|received| is_of(received, "run process_transaction", "sampled")).is_some()
    })
    .await;
    for received in collector.spans() {
        let span = &received.span;
        assert_ne!(hex(&span.trace_id), UNSAMPLED, "{received:?}");
        assert!(span.links.iter().all(|link| hex(&link.trace_id) != UNSAMPLED), "{received:?}");
        assert!(!format!("{:?}", span.attributes).contains("c-unsampled"), "{received:?}");
    }
    let first = calls.lock().unwrap()[0].clone();
    assert!(first.starts_with(&format!("00-{UNSAMPLED}-")) && first.ends_with("-00"), "{first}");
}

#[tokio::test]
async fn a_hanging_or_missing_collector_delays_nothing() {
    let (database, hanging) = (database::fresh().await, Collector::start(CollectorMode::Hangs).await);
    let mut durations = Vec::new();
    // Nothing listens on port 1.
    for endpoint in [&*hanging.url, "http://127.0.0.1:1"] {
        let started = Instant::now();
        let mut api = Api::start(&database.url, &[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)]).await;
        let begun = Instant::now();
        // More spans than the queue of the exporter holds: each request has several.
        let client = http_client();
        for _ in 0..100 {
            let requests = (0..50).map(|n| send(client.get(format!("{}/v1/transactions/unknown-{n}", api.url))));
            let responses = futures_util::future::join_all(requests).await;
            assert!(responses.iter().all(|response| response.status == 404), "{responses:?}");
        }
        // An export takes the collector 5 s. If requests waited for theirs, the 100 rounds would take 500 s.
        assert!(begun.elapsed() < Duration::from_secs(300), "5,000 requests took {:?}", begun.elapsed());
        durations.push(begun.elapsed());
        api.process.wait_for_line("traces are lost").await;
        let warnings = api.process.log().matches("traces are lost").count() as u64;
        // One a minute.
        let most = 1 + started.elapsed().as_secs() / 60;
        assert!((1..=most).contains(&warnings), "warnings are rate limited:\n{}", api.process.log());
        let cause = if endpoint == hanging.url { "no response within the time limit" } else { "Connection refused" };
        assert!(api.process.log().contains(cause), "{cause}:\n{}", api.process.log());
        let begun = Instant::now();
        api.process.signal(Signal::SIGTERM);
        let status = api.process.wait_for_exit(Duration::from_secs(40)).await;
        assert!(status.success(), "{status}");
        // Two seconds for the last spans, and the usual time of a stop. The whole queue would take 40 s.
        assert!(begun.elapsed() < Duration::from_secs(20), "the stop took {:?}", begun.elapsed());
    }
    // If requests waited for room in the queue, the hanging collector would delay them by some 150 s.
    let is_delayed = durations[0] > Duration::from_secs(120) && durations[0] > 3 * durations[1];
    assert!(!is_delayed, "a hanging collector delays requests: {durations:?}");
    assert!(!hanging.spans().is_empty());
}

#[tokio::test]
async fn remaining_spans_are_exported_at_the_stop() {
    let (database, collector) = (database::fresh().await, Collector::start(CollectorMode::Accepts).await);
    let mut api = Api::start(&database.url, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)]).await;
    webhook(&api, "last", &format!("00-{TRACE}-{PARENT}-01")).await;
    api.process.signal(Signal::SIGTERM);
    assert!(api.process.wait_for_exit(Duration::from_secs(10)).await.success());
    let server = collector.find(|received| received.span.name == WEBHOOKS);
    assert_eq!(server.map(|span| hex(&span.trace_id)).as_deref(), Some(TRACE));
}

#[tokio::test]
async fn the_sampler_is_configurable_and_health_checks_are_not_traced() {
    let (database, collector) = (database::fresh().await, Collector::start(CollectorMode::Accepts).await);
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.url);
    let off = [endpoint, ("OTEL_TRACES_SAMPLER", "always_off"), ("OTEL_SERVICE_NAME", "off")];
    let some = [endpoint, ("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.5")];
    let named = [endpoint, ("OTEL_RESOURCE_ATTRIBUTES", "service.name=named,region=eu")];
    let requests = |service: &str| {
        let spans = collector.spans().into_iter().filter(|received| received.service == service);
        let spans = spans.map(|received| received.span).filter(|span| span.kind() == SpanKind::Server);
        spans.map(|span| span.name).collect::<Vec<_>>()
    };
    // With 64 requests at a ratio of one half, fewer than 8 or more than 56 have a probability of 1 in 10^10.
    for (variables, service, least) in [(&off[..], "off", 0), (&some[..], "millrace-api", 8), (&named[..], "named", 64)]
    {
        let mut api = Api::start(&database.url, variables).await;
        api.wait_until_ready().await;
        for path in ["/livez", "/metrics"] {
            assert_eq!(send(http_client().get(format!("{}{path}", api.url))).await.status, 200);
        }
        for n in 0..64 {
            assert_eq!(send(http_client().get(format!("{}/v1/transactions/{n}", api.url))).await.status, 404);
        }
        // Before the stop, which has two seconds for the last spans.
        eventually("the requests are exported", SOON, async || requests(service).len() >= least).await;
        api.process.signal(Signal::SIGTERM);
        assert!(api.process.wait_for_exit(SOON).await.success(), "{}", api.process.log());
    }
    assert!(requests("off").is_empty());
    assert!((8..=56).contains(&requests("millrace-api").len()), "{:?}", requests("millrace-api").len());
    assert_eq!(requests("named"), vec!["GET /v1/transactions/{transaction_id}"; 64]);
}

#[tokio::test]
async fn a_failed_span_is_an_error_without_a_message() {
    let (database, collector) = (database::fresh().await, Collector::start(CollectorMode::Accepts).await);
    // Nothing listens on port 1.
    let processor = format!("http://operator:{PASSWORD}@127.0.0.1:1/charge?key={QUERY_KEY}");
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.url),
        ("PROCESSOR_URL", &processor),
        ("PROCESSOR_ATTEMPTS", "1"),
        ("PROCESSING_DELAY_SECONDS", "0.1"),
    ];
    let api = Api::start(&database.url, &variables).await;
    let _worker = start_worker(&database.url, &variables).await;
    webhook(&api, "lost", &format!("00-{TRACE}-{PARENT}-01")).await;
    let mut found = None;
    eventually("the run is exported", SOON, async || {
        found = collector.find(|received| is_of(received, "run process_transaction", "lost"));
        found.is_some()
    })
    .await;
    let run = found.expect("a run");
    assert_eq!(attribute(&run, "millrace.job.outcome").as_deref(), Some("dead"));
    assert_eq!(attribute(&run, "error.type").as_deref(), Some("dead"));
    let call = collector.children(&run).into_iter().find(|span| span.name == "POST").expect("a call below the run");
    assert_eq!(attribute(&call, "error.type").as_deref(), Some("connect"));
    for (name, value) in [("server.address", "127.0.0.1"), ("server.port", "1"), ("peer.service", "processor")] {
        assert_eq!(attribute(&call, name).as_deref(), Some(value), "{name}");
    }
    for span in [&run, &call] {
        let ended = span.status.clone().expect("a status");
        assert_eq!((ended.code(), &*ended.message), (status::StatusCode::Error, ""), "{span:?}");
    }
    // The statement that settles the transaction is linked to the run, too.
    linked_batch(&collector, &run, &["UPDATE transactions"]).await;
    let everything = format!("{:?}", collector.spans());
    for secret in [PASSWORD, QUERY_KEY] {
        assert!(!everything.contains(secret), "{secret} is in a trace");
    }
}
