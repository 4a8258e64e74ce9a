//! The HTTP server: accepts connections up to a limit, and drains them at shutdown.

mod bodies;
mod connection;
mod head;
mod hyper_errors;
mod idle_timeout;
mod stream;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use poem::{Endpoint, Response};
use tokio::{
    net::{TcpListener, TcpStream},
    pin, select,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

pub use self::connection::HalfClosed;
use self::connection::{ConnectionKind, ShutdownSignals};
pub(crate) use self::head::RequestRejection;

/// The largest number of open connections. It is enough for thousands of long-pollers, which need some 30 KiB each.
const MAX_CONNECTIONS: usize = 10_000;
/// Additional connections that serve only health checks and refuse all other requests. Further connections wait in the
/// kernel's accept queue.
const RESERVED_CONNECTIONS: usize = 64;
/// Open files for other purposes: connections to PostgreSQL, Redis and other services, and log files.
const OTHER_FILES: usize = 128;
/// The time limit for open requests at shutdown; the whole process has 30 s.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);
/// The pause after a local accept error, such as no free file descriptor. An immediate retry would fail again and keep a
/// CPU busy.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connection limit and drain delay of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerConfig {
    /// The largest number of open connections.
    pub max_connections: usize,
    /// The time in which connections are still accepted after the drain has started.
    pub drain_delay: Duration,
}

impl ServerConfig {
    /// As many connections as the limit of open files allows, and at most 10,000.
    pub fn for_open_files(open_files: u64, drain_delay: Duration) -> Self {
        let open_files = usize::try_from(open_files).unwrap_or(usize::MAX);
        let available = open_files.saturating_sub(RESERVED_CONNECTIONS + OTHER_FILES);
        Self { max_connections: available.max(open_files / 4).clamp(1, MAX_CONNECTIONS), drain_delay }
    }
}

/// Serves `endpoint` on `listener` until `shutdown` is cancelled and the drain delay is over.
///
/// Then open requests have 25 s to finish before it returns.
pub async fn serve<E>(listener: TcpListener, endpoint: E, config: ServerConfig, shutdown: CancellationToken)
where
    E: Endpoint<Output = Response> + 'static,
{
    let server = Arc::new(connection::ConnectionServer::new(endpoint));
    let slots = ConnectionSlots::new(config.max_connections);
    let signals = ShutdownSignals { draining: shutdown.clone(), close_idle: CancellationToken::new() };
    let mut connections = JoinSet::new();
    let stopping = async {
        shutdown.cancelled().await;
        sleep(config.drain_delay).await;
    };
    pin!(stopping);
    loop {
        let accepted = select! {
            biased;
            () = &mut stopping => break,
            accepted = slots.accept(&listener) => accepted,
        };
        // Removes finished connections. The set aborts the others when this function returns.
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok(Accepted { stream, peer, slot, kind }) => {
                let (server, signals) = (Arc::clone(&server), signals.clone());
                connections.spawn(async move {
                    server.serve(stream, peer, kind, signals).await;
                    drop(slot);
                });
            }
            Err(error) if is_client_error(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                select! {
                    biased;
                    () = &mut stopping => break,
                    () = sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
    drop(listener);
    signals.close_idle.cancel();
    let finished = async { while connections.join_next().await.is_some() {} };
    if timeout(DRAIN_TIMEOUT, finished).await.is_err() {
        tracing::warn!(connections = connections.len(), "drain timed out, open connections are aborted");
    }
}

/// The free slots for connections.
struct ConnectionSlots {
    normal: Arc<Semaphore>,
    reserved: Arc<Semaphore>,
}

struct Accepted {
    stream: TcpStream,
    peer: SocketAddr,
    slot: OwnedSemaphorePermit,
    kind: ConnectionKind,
}

impl ConnectionSlots {
    fn new(max_connections: usize) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self { normal: semaphore(max_connections), reserved: semaphore(RESERVED_CONNECTIONS) }
    }

    /// Acquires a reserved slot before it accepts. Without one the server could not even refuse the connection, so it stays
    /// in the kernel's queue, for this or another process.
    async fn accept(&self, listener: &TcpListener) -> io::Result<Accepted> {
        let reserved = Arc::clone(&self.reserved).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, peer) = listener.accept().await?;
        let (slot, kind) = match Arc::clone(&self.normal).try_acquire_owned() {
            Ok(normal) => (normal, ConnectionKind::Normal),
            Err(_full) => (reserved, ConnectionKind::HealthOnly),
        };
        Ok(Accepted { stream, peer, slot, kind })
    }
}

/// Whether the client closed its connection before it was accepted. Other connections are not affected.
fn is_client_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests;
