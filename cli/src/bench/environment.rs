//! The environment of a benchmark: a separate PostgreSQL with durable settings, and the real programs on it.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Error, Result, anyhow, bail};
use embedded_postgres::{Cluster, Search, Settings};
use futures_util::{StreamExt, stream};
use jobs::{
    app::{self, App},
    bench::{self, Bench},
    transactions::{NewTransaction, Sender, Transactions},
};
use prove::{
    child::{self, Child},
    cpu,
};
use queue::{Origin, Queue};
use runtime::{config::EnvReader, db::Database};
use tokio_util::sync::CancellationToken;

use crate::{data_dir::data_dir, migrate};

/// The key for the private routes of the API.
pub(super) const API_KEY: &str = "the key of the benchmark";
/// The key of the operators' routes and of the board.
pub(super) const ADMIN_KEY: &str = "the key of an operator in the benchmark";
const DATABASE: &str = "bench";
/// Interval between two checks of a condition; cheap compared with the measured work.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What a child process inherits: paths and the settings of its log, and nothing else that configures Millrace.
const INHERITED: [&str; 5] = ["PATH", "HOME", "RUST_LOG", "RUST_BACKTRACE", "TMPDIR"];
/// Lines of a child's log that are kept: enough for the lines of its start, and for the last ones before an error.
const KEPT_LINES: usize = 200;

/// A database, and handles to measure and fill it.
pub(super) struct Environment {
    cluster: Cluster,
    folder: PathBuf,
    url: String,
    /// Baselines and checks on the database itself.
    pub bench: Bench,
    /// The features in this process: they add rows, and pause queues.
    pub app: App,
}

impl Environment {
    /// Starts PostgreSQL in `.millrace/bench` and applies the migrations.
    ///
    /// # Errors
    /// When PostgreSQL does not start or a migration fails.
    pub(super) async fn start() -> Result<Self> {
        let folder = data_dir().join("bench");
        let mut settings = Settings::new(&folder);
        let mut vars = EnvReader::from_env();
        if let Some(pg_bin_dir) = vars.text("PG_BIN_DIR") {
            settings.search = Search::parse(&pg_bin_dir);
        }
        settings.progress = std::sync::Arc::new(|progress| eprintln!("{progress}"));
        let cluster = Cluster::start(settings).await?;
        cluster.ensure_database(DATABASE).await?;
        let url = cluster.url(DATABASE);
        let database = Database::parse(&url).map_err(Error::msg)?;
        migrate::apply(&database, migrate::PATIENCE).await?;
        // Jobs are due at once. The environment of this process is not read, because it configures other programs.
        let config = app::Config::read(&mut EnvReader::from_pairs(&[("PROCESSING_DELAY_SECONDS", "0")]));
        let app = App::start(&database, &config, "bench", &CancellationToken::new())?;
        let bench = Bench::new(&database);
        bench::clear(&bench).await?;
        Ok(Self { cluster, folder, url, bench, app })
    }

    /// Stops PostgreSQL and removes its folder.
    ///
    /// # Errors
    /// When PostgreSQL cannot be stopped or the folder cannot be removed.
    pub(super) async fn stop(self) -> Result<()> {
        let real = fs::canonicalize(&self.folder)?;
        self.cluster.stop().await?;
        fs::remove_dir_all(&real).map_err(|error| anyhow!("cannot remove {}: {error}", real.display()))?;
        // The folder is a symbolic link if the server's account has no access to this place.
        let _ = fs::remove_file(&self.folder);
        Ok(())
    }

    /// Starts an API process whose transactions are due after `delay` seconds.
    ///
    /// # Errors
    /// When the process does not start.
    pub(super) async fn api(&self, delay: u32) -> Result<(Child, SocketAddr)> {
        let delay = delay.to_string();
        let variables = [
            ("DATABASE_URL", &*self.url),
            ("PORT", "0"),
            ("PROCESSING_DELAY_SECONDS", &delay),
            ("API_KEY", API_KEY),
            ("ADMIN_API_KEY", ADMIN_KEY),
            // The benchmark measures throughput, not the rate limit of one client.
            ("RATE_LIMIT", "1000000/1s"),
        ];
        let (child, line) = self.start_program(&["api"], &variables, r#""event":"listening""#).await?;
        Ok((child, child::listen_address(&line)?))
    }

    /// Starts a worker process: `worker`, or `bench-worker`, which runs [`super::noop::Noop`].
    ///
    /// # Errors
    /// When the process does not start.
    pub(super) async fn worker(&self, program: &str) -> Result<Child> {
        self.worker_with(&[program], &[]).await
    }

    /// Starts a worker process with options and variables.
    ///
    /// # Errors
    /// When the process does not start.
    pub(super) async fn worker_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Child> {
        let variables = [&[("DATABASE_URL", &*self.url)], variables].concat();
        Ok(self.start_program(arguments, &variables, "worker started").await?.0)
    }

    /// Starts this executable with a subcommand and its options, and waits for the line of its log that contains `ready`.
    async fn start_program(
        &self,
        arguments: &[&str],
        variables: &[(&str, &str)],
        ready: &str,
    ) -> Result<(Child, String)> {
        let mut command = Command::new(std::env::current_exe()?);
        child::inherit_only(&mut command, &INHERITED);
        command.args(arguments).current_dir(&self.folder).stdin(Stdio::null());
        command.env("LOG_FORMAT", "json").envs(variables.iter().copied());
        let mut child = Child::start_piped(command, &arguments.join(" "), KEPT_LINES)?;
        let line = child.wait_for_line(ready).await?;
        Ok((child, line))
    }

    /// The enqueueing side of the queue, with sessions of its own.
    ///
    /// # Errors
    /// When the URL of the database is wrong.
    pub(super) fn queue(&self) -> Result<Queue> {
        let database = Database::parse(&self.url).map_err(Error::msg)?;
        Ok(Queue::start(database.pool("bench", 2)))
    }

    /// The CPU time that PostgreSQL has used so far.
    ///
    /// # Errors
    /// When PostgreSQL has ended.
    pub(super) fn server_cpu(&self) -> Result<Duration> {
        cpu::of_server(&self.cluster.processes())
    }

    /// Records `count` transactions that are due now, through the same call as the API.
    ///
    /// # Errors
    /// When a transaction cannot be recorded.
    pub(super) async fn add_due_transactions(&self, count: i64) -> Result<()> {
        let series = uuid::Uuid::now_v7();
        let mut ingests = stream::iter(0..count)
            .map(|number| async move {
                let new = transaction(format!("{series}-{number}"))?;
                ingest(&self.app.transactions, new, Sender::Signed).await
            })
            .buffer_unordered(2000);
        while let Some(ingested) = ingests.next().await {
            ingested?;
        }
        Ok(())
    }

    /// Polls until `condition` holds; `what` names it in the error.
    ///
    /// # Errors
    /// When the condition does not hold within 10 minutes, or cannot be checked.
    pub(super) async fn wait_until(&self, what: &str, mut condition: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
        const TIMEOUT: Duration = Duration::from_secs(600);
        let begun = std::time::Instant::now();
        while !condition().await? {
            if begun.elapsed() > TIMEOUT {
                bail!("timed out after {} s: {what}", TIMEOUT.as_secs());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }
}

/// Records a transaction. While too many callers wait, it comes again when it may, as a sender does after a 503.
///
/// # Errors
/// When it cannot be recorded for another reason.
pub(super) async fn ingest(transactions: &Transactions, new: NewTransaction, sender: Sender) -> Result<()> {
    loop {
        match transactions.ingest(new.clone(), Origin::default(), sender.clone()).await {
            Err(runtime::error::Error::Overloaded(wait)) => tokio::time::sleep(wait).await,
            ingested => return Ok(ingested.map(drop)?),
        }
    }
}

/// A transaction with this id.
pub(super) fn transaction(transaction_id: String) -> Result<NewTransaction> {
    Ok(NewTransaction {
        transaction_id,
        source_account: "acc_user_1".into(),
        destination_account: "acc_merchant_1".into(),
        amount: "1500".parse().map_err(|_| anyhow!("an amount"))?,
        currency: "INR".into(),
    })
}
