//! What the edge makes sure of: sizes, slowness, ids of every kind, correlation, and a database that is away.

use std::time::{Duration, Instant};

use jobs::boot::postgres::{Cluster, Search, Settings};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{System, WEBHOOKS, assert_ok, webhook, with};
use crate::harness::{
    eventually,
    http::{connect, read_response, send, send_raw},
    process::{Api, Process, http_client},
    scratch::Scratch,
};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn a_body_is_at_most_a_mebibyte_by_header_and_by_stream() {
    let system = System::start(&[]).await;
    let padded = |id: &str, length: usize| {
        let webhook = webhook(id).to_string();
        format!("{webhook}{}", " ".repeat(length - webhook.len()))
    };
    assert_ok(&send(system.post(padded("exactly", MIB))).await, 202, "1 MiB");
    send(system.post(padded("more", MIB + 1))).await.assert_problem(413, "one byte more");
    send(system.post(padded("much", 5 * MIB))).await.assert_problem(413, "much more");

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

    // What many clients do with a body of some size.
    let body = padded("polite", 100_000);
    let mut stream = connect(&system.api.url).await;
    let polite = head(&format!("Content-Length: {}\r\nExpect: 100-continue", body.len()));
    stream.write_all(polite.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body.as_bytes()).await.unwrap();
    assert_ok(&read_response(stream).await, 202, "asked before it sent");
    assert_eq!(system.count("SELECT count(*) FROM transactions").await, 3);
}

#[tokio::test]
async fn clients_that_dribble_are_in_nobodys_way() {
    let system = System::start(&[]).await;
    let mut slow = Vec::new();
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
    let begun = Instant::now();
    for number in 0..20 {
        system.send(&format!("quick-{number}")).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "20 webhooks took {:?}", begun.elapsed());
    // One that comes in pieces is as good as any.
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
    assert_eq!(system.count("SELECT count(*) FROM transactions").await, 21, "a broken-off body records nothing");
}

#[tokio::test]
async fn ids_of_every_kind_are_found_at_their_location() {
    let system = System::start(&[]).await;
    let longest = ["x".repeat(255), "é".repeat(255), "\u{1F600}".repeat(255)];
    let plain =
        ["a b", "a/b", "/", "..", ".", "%2F", "%", "a?b=c#d", "+", "é漢字", "\u{1F600}", "a\nb\t", "\"'\\", "  "];
    let quoted = |id: &str| serde_json::to_string(id).unwrap();
    for id in plain.into_iter().chain(longest.iter().map(|id| &**id)) {
        let answer = send(system.post(with("x", "transaction_id", &quoted(id)))).await;
        assert_ok(&answer, 202, id);
        assert_eq!(answer.json()["transaction_id"], id);
        // As it is: client libraries take a step back at `..`, encoded or not.
        let get = format!("GET {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", answer.header("location"));
        let found = send_raw(&system.api.url, get.as_bytes()).await;
        assert_ok(&found, 200, &format!("{id:?} at {}", answer.header("location")));
        assert_eq!(found.text, answer.text, "{id:?}");
    }
    assert_eq!(system.count("SELECT count(*) FROM transactions").await, 17);
    for path in ["unknown", "", "a%00b", "%00", "%ff", &"x".repeat(256), "txn/status", "%F0%9F"] {
        let path = format!("/v1/transactions/{path}");
        let get = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        send_raw(&system.api.url, get.as_bytes()).await.assert_problem(404, &path);
    }
    send(system.get("/v1/transactions/unknown?wait=20").timeout(Duration::from_secs(5)))
        .await
        .assert_problem(404, "what is not there is not waited for");
}

#[tokio::test]
async fn every_answer_carries_the_callers_correlation_id_or_a_new_one() {
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
        let checked = |answer: crate::harness::http::HttpResponse| {
            assert_ok(&answer, status, case);
            if status >= 400 {
                answer.assert_problem(status, case);
            }
            answer.header("x-correlation-id").to_owned()
        };
        for id in valid {
            assert_eq!(checked(send(request(Some(id))).await), id, "{case}");
        }
        for id in invalid.into_iter().map(Some).chain([None]) {
            let made = checked(send(request(id)).await);
            assert!(uuid::Uuid::parse_str(&made).is_ok(), "{case}, {id:?}: {made:?}");
        }
        let made = checked(send(request(Some("one")).header("X-Correlation-Id", "two")).await);
        assert!(uuid::Uuid::parse_str(&made).is_ok(), "{case}, two ids: {made:?}");
    }
}

/// A server of one test's own, since it comes to harm.
fn settings(scratch: &Scratch) -> Settings {
    Settings {
        durable: false,
        max_connections: 30,
        search: std::env::var("PG_BIN_DIR").map(|value| Search::parse(&value)).unwrap_or_default(),
        ..Settings::new(&**scratch)
    }
}

async fn own_server(scratch: &Scratch) -> (Cluster, Api) {
    let cluster = Cluster::start(settings(scratch)).await.unwrap();
    cluster.ensure_database("own").await.unwrap();
    let url = cluster.url("own");
    let mut migrate = Process::start(&["migrate"], &[("DATABASE_URL", &url)]);
    assert!(migrate.wait_for_exit(Duration::from_secs(30)).await.success(), "{}", migrate.log());
    (cluster, Api::start(&url, &[]).await)
}

/// A server's processes, stopped in their tracks: connections stay open, and nothing is answered.
struct Frozen(Vec<Pid>);

impl Frozen {
    fn freeze(server: u32) -> Self {
        let is_child = |pid: &i32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status
                .lines()
                .any(|line| line.strip_prefix("PPid:").is_some_and(|parent| parent.trim() == server.to_string()))
        };
        let processes =
            std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let all = std::iter::once(server.cast_signed()).chain(processes.filter(is_child));
        let frozen = Self(all.map(Pid::from_raw).collect());
        frozen.signal(Signal::SIGSTOP);
        frozen
    }

    fn signal(&self, signal: Signal) {
        // A backend may be gone by now.
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
async fn a_database_that_does_not_answer_keeps_nobody_waiting() {
    let scratch = Scratch::new();
    let (cluster, api) = own_server(&scratch).await;
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
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    for (case, answer) in [("post", posted), ("get", found), ("list", listed), ("ready", ready)] {
        answer.assert_problem(503, case);
        assert!(!answer.header("retry-after").is_empty(), "{case}: {answer:?}");
    }
    drop(frozen);
    assert_ok(&post("after").await, 202, "after");
}

#[tokio::test]
async fn while_the_database_is_away_it_is_503_and_nothing_is_lost() {
    let scratch = Scratch::new();
    let (cluster, api) = own_server(&scratch).await;
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
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    for (case, answer) in [("post", posted), ("get", found), ("list", listed), ("ready", ready)] {
        let problem = answer.assert_problem(503, case);
        assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0), "{case}: {answer:?}");
        for internal in ["sqlx", "pool", "postgres", "connect", "os error", "/"] {
            let detail = problem["detail"].as_str().unwrap_or_default();
            assert!(!detail.contains(internal), "{case} shows {internal:?}: {detail}");
        }
    }
    assert_ok(&get("/livez").await, 200, "a restart would not bring it back");

    let cluster = Cluster::start(settings(&scratch)).await.unwrap();
    eventually("the API is ready again", Duration::from_secs(15), async || get("/readyz").await.status == 200).await;
    assert_ok(&get("/v1/transactions/before").await, 200, "kept");
    let answer = post("meanwhile").await;
    assert_ok(&answer, 202, "sent again");
    assert!(!answer.headers.contains_key("idempotency-replayed"), "a 503 recorded nothing");
    drop(api);
    cluster.stop().await.unwrap();
}
