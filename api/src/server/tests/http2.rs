//! Tests of HTTP/2 with hand-written frames: when connections close.

use super::*;

/// The bytes of an HTTP/2 client: preface, settings, and a request for `path` on stream 1.
fn http2_request(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x41, 1, b'x', 0x44, u8::try_from(path.len()).expect("short")];
    block.extend(path.bytes());
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes.extend(frame(1, 0x5, 1, &block));
    bytes
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Acknowledges pings until the server closes the connection. Returns how long it was open, and the types of the received
/// frames.
async fn http2_lifetime(mut client: TcpStream) -> (Duration, Vec<u8>) {
    let began = tokio::time::Instant::now();
    let mut kinds = Vec::new();
    loop {
        let mut head = [0; 9];
        if client.read_exact(&mut head).await.is_err() {
            return (began.elapsed(), kinds);
        }
        let [a, b, c, kind, flags, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        client.read_exact(&mut payload).await.expect("a whole frame");
        kinds.push(kind);
        if kind == 6 && flags == 0 {
            // The server may have closed by now.
            let _ = client.write_all(&frame(6, 1, 0, &payload)).await;
        }
    }
}

/// A request on stream 1 with this number of headers of 100 bytes, in a HEADERS frame and its continuations.
fn http2_request_with_headers(count: usize) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x41, 1, b'x', 0x44, 1, b'/'];
    for _ in 0..count {
        // A literal that is not indexed: the lengths of name and value, each followed by its text.
        block.extend([0, 1, b'a', 100]);
        block.extend([b'v'; 100]);
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    let chunks: Vec<&[u8]> = block.chunks(16 * 1024).collect();
    for (number, chunk) in chunks.iter().enumerate() {
        let end_headers = if number + 1 == chunks.len() { 0x4 } else { 0 };
        let (kind, end_stream) = if number == 0 { (1, 0x1) } else { (9, 0) };
        bytes.extend(frame(kind, end_headers | end_stream, 1, chunk));
    }
    bytes
}

#[tokio::test]
async fn an_http2_request_with_large_headers_gets_our_own_refusal() {
    let server = start().await;
    // 90 KB, and 900 KB as h2 counts them.
    for headers in [700, 6_800] {
        let mut client = TcpStream::connect(server.address).await.expect("connected");
        client.write_all(&http2_request_with_headers(headers)).await.expect("sent");
        let body = timeout(SOON, async {
            loop {
                let mut head = [0; 9];
                client.read_exact(&mut head).await.expect("a frame");
                let [a, b, c, kind, flags, ..] = head;
                let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
                client.read_exact(&mut payload).await.expect("a whole frame");
                // h2's own refusal is a HEADERS frame that ends the stream.
                assert!(kind != 1 || flags & 0x1 == 0, "{headers} headers: a response without a body");
                if kind == 0 {
                    return payload;
                }
            }
        });
        let body = body.await.expect("a response");
        assert!(String::from_utf8_lossy(&body).contains("HeadTooLarge"), "{headers} headers: {body:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn idle_http2_and_http1_connections_close_at_the_same_time() {
    let server = start().await;
    let mut client = TcpStream::connect(server.address).await.expect("connected");
    client.write_all(&http2_request("/")).await.expect("sent");
    let (open, kinds) = timeout(SOON * 20, http2_lifetime(client)).await.expect("closed");
    assert!((Duration::from_secs(70)..Duration::from_secs(80)).contains(&open), "open for {open:?}");
    let [data, ping, goaway] = [0, 6, 7].map(|kind| kinds.iter().filter(|frame| **frame == kind).count());
    assert!(data > 0 && ping >= 3 && goaway > 0, "{kinds:?}");
}

#[tokio::test(start_paused = true)]
async fn an_unread_response_times_out_in_both_protocols() {
    let server = start().await;
    let mut client = TcpStream::connect(server.address).await.expect("connected");
    client.write_all(&http2_request("/large")).await.expect("sent");
    // Without WINDOW_UPDATE the server sends only the first 64 KiB of the response.
    let (open, _) = timeout(SOON * 20, http2_lifetime(client)).await.expect("closed");
    assert!((Duration::from_secs(70)..Duration::from_secs(80)).contains(&open), "open for {open:?}");

    let mut client = server.send("GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await;
    sleep(Duration::from_secs(80)).await;
    let mut received = Vec::new();
    let _ = timeout(SOON, client.read_to_end(&mut received)).await.expect("the server has closed");
    assert!(!received.is_empty() && received.len() < LARGE, "{} bytes", received.len());
}

#[tokio::test(start_paused = true)]
async fn a_slowly_read_response_is_sent_completely() {
    let server = start().await;
    let (mut reader, mut writer) = TcpStream::connect(server.address).await.expect("connected").into_split();
    writer.write_all(&http2_request("/medium")).await.expect("sent");
    let (acknowledge, mut acknowledged) = tokio::sync::mpsc::unbounded_channel::<Vec<u8>>();
    let client = tokio::spawn(async move {
        let mut interval = tokio::time::interval(Duration::from_secs(5));
        // 16 KiB, for the connection and for the stream.
        let window_update = [frame(8, 0, 0, &[0, 0, 64, 0]), frame(8, 0, 1, &[0, 0, 64, 0])].concat();
        loop {
            let bytes = select! {
                Some(pong) = acknowledged.recv() => pong,
                _ = interval.tick() => window_update.clone(),
            };
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let (began, mut data) = (tokio::time::Instant::now(), 0);
    while data < MEDIUM {
        let mut head = [0; 9];
        let read = reader.read_exact(&mut head).await;
        assert!(read.is_ok(), "closed after {:?} and {data} bytes", began.elapsed());
        let [a, b, c, kind, flags, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        reader.read_exact(&mut payload).await.expect("a whole frame");
        match kind {
            0 => data += payload.len(),
            6 if flags == 0 => acknowledge.send(frame(6, 1, 0, &payload)).expect("the client task runs"),
            _ => {}
        }
    }
    assert!(began.elapsed() > Duration::from_secs(200), "too fast: {:?}", began.elapsed());
    client.abort();
}
