//! A TCP proxy for a server's Unix socket. It can change its target, and drop the traffic of open connections.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixStream},
    task::JoinHandle,
};

/// A running proxy; dropping it stops the proxy.
pub(crate) struct Proxy {
    pub address: SocketAddr,
    state: Arc<State>,
    server: JoinHandle<()>,
}

struct State {
    target: Mutex<PathBuf>,
    /// The proxy reads and discards the traffic of connections of earlier generations.
    generation: AtomicUsize,
}

impl Proxy {
    /// Starts a proxy for a Unix socket.
    pub(crate) async fn start(target: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State { target: Mutex::new(target), generation: AtomicUsize::new(0) });
        let server = tokio::spawn({
            let state = state.clone();
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let (target, generation) =
                        (state.target.lock().unwrap().clone(), state.generation.load(Ordering::SeqCst));
                    let Ok(server) = UnixStream::connect(target).await else { continue };
                    let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), server.into_split());
                    tokio::spawn(forward(client_in, server_out, state.clone(), generation));
                    tokio::spawn(forward(server_in, client_out, state.clone(), generation));
                }
            }
        });
        Self { address, state, server }
    }

    /// Forwards new connections to another socket. Open connections keep their target.
    pub(crate) fn set_target(&self, target: PathBuf) {
        *self.state.target.lock().unwrap() = target;
    }

    /// Drops all further traffic of the open connections without closing them, like a pulled cable.
    pub(crate) fn drop_traffic(&self) {
        self.state.generation.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    state: Arc<State>,
    generation: usize,
) {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut bytes).await.unwrap_or(0);
        if state.generation.load(Ordering::SeqCst) != generation {
            if read == 0 {
                // The end of the stream is not forwarded either.
                return std::future::pending().await;
            }
            continue;
        }
        if read == 0 || to.write_all(&bytes[..read]).await.is_err() {
            return drop(to.shutdown().await);
        }
    }
}
