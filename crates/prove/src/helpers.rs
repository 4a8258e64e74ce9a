//! Servers next to the database: PgBouncer and Redis, if they are installed.

use std::{
    fs,
    net::SocketAddr,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use futures_util::future::{BoxFuture, FutureExt as _};
use nix::unistd::geteuid;
use tokio::net::{TcpListener, TcpStream};

use crate::{child::Child, server::Server, small_disk};

/// Until a server accepts connections. It takes 0.1 s on an idle machine.
const START: Duration = Duration::from_secs(60);
/// Fewer sessions than one process has connections, so that they must share them.
const SESSIONS: u32 = 3;
/// The tries to start a server at a free address: another program may take it first.
const TRIES: u32 = 3;

/// A running server. It is killed when this is dropped, and its folder removed.
pub(crate) struct Helper {
    pub child: Child,
    pub address: SocketAddr,
    folder: PathBuf,
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The path of an installed program.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian installs servers where the path of ordinary users has no entry.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// Starts Redis at this address, or at a free one. Its log is in this folder.
///
/// # Errors
/// When it does not start.
pub(crate) async fn redis(address: Option<SocketAddr>, logs: &Path) -> Result<Helper> {
    start_at(address, |address| redis_at(address, logs).boxed()).await
}

async fn redis_at(address: SocketAddr, logs: &Path) -> Result<Helper> {
    let folder = own_folder("redis")?;
    let mut command = Command::new(program("redis-server").context("redis-server")?);
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.args(["--port", &address.port().to_string()]).arg("--dir").arg(&folder);
    start(command, "redis", address, folder, logs).await
}

/// Starts PgBouncer in transaction mode in front of our own server, at this address or at a free one. Its log is in this
/// folder.
///
/// # Errors
/// When it does not start.
pub(crate) async fn pgbouncer(
    server: &Server,
    users: &[String],
    address: Option<SocketAddr>,
    logs: &Path,
) -> Result<Helper> {
    start_at(address, |address| pgbouncer_at(address, server, users, logs).boxed()).await
}

async fn pgbouncer_at(address: SocketAddr, server: &Server, users: &[String], logs: &Path) -> Result<Helper> {
    let options = server.maintenance()?;
    let sockets = options.get_socket().context("a server with a socket")?;
    let folder = own_folder("pgbouncer")?;
    let (list, config) = (folder.join("users.txt"), folder.join("pgbouncer.ini"));
    fs::write(&list, users.iter().map(|user| format!("\"{user}\" \"\"\n")).collect::<String>())?;
    let text = format!(
        "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\nunix_socket_dir =\n\
         auth_type = trust\nauth_file = {}\npool_mode = transaction\ndefault_pool_size = {SESSIONS}\n",
        sockets.display(),
        options.get_port(),
        address.port(),
        list.display(),
    );
    fs::write(&config, text)?;
    let mut command = Command::new(program("pgbouncer").context("pgbouncer")?);
    command.arg("--quiet").arg(&config);
    if geteuid().is_root() {
        // PgBouncer refuses to run as root. The owner of the server may use its socket.
        let (user, group) = small_disk::owner(sockets)?;
        command.uid(user).gid(group);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
    }
    start(command, "pgbouncer", address, folder, logs).await
}

/// Starts a server at this address, or at a free one.
async fn start_at<'s>(
    address: Option<SocketAddr>,
    start: impl Fn(SocketAddr) -> BoxFuture<'s, Result<Helper>>,
) -> Result<Helper> {
    if let Some(address) = address {
        return start(address).await;
    }
    let mut tries = 0;
    loop {
        tries += 1;
        let free = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
        let started = start(free).await;
        if started.is_ok() || tries == TRIES {
            return started;
        }
    }
}

/// A folder that other users can reach.
fn own_folder(name: &str) -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("prove-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

async fn start(command: Command, name: &str, address: SocketAddr, folder: PathBuf, logs: &Path) -> Result<Helper> {
    let mut helper = Helper { child: Child::start(command, name, logs)?, address, folder };
    let begun = Instant::now();
    loop {
        let accepts = TcpStream::connect(address).await.is_ok();
        // Another program may accept connections there.
        if !helper.child.is_running()? || begun.elapsed() > START {
            bail!("{name} does not start; see its log");
        }
        if accepts {
            return Ok(helper);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
