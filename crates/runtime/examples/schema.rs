//! Prints the schema of this release from a new database, for `crates/runtime/src/doctor/schema.txt`.

use std::{io::Write, process::ExitCode};

use embedded_postgres::{Cluster, Search, Settings};
use runtime::{db::Database, doctor, migrate, process};

const DATABASE: &str = "schema";

fn main() -> ExitCode {
    process::run("schema", program())
}

async fn program() -> Result<(), String> {
    let folder = std::env::temp_dir().join(format!("millrace-schema-{}", std::process::id()));
    let mut settings = Settings::new(&folder);
    settings.durable = false;
    settings.search = std::env::var("PG_BIN_DIR").map(|value| Search::parse(&value)).unwrap_or_default();
    let cluster = Cluster::start(settings).await.map_err(process::error_text)?;
    cluster.ensure_database(DATABASE).await.map_err(process::error_text)?;
    let database = Database::parse(&cluster.url(DATABASE))?;
    let pool = database.pool("schema", 1);
    migrate::run(&pool).await.map_err(process::error_text)?;
    pool.close().await;
    let list = doctor::schema_list(&database).await.map_err(process::error_text)?;
    cluster.stop().await.map_err(process::error_text)?;
    std::fs::remove_dir_all(&folder).map_err(process::error_text)?;
    std::io::stdout().write_all(list.as_bytes()).map_err(process::error_text)
}
