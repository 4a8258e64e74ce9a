//! The HTTP edge of transactions: body sizes, slow clients, ids of every kind, correlation ids, and database outages.

use std::time::{Duration, Instant};

use embedded_postgres::{Cluster, Settings};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{System, WEBHOOKS, assert_ok, webhook, webhook_with};
use crate::harness::{
    cluster, eventually,
    http::{connect, read_response, send, send_raw},
    process::{Api, Process, http_client},
    scratch::Scratch,
};

const MIB: usize = 1 << 20;
/// While the database is away, a request ends after six seconds. The rest is for a machine that stalls.
const WITHIN_SECONDS: Duration = Duration::from_secs(15);

#[tokio::test]
async fn bodies_are_limited_to_1_mib_by_header_and_stream() {
    let system = System::start(&[]).await;
    let padded = |id: &str, length: usize| {
        let webhook = webhook(id).to_string();
        format!("{webhook}{}", " ".repeat(length - webhook.len()))
    };
    assert_ok(&send(system.post_webhook(padded("exactly", MIB))).await, 202, "1 MiB");
    send(system.post_webhook(padded("more", MIB + 1))).await.assert_problem(413, "one byte more");
    send(system.post_webhook(padded("much", 5 * MIB))).await.assert_problem(413, "much more");

    let head = |more: &str| format!("POST {WEBHOOKS} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n\r\n");
    let announced = head("Content-Length: 99999999999\r\nExpect: 100-continue");
    send_raw(&system.api.url, announced.as_bytes()).await.assert_problem(413, "announced, and nothing sent");

    let chunked = |body: &str| {
        let mut request = head("Transfer-Encoding: chunked");
        for chunk in body.as_bytes().chunks(16 * 1024) {
            request += &format!("{:x}\r\n{}\r\n", chunk.len(), std::str::from_utf8(chunk).unwrap());
        }
        request + "0\r\n\r\n"
    };
    assert_ok(&send_raw(&system.api.url, chunked(&padded("stream", MIB)).as_bytes()).await, 202, "1 MiB as a stream");
    let larger = send_raw(&system.api.url, chunked(&padded("larger", MIB + 1)).as_bytes()).await;
    larger.assert_problem(413, "a longer stream");

    // Many clients announce a large body with `Expect: 100-continue`.
    let body = padded("polite", 100_000);
    let mut stream = connect(&system.api.url).await;
    let polite = head(&format!("Content-Length: {}\r\nExpect: 100-continue", body.len()));
    stream.write_all(polite.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body.as_bytes()).await.unwrap();
    assert_ok(&read_response(stream).await, 202, "sent after 100 Continue");
    assert_eq!(system.count("SELECT count(*) FROM transactions").await, 3);
}

#[tokio::test]
async fn slow_clients_do_not_delay_others() {
    let system = System::start(&[]).await;
    let (begun, mut slow) = (Instant::now(), Vec::new());
    for number in 0..200 {
        let mut stream = connect(&system.api.url).await;
        let sent = if number % 2 == 0 {
            "POST /v1/web".to_owned()
        } else {
            format!("POST {WEBHOOKS} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nConnection: close\r\n\r\n{{\"tra")
        };
        stream.write_all(sent.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    for number in 0..20 {
        system.send_webhook(&format!("quick-{number}")).await;
    }
    // A client has ten seconds for its headers: no slow one is closed yet, so that no webhook has waited for one.
    assert!(begun.elapsed() < Duration::from_secs(10), "20 webhooks took {:?}", begun.elapsed());
    // A request that arrives in pieces is accepted.
    let mut stream = connect(&system.api.url).await;
    let body = webhook("pieces").to_string();
    let request = format!(
        "POST {WEBHOOKS} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    for piece in request.as_bytes().chunks(40) {
        stream.write_all(piece).await.unwrap();
        stream.flush().await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_ok(&read_response(stream).await, 202, "in pieces");
    drop(slow);
    assert_eq!(system.count("SELECT count(*) FROM transactions").await, 21, "a truncated body stores nothing");
}

#[tokio::test]
async fn every_id_is_found_at_its_location() {
    let system = System::start(&[]).await;
    let longest = ["x".repeat(255), "é".repeat(255), "\u{1F600}".repeat(255)];
    let plain =
        ["a b", "a/b", "/", "..", ".", "%2F", "%", "a?b=c#d", "+", "é漢字", "\u{1F600}", "a\nb\t", "\"'\\", "  "];
    let quoted = |id: &str| serde_json::to_string(id).unwrap();
    for id in plain.into_iter().chain(longest.iter().map(|id| &**id)) {
        let response = send(system.post_webhook(webhook_with("x", "transaction_id", &quoted(id)))).await;
        assert_ok(&response, 202, id);
        assert_eq!(response.json()["transaction_id"], id);
        // SentTransaction as raw bytes, because client libraries resolve `..`, encoded or not.
        let get = format!("GET {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", response.header("location"));
        let found = send_raw(&system.api.url, get.as_bytes()).await;
        assert_ok(&found, 200, &format!("{id:?} at {}", response.header("location")));
        assert_eq!(found.text, response.text, "{id:?}");
    }
    assert_eq!(system.count("SELECT count(*) FROM transactions").await, 17);
    for path in ["unknown", "", "a%00b", "%00", "%ff", &"x".repeat(256), "txn/status", "%F0%9F"] {
        let path = format!("/v1/transactions/{path}");
        let get = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        send_raw(&system.api.url, get.as_bytes()).await.assert_problem(404, &path);
    }
    send(system.get("/v1/transactions/unknown?wait=60").timeout(Duration::from_secs(30)))
        .await
        .assert_problem(404, "an unknown id is not waited for");
}

#[tokio::test]
async fn responses_carry_the_callers_correlation_id_or_a_new_one() {
    let system = System::start(&[]).await;
    let url = &system.api.url;
    let longest = "x".repeat(128);
    let valid = ["a", "31bef03e-4f3d-4c59-a7bb-612049c6018a", "AZaz09._:@/+=-", &*longest];
    let invalid = ["", "a b", "a,b", "é", "a\"b", "<a>", &"x".repeat(129)];
    let webhook = webhook("t").to_string();
    let large = " ".repeat(MIB + 1);
    for (case, method, path, content_type, body, status) in [
        ("new", "POST", WEBHOOKS, "application/json", &*webhook, 202),
        ("replay", "POST", WEBHOOKS, "application/json", &webhook, 202),
        ("not JSON", "POST", WEBHOOKS, "application/json", "{", 400),
        ("wrong type", "POST", WEBHOOKS, "text/plain", &webhook, 415),
        ("invalid", "POST", WEBHOOKS, "application/json", "{}", 422),
        ("too large", "POST", WEBHOOKS, "application/json", &large, 413),
        ("wrong method", "DELETE", WEBHOOKS, "application/json", "", 405),
        ("found", "GET", "/v1/transactions/t", "application/json", "", 200),
        ("unknown id", "GET", "/v1/transactions/u", "application/json", "", 404),
        ("unknown path", "GET", "/nowhere", "application/json", "", 404),
        ("wrong query", "GET", "/v1/transactions?limit=x", "application/json", "", 422),
        ("health", "GET", "/livez", "application/json", "", 200),
        ("page", "GET", "/docs", "application/json", "", 200),
        ("options", "OPTIONS", WEBHOOKS, "application/json", "", 204),
    ] {
        let request = |id: Option<&str>| {
            let request = system.client.request(method.parse().unwrap(), format!("{url}{path}"));
            let request = request.header("content-type", content_type).body(body.to_owned());
            id.into_iter().fold(request, |request, id| request.header("X-Correlation-Id", id))
        };
        let checked_id = |response: crate::harness::http::HttpResponse| {
            assert_ok(&response, status, case);
            if status >= 400 {
                response.assert_problem(status, case);
            }
            response.header("x-correlation-id").to_owned()
        };
        for id in valid {
            assert_eq!(checked_id(send(request(Some(id))).await), id, "{case}");
        }
        for id in invalid.into_iter().map(Some).chain([None]) {
            let generated = checked_id(send(request(id)).await);
            assert!(uuid::Uuid::parse_str(&generated).is_ok(), "{case}, {id:?}: {generated:?}");
        }
        let generated = checked_id(send(request(Some("one")).header("X-Correlation-Id", "two")).await);
        assert!(uuid::Uuid::parse_str(&generated).is_ok(), "{case}, two ids: {generated:?}");
    }
}

/// The settings of a PostgreSQL server for one test, which stops or freezes it.
fn settings(scratch: &Scratch) -> Settings {
    Settings { max_connections: 30, ..cluster::settings(scratch) }
}

async fn start_own_server(scratch: &Scratch) -> (Cluster, Api) {
    let cluster = Cluster::start(settings(scratch)).await.unwrap();
    cluster.ensure_database("own").await.unwrap();
    let url = cluster.url("own");
    let mut migrate = Process::start(&["migrate"], &[("DATABASE_URL", &url)]);
    assert!(migrate.wait_for_exit(Duration::from_secs(30)).await.success(), "{}", migrate.log());
    (cluster, Api::start(&url, &[]).await)
}

/// The processes of a server after SIGSTOP: connections stay open, and no request gets a response.
struct Frozen(Vec<Pid>);

impl Frozen {
    fn freeze(server: u32) -> Self {
        let has = |pid: Pid, field: &str, value: &str| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.lines().any(|line| line.strip_prefix(field).is_some_and(|found| found.trim() == value))
        };
        let server = Pid::from_raw(server.cast_signed());
        let mut frozen = Self(vec![server]);
        // The server first: until it has stopped, it may start a session that is not in the list of processes.
        frozen.signal(Signal::SIGSTOP);
        let begun = Instant::now();
        while !has(server, "State:", "T (stopped)") {
            assert!(begun.elapsed() < WITHIN_SECONDS, "the server runs on");
            std::thread::yield_now();
        }
        let names = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let processes = names.filter_map(|name| name.parse::<i32>().ok()).map(Pid::from_raw);
        frozen.0.extend(processes.filter(|pid| has(*pid, "PPid:", &server.to_string())));
        frozen.signal(Signal::SIGSTOP);
        frozen
    }

    fn signal(&self, signal: Signal) {
        // A backend may have exited by now.
        for pid in &self.0 {
            let _ = kill(*pid, signal);
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.signal(Signal::SIGCONT);
    }
}

#[tokio::test]
async fn an_unresponsive_database_is_503_within_seconds() {
    let scratch = Scratch::new();
    let (cluster, api) = start_own_server(&scratch).await;
    let client = http_client();
    let post = |id: &str| {
        let request = client.post(format!("{}{WEBHOOKS}", api.url)).header("content-type", "application/json");
        send(request.body(webhook(id).to_string()))
    };
    let get = |path: &str| send(client.get(format!("{}{path}", api.url)));
    assert_ok(&post("before").await, 202, "before");
    let frozen = Frozen::freeze(cluster.pid());
    let begun = Instant::now();
    let (posted, found, listed, ready) =
        tokio::join!(post("meanwhile"), get("/v1/transactions/before"), get("/v1/transactions"), get("/readyz"));
    assert!(begun.elapsed() < WITHIN_SECONDS, "{:?}", begun.elapsed());
    for (case, response) in [("post", posted), ("get", found), ("list", listed), ("ready", ready)] {
        response.assert_problem(503, case);
        assert!(!response.header("retry-after").is_empty(), "{case}: {response:?}");
    }
    drop(frozen);
    assert_ok(&post("after").await, 202, "after");
}

#[tokio::test]
async fn a_database_outage_is_503_and_loses_nothing() {
    let scratch = Scratch::new();
    let (cluster, api) = start_own_server(&scratch).await;
    let client = http_client();
    let post = |id: &str| {
        let request = client.post(format!("{}{WEBHOOKS}", api.url)).header("content-type", "application/json");
        send(request.body(webhook(id).to_string()))
    };
    let get = |path: &str| send(client.get(format!("{}{path}", api.url)));
    assert_ok(&post("before").await, 202, "before");

    cluster.stop().await.unwrap();
    let begun = Instant::now();
    let (posted, found, listed, ready) =
        tokio::join!(post("meanwhile"), get("/v1/transactions/before"), get("/v1/transactions"), get("/readyz"),);
    assert!(begun.elapsed() < WITHIN_SECONDS, "{:?}", begun.elapsed());
    for (case, response) in [("post", posted), ("get", found), ("list", listed), ("ready", ready)] {
        let problem = response.assert_problem(503, case);
        assert!(response.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0), "{case}: {response:?}");
        for internal in ["sqlx", "pool", "postgres", "connect", "os error", "/"] {
            let detail = problem["detail"].as_str().unwrap_or_default();
            assert!(!detail.contains(internal), "{case} shows {internal:?}: {detail}");
        }
    }
    assert_ok(&get("/livez").await, 200, "a restart would not repair the database");

    let cluster = Cluster::start(settings(&scratch)).await.unwrap();
    eventually("the API is ready again", Duration::from_secs(15), async || get("/readyz").await.status == 200).await;
    assert_ok(&get("/v1/transactions/before").await, 200, "the transaction from before the outage");
    let response = post("meanwhile").await;
    assert_ok(&response, 202, "sent again");
    assert!(!response.headers.contains_key("idempotency-replayed"), "the 503 stored nothing");
    drop(api);
    cluster.stop().await.unwrap();
}
