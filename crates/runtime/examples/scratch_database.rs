//! Runs a command with a migrated scratch database, whose URL is in `PREPARE_DATABASE_URL`; see `.ci/prepare-sqlx`.

use std::process::{Command, ExitCode};

use embedded_postgres::{Cluster, Search, Settings};
use runtime::{db::Database, migrate, process};

const DATABASE: &str = "scratch";

fn main() -> ExitCode {
    process::run("scratch_database", program())
}

async fn program() -> Result<(), String> {
    let command: Vec<_> = std::env::args_os().skip(1).collect();
    let [program, arguments @ ..] = &*command else { return Err("name a command to run".into()) };
    let folder = std::env::temp_dir().join(format!("millrace-scratch-{}", std::process::id()));
    let mut settings = Settings::new(&folder);
    settings.durable = false;
    settings.search = std::env::var("PG_BIN_DIR").map(|value| Search::parse(&value)).unwrap_or_default();
    let cluster = Cluster::start(settings).await.map_err(process::error_text)?;
    cluster.ensure_database(DATABASE).await.map_err(process::error_text)?;
    let url = cluster.url(DATABASE);
    let pool = Database::parse(&url)?.pool("prepare", 1);
    migrate::run(&pool).await.map_err(process::error_text)?;
    pool.close().await;

    let status = Command::new(program).args(arguments).env("PREPARE_DATABASE_URL", url).status();
    cluster.stop().await.map_err(process::error_text)?;
    std::fs::remove_dir_all(&folder).map_err(process::error_text)?;
    match status.map_err(process::error_text)? {
        status if status.success() => Ok(()),
        status => Err(format!("{}: {status}", program.display())),
    }
}
