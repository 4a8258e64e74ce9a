//! Tests of the server over TCP: responses, limits and shutdown.

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

/// The longest wait of a test.
const SOON: Duration = Duration::from_secs(10);

/// A response larger than the kernel's socket buffers.
const LARGE: usize = 64 << 20;
/// A response much larger than one send, but small enough for the test's slow client to read in ten minutes.
const MEDIUM: usize = 1 << 20;

struct TestServer {
    address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    /// Releases a request to `/slow`.
    release_slow: Arc<Notify>,
    /// Notified when a request to `/slow` or `/wait` has arrived.
    arrived: Arc<Notify>,
    /// Notified when a handler of `/slow` was dropped.
    dropped: Arc<Notify>,
}

/// Notifies when a handler is dropped.
struct NotifyOnDrop(Arc<Notify>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

async fn start() -> TestServer {
    start_with(ServerConfig::for_open_files(20_000, Duration::ZERO)).await
}

async fn start_with(config: ServerConfig) -> TestServer {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let shutdown = CancellationToken::new();
    let [release_slow, arrived, dropped] = std::array::from_fn(|_| Arc::new(Notify::new()));
    let endpoint = {
        let (release_slow, arrived, dropped) = (Arc::clone(&release_slow), Arc::clone(&arrived), Arc::clone(&dropped));
        make(move |request: Request| {
            let (release_slow, arrived, dropped) =
                (Arc::clone(&release_slow), Arc::clone(&arrived), Arc::clone(&dropped));
            async move {
                let rejection = request.data::<RequestRejection>();
                match request.uri().path() {
                    _ if rejection.is_some() => return format!("rejected: {rejection:?}"),
                    "/large" => return "x".repeat(LARGE),
                    "/medium" => return "x".repeat(MEDIUM),
                    "/slow" => {
                        let _notify_on_drop = NotifyOnDrop(dropped);
                        arrived.notify_one();
                        release_slow.notified().await;
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
    let task = tokio::spawn(serve(listener, endpoint.map_to_response(), config, shutdown.clone()));
    TestServer { address, shutdown, task, release_slow, arrived, dropped }
}

impl TestServer {
    async fn send(&self, bytes: &str) -> TcpStream {
        let mut client = TcpStream::connect(self.address).await.expect("connected");
        client.write_all(bytes.as_bytes()).await.expect("sent");
        client
    }
}

async fn read_to_end(mut client: TcpStream) -> String {
    let mut text = Vec::new();
    // A reset also ends the stream.
    let _ = timeout(SOON, client.read_to_end(&mut text)).await.expect("the server closes");
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn responds_and_passes_the_client_address_to_the_handler() {
    let server = start().await;
    let client = server.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let local = client.local_addr().expect("an address");
    let response = read_to_end(client).await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.ends_with(&format!("from socket://{local}")), "{response}");
}

#[tokio::test]
async fn stops_once_requests_have_finished() {
    let server = start().await;
    let idle = server.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let silent = server.send("").await;
    let busy = server.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
    timeout(SOON, server.arrived.notified()).await.expect("the request arrives");

    server.shutdown.cancel();
    assert!(read_to_end(idle).await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(read_to_end(silent).await, "");
    assert!(TcpStream::connect(server.address).await.is_err(), "still accepts");
    assert!(!server.task.is_finished(), "stopped before a request had finished");

    server.release_slow.notify_one();
    assert!(read_to_end(busy).await.contains("200 OK"));
    timeout(SOON, server.task).await.expect("the server stops").expect("without a panic");
}

#[tokio::test]
async fn refuses_headers_without_end() {
    let server = start().await;
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(100 * 1024));
    let mut client = TcpStream::connect(server.address).await.expect("connected");
    // The server may close before everything is sent.
    let _ = client.write_all(head.as_bytes()).await;
    let response = read_to_end(client).await;
    assert!(response.starts_with("HTTP/1.1 431"), "{response}");
}

/// Time is virtual here: it advances when all local sockets are idle.
#[tokio::test(start_paused = true)]
async fn closes_a_connection_whose_headers_do_not_arrive() {
    for sent in ["", "P", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\r\nHost:"] {
        let server = start().await;
        let mut client = server.send(sent).await;
        let began = tokio::time::Instant::now();
        let closed = timeout(SOON * 2, client.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_ok(), "{sent:?} keeps its connection open");
        assert!(began.elapsed() >= Duration::from_secs(9), "{sent:?}: closed after {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn keeps_an_idle_connection_longer_than_proxies_do() {
    let server = start().await;
    let mut client = server.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut response = [0; 1024];
    let length = client.read(&mut response).await.expect("a response");
    assert!(response[..length].starts_with(b"HTTP/1.1 200 OK"));
    sleep(Duration::from_secs(65)).await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("still open");
    assert!(client.read(&mut response).await.is_ok_and(|length| length > 0), "closed too soon");
    let closed = timeout(SOON * 12, client.read_to_end(&mut Vec::new())).await;
    assert!(closed.is_ok(), "never closed");
}

#[tokio::test]
async fn a_half_closed_client_gets_all_responses() {
    let server = start().await;
    for request in [
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /slow HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /slow HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let mut client = server.send(request).await;
        client.shutdown().await.expect("shut down");
        if request.contains("/slow") {
            timeout(SOON, server.arrived.notified()).await.expect("the request arrives");
            server.release_slow.notify_one();
        }
        let responses = read_to_end(client).await;
        assert_eq!(responses.matches("200 OK").count(), request.matches(" HTTP/1.").count(), "{request}: {responses}");
    }
}

#[tokio::test]
async fn a_reset_drops_the_handler_and_a_half_close_ends_a_wait() {
    let server = start().await;
    let client = server.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
    timeout(SOON, server.arrived.notified()).await.expect("the request arrives");
    client.set_zero_linger().expect("closing resets");
    drop(client);
    timeout(SOON, server.dropped.notified()).await.expect("the handler is dropped");

    let mut client = server.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n").await;
    timeout(SOON, server.arrived.notified()).await.expect("the request arrives");
    client.shutdown().await.expect("shut down");
    assert!(read_to_end(client).await.contains("200 OK"), "a wait ends with the present state");
}

#[tokio::test]
async fn an_unread_body_is_discarded_up_to_a_bound() {
    let server = start().await;
    let body = vec![b'x'; 4 << 20];
    for encoding in ["Content-Length: 4194304\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n400000\r\n"] {
        let mut client = server.send(&format!("POST / HTTP/1.1\r\nHost: x\r\n{encoding}")).await;
        client.write_all(&body).await.expect("accepted");
        if encoding.starts_with('T') {
            client.write_all(b"\r\n0\r\n\r\n").await.expect("accepted");
        }
        // Sends a second request on the same connection.
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("accepted");
        let responses = read_to_end(client).await;
        assert_eq!(responses.matches("200 OK").count(), 2, "{encoding}: {responses}");
    }
    // Beyond the bound the response still arrives, but closes the connection.
    let mut client = server.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 67108864\r\n\r\n").await;
    for _ in 0..3 {
        client.write_all(&body).await.expect("accepted");
    }
    client.shutdown().await.expect("shut down");
    let response = read_to_end(client).await;
    assert!(response.starts_with("HTTP/1.1 200 OK") && response.contains("connection: close"), "{response}");
}

#[tokio::test]
async fn hyper_errors_arrive_as_problems() {
    let server = start().await;
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
        // As the only request, and after another request on the same connection.
        for before in ["", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"] {
            let responses = read_to_end(server.send(&format!("{before}{request}")).await).await;
            let at = responses.rfind("HTTP/1.1 4").unwrap_or_default();
            let (head, body) =
                responses[at..].split_once("\r\n\r\n").unwrap_or_else(|| panic!("{case}: {responses:?}"));
            assert_eq!(
                head.lines().next().and_then(|line| line.split_once(' ')).map(|line| line.1),
                Some(status),
                "{case}"
            );
            assert!(head.contains("content-type: application/problem+json"), "{case}: {head}");
            assert!(
                head.contains("x-correlation-id: ") && body.contains("\"correlation_id\":\""),
                "{case}: {responses}"
            );
            assert_eq!(responses.matches("200 OK").count(), before.matches("GET").count(), "{case}");
        }
    }
}

#[tokio::test]
async fn an_overloaded_server_still_accepts_connections_for_health_checks() {
    let server = start_with(ServerConfig { max_connections: 2, drain_delay: Duration::ZERO }).await;
    let mut busy = Vec::new();
    for _ in 0..2 {
        busy.push(server.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await);
        timeout(SOON, server.arrived.notified()).await.expect("the request arrives");
    }
    let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let get = async || read_to_end(server.send(request).await).await;
    for _ in 0..RESERVED_CONNECTIONS * 2 {
        let response = get().await;
        let rejected = response.ends_with("rejected: Some(Overloaded)");
        assert!(response.contains("connection: close") && rejected, "{response}");
    }
    server.release_slow.notify_one();
    server.release_slow.notify_one();
    drop(busy);
    while get().await.ends_with("rejected: Some(Overloaded)") {}
}

#[tokio::test(start_paused = true)]
async fn accepts_until_the_drain_delay_ends_and_each_response_closes_its_connection() {
    let delay = Duration::from_secs(5);
    let server = start_with(ServerConfig { max_connections: 100, drain_delay: delay }).await;
    let mut idle = server.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut response = [0; 1024];
    let length = idle.read(&mut response).await.expect("a response");
    assert!(response[..length].starts_with(b"HTTP/1.1 200 OK"));
    let start_of_drain = tokio::time::Instant::now();
    server.shutdown.cancel();
    sleep(Duration::from_secs(3)).await;
    let new = server.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("still open");
    for client in [new, idle] {
        let response = read_to_end(client).await;
        assert!(response.starts_with("HTTP/1.1 200 OK") && response.contains("connection: close"), "{response}");
    }
    timeout(SOON, server.task).await.expect("the server stops").expect("without a panic");
    assert!(start_of_drain.elapsed() >= delay, "stopped after {:?}", start_of_drain.elapsed());
    assert!(TcpStream::connect(server.address).await.is_err(), "still accepts");
}

#[test]
fn the_connection_limit_leaves_files_for_other_purposes() {
    for (files, connections) in [(64, 16), (256, 64), (1024, 832), (4096, 3904), (1 << 20, 10_000), (u64::MAX, 10_000)]
    {
        assert_eq!(ServerConfig::for_open_files(files, Duration::ZERO).max_connections, connections, "{files}");
    }
}
