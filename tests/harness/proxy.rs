//! A TCP proxy in front of a server's socket: it can point elsewhere, and let connections die without a word.

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

/// A running proxy; it ends with the value.
pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<State>,
    server: JoinHandle<()>,
}

struct State {
    target: Mutex<PathBuf>,
    /// Connections of earlier generations are silent: what they carry is read and thrown away.
    generation: AtomicUsize,
}

impl Proxy {
    /// Starts one in front of a Unix socket.
    pub async fn start(target: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State { target: Mutex::new(target), generation: AtomicUsize::new(0) });
        let server = tokio::spawn({
            let state = state.clone();
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let (target, born) =
                        (state.target.lock().unwrap().clone(), state.generation.load(Ordering::SeqCst));
                    let Ok(server) = UnixStream::connect(target).await else { continue };
                    let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), server.into_split());
                    tokio::spawn(pass(client_in, server_out, state.clone(), born));
                    tokio::spawn(pass(server_in, client_out, state.clone(), born));
                }
            }
        });
        Self { address, state, server }
    }

    /// Sends new connections to another socket; those that are open stay where they are.
    pub fn set_target(&self, target: PathBuf) {
        *self.state.target.lock().unwrap() = target;
    }

    /// Swallows everything on the connections that are open, without closing them: a cable that was pulled out.
    pub fn drop_traffic(&self) {
        self.state.generation.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, state: Arc<State>, born: usize) {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut bytes).await.unwrap_or(0);
        if state.generation.load(Ordering::SeqCst) != born {
            if read == 0 {
                // Not even its end is passed on.
                return std::future::pending().await;
            }
            continue;
        }
        if read == 0 || to.write_all(&bytes[..read]).await.is_err() {
            return drop(to.shutdown().await);
        }
    }
}
