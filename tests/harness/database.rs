//! A fresh, migrated database per test, copied from a template and removed in the background afterwards.

use super::cluster;
use runtime::migrate;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Row};
use std::{
    fs,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};
use tokio::sync::{
    OnceCell,
    mpsc::{UnboundedSender, unbounded_channel},
};

/// Advisory locks in the database `postgres`, which no other program uses.
const TEMPLATE_LOCK: i64 = 1;
const JANITOR_LOCK: i64 = 2;

/// A database of one test, with this build's schema.
pub(crate) struct TestDatabase {
    /// For `DATABASE_URL` of a process under test, or `PgPool::connect`.
    pub url: String,
    /// `test_<process id>_<process start time>_<number>`: shows the janitor which process owns it.
    pub name: String,
}

/// Creates a migrated database. It is removed some time after the returned value is dropped.
pub(crate) async fn fresh() -> TestDatabase {
    super::process::install_tls();
    let template = template().await;
    // A file copy does not log every page: 11 ms instead of 30 ms.
    create(&format!("TEMPLATE {template} STRATEGY file_copy")).await
}

/// Creates a database with these options of `CREATE DATABASE`. It is removed like that of [`fresh`].
pub(crate) async fn create(options: &str) -> TestDatabase {
    super::process::install_tls();
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("test_{}_{}", *OWNER, NEXT.fetch_add(1, Ordering::Relaxed));
    let mut postgres = connect().await;
    execute(&mut postgres, &format!("CREATE DATABASE {name} {options}")).await;
    let url = cluster::server().await.url(&name);
    drop(postgres.close().await);
    TestDatabase { url, name }
}

impl TestDatabase {
    /// Opens a small pool for the test's own queries.
    pub(crate) async fn pool(&self) -> PgPool {
        PgPool::connect(&self.url).await.unwrap_or_else(|error| panic!("cannot connect to {}: {error}", self.name))
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // Sending fails only if the remover has panicked. Then the janitor of another process removes the database.
        let _ = REMOVER.send(std::mem::take(&mut self.name));
    }
}

/// Returns the migrated template. The first process of this build creates it.
async fn template() -> &'static str {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    TEMPLATE.get_or_init(create_template).await
}

async fn create_template() -> String {
    let fingerprint = migrate::fingerprint();
    let (template, unfinished) = (format!("template_{fingerprint}"), format!("making_{fingerprint}"));
    let mut postgres = connect().await;
    execute(&mut postgres, &format!("SELECT pg_advisory_lock({TEMPLATE_LOCK})")).await;
    if !names(&mut postgres).await.contains(&template) {
        execute(&mut postgres, &format!("DROP DATABASE IF EXISTS {unfinished} WITH (FORCE)")).await;
        execute(&mut postgres, &format!("CREATE DATABASE {unfinished}")).await;
        let pool =
            PgPool::connect(&cluster::server().await.url(&unfinished)).await.expect("a connection to the template");
        migrate::run(&pool.clone().into()).await.unwrap_or_else(|error| panic!("the migrations fail: {error}"));
        pool.close().await;
        // A template with open connections cannot be copied.
        execute(&mut postgres, &format!("ALTER DATABASE {unfinished} ALLOW_CONNECTIONS false")).await;
        execute(&mut postgres, &format!("ALTER DATABASE {unfinished} RENAME TO {template}")).await;
    }
    drop(postgres.close().await);
    LazyLock::force(&REMOVER);
    template
}

/// Removes databases in the background: those of this process as their tests end, and those of dead processes.
static REMOVER: LazyLock<UnboundedSender<String>> = LazyLock::new(|| {
    let (sender, mut unused) = unbounded_channel::<String>();
    let remove_all = async move {
        let mut postgres = connect().await;
        remove_orphans(&mut postgres).await;
        while let Some(name) = unused.recv().await {
            remove(&mut postgres, &name).await;
        }
    };
    // It has its own runtime, because a test's runtime ends with the test.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    thread::spawn(move || runtime.block_on(remove_all));
    sender
});

/// Removes the databases of dead processes now. Only the harness's own test needs this.
pub(super) async fn remove_orphans_now() {
    remove_orphans(&mut connect().await).await;
}

/// The janitor: removes the databases of dead processes, unless another process is doing so.
async fn remove_orphans(postgres: &mut PgConnection) {
    let lock = sqlx::query("SELECT pg_try_advisory_lock($1)").bind(JANITOR_LOCK).fetch_one(&mut *postgres).await;
    if !lock.is_ok_and(|row| row.get(0)) {
        return;
    }
    for name in names(postgres).await {
        let owner = name.strip_prefix("test_").and_then(|rest| rest.rsplit_once('_')).map(|(owner, _)| owner);
        if owner.is_some_and(|owner| !is_alive(owner)) {
            remove(postgres, &name).await;
        }
    }
    execute(postgres, &format!("SELECT pg_advisory_unlock({JANITOR_LOCK})")).await;
}

/// Ignores errors: the server may be stopping, or another janitor may be faster.
async fn remove(postgres: &mut PgConnection, name: &str) {
    let drop = AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
    let _ = sqlx::query(drop).execute(postgres).await;
}

async fn connect() -> PgConnection {
    let url = cluster::server().await.url("postgres");
    PgConnection::connect(&url).await.unwrap_or_else(|error| panic!("cannot connect to {url}: {error}"))
}

async fn names(postgres: &mut PgConnection) -> Vec<String> {
    let names = sqlx::query_scalar("SELECT datname::text FROM pg_database").fetch_all(postgres).await;
    names.unwrap_or_else(|error| panic!("cannot list the databases: {error}"))
}

async fn execute(postgres: &mut PgConnection, statement: &str) {
    let done = sqlx::query(AssertSqlSafe(statement.to_owned())).execute(postgres).await;
    done.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// This process's id and start time, which distinguish it from a later process with the same id.
static OWNER: LazyLock<String> = LazyLock::new(|| {
    let pid = std::process::id();
    format!("{pid}_{}", start_time(pid).unwrap_or_default())
});

fn is_alive(owner: &str) -> bool {
    let Some((pid, start)) = owner.split_once('_') else { return false };
    let (Ok(pid), Ok(start)) = (pid.parse(), start.parse::<u64>()) else { return false };
    start_time(pid) == Some(start)
}

/// The start time of a process in kernel ticks: field 22 of `/proc/PID/stat`, counted after the name in brackets.
fn start_time(pid: u32) -> Option<u64> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    line.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}
