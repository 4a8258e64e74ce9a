//! Traces from outside: one webhook from its request to its settlement, and what is never in a trace's way.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status};
use poem::{Request, Server, endpoint::make_sync, http::StatusCode, listener::TcpAcceptor};
use serde_json::json;

use super::collector::{Collector, Manner, Seen, hex, links, text};
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

/// A processor that agrees; and the `traceparent` of each call.
async fn processor() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let calls = Arc::<Mutex<Vec<String>>>::default();
    let asked = calls.clone();
    let endpoint = make_sync(move |request: Request| {
        asked.lock().unwrap().push(request.header("traceparent").unwrap_or_default().to_owned());
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
    let answer = send(request.header("traceparent", traceparent).header("x-correlation-id", format!("c-{id}"))).await;
    assert_eq!(answer.status, 202, "{answer:?}");
}

async fn settled(api: &Api, id: &str) {
    let answer = send(http_client().get(format!("{}/v1/transactions/{id}?wait=30", api.url))).await;
    assert_eq!(answer.json()["status"], "PROCESSED", "{answer:?}");
}

fn attribute(span: &Span, name: &str) -> Option<String> {
    text(&span.attributes, name)
}

/// Whether this is the span of work on the job of the webhook with this id.
fn is_of(seen: &Seen, name: &str, id: &str) -> bool {
    let conversation = attribute(&seen.span, "messaging.message.conversation_id");
    seen.span.name == name && conversation == Some(format!("c-{id}"))
}

fn statements(collector: &Collector, above: &Span) -> Vec<String> {
    let below = collector.below(above).into_iter().filter_map(|span| attribute(&span, "db.query.summary"));
    below.collect()
}

/// The shared work that was done for this span, once it has come with these statements.
async fn shared(collector: &Collector, caller: &Span, expected: &[&str]) -> Span {
    let mut found = None;
    eventually(&format!("{expected:?} for {}", caller.name), SOON, async || {
        let batches = collector.seen().into_iter().map(|seen| seen.span).filter(|span| links(span, caller));
        found = batches.into_iter().find(|batch| {
            let below = statements(collector, batch);
            expected.iter().all(|statement| below.iter().any(|found| found == statement))
        });
        found.is_some()
    })
    .await;
    found.expect("a batch")
}

#[tokio::test]
async fn one_webhook_is_followed_from_its_request_to_its_settlement() {
    let (database, collector) = (database::fresh().await, Collector::start(Manner::Takes).await);
    let (processor, calls) = processor().await;
    let key = format!("x-api-key={COLLECTOR_KEY}");
    let url = format!("{}&password={DATABASE_PASSWORD}", database.url);
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.url),
        ("OTEL_EXPORTER_OTLP_HEADERS", &key),
        ("PROCESSOR_URL", &processor),
        ("PROCESSING_DELAY_SECONDS", "0.1"),
        ("RUST_LOG", "info,jobs=trace"),
    ];
    let api = Api::start(&url, &variables).await;
    let worker = start_worker(&url, &variables).await;
    webhook(&api, "t", &format!("00-{TRACE}-{PARENT}-01")).await;
    settled(&api, "t").await;

    let mut run = None;
    eventually("the run is exported", SOON, async || {
        run = collector.find(|seen| is_of(seen, "run process_transaction", "t"));
        run.is_some()
    })
    .await;
    let run = run.expect("a run");
    let mut found = None;
    eventually("the request is exported", SOON, async || {
        found = collector.find(|seen| seen.span.name == WEBHOOKS);
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

    // HTTP -> ingest -> enqueue, in the caller's trace; the commit, which others may share, is linked.
    let below = collector.below(&server);
    let ingest = below.iter().find(|span| span.name == "ingest").expect("an ingest below the request");
    let enqueue = collector.below(ingest).into_iter().find(|span| span.name == "enqueue process_transaction");
    let enqueue = enqueue.expect("an enqueueing below the ingest");
    assert_eq!(enqueue.kind(), SpanKind::Producer);
    let commit = shared(&collector, ingest, &["INSERT transactions", "INSERT apalis.jobs", "COMMIT"]).await;
    assert!(links(ingest, &commit) && links(&enqueue, &commit), "{ingest:?}\n{enqueue:?}");

    // ~> claim -> run, in the worker's own traces, linked.
    assert!(links(&run, &enqueue) && run.trace_id != enqueue.trace_id && run.parent_span_id.is_empty(), "{run:?}");
    assert_eq!(run.kind(), SpanKind::Consumer);
    let id = attribute(&run, "messaging.message.id");
    assert_eq!(id, attribute(&enqueue, "messaging.message.id"));
    for (span, operation) in [(&enqueue, "send"), (&run, "process")] {
        assert_eq!(attribute(span, "messaging.system").as_deref(), Some("apalis"));
        assert_eq!(attribute(span, "messaging.destination.name").as_deref(), Some("process_transaction"));
        assert_eq!(attribute(span, "messaging.operation.type").as_deref(), Some(operation));
    }
    assert_eq!(attribute(&run, "millrace.job.outcome").as_deref(), Some("done"));
    let claim = collector.find(|seen| seen.span.name == "claim process_transaction" && links(&seen.span, &enqueue));
    assert_eq!(claim.and_then(|claim| attribute(&claim, "messaging.operation.type")).as_deref(), Some("receive"));

    // -> SQL and outgoing HTTP.
    assert!(statements(&collector, &run).contains(&"SELECT transactions".to_owned()), "{:?}", collector.below(&run));
    let call = collector.below(&run).into_iter().find(|span| span.name == "POST").expect("a call below the run");
    assert_eq!((call.kind(), attribute(&call, "peer.service").as_deref()), (SpanKind::Client, Some("processor")));
    let sent = format!("00-{}-{}-01", hex(&run.trace_id), hex(&call.span_id));
    assert_eq!(*calls.lock().unwrap(), [sent], "the processor goes on with the trace");
    shared(&collector, &run, &["UPDATE transactions"]).await;

    let services: std::collections::BTreeSet<_> = collector.seen().into_iter().map(|seen| seen.service).collect();
    assert_eq!(services.into_iter().collect::<Vec<_>>(), ["millrace-api", "millrace-worker"]);
    let line = |log: &str, event: &str, id: &str| {
        let has = |line: &str| line.contains(event) && line.contains(id);
        log.lines().find(|line| has(line)).unwrap_or_else(|| panic!("{event}, {id}: {log}")).to_owned()
    };
    line(&api.process.log(), "COMPLETED_REQUEST", &format!(r#""trace_id":"{TRACE}""#));
    line(&worker.log(), "job done", &format!(r#""trace_id":"{}""#, hex(&run.trace_id)));

    assert!(collector.keys().iter().all(|key| key == COLLECTOR_KEY) && !collector.keys().is_empty());
    let everything = format!("{:?}", collector.seen());
    for secret in [COLLECTOR_KEY, PASSWORD, QUERY_KEY, DATABASE_PASSWORD, "secret-account"] {
        assert!(!everything.contains(secret), "{secret} is in a trace");
        for log in [api.process.log(), worker.log()] {
            assert!(!log.contains(secret), "{secret} is in a log");
        }
    }
}

#[tokio::test]
async fn of_a_trace_that_is_not_sampled_nothing_is_exported() {
    let (database, collector) = (database::fresh().await, Collector::start(Manner::Takes).await);
    let (processor, calls) = processor().await;
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.url),
        ("PROCESSOR_URL", &processor),
        ("PROCESSING_DELAY_SECONDS", "0.1"),
    ];
    let api = Api::start(&database.url, &variables).await;
    let _worker = start_worker(&database.url, &variables).await;
    webhook(&api, "silent", &format!("00-{UNSAMPLED}-{PARENT}-00")).await;
    settled(&api, "silent").await;
    webhook(&api, "heard", &format!("00-{TRACE}-{PARENT}-01")).await;
    settled(&api, "heard").await;
    // What ended before these has been exported before them.
    eventually("the later one is exported by both", SOON, async || {
        collector.find(|seen| seen.span.name == WEBHOOKS).is_some()
            && collector.find(|seen| is_of(seen, "run process_transaction", "heard")).is_some()
    })
    .await;
    for seen in collector.seen() {
        let span = &seen.span;
        assert_ne!(hex(&span.trace_id), UNSAMPLED, "{seen:?}");
        assert!(span.links.iter().all(|link| hex(&link.trace_id) != UNSAMPLED), "{seen:?}");
        assert!(!format!("{:?}", span.attributes).contains("c-silent"), "{seen:?}");
    }
    let silent = calls.lock().unwrap()[0].clone();
    assert!(silent.starts_with(&format!("00-{UNSAMPLED}-")) && silent.ends_with("-00"), "{silent}");
}

#[tokio::test]
async fn a_collector_that_hangs_or_is_down_is_in_nobodys_way() {
    let (database, hanging) = (database::fresh().await, Collector::start(Manner::Hangs).await);
    // Nobody listens on port 1.
    for endpoint in [&*hanging.url, "http://127.0.0.1:1"] {
        let mut api = Api::start(&database.url, &[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)]).await;
        let begun = Instant::now();
        // More spans than may wait: each request has several.
        let client = http_client();
        for _ in 0..100 {
            let asked = (0..50).map(|n| send(client.get(format!("{}/v1/transactions/unknown-{n}", api.url))));
            let answers = futures_util::future::join_all(asked).await;
            assert!(answers.iter().all(|answer| answer.status == 404), "{answers:?}");
        }
        assert!(begun.elapsed() < SOON, "5,000 requests took {:?}", begun.elapsed());
        api.process.wait_for_line("traces are lost").await;
        let warnings = api.process.log().matches("traces are lost").count();
        assert_eq!(warnings, 1, "a warning now and then:\n{}", api.process.log());
        let begun = Instant::now();
        api.process.signal(Signal::SIGTERM);
        let status = api.process.wait_for_exit(Duration::from_secs(10)).await;
        assert!(status.success(), "{status}");
        // Two seconds for the last spans, and what a stop takes anyway.
        assert!(begun.elapsed() < Duration::from_secs(8), "the stop took {:?}", begun.elapsed());
    }
    assert!(!hanging.seen().is_empty());
}

#[tokio::test]
async fn what_is_left_is_exported_at_the_stop() {
    let (database, collector) = (database::fresh().await, Collector::start(Manner::Takes).await);
    let mut api = Api::start(&database.url, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)]).await;
    webhook(&api, "last", &format!("00-{TRACE}-{PARENT}-01")).await;
    api.process.signal(Signal::SIGTERM);
    assert!(api.process.wait_for_exit(Duration::from_secs(10)).await.success());
    let server = collector.find(|seen| seen.span.name == WEBHOOKS);
    assert_eq!(server.map(|span| hex(&span.trace_id)).as_deref(), Some(TRACE));
}

#[tokio::test]
async fn the_sampler_decides_and_probes_are_not_traced() {
    let (database, collector) = (database::fresh().await, Collector::start(Manner::Takes).await);
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.url);
    let off = [endpoint, ("OTEL_TRACES_SAMPLER", "always_off"), ("OTEL_SERVICE_NAME", "off")];
    let some = [endpoint, ("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.5")];
    let named = [endpoint, ("OTEL_RESOURCE_ATTRIBUTES", "service.name=named,region=eu")];
    for variables in [&off[..], &some, &named] {
        let mut api = Api::start(&database.url, variables).await;
        for path in ["/livez", "/readyz", "/metrics"] {
            assert_eq!(send(http_client().get(format!("{}{path}", api.url))).await.status, 200);
        }
        for n in 0..64 {
            assert_eq!(send(http_client().get(format!("{}/v1/transactions/{n}", api.url))).await.status, 404);
        }
        api.process.signal(Signal::SIGTERM);
        assert!(api.process.wait_for_exit(Duration::from_secs(10)).await.success(), "{}", api.process.log());
    }
    let requests = |service: &str| {
        let seen = collector.seen().into_iter().filter(|seen| seen.service == service);
        seen.filter(|seen| seen.span.kind() == SpanKind::Server).map(|seen| seen.span.name).collect::<Vec<_>>()
    };
    assert!(requests("off").is_empty());
    // Of 64 with one half each, fewer than 8 or more than 56 are one chance in ten thousand million.
    assert!((8..=56).contains(&requests("millrace-api").len()), "{:?}", requests("millrace-api").len());
    assert_eq!(requests("named"), vec!["GET /v1/transactions/{transaction_id}"; 64]);
}

#[tokio::test]
async fn what_goes_wrong_is_an_error_without_a_message() {
    let (database, collector) = (database::fresh().await, Collector::start(Manner::Takes).await);
    // Nobody listens on port 1.
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
        found = collector.find(|seen| is_of(seen, "run process_transaction", "lost"));
        found.is_some()
    })
    .await;
    let run = found.expect("a run");
    assert_eq!(attribute(&run, "millrace.job.outcome").as_deref(), Some("dead"));
    assert_eq!(attribute(&run, "error.type").as_deref(), Some("dead"));
    let call = collector.below(&run).into_iter().find(|span| span.name == "POST").expect("a call below the run");
    assert_eq!(attribute(&call, "error.type").as_deref(), Some("connect"));
    for (name, value) in [("server.address", "127.0.0.1"), ("server.port", "1"), ("peer.service", "processor")] {
        assert_eq!(attribute(&call, name).as_deref(), Some(value), "{name}");
    }
    for span in [&run, &call] {
        let ended = span.status.clone().expect("a status");
        assert_eq!((ended.code(), &*ended.message), (status::StatusCode::Error, ""), "{span:?}");
    }
    // What the end of the transaction is written by belongs to the run as well.
    shared(&collector, &run, &["UPDATE transactions"]).await;
    let everything = format!("{:?}", collector.seen());
    for secret in [PASSWORD, QUERY_KEY] {
        assert!(!everything.contains(secret), "{secret} is in a trace");
    }
}
