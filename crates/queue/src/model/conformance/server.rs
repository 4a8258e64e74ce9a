//! One PostgreSQL for all tests of this process, with a database for each of them.

use std::{
    path::PathBuf,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use embedded_postgres::{Cluster, Search, Settings};
use runtime::db::{Database, Pool};
use tokio::sync::Mutex;

/// PostgreSQL copies this database when it creates another one.
const TEMPLATE: &str = "template1";

/// The product's limit for a session or a statement, 5 s, is too short on a busy machine.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// A running server. The last test that drops it stops it.
pub(super) struct Server {
    /// `None` only while it is dropped.
    cluster: Option<Cluster>,
    folder: PathBuf,
    /// The number of databases that were created.
    databases: Mutex<usize>,
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
        let template = pool(&cluster.url(TEMPLATE), LIMIT);
        crate::migrate(&template).await.expect("the queue's tables");
        template.close().await;
        Self { cluster: Some(cluster), folder, databases: Mutex::new(0) }
    }

    /// Creates a database with the queue's tables, and returns its URL.
    pub(super) async fn create_database(&self) -> String {
        let mut databases = self.databases.lock().await;
        *databases += 1;
        let name = format!("model_{databases}");
        let cluster = self.cluster.as_ref().expect("a running server");
        cluster.ensure_database(&name).await.expect("a database");
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
pub(super) fn pool(url: &str, limit: Duration) -> Pool {
    Database::parse(url).expect("the server's URL").limited_pool("model", 4, limit)
}
