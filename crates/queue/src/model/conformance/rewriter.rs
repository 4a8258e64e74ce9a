//! A proxy in front of PostgreSQL that changes the text of statements, as if their source had been changed.
//!
//! So a condition can be removed from a real statement without compiling it again.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinHandle,
};

/// A text in a statement, and what takes its place. Whitespace between words counts as one blank.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub from: String,
    pub to: String,
}

/// What the proxy has seen since the last change.
#[derive(Debug, Default)]
struct Log {
    change: Option<Change>,
    /// Every statement that was prepared, after the change, in one line.
    statements: BTreeSet<String>,
    /// Statements that contained the text.
    changed: BTreeSet<String>,
}

/// A running proxy. Dropping it ends it.
pub(super) struct Rewriter {
    folder: PathBuf,
    log: Arc<Mutex<Log>>,
    task: JoinHandle<()>,
}

impl Rewriter {
    /// Starts a proxy in front of the server whose sockets are in the folder `server`.
    pub(super) fn start(server: &Path, name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("queue-model-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for the proxy");
        let socket = folder.join(SOCKET);
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).expect("a socket for the proxy");
        let log = Arc::<Mutex<Log>>::default();
        let task = tokio::spawn(accept(listener, server.join(SOCKET), log.clone()));
        Self { folder, log, task }
    }

    /// The folder of its socket, to be used instead of the server's.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Applies this change to all statements that are prepared from now on.
    pub(super) fn set(&self, change: Option<Change>) {
        *self.log.lock().expect("the log") = Log { change, ..Log::default() };
    }

    /// The number of statements that contained the text of the change.
    pub(super) fn changed(&self) -> usize {
        self.log.lock().expect("the log").changed.len()
    }

    /// The statements since the last [`Rewriter::set`].
    pub(super) fn statements(&self) -> BTreeSet<String> {
        self.log.lock().expect("the log").statements.clone()
    }
}

impl Drop for Rewriter {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

const SOCKET: &str = ".s.PGSQL.5432";

async fn accept(listener: UnixListener, server: PathBuf, log: Arc<Mutex<Log>>) {
    while let Ok((client, _)) = listener.accept().await {
        let Ok(upstream) = UnixStream::connect(&server).await else { continue };
        let (log, (from_client, mut to_client)) = (log.clone(), client.into_split());
        let (mut from_server, to_server) = upstream.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        tokio::spawn(async move { forward(from_client, to_server, &log).await });
    }
}

/// Forwards the messages of a client until its connection ends.
async fn forward(mut client: OwnedReadHalf, mut server: OwnedWriteHalf, log: &Mutex<Log>) -> std::io::Result<()> {
    // The first message has no type: the start-up parameters.
    let startup = read_body(&mut client).await?;
    server.write_all(&message(None, &startup)?).await?;
    loop {
        let kind = client.read_u8().await?;
        let mut body = read_body(&mut client).await?;
        if kind == b'P' {
            body = rewrite(&body, log);
        }
        server.write_all(&message(Some(kind), &body)?).await?;
    }
}

/// Reads the length of a message, and the rest of it.
async fn read_body(client: &mut OwnedReadHalf) -> std::io::Result<Vec<u8>> {
    let length = client.read_u32().await?;
    let mut body = vec![0; (length as usize).saturating_sub(4)];
    client.read_exact(&mut body).await?;
    Ok(body)
}

fn message(kind: Option<u8>, body: &[u8]) -> std::io::Result<Vec<u8>> {
    let length = u32::try_from(body.len() + 4).map_err(std::io::Error::other)?;
    Ok(kind.into_iter().chain(length.to_be_bytes()).chain(body.iter().copied()).collect())
}

/// Changes the text of a `Parse` message: a name, the text, and the types of parameters.
fn rewrite(body: &[u8], log: &Mutex<Log>) -> Vec<u8> {
    let mut parts = body.splitn(3, |byte| *byte == 0);
    let (Some(name), Some(text), Some(types)) = (parts.next(), parts.next(), parts.next()) else { return body.into() };
    let text = one_line(&String::from_utf8_lossy(text));
    let mut log = log.lock().expect("the log");
    let changed = match &log.change {
        Some(Change { from, to }) if text.contains(from) => text.replacen(from, to, 1),
        _ => text.clone(),
    };
    if changed != text {
        log.changed.insert(text);
    }
    let body = [name, changed.as_bytes(), types].join(&0);
    log.statements.insert(changed);
    body
}

/// A text with one blank between words.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
