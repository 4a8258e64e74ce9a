//! Accepts connections, as many as it can serve, and lets them finish when it is told to stop.

mod bare;
mod bodies;
mod connection;
mod head;
mod pulse;
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

use self::connection::Lane;
pub use self::head::Refused;

/// Connections at a time. Thousands of long-pollers fit, and at some 30 KiB each they fit into memory.
const MOST_CONNECTIONS: usize = 10_000;
/// Connections beyond those, which answer health checks and refuse everything else; further ones wait in the kernel's
/// queue.
const SPARE_CONNECTIONS: usize = 64;
/// Open files that are none of the connections above: sessions with the database and with Redis, calls, logs.
const OTHER_FILES: usize = 128;
/// How long requests have to finish once we stop; the process as a whole has 30 s.
const DRAIN_WITHIN: Duration = Duration::from_secs(25);
/// The pause after accepting failed for a reason of ours, such as no file descriptor left: trying again at once would
/// fail again, at the cost of a processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How a server takes connections and stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Connections that are served at a time.
    pub connections: usize,
    /// How long connections are still accepted once the drain has begun.
    pub drain_delay: Duration,
}

impl Settings {
    /// As many connections as fit into this limit of open files, and at most 10,000.
    pub fn within(open_files: u64, drain_delay: Duration) -> Self {
        let open_files = usize::try_from(open_files).unwrap_or(usize::MAX);
        let beyond = open_files.saturating_sub(SPARE_CONNECTIONS + OTHER_FILES);
        Self { connections: beyond.max(open_files / 4).clamp(1, MOST_CONNECTIONS), drain_delay }
    }
}

/// The client of a request has shut down its side: it sends nothing more, but may wait for the answer. It may as well be
/// gone, which only an answer can find out: what waits for anything else than its own work ends with this. A connection
/// leaves it with each request.
#[derive(Debug, Clone)]
pub struct HalfClosed(pub CancellationToken);

/// The two steps of a stop, as connections see them.
#[derive(Clone)]
struct Stop {
    /// Answers end their connections.
    draining: CancellationToken,
    /// Idle connections end at once.
    now: CancellationToken,
}

/// Serves `endpoint` on `listener` until `shutdown` and the delay after it, then lets requests finish and returns, after
/// another 25 s at the latest.
pub async fn serve<E>(listener: TcpListener, endpoint: E, settings: Settings, shutdown: CancellationToken)
where
    E: Endpoint<Output = Response> + 'static,
{
    let protocol = Arc::new(connection::Protocol::new(endpoint));
    let places = Places::new(settings.connections);
    let stop = Stop { draining: shutdown.clone(), now: CancellationToken::new() };
    let mut connections = JoinSet::new();
    let stopping = async {
        shutdown.cancelled().await;
        sleep(settings.drain_delay).await;
    };
    pin!(stopping);
    loop {
        let accepted = select! {
            biased;
            () = &mut stopping => break,
            accepted = places.accept(&listener) => accepted,
        };
        // Reaps what has finished since; the set keeps the rest alive no longer than this function.
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok(Accepted { stream, peer, place, lane }) => {
                let (protocol, stop) = (Arc::clone(&protocol), stop.clone());
                connections.spawn(async move {
                    protocol.serve(stream, peer, lane, stop).await;
                    drop(place);
                });
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "ACCEPT_FAILED");
                select! {
                    biased;
                    () = &mut stopping => break,
                    () = sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
    drop(listener);
    stop.now.cancel();
    let finished = async { while connections.join_next().await.is_some() {} };
    if timeout(DRAIN_WITHIN, finished).await.is_err() {
        tracing::warn!(connections = connections.len(), "DRAIN_CUT_SHORT");
    }
}

/// How many connections there may be.
struct Places {
    usual: Arc<Semaphore>,
    spare: Arc<Semaphore>,
}

struct Accepted {
    stream: TcpStream,
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
    lane: Lane,
}

impl Places {
    fn new(connections: usize) -> Self {
        Self { usual: Arc::new(Semaphore::new(connections)), spare: Arc::new(Semaphore::new(SPARE_CONNECTIONS)) }
    }

    /// A spare place first: a connection that could not even be refused is left to the kernel, or to another process.
    async fn accept(&self, listener: &TcpListener) -> io::Result<Accepted> {
        let spare = Arc::clone(&self.spare).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, peer) = listener.accept().await?;
        let (place, lane) = match Arc::clone(&self.usual).try_acquire_owned() {
            Ok(usual) => (usual, Lane::Usual),
            Err(_full) => (spare, Lane::Spare),
        };
        Ok(Accepted { stream, peer, place, lane })
    }
}

/// The client gave up between its knock and our answer: nothing is wrong with the next one.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests;
