//! A lightweight HTTP load generator: on two cores, CPU time of the generator is lost to the server.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use jobs::bench::baseline::Throughput;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

/// A response that takes longer counts as lost.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// Writes the n-th request into a buffer.
pub(super) type Request = Arc<dyn Fn(u64, &mut Vec<u8>) + Send + Sync>;

/// How fast requests are sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Speed {
    /// Closed loop: each connection sends its next request after the response.
    Full,
    /// Open loop: this many requests per second over all connections, at fixed times. Time spent waiting for a busy
    /// connection counts as latency, so that a slow server cannot hide delays (coordinated omission).
    PerSecond(f64),
}

/// A load for one server.
#[derive(Clone)]
pub(super) struct Load {
    pub address: SocketAddr,
    pub connections: usize,
    pub speed: Speed,
    pub time: Duration,
    pub request: Request,
    /// The status that every response must have.
    pub expected: u16,
}

impl Load {
    /// The same load on a route that returns a constant.
    pub(super) fn of_constant_route(&self) -> Self {
        Self { request: get(|_| "/api/v1/health".into()), expected: 200, ..self.clone() }
    }

    /// Sends requests on a separate thread until the time is over and the last response has arrived.
    ///
    /// # Errors
    /// When a connection breaks, or a response has another status; no figure is valid then.
    pub(super) async fn run(self) -> Result<Throughput> {
        let thread = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(self.send())
        });
        thread.await?
    }

    async fn send(self) -> Result<Throughput> {
        let mut streams = Vec::new();
        for _ in 0..self.connections {
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
        let (next, begun) = (Arc::new(AtomicU64::new(0)), Instant::now());
        let mut clients = JoinSet::new();
        for stream in streams {
            clients.spawn(Client { stream, input: Vec::new(), load: self.clone(), begun }.send(next.clone()));
        }
        let mut all = Throughput::default();
        let mut wrong = BTreeMap::<u16, u64>::new();
        while let Some(client) = clients.join_next().await {
            let (mut latencies, others) = client??;
            all.latencies.append(&mut latencies);
            others.into_iter().for_each(|(status, count)| *wrong.entry(status).or_default() += count);
        }
        ensure!(wrong.is_empty(), "expected status {}, and received {wrong:?}", self.expected);
        all.elapsed = begun.elapsed();
        all.rows = all.latencies.len() as u64;
        all.latencies.sort_unstable();
        Ok(all)
    }
}

struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    load: Load,
    begun: Instant,
}

impl Client {
    async fn send(mut self, next: Arc<AtomicU64>) -> Result<(Vec<Duration>, BTreeMap<u16, u64>)> {
        let (mut latencies, mut wrong) = (Vec::new(), BTreeMap::new());
        let mut output = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let from = match self.load.speed {
                Speed::Full => Instant::now(),
                Speed::PerSecond(rate) => {
                    let due = self.begun + Duration::from_secs_f64(number as f64 / rate);
                    tokio::time::sleep_until(due.into()).await;
                    due
                }
            };
            if from.duration_since(self.begun) >= self.load.time {
                return Ok((latencies, wrong));
            }
            output.clear();
            (self.load.request)(number, &mut output);
            let exchange = async {
                self.stream.write_all(&output).await?;
                self.read_response().await
            };
            let status = tokio::time::timeout(RESPONSE_TIMEOUT, exchange).await.context("a response timed out")??;
            latencies.push(from.elapsed());
            if status != self.load.expected {
                *wrong.entry(status).or_default() += 1;
            }
        }
    }

    /// Reads one response and returns its status.
    async fn read_response(&mut self) -> Result<u16> {
        let head = read_message(&mut self.stream, &mut self.input).await?.context("the server closed a connection")?;
        let text = std::str::from_utf8(&self.input[..head])?;
        text.get(9..12).and_then(|status| status.parse().ok()).context("a response without a status")
    }
}

/// Reads a request or a response to the end given by `Content-Length`, which Millrace sends with all that the benchmark
/// reads. Returns the length of the head, or `None` if the connection has ended.
pub(super) async fn read_message(stream: &mut TcpStream, input: &mut Vec<u8>) -> Result<Option<usize>> {
    input.clear();
    loop {
        if stream.read_buf(input).await? == 0 {
            return Ok(None);
        }
        let Some(head) = input.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
        let length = std::str::from_utf8(&input[..head])?.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        if input.len() >= head + 4 + length.context("a message without Content-Length")? {
            return Ok(Some(head + 4));
        }
    }
}

/// A GET of a path.
pub(super) fn get(path: impl Fn(u64) -> String + Send + Sync + 'static) -> Request {
    Arc::new(move |number, output| {
        let path = path(number);
        output.extend_from_slice(format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").as_bytes());
    })
}

/// A GET of one path, with this key in `X-API-Key`.
pub(super) fn get_with_key(path: String, key: &'static str) -> Request {
    let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\nX-API-Key: {key}\r\n\r\n");
    Arc::new(move |_, output| output.extend_from_slice(request.as_bytes()))
}

/// Webhooks, each with a unique id.
pub(super) fn webhooks(series: String) -> Request {
    Arc::new(move |number, output| {
        let body = webhook(&series, number);
        post("/v1/webhooks/transactions", body.as_bytes(), output);
    })
}

/// Batches of this number of webhooks, each with a unique id.
pub(super) fn batches(series: String, rows: u64) -> Request {
    Arc::new(move |number, output| {
        let rows: Vec<String> = (number * rows..(number + 1) * rows).map(|row| webhook(&series, row)).collect();
        post("/v1/webhooks/transactions/batch", format!("[{}]", rows.join(",")).as_bytes(), output);
    })
}

/// The body of a webhook.
pub(super) fn webhook(series: &str, number: u64) -> String {
    format!(
        r#"{{"transaction_id":"{series}-{number:010}","source_account":"acc_user_1","destination_account":"acc_merchant_1","amount":1500,"currency":"INR"}}"#
    )
}

fn post(path: &str, body: &[u8], output: &mut Vec<u8>) {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    output.extend_from_slice(head.as_bytes());
    output.extend_from_slice(body);
}
