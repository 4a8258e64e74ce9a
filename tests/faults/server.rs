//! A private PostgreSQL for one test, with fsync as in production, for faults of the server itself.

use std::path::Path;

use embedded_postgres::{Cluster, Settings};
use runtime::migrate;
use sqlx::PgPool;

use super::settlements::log_changes;
use crate::harness::cluster;

const DATABASE: &str = "millrace";

/// Starts the server, also after it was stopped or killed.
pub(super) async fn start(directory: &Path) -> (Cluster, String) {
    start_with(directory, Settings::new(directory).max_connections).await
}

/// Starts the server with this limit of sessions.
pub(super) async fn start_with(directory: &Path, max_connections: u16) -> (Cluster, String) {
    let settings = Settings { durable: true, max_connections, ..cluster::settings(directory) };
    let cluster = Cluster::start(settings).await.expect("a server");
    let url = cluster.url(DATABASE);
    (cluster, url)
}

/// Creates the database, with a log of every change.
pub(super) async fn prepare(cluster: &Cluster, url: &str) -> PgPool {
    cluster.ensure_database(DATABASE).await.expect("a database");
    let pool = PgPool::connect(url).await.expect("a connection");
    migrate::run(&pool.clone().into()).await.expect("the schema");
    log_changes(&pool).await;
    pool
}
