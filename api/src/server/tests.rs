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

/// What a test of this machine waits for at most.
const SOON: Duration = Duration::from_secs(10);

struct Running {
    address: SocketAddr,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
    /// Lets the requests to `/slow` go on.
    go_on: Arc<Notify>,
    /// Tells that a request to `/slow` has arrived.
    arrived: Arc<Notify>,
}

async fn start() -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let shutdown = CancellationToken::new();
    let (go_on, arrived) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let endpoint = {
        let (go_on, arrived) = (Arc::clone(&go_on), Arc::clone(&arrived));
        make(move |request: Request| {
            let (go_on, arrived) = (Arc::clone(&go_on), Arc::clone(&arrived));
            async move {
                if request.uri().path() == "/slow" {
                    arrived.notify_one();
                    go_on.notified().await;
                }
                format!("from {}", request.remote_addr())
            }
        })
    };
    let server = tokio::spawn(serve(listener, endpoint.map_to_response(), shutdown.clone()));
    Running { address, shutdown, server, go_on, arrived }
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
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
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
