//! A TCP proxy between a process and PostgreSQL. It can cut, delay and silence connections, and lose the reply to a commit.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    task::JoinHandle,
};

use crate::replies::Replies;

/// Where the server listens.
#[derive(Debug, Clone)]
pub enum Target {
    Socket(PathBuf),
    Tcp(String),
}

/// A running proxy. It stops when this is dropped.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    target: RwLock<Target>,
    /// Changes when the open connections are cut.
    cut: watch::Sender<u64>,
    /// Connections up to this number lose all further traffic without being closed.
    silenced: AtomicU64,
    opened: AtomicU64,
    /// New connections get no reply.
    is_silent: AtomicBool,
    delay_ms: AtomicU64,
    /// How many replies to commits will be lost.
    commits_to_lose: AtomicU32,
}

impl Proxy {
    /// Starts a proxy on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(target: Target) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target: RwLock::new(target),
            cut: watch::Sender::new(0),
            silenced: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            is_silent: AtomicBool::new(false),
            delay_ms: AtomicU64::new(0),
            commits_to_lose: AtomicU32::new(0),
        });
        let server = tokio::spawn({
            let shared = shared.clone();
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let number = shared.opened.fetch_add(1, Ordering::SeqCst) + 1;
                    tokio::spawn(shared.clone().connection(client, number));
                }
            }
        });
        Ok(Self { address, shared, server })
    }

    /// Sends new connections to another target.
    pub fn connect_to(&self, target: Target) {
        *self.shared.target.write().unwrap_or_else(PoisonError::into_inner) = target;
    }

    /// Closes all open connections. New ones are accepted.
    pub(crate) fn cut(&self) {
        self.shared.cut.send_modify(|generation| *generation += 1);
    }

    /// Delays everything that is forwarded, in both directions.
    pub(crate) fn set_delay(&self, delay: Duration) {
        self.shared.delay_ms.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Loses all further traffic, of open and of new connections, without closing them, like a pulled cable.
    pub(crate) fn silence(&self) {
        self.shared.is_silent.store(true, Ordering::SeqCst);
        self.shared.silenced.store(self.shared.opened.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Ends [`Proxy::silence`] for new connections. The old ones stay silent.
    pub(crate) fn end_silence(&self) {
        self.silence_open();
        self.shared.is_silent.store(false, Ordering::SeqCst);
    }

    /// Loses all further traffic of the open connections. New ones work.
    pub fn silence_open(&self) {
        self.shared.silenced.store(self.shared.opened.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Loses the replies to the next `count` commits, and closes their connections.
    pub(crate) fn lose_commits(&self, count: u32) {
        self.shared.commits_to_lose.store(count, Ordering::SeqCst);
    }

    /// How many replies to commits are still to be lost.
    pub(crate) fn commits_to_lose(&self) -> u32 {
        self.shared.commits_to_lose.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
        self.cut();
    }
}

impl Shared {
    async fn connection(self: Arc<Self>, client: TcpStream, number: u64) {
        if self.is_silent.load(Ordering::SeqCst) {
            self.silenced.fetch_max(number, Ordering::SeqCst);
        }
        let mut cut = self.cut.subscribe();
        let target = self.target.read().unwrap_or_else(PoisonError::into_inner).clone();
        let forwarding = async {
            match target {
                Target::Socket(path) => self.forward(client, UnixStream::connect(path).await?, number).await,
                Target::Tcp(address) => self.forward(client, TcpStream::connect(address).await?, number).await,
            }
        };
        tokio::select! {
            // An error ends this connection, and both sides see that.
            _ = forwarding => {}
            _ = cut.changed() => {}
        }
    }

    async fn forward(
        &self,
        client: TcpStream,
        server: impl AsyncRead + AsyncWrite + Unpin,
        number: u64,
    ) -> io::Result<()> {
        client.set_nodelay(true)?;
        let (mut client_in, mut client_out) = client.into_split();
        let (mut server_in, mut server_out) = tokio::io::split(server);
        tokio::select! {
            requests = self.requests(&mut client_in, &mut server_out, number) => requests,
            replies = self.replies(&mut server_in, &mut client_out, number) => replies,
        }
    }

    async fn requests(
        &self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        number: u64,
    ) -> io::Result<()> {
        let mut bytes = vec![0; 16 << 10];
        loop {
            let read = from.read(&mut bytes).await?;
            self.pass(number, read).await;
            let Some(part) = bytes.get(..read).filter(|part| !part.is_empty()) else { return Ok(()) };
            to.write_all(part).await?;
        }
    }

    async fn replies(
        &self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        number: u64,
    ) -> io::Result<()> {
        let (mut bytes, mut replies) = (vec![0; 16 << 10], Replies::default());
        loop {
            let read = from.read(&mut bytes).await?;
            self.pass(number, read).await;
            let Some(part) = bytes.get(..read).filter(|part| !part.is_empty()) else { return Ok(()) };
            replies.push(part);
            while let Some(batch) = replies.next() {
                if batch.is_commit && self.takes_commit() {
                    return Ok(());
                }
                to.write_all(&batch.bytes).await?;
            }
        }
    }

    /// Waits until traffic may be forwarded: after the delay, and never on a silenced connection. The end of a stream is
    /// not forwarded there either.
    async fn pass(&self, number: u64, read: usize) {
        let delay = self.delay_ms.load(Ordering::SeqCst);
        if delay > 0 && read > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        if number <= self.silenced.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }

    /// Whether this commit's reply is lost.
    fn takes_commit(&self) -> bool {
        let take = |left: u32| left.checked_sub(1);
        self.commits_to_lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
    }
}
