//! The database server under test: embedded, or the user's own with a scratch database.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use embedded_postgres::{Cluster, RunningServer, Search, Settings};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use runtime::config::EnvReader;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

use crate::{file_limit, proxy::Target, store};

/// Until a killed server is gone.
const GONE: Duration = Duration::from_secs(30);

/// The most sessions of one scene.
const SESSIONS: usize = 100;

/// A server.
pub(crate) enum Server {
    /// Our own. `None` while it is down.
    Embedded { settings: Settings, cluster: Option<Cluster> },
    /// Our own, as one of several scenes sees it that use it at once. `template` is a database that is ready for a scene.
    Shared { options: Box<PgConnectOptions>, template: String },
    /// The user's: its URL, and the same as options.
    External { url: Url, options: Box<PgConnectOptions> },
}

impl Server {
    /// Starts our own server in this folder, or connects to the user's.
    ///
    /// # Errors
    /// When the server does not start, or the URL is wrong.
    pub(crate) async fn start(folder: &Path, database_url: Option<&str>) -> Result<Self> {
        Self::start_with(folder, database_url, |_| ()).await
    }

    /// Like [`Server::start`], for this many scenes at once. No fault crashes our own server then, so it does not wait for
    /// the disk.
    ///
    /// # Errors
    /// When our own server does not start, or the URL is wrong.
    pub(crate) async fn start_for(scenes: usize, folder: &Path, database_url: Option<&str>) -> Result<Self> {
        let sessions = u16::try_from(scenes.saturating_mul(SESSIONS)).unwrap_or(u16::MAX);
        Self::start_with(folder, database_url, |settings| {
            settings.durable = false;
            settings.max_connections = settings.max_connections.max(sessions);
        })
        .await
    }

    async fn start_with(folder: &Path, database_url: Option<&str>, change: impl FnOnce(&mut Settings)) -> Result<Self> {
        if let Some(url) = database_url {
            let options = Box::new(PgConnectOptions::from_str(url).context("--database-url")?);
            return Ok(Self::External { url: Url::parse(url).context("--database-url")?, options });
        }
        let mut settings = Settings::new(folder);
        if let Some(pg_bin_dir) = EnvReader::from_env().text("PG_BIN_DIR") {
            settings.search = Search::parse(&pg_bin_dir);
        }
        settings.progress = std::sync::Arc::new(|progress| eprintln!("{progress}"));
        change(&mut settings);
        let cluster = Cluster::start(settings.clone()).await?;
        Ok(Self::Embedded { settings, cluster: Some(cluster) })
    }

    /// Whether this process may kill and configure the server.
    pub(crate) fn is_ours(&self) -> bool {
        matches!(self, Self::Embedded { .. })
    }

    /// Whether each process has a database role of its own.
    pub(crate) fn has_roles(&self) -> bool {
        !matches!(self, Self::External { .. })
    }

    /// The same server for one of several scenes, whose faults may not kill or configure it.
    ///
    /// # Errors
    /// When our own server is down.
    pub(crate) fn share(&self, template: &str) -> Result<Self> {
        Ok(match self {
            Self::External { url, options } => Self::External { url: url.clone(), options: options.clone() },
            _ => Self::Shared { options: Box::new(self.maintenance()?), template: template.to_owned() },
        })
    }

    /// The options of a session in this database.
    ///
    /// # Errors
    /// When our own server is down.
    pub(crate) fn options(&self, database: &str) -> Result<PgConnectOptions> {
        match self {
            Self::External { options, .. } | Self::Shared { options, .. } => {
                Ok(options.as_ref().clone().database(database))
            }
            Self::Embedded { cluster, .. } => {
                let cluster = cluster.as_ref().context("the server is down")?;
                Ok(PgConnectOptions::from_str(&cluster.url(database))?)
            }
        }
    }

    /// The database for administration.
    ///
    /// # Errors
    /// When our own server is down.
    pub(crate) fn maintenance(&self) -> Result<PgConnectOptions> {
        match self {
            Self::External { options, .. } | Self::Shared { options, .. } => Ok(options.as_ref().clone()),
            Self::Embedded { .. } => self.options("postgres"),
        }
    }

    /// The URL of a database through a proxy. On our own server the session has this role, and a password that the server
    /// does not check.
    ///
    /// # Errors
    /// When the parts do not form a URL.
    pub(crate) fn url_through(&self, proxy: SocketAddr, database: &str, role: &str, password: &str) -> Result<String> {
        let mut through = Url::parse(&format!("postgres://{proxy}/{database}?sslmode=disable"))?;
        let (user, password) = match self {
            Self::Embedded { .. } | Self::Shared { .. } => (role, Some(password.to_owned())),
            Self::External { url, options } => {
                let in_query =
                    || url.query_pairs().find(|(name, _)| name == "password").map(|(_, value)| value.into_owned());
                (options.get_username(), url.password().map(str::to_owned).or_else(in_query))
            }
        };
        let is_set = through.set_username(user).is_ok() && through.set_password(password.as_deref()).is_ok();
        if is_set { Ok(through.into()) } else { bail!("the user {user:?} cannot be in a URL") }
    }

    /// Where the proxies connect to.
    ///
    /// # Errors
    /// When our own server is down, or the user's requires TLS, which a proxy cannot pass.
    pub(crate) fn target(&self) -> Result<Target> {
        let options = self.maintenance()?;
        if matches!(options.get_ssl_mode(), PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull) {
            bail!("--database-url: the faults of the network need a connection without TLS (sslmode=disable)");
        }
        Ok(match options.get_socket() {
            Some(folder) => Target::Socket(folder.join(format!(".s.PGSQL.{}", options.get_port()))),
            None => Target::Tcp(format!("{}:{}", options.get_host(), options.get_port())),
        })
    }

    /// Kills our own server with this signal and waits until it is gone.
    ///
    /// # Errors
    /// When the server is not ours, or does not end.
    pub(crate) async fn crash(&mut self, signal: Signal) -> Result<()> {
        let Self::Embedded { settings, cluster } = self else { bail!("the server is not ours") };
        let running = cluster.as_ref().context("the server is down")?;
        kill(Pid::from_raw(running.pid().cast_signed()), signal)?;
        let begun = Instant::now();
        while RunningServer::find(&settings.directory).is_some_and(|server| server.is_ready()) {
            if begun.elapsed() > GONE {
                bail!("PostgreSQL still runs after {signal}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Reaps the process, and releases the folder.
        drop(cluster.take());
        Ok(())
    }

    /// Limits the size of the files that our own server writes, until it is started again. PostgreSQL treats a file that
    /// cannot grow like a full disk.
    ///
    /// # Errors
    /// When the server is not ours, is down, or cannot be limited.
    pub(crate) fn limit_files(&self, bytes: u64) -> Result<()> {
        let Self::Embedded { cluster, .. } = self else { bail!("the server is not ours") };
        let cluster = cluster.as_ref().context("the server is down")?;
        if !file_limit::set(cluster.pid(), bytes)? {
            bail!("{} has not limited the files of PostgreSQL", file_limit::PROGRAM);
        }
        // Later ones inherit the limit.
        for process in cluster.processes() {
            file_limit::set(process, bytes)?;
        }
        Ok(())
    }

    /// Starts our own server again.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) async fn start_again(&mut self) -> Result<()> {
        let Self::Embedded { settings, cluster } = self else { bail!("the server is not ours") };
        // After a SIGKILL the processes of the sessions need a moment to notice that their parent is gone. Until then a
        // new server refuses to start.
        let begun = Instant::now();
        loop {
            match Cluster::start(settings.clone()).await {
                Ok(started) => {
                    *cluster = Some(started);
                    return Ok(());
                }
                Err(error) if begun.elapsed() > GONE => {
                    return Err(anyhow!("PostgreSQL does not start again: {error}"));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    /// Starts our own server if a fault has left it down.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) async fn ensure_running(&mut self) -> Result<()> {
        match self {
            Self::Embedded { cluster: None, .. } => self.start_again().await,
            _ => Ok(()),
        }
    }

    /// Creates an empty database.
    ///
    /// # Errors
    /// When the server refuses it.
    pub(crate) async fn create_database(&self, name: &str) -> Result<()> {
        Ok(store::create_database(&self.maintenance()?, name).await?)
    }

    /// Creates a database as a copy of the template, if there is one. Returns whether there is.
    ///
    /// # Errors
    /// When the server refuses it.
    pub(crate) async fn copy_template(&self, name: &str) -> Result<bool> {
        let Self::Shared { options, template } = self else { return Ok(false) };
        store::copy_database(options, template, name).await?;
        Ok(true)
    }

    /// Drops a database with all its sessions.
    ///
    /// # Errors
    /// When the server refuses it.
    pub(crate) async fn drop_database(&self, name: &str) -> Result<()> {
        Ok(store::drop_database(&self.maintenance()?, name).await?)
    }

    /// Stops our own server and removes its folder.
    ///
    /// # Errors
    /// When it does not stop.
    pub(crate) async fn stop(self) -> Result<()> {
        let Self::Embedded { settings, cluster } = self else { return Ok(()) };
        if let Some(cluster) = cluster {
            cluster.stop().await?;
        }
        remove(&settings.directory);
        Ok(())
    }
}

/// Removes the folder of a server, and the place that it links to. Leftovers are harmless.
fn remove(folder: &Path) {
    let real: PathBuf = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let _ = std::fs::remove_dir_all(real);
    let _ = std::fs::remove_file(folder);
}
