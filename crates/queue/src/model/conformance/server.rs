//! One PostgreSQL for all tests of this process, with a database for each of them.

use std::{
    path::PathBuf,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use embedded_postgres::{Cluster, Search, Settings};
use runtime::{
    db::{Database, Pool},
    executor::once,
};
use tokio::sync::Mutex;

const TEMPLATE: &str = "template_model";

/// A running server. The last test that drops it stops it.
pub(super) struct Server {
    /// `None` only while it is dropped.
    cluster: Option<Cluster>,
    folder: PathBuf,
    databases: AtomicUsize,
}

impl Server {
    /// Returns the server, and starts it for the first test.
    pub(super) async fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Server>> = Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start().await);
        *shared = Arc::downgrade(&server);
        server
    }

    async fn start() -> Self {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, Relaxed);
        let folder = std::env::temp_dir().join(format!("queue-model-{}-{number}", std::process::id()));
        let mut settings = Settings::new(&folder);
        settings.durable = false;
        settings.search = std::env::var("PG_BIN_DIR").map(|value| Search::parse(&value)).unwrap_or_default();
        let cluster = Cluster::start(settings).await.expect("a PostgreSQL for the conformance tests");
        cluster.ensure_database(TEMPLATE).await.expect("a template");
        let template = pool(&cluster.url(TEMPLATE), 1);
        crate::migrate(&template).await.expect("the queue's tables");
        template.close().await;
        Self { cluster: Some(cluster), folder, databases: AtomicUsize::new(0) }
    }

    /// Creates a database with the queue's tables, and returns its URL.
    pub(super) async fn create_database(&self) -> String {
        let name = format!("model_{}", self.databases.fetch_add(1, Relaxed));
        let create = format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}");
        let cluster = self.cluster.as_ref().expect("a running server");
        // Sessions belong to the runtime of one test.
        let administration = pool(&cluster.url("postgres"), 1);
        let create = sqlx::query(sqlx::AssertSqlSafe(create));
        create.execute(once(&administration)).await.expect("a database");
        administration.close().await;
        cluster.url(&name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.cluster.take());
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Opens a pool with the product's settings.
pub(super) fn pool(url: &str, connections: u32) -> Pool {
    Database::parse(url).expect("the server's URL").pool("model", connections)
}
