//! Receivers of callbacks: each has an address of its own, as the receivers of different senders have. One thread serves all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use anyhow::Result;
use runtime::mutex::lock;
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use super::load::read_message;

/// How long a receiver that hangs waits before its response.
pub(super) const HANGS: Duration = Duration::from_secs(30);

/// The settled transactions that receivers got, each with the time from its settlement to the first receipt.
type Received = Arc<Mutex<HashMap<String, Duration>>>;

/// Receivers that run. They end when they are dropped.
pub(super) struct Receivers {
    /// `http://127.0.0.1:PORT/hook` of each.
    pub urls: Vec<String>,
    received: Received,
    stop: CancellationToken,
}

impl Receivers {
    /// Starts so many receivers. The first `hanging` of them take each message, and respond after [`HANGS`]; their messages
    /// are not counted.
    ///
    /// # Errors
    /// When an address cannot be bound, or the thread does not start.
    pub(super) fn start(count: usize, hanging: usize) -> Result<Self> {
        let (mut urls, mut listeners) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
            listener.set_nonblocking(true)?;
            urls.push(format!("http://{}/hook", listener.local_addr()?));
            listeners.push(listener);
        }
        let (received, stop) = (Received::default(), CancellationToken::new());
        let (shared, stopped) = (received.clone(), stop.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("receivers".into()).spawn(move || {
            runtime.block_on(async {
                for (number, listener) in listeners.into_iter().enumerate() {
                    let received = (number >= hanging).then(|| shared.clone());
                    // Without a listener the benchmark waits for its messages, and fails.
                    let Ok(listener) = TcpListener::from_std(listener) else { return };
                    tokio::spawn(accept(listener, received));
                }
                stopped.cancelled().await;
            });
        })?;
        Ok(Self { urls, received, stop })
    }

    fn received(&self) -> MutexGuard<'_, HashMap<String, Duration>> {
        lock(&self.received)
    }

    /// How many transactions whose id begins with `series` have arrived.
    pub(super) fn count(&self, series: &str) -> usize {
        self.received().keys().filter(|id| id.starts_with(series)).count()
    }

    /// The delays of these transactions, ascending.
    pub(super) fn delays(&self, series: &str) -> Vec<Duration> {
        let received = self.received();
        let mut delays: Vec<_> =
            received.iter().filter(|(id, _)| id.starts_with(series)).map(|(_, delay)| *delay).collect();
        delays.sort_unstable();
        delays
    }
}

impl Drop for Receivers {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Serves the connections of one receiver. Without `received` it hangs.
async fn accept(listener: TcpListener, received: Option<Received>) {
    while let Ok((stream, _)) = listener.accept().await {
        // A message whose connection breaks is sent again.
        tokio::spawn(serve(stream, received.clone()));
    }
}

async fn serve(mut stream: TcpStream, received: Option<Received>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut input = Vec::new();
    while let Some(head) = read_message(&mut stream, &mut input).await? {
        match &received {
            Some(received) => {
                let (id, delay) = read_callback(&input[head..])?;
                lock(received).entry(id).or_insert(delay);
            }
            None => tokio::time::sleep(HANGS).await,
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
    }
    Ok(())
}

/// The transaction of a callback, and how long ago it was settled. PostgreSQL runs on this machine, so both have one clock.
fn read_callback(body: &[u8]) -> Result<(String, Duration)> {
    #[derive(Deserialize)]
    struct Message {
        timestamp: String,
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        transaction_id: String,
    }
    let message: Message = serde_json::from_slice(body)?;
    let delay = OffsetDateTime::now_utc() - OffsetDateTime::parse(&message.timestamp, &Rfc3339)?;
    Ok((message.data.transaction_id, Duration::try_from(delay).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read() {
        let body = r#"{"type":"transaction.processed","timestamp":"2026-11-29T10:30:30.000001Z","data":{"transaction_id":"t","amount":1}}"#;
        let age = || u64::try_from(OffsetDateTime::now_utc().unix_timestamp() - 1_795_948_230).unwrap_or(0);
        let before = age();
        let (id, delay) = read_callback(body.as_bytes()).expect("a message");
        let after = age();
        assert_eq!(id, "t");
        // The machine may stall between two readings of the clock. The timestamp has a microsecond more.
        assert!((before.saturating_sub(1)..=after).contains(&delay.as_secs()), "{delay:?}, {before} to {after} s");
        assert!(read_callback(b"{}").is_err());
    }
}
