//! What a client meets: answers, limits and the end.

use std::net::SocketAddr;

use poem::{EndpointExt, Request, endpoint::make};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    task::JoinHandle,
};

use super::*;

mod http2;

/// What a test of this machine waits for at most.
const SOON: Duration = Duration::from_secs(10);

/// More than the kernel keeps of what is not read.
const LARGE: usize = 64 << 20;
/// Many times what is sent at once, and less than is sent in ten minutes by the client of the test.
const SOME: usize = 1 << 20;

struct Running {
    address: SocketAddr,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
    /// Lets the requests to `/slow` go on.
    go_on: Arc<Notify>,
    /// Tells that a request to `/slow` or `/wait` has arrived.
    arrived: Arc<Notify>,
    /// Tells that a handler of `/slow` was dropped.
    left: Arc<Notify>,
}

/// What a handler drops with itself.
struct Leaving(Arc<Notify>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

async fn start() -> Running {
    start_with(Settings::within(20_000, Duration::ZERO)).await
}

async fn start_with(settings: Settings) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let shutdown = CancellationToken::new();
    let [go_on, arrived, left] = std::array::from_fn(|_| Arc::new(Notify::new()));
    let endpoint = {
        let (go_on, arrived, left) = (Arc::clone(&go_on), Arc::clone(&arrived), Arc::clone(&left));
        make(move |request: Request| {
            let (go_on, arrived, left) = (Arc::clone(&go_on), Arc::clone(&arrived), Arc::clone(&left));
            async move {
                let refused = request.data::<Refused>();
                match request.uri().path() {
                    _ if refused.is_some() => return format!("refused: {refused:?}"),
                    "/large" => return "x".repeat(LARGE),
                    "/some" => return "x".repeat(SOME),
                    "/slow" => {
                        let _leaving = Leaving(left);
                        arrived.notify_one();
                        go_on.notified().await;
                    }
                    "/wait" => {
                        arrived.notify_one();
                        if let Some(HalfClosed(token)) = request.data::<HalfClosed>() {
                            token.cancelled().await;
                        }
                    }
                    _ => {}
                }
                format!("from {}", request.remote_addr())
            }
        })
    };
    let server = tokio::spawn(serve(listener, endpoint.map_to_response(), settings, shutdown.clone()));
    Running { address, shutdown, server, go_on, arrived, left }
}

impl Running {
    async fn send(&self, bytes: &str) -> TcpStream {
        let mut client = TcpStream::connect(self.address).await.expect("connected");
        client.write_all(bytes.as_bytes()).await.expect("sent");
        client
    }
}

async fn read_to_end(mut client: TcpStream) -> String {
    let mut text = Vec::new();
    // A reset is an end as well.
    let _ = timeout(SOON, client.read_to_end(&mut text)).await.expect("the server closes");
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn answers_and_tells_the_handler_who_asks() {
    let running = start().await;
    let client = running.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let local = client.local_addr().expect("an address");
    let answer = read_to_end(client).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with(&format!("from socket://{local}")), "{answer}");
}

#[tokio::test]
async fn stops_once_requests_have_finished() {
    let running = start().await;
    let idle = running.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let silent = running.send("").await;
    let busy = running.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
    timeout(SOON, running.arrived.notified()).await.expect("the request arrives");

    running.shutdown.cancel();
    assert!(read_to_end(idle).await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(read_to_end(silent).await, "");
    assert!(TcpStream::connect(running.address).await.is_err(), "still accepts");
    assert!(!running.server.is_finished(), "left a request behind");

    running.go_on.notify_one();
    assert!(read_to_end(busy).await.contains("200 OK"));
    timeout(SOON, running.server).await.expect("the server stops").expect("without a panic");
}

#[tokio::test]
async fn refuses_headers_without_end() {
    let running = start().await;
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(100 * 1024));
    let mut client = TcpStream::connect(running.address).await.expect("connected");
    // The server may well close before all of it is sent.
    let _ = client.write_all(head.as_bytes()).await;
    let answer = read_to_end(client).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

/// Time is virtual here: it moves on when all that the sockets of this machine hold has been dealt with.
#[tokio::test(start_paused = true)]
async fn hangs_up_on_headers_that_do_not_come() {
    for sent in ["", "P", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\r\nHost:"] {
        let running = start().await;
        let mut client = running.send(sent).await;
        let began = tokio::time::Instant::now();
        let closed = timeout(SOON * 2, client.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_ok(), "{sent:?} holds a connection for ever");
        assert!(began.elapsed() >= Duration::from_secs(9), "{sent:?} is hung up on after {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn keeps_a_resting_connection_longer_than_proxies_do() {
    let running = start().await;
    let mut client = running.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut answer = [0; 1024];
    let length = client.read(&mut answer).await.expect("an answer");
    assert!(answer[..length].starts_with(b"HTTP/1.1 200 OK"));
    sleep(Duration::from_secs(65)).await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("still open");
    assert!(client.read(&mut answer).await.is_ok_and(|length| length > 0), "closed too soon");
    let closed = timeout(SOON * 12, client.read_to_end(&mut Vec::new())).await;
    assert!(closed.is_ok(), "rests for ever");
}

#[tokio::test]
async fn a_client_that_shuts_down_its_side_gets_all_its_answers() {
    let running = start().await;
    for request in [
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /slow HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /slow HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let mut client = running.send(request).await;
        client.shutdown().await.expect("shut down");
        if request.contains("/slow") {
            timeout(SOON, running.arrived.notified()).await.expect("the request arrives");
            running.go_on.notify_one();
        }
        let answers = read_to_end(client).await;
        assert_eq!(answers.matches("200 OK").count(), request.matches(" HTTP/1.").count(), "{request}: {answers}");
    }
}

#[tokio::test]
async fn a_client_that_resets_takes_its_request_along_and_one_that_shuts_down_ends_a_wait() {
    let running = start().await;
    let client = running.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
    timeout(SOON, running.arrived.notified()).await.expect("the request arrives");
    client.set_zero_linger().expect("resets when it is closed");
    drop(client);
    timeout(SOON, running.left.notified()).await.expect("the handler is dropped");

    let mut client = running.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n").await;
    timeout(SOON, running.arrived.notified()).await.expect("the request arrives");
    client.shutdown().await.expect("shut down");
    assert!(read_to_end(client).await.contains("200 OK"), "a wait ends with what there is");
}

#[tokio::test]
async fn a_body_that_is_not_wanted_is_taken_all_the_same() {
    let running = start().await;
    let body = vec![b'x'; 4 << 20];
    for encoding in ["Content-Length: 4194304\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n400000\r\n"] {
        let mut client = running.send(&format!("POST / HTTP/1.1\r\nHost: x\r\n{encoding}")).await;
        client.write_all(&body).await.expect("taken");
        if encoding.starts_with('T') {
            client.write_all(b"\r\n0\r\n\r\n").await.expect("taken");
        }
        // On the same connection.
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("taken");
        let answers = read_to_end(client).await;
        assert_eq!(answers.matches("200 OK").count(), 2, "{encoding}: {answers}");
    }
    // Beyond the bound the answer still arrives, and is the last one.
    let mut client = running.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 67108864\r\n\r\n").await;
    for _ in 0..3 {
        client.write_all(&body).await.expect("taken");
    }
    client.shutdown().await.expect("shut down");
    let answer = read_to_end(client).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn an_answer_of_the_library_is_completed_and_arrives() {
    let running = start().await;
    let large = "x".repeat(200 * 1024);
    let many = "X: x\r\n".repeat(101);
    for (request, status) in [
        ("nonsense\r\n\r\n".to_owned(), "400 Bad Request"),
        ("GET / HTTP/1.1\r\nHost : x\r\n\r\n".into(), "400 Bad Request"),
        ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n".into(), "400 Bad Request"),
        ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".into(), "400 Bad Request"),
        ("GET / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".into(), "400 Bad Request"),
        ("GET / HTTP/9.9\r\n\r\n".into(), "400 Bad Request"),
        (format!("GET / HTTP/1.1\r\nHost: x\r\nX: {large}\r\n\r\n"), "431 Request Header Fields Too Large"),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n"), "431 Request Header Fields Too Large"),
        (format!("GET /{large} HTTP/1.1\r\nHost: x\r\n\r\n"), "431 Request Header Fields Too Large"),
    ] {
        let case = &request[..request.len().min(60)];
        // Alone, and after a request of the same connection.
        for before in ["", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"] {
            let answers = read_to_end(running.send(&format!("{before}{request}")).await).await;
            let at = answers.rfind("HTTP/1.1 4").unwrap_or_default();
            let (head, body) = answers[at..].split_once("\r\n\r\n").unwrap_or_else(|| panic!("{case}: {answers:?}"));
            assert_eq!(
                head.lines().next().and_then(|line| line.split_once(' ')).map(|line| line.1),
                Some(status),
                "{case}"
            );
            assert!(head.contains("content-type: application/problem+json"), "{case}: {head}");
            assert!(head.contains("x-correlation-id: ") && body.contains("\"correlation_id\":\""), "{case}: {answers}");
            assert_eq!(answers.matches("200 OK").count(), before.matches("GET").count(), "{case}");
        }
    }
}

#[tokio::test]
async fn beyond_the_limit_of_connections_there_is_room_for_health() {
    let running = start_with(Settings { connections: 2, drain_delay: Duration::ZERO }).await;
    let mut busy = Vec::new();
    for _ in 0..2 {
        busy.push(running.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await);
        timeout(SOON, running.arrived.notified()).await.expect("the request arrives");
    }
    let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let get = async || read_to_end(running.send(request).await).await;
    for _ in 0..SPARE_CONNECTIONS * 2 {
        let refused = get().await;
        assert!(refused.contains("connection: close") && refused.ends_with("refused: Some(Full)"), "{refused}");
    }
    running.go_on.notify_one();
    running.go_on.notify_one();
    drop(busy);
    while get().await.ends_with("refused: Some(Full)") {}
}

#[tokio::test(start_paused = true)]
async fn it_accepts_until_the_delay_is_over_and_each_answer_ends_its_connection() {
    let delay = Duration::from_secs(5);
    let running = start_with(Settings { connections: 100, drain_delay: delay }).await;
    let mut idle = running.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut answer = [0; 1024];
    let length = idle.read(&mut answer).await.expect("an answer");
    assert!(answer[..length].starts_with(b"HTTP/1.1 200 OK"));
    let began = tokio::time::Instant::now();
    running.shutdown.cancel();
    sleep(Duration::from_secs(3)).await;
    let new = running.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("still open");
    for client in [new, idle] {
        let answer = read_to_end(client).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("connection: close"), "{answer}");
    }
    timeout(SOON, running.server).await.expect("the server stops").expect("without a panic");
    assert!(began.elapsed() >= delay, "it stopped after {:?}", began.elapsed());
    assert!(TcpStream::connect(running.address).await.is_err(), "still accepts");
}

#[test]
fn a_small_limit_of_files_leaves_room_for_all_else() {
    for (files, connections) in [(64, 16), (256, 64), (1024, 832), (4096, 3904), (1 << 20, 10_000), (u64::MAX, 10_000)]
    {
        assert_eq!(Settings::within(files, Duration::ZERO).connections, connections, "{files}");
    }
}
