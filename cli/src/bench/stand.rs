//! Where it is measured: a PostgreSQL of its own with everything durable, and the real programs on it.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use futures_util::{StreamExt, stream};
use jobs::{
    app::{self, App},
    bench::Bench,
    boot::{
        db::Database,
        postgres::{Cluster, Search, Settings},
        process,
    },
    config::EnvReader,
    queue::Origin,
    transactions::NewTransaction,
};
use tokio_util::sync::CancellationToken;

use super::child::Child;
use crate::{home::home, migrate};

/// What private routes of the API ask for.
pub const API_KEY: &str = "the key of the benchmark";
const DATABASE: &str = "bench";
/// Between two looks whether something has come to its end; cheap against what is measured.
const STEP: Duration = Duration::from_millis(50);

/// A database and what runs on it.
pub struct Stand {
    cluster: Cluster,
    home: PathBuf,
    url: String,
    /// What is measured at the database itself.
    pub bench: Bench,
    /// The features in this process, to add rows as they do, and to pause queues.
    pub app: App,
}

impl Stand {
    /// Starts PostgreSQL in a folder of its own and brings it to our schema.
    ///
    /// # Errors
    /// Why that failed.
    pub async fn start() -> Result<Self, String> {
        let home = home().join("bench");
        let mut settings = Settings::new(&home);
        let mut vars = EnvReader::from_env();
        if let Some(folder) = vars.text("PG_BIN_DIR") {
            settings.search = Search::parse(&folder);
        }
        settings.progress = std::sync::Arc::new(|news| eprintln!("{news}"));
        let cluster = Cluster::start(settings).await.map_err(process::text)?;
        cluster.ensure_database(DATABASE).await.map_err(process::text)?;
        let url = cluster.url(DATABASE);
        let database = Database::parse(&url)?;
        migrate::apply(&database, migrate::PATIENCE).await?;
        // Due at once, whatever our own environment says; it is about other programs.
        let config = app::Config::read(&mut EnvReader::from_pairs(&[("PROCESSING_DELAY_SECONDS", "0")]));
        let app = App::start(&database, &config, "bench", &CancellationToken::new()).map_err(process::text)?;
        let bench = Bench::new(&database);
        bench.clear().await.map_err(process::text)?;
        Ok(Self { cluster, home, url, bench, app })
    }

    /// Stops PostgreSQL and removes everything.
    ///
    /// # Errors
    /// What could not be removed.
    pub async fn stop(self) -> Result<(), String> {
        let real = fs::canonicalize(&self.home).map_err(process::text)?;
        self.cluster.stop().await.map_err(process::text)?;
        fs::remove_dir_all(&real).map_err(|error| format!("cannot remove {}: {error}", real.display()))?;
        // A link, where the server's account could not reach this place.
        let _ = fs::remove_file(&self.home);
        Ok(())
    }

    /// An API process whose transactions are due after this many seconds.
    ///
    /// # Errors
    /// Why it does not run.
    pub fn api(&self, delay: u32) -> Result<(Child, SocketAddr), String> {
        let delay = delay.to_string();
        let variables = [
            ("DATABASE_URL", &*self.url),
            ("PORT", "0"),
            ("PROCESSING_DELAY_SECONDS", &delay),
            ("API_KEY", API_KEY),
            // What is measured is not what is allowed to one caller.
            ("RATE_LIMIT", "1000000/1s"),
        ];
        let (child, line) = Child::start("api", &self.home, &variables, r#""event":"listening""#)?;
        let line: serde_json::Value = serde_json::from_str(&line).map_err(process::text)?;
        let address = line["address"].as_str().and_then(|address| address.parse().ok());
        Ok((child, address.ok_or("the API does not say where it listens")?))
    }

    /// A worker process: `worker`, or the one for [`super::noop::Noop`].
    ///
    /// # Errors
    /// Why it does not run.
    pub fn worker(&self, program: &str) -> Result<Child, String> {
        let variables = [("DATABASE_URL", &*self.url)];
        Ok(Child::start(program, &self.home, &variables, "worker started")?.0)
    }

    /// Records `count` transactions that are due now, as the API does.
    ///
    /// # Errors
    /// What the feature answered.
    pub async fn add_due_transactions(&self, count: i64) -> Result<(), String> {
        let series = uuid::Uuid::now_v7();
        let mut ingests = stream::iter(0..count)
            .map(|number| {
                let new = NewTransaction {
                    transaction_id: format!("{series}-{number}"),
                    source_account: "acc_user_1".into(),
                    destination_account: "acc_merchant_1".into(),
                    amount: "1500".parse().map_err(|_| "an amount")?,
                    currency: "INR".into(),
                };
                Ok(self.app.transactions.ingest(new, Origin::default()))
            })
            .map(|ingest: Result<_, String>| async { ingest?.await.map_err(process::text) })
            .buffer_unordered(2000);
        while let Some(ingested) = ingests.next().await {
            ingested?;
        }
        Ok(())
    }

    /// Waits until something is so, asking again and again.
    ///
    /// # Errors
    /// It did not come about for long, or could not be asked.
    pub async fn until(&self, what: &str, mut done: impl AsyncFnMut() -> Result<bool, String>) -> Result<(), String> {
        const PATIENCE: Duration = Duration::from_secs(600);
        let begun = std::time::Instant::now();
        while !done().await? {
            if begun.elapsed() > PATIENCE {
                return Err(format!("waited in vain until {what}"));
            }
            tokio::time::sleep(STEP).await;
        }
        Ok(())
    }
}
