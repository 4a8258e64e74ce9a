//! Accepts connections, as many as it can serve, and lets them finish when it is told to stop.

mod connection;
mod pulse;

use std::{io, sync::Arc, time::Duration};

use poem::{Endpoint, Response};
use tokio::{
    net::TcpListener,
    pin, select,
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Connections at a time; further ones wait in the kernel's queue. Thousands of long-pollers fit, and at some 30 KiB
/// each they fit into memory.
const MOST_CONNECTIONS: usize = 10_000;
/// How long requests have to finish once we stop; the process as a whole has 30 s.
const DRAIN_WITHIN: Duration = Duration::from_secs(25);
/// The pause after accepting failed for a reason of ours, such as no file descriptor left: trying again at once would
/// fail again, at the cost of a processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `endpoint` on `listener` until `shutdown`, then lets requests finish and returns, after 25 s at the latest.
pub async fn serve<E>(listener: TcpListener, endpoint: E, shutdown: CancellationToken)
where
    E: Endpoint<Output = Response> + 'static,
{
    let protocol = Arc::new(connection::Protocol::new(endpoint));
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    let stopping = shutdown.cancelled();
    pin!(stopping);
    loop {
        let accepted = select! {
            biased;
            () = &mut stopping => break,
            accepted = accept(&listener, &places) => accepted,
        };
        // Reaps what has finished since; the set keeps the rest alive no longer than this function.
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer, place)) => {
                let (protocol, shutdown) = (Arc::clone(&protocol), shutdown.clone());
                connections.spawn(async move {
                    protocol.serve(stream, peer, shutdown).await;
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
    let finished = async { while connections.join_next().await.is_some() {} };
    if timeout(DRAIN_WITHIN, finished).await.is_err() {
        tracing::warn!(connections = connections.len(), "DRAIN_CUT_SHORT");
    }
}

type Accepted = (tokio::net::TcpStream, std::net::SocketAddr, tokio::sync::OwnedSemaphorePermit);

/// A place first: a connection that could not be served is left to the kernel, or to another process.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<Accepted> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

/// The client gave up between its knock and our answer: nothing is wrong with the next one.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests;
