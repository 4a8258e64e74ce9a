//! Health, metrics, pages and error responses that belong to no feature.

use serde_json::{Value, json};

use crate::harness::{
    database, eventually,
    http::{send, send_raw, send_until},
    process::{Api, Process, http_client, start_worker},
};

const QUEUE: &str = "{queue=\"process_transaction\"}";

/// The value of a series, given its name with its labels.
fn series(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn has_bucket(metrics: &str, name: &str, edge: &str) -> bool {
    let (name, edge) = (format!("{name}_bucket{{"), format!("le=\"{edge}\"}} "));
    metrics.lines().any(|line| line.starts_with(&name) && line.contains(&edge))
}

#[tokio::test]
async fn an_api_process_serves_health_metrics_and_documentation() {
    let database = database::fresh().await;
    let api = Api::start(&database.url, &[]).await;
    let client = http_client();
    let get = |path: &str| send(client.get(format!("{}{path}", api.url)));

    // The first request: every series must exist from the start.
    let metrics = get("/metrics").await;
    assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"), "{metrics:?}");
    let metrics = metrics.text;
    assert_eq!(series(&metrics, "millrace_webhook_conflicts_total"), Some(0.0), "{metrics}");
    assert_eq!(series(&metrics, &format!("millrace_jobs_enqueued_total{QUEUE}")), Some(0.0), "{metrics}");
    assert!(has_bucket(&metrics, "http_server_request_duration_seconds", "0.5"), "{metrics}");
    let webhook = "http_server_request_duration_seconds_count{method=\"POST\",route=\"/v1/webhooks/transactions\",status=\"202\"}";
    assert_eq!(series(&metrics, webhook), Some(0.0), "{metrics}");

    for (path, text) in [
        ("/livez", r#"{"status":"ok"}"#),
        ("/api/v1/health", r#"{"status":"ok"}"#),
        ("/readyz", r#"{"status":"ready"}"#),
        ("/api/v1/ready", r#"{"status":"ready"}"#),
        ("/api/v1/health/ready", r#"{"status":"ready"}"#),
    ] {
        // Only a check of readiness is repeated: one that takes 2 s fails, as it may on a busy machine.
        let request = client.get(format!("{}{path}", api.url));
        let response = send_until(request, |found| found.status != 503 || !text.contains("ready")).await;
        assert_eq!(response.header("content-type"), "application/json", "{path}");
        assert_eq!((response.status, response.text), (200, format!("{text}\n")), "{path}");
    }
    let welcome = get("/").await.json();
    let keys: Vec<_> = welcome.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys.len(), 4, "{welcome}");
    assert_eq!(welcome["status"], "HEALTHY");
    assert_eq!(welcome["message"], "Welcome to Millrace!");
    assert_eq!(welcome["storage_backend"], "postgres");
    assert!(welcome["current_time"].as_str().is_some_and(|time| time.starts_with("20") && time.ends_with('Z')));

    for path in ["/docs", "/redoc"] {
        let page = get(path).await;
        assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"), "{path}");
        assert!(page.text.contains("/v1/webhooks/transactions"), "{path} does not show the API's document");
        assert_eq!(external_addresses(&page.text), [""; 0], "{path} needs the internet");
    }
    let document = get("/openapi.json").await;
    assert_eq!(document.header("content-type"), "application/json");
    let published: Value = serde_json::from_str(include_str!("../../api/openapi.json")).unwrap();
    assert!(document.json() == published, "/openapi.json differs from api/openapi.json");

    for number in 0..3 {
        assert_eq!(get(&format!("/nowhere-{number}")).await.status, 404);
    }
    let metrics = get("/metrics").await.text;
    assert!(!metrics.contains("/nowhere-"), "unknown paths are not used as labels: {metrics}");
    let live = "http_server_request_duration_seconds_count{method=\"GET\",route=\"/livez\",status=\"200\"}";
    assert_eq!(series(&metrics, live), Some(1.0), "{metrics}");
}

/// The parts of a page that make a browser fetch from another server.
fn external_addresses(html: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for tag in html.split('<').filter(|tag| ["script ", "link ", "img ", "iframe "].iter().any(|t| tag.starts_with(t)))
    {
        let tag = tag.split('>').next().unwrap_or_default();
        for attribute in ["src=", "href="] {
            let value = tag.split(attribute).nth(1).unwrap_or_default().trim_start_matches(['"', '\'']);
            if value.starts_with("http") || value.starts_with("//") {
                found.push(tag);
            }
        }
    }
    found.extend(
        ["@import", "url(http", "url(\"http", "url('http", "url(//"].iter().filter(|sign| html.contains(**sign)),
    );
    found
}

#[tokio::test]
async fn unknown_paths_and_methods_get_a_problem_document() {
    let database = database::fresh().await;
    let api = Api::start(&database.url, &[]).await;
    let client = http_client();
    for (method, path, allow) in [
        ("GET", "/v1/webhooks/transactions", "POST, OPTIONS"),
        ("PUT", "/v1/webhooks/transactions", "POST, OPTIONS"),
        ("POST", "/v1/transactions", "GET, HEAD, OPTIONS"),
        ("DELETE", "/v1/transactions/t", "GET, HEAD, OPTIONS"),
        ("PATCH", "/", "GET, HEAD, OPTIONS"),
        ("POST", "/livez", "GET, HEAD, OPTIONS"),
        ("POST", "/docs", "GET, HEAD, OPTIONS"),
        ("BREW", "/metrics", "GET, HEAD, OPTIONS"),
    ] {
        let case = format!("{method} {path}");
        let url = format!("{}{path}", api.url);
        let response = send(client.request(method.parse().unwrap(), &url)).await;
        let problem = response.assert_problem(405, &case);
        assert_eq!((response.header("allow"), &problem["detail"]), (allow, &json!("Method Not Allowed")), "{case}");
        let options = send(client.request("OPTIONS".parse().unwrap(), &url)).await;
        assert_eq!((options.status, options.header("allow")), (204, allow), "OPTIONS {path}");
        if allow.contains("HEAD") && !path.contains("/t") {
            let (head, get) = (send(client.head(&url)).await, send(client.get(&url)).await);
            assert_eq!((head.status, &*head.text), (200, ""), "HEAD {path}");
            assert_eq!(head.header("content-type"), get.header("content-type"), "HEAD {path}");
        }
    }
    for path in
        ["/nowhere", "/v1", "/v1/", "//", "/livez/", "/LIVEZ", "/v1/transactions/a/b", "/docs/x", "/%00", "/%ff"]
    {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let problem = send_raw(&api.url, request.as_bytes()).await.assert_problem(404, path);
        let keys: Vec<_> = problem.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["correlation_id", "detail", "status", "title", "type"], "{path}");
        assert_eq!((&problem["type"], &problem["title"]), (&json!("about:blank"), &json!("Not Found")), "{path}");
    }
    let head = send_raw(&api.url, b"HEAD /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!((head.status, &*head.text), (404, ""));
    // The process refuses input that is not HTTP, and continues.
    for nonsense in ["nonsense\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET  /\r\n\r\n", "\u{16}\u{3}\u{1}"] {
        let mut stream = crate::harness::http::connect(&api.url).await;
        tokio::io::AsyncWriteExt::write_all(&mut stream, nonsense.as_bytes()).await.unwrap();
        drop(stream);
    }
    assert_eq!(send(client.get(format!("{}/livez", api.url))).await.status, 200);
}

#[tokio::test]
async fn a_worker_serves_health_and_metrics_at_its_health_port() {
    let database = database::fresh().await;
    // The API on the same machine may have the same `HOST`.
    let mut worker = start_worker(&database.url, &[("WORKER_HEALTH_PORT", "0"), ("HOST", "localhost")]).await;
    let line: Value = serde_json::from_str(&worker.wait_for_line("health and metrics").await).unwrap();
    let url = format!("http://{}", line["address"].as_str().unwrap());
    let client = http_client();
    assert_eq!(send(client.get(format!("{url}/livez"))).await.status, 200);
    let metrics = send(client.get(format!("{url}/metrics"))).await.text;
    for name in ["jobs_enqueued_total", "jobs_rescued_total", "jobs_fenced_total"] {
        assert_eq!(series(&metrics, &format!("millrace_{name}{QUEUE}")), Some(0.0), "{name}: {metrics}");
    }
    for outcome in ["done", "retry", "snooze", "dead"] {
        let name = format!("millrace_jobs_finished_total{{queue=\"process_transaction\",outcome=\"{outcome}\"}}");
        assert_eq!(series(&metrics, &name), Some(0.0), "{outcome}: {metrics}");
    }
    for name in ["job_wait_seconds", "job_run_seconds"] {
        assert_eq!(series(&metrics, &format!("millrace_{name}_count{QUEUE}")), Some(0.0), "{name}: {metrics}");
        assert!(has_bucket(&metrics, &format!("millrace_{name}"), "0.5"), "{name}: {metrics}");
    }
    assert!(series(&metrics, "millrace_listener_up").is_some(), "{metrics}");
    eventually("the worker listens", super::SOON, async || {
        series(&send(client.get(format!("{url}/metrics"))).await.text, "millrace_listener_up") == Some(1.0)
    })
    .await;
    eventually("the worker is ready", super::SOON, async || {
        send(client.get(format!("{url}/readyz"))).await.status == 200
    })
    .await;
    let head = send(client.head(format!("{url}/readyz"))).await;
    assert_eq!((head.status, head.header("cache-control"), &*head.text), (200, "no-store", ""));
    for path in ["/livez", "/readyz", "/metrics"] {
        let refused = send(client.post(format!("{url}{path}"))).await;
        assert_eq!((refused.status, refused.header("allow")), (405, "GET, HEAD"), "{path}: {refused:?}");
        assert_eq!(refused.header("content-type"), "application/problem+json", "{path}");
    }
    let missing = send(client.get(format!("{url}/nowhere"))).await;
    let expected = json!({"type": "about:blank", "title": "Not Found", "status": 404, "detail": "Not Found"});
    assert_eq!((missing.status, missing.json()), (404, expected));
}

/// The port may be reachable from outside, as that of the API.
#[tokio::test]
async fn a_worker_that_is_not_ready_tells_the_reason_only_to_its_log() {
    let nowhere = "postgres:///nowhere?host=/nowhere/run&user=hunter2";
    let variables = [("DATABASE_URL", nowhere), ("WORKER_HEALTH_PORT", "0"), ("LOG_FORMAT", "json")];
    let mut worker = Process::start(&["worker"], &variables);
    let line: Value = serde_json::from_str(&worker.wait_for_line("health and metrics").await).unwrap();
    let url = format!("http://{}/readyz", line["address"].as_str().unwrap());
    let response = send(http_client().get(&url)).await;
    assert_eq!((response.status, response.header("retry-after")), (503, "1"), "{response:?}");
    assert_eq!(response.header("content-type"), "application/problem+json");
    let expected = json!({
        "type": "about:blank", "title": "Service Unavailable", "status": 503,
        "detail": "Not available at the moment, please try again.",
    });
    assert_eq!(response.json(), expected);
    let line: Value = serde_json::from_str(&worker.wait_for_line(r#""event":"not ready""#).await).unwrap();
    assert!(line["reason"].as_str().is_some_and(|reason| reason.len() > 10), "{line}");
}
