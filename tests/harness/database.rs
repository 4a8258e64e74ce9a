//! A fresh, migrated database per test, copied from a template; removed afterwards without making the tests wait.

use super::cluster;
use jobs::boot::migrate;
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

/// Any number that nothing else in the database `postgres` locks: it is ours alone.
const TEMPLATE_LOCK: i64 = 1;
const JANITOR_LOCK: i64 = 2;

/// A database of one test's own, at this build's schema.
pub struct TestDatabase {
    /// For `DATABASE_URL` of a process under test, or `PgPool::connect`.
    pub url: String,
    /// `test_<process>_<its start time>_<number>`: tells the janitor whose it is.
    pub name: String,
}

/// Makes one. It is removed some time after this is dropped.
pub async fn fresh() -> TestDatabase {
    super::process::install_tls();
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let template = template().await;
    let name = format!("test_{}_{}", *OWNER, NEXT.fetch_add(1, Ordering::Relaxed));
    let mut postgres = connect().await;
    // A file copy needs no write-ahead log of every page: 11 ms instead of 30.
    execute(&mut postgres, &format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")).await;
    let url = cluster::server().await.url(&name);
    // A goodbye is not waited for by anybody.
    drop(postgres.close().await);
    TestDatabase { url, name }
}

impl TestDatabase {
    /// A small pool for the test's own questions.
    pub async fn pool(&self) -> PgPool {
        PgPool::connect(&self.url).await.unwrap_or_else(|error| panic!("cannot connect to {}: {error}", self.name))
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // Fails only when the broom broke: then the janitor of another process does it.
        let _ = BROOM.send(std::mem::take(&mut self.name));
    }
}

/// The migrated database to copy, made by whichever process of this build comes first.
async fn template() -> &'static str {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    TEMPLATE.get_or_init(make_template).await
}

async fn make_template() -> String {
    let fingerprint = migrate::fingerprint();
    let (template, making) = (format!("template_{fingerprint}"), format!("making_{fingerprint}"));
    let mut postgres = connect().await;
    execute(&mut postgres, &format!("SELECT pg_advisory_lock({TEMPLATE_LOCK})")).await;
    if !names(&mut postgres).await.contains(&template) {
        execute(&mut postgres, &format!("DROP DATABASE IF EXISTS {making} WITH (FORCE)")).await;
        execute(&mut postgres, &format!("CREATE DATABASE {making}")).await;
        let pool = PgPool::connect(&cluster::server().await.url(&making)).await.expect("a connection to the template");
        migrate::run(&pool).await.unwrap_or_else(|error| panic!("the migrations fail: {error}"));
        pool.close().await;
        // A template that somebody is connected to cannot be copied.
        execute(&mut postgres, &format!("ALTER DATABASE {making} ALLOW_CONNECTIONS false")).await;
        execute(&mut postgres, &format!("ALTER DATABASE {making} RENAME TO {template}")).await;
    }
    drop(postgres.close().await);
    LazyLock::force(&BROOM);
    template
}

/// Removes databases in the background: this process's as their tests end, and those of processes that are no more.
static BROOM: LazyLock<UnboundedSender<String>> = LazyLock::new(|| {
    let (sender, mut done_with) = unbounded_channel::<String>();
    let sweep = async move {
        let mut postgres = connect().await;
        janitor(&mut postgres).await;
        while let Some(name) = done_with.recv().await {
            remove(&mut postgres, &name).await;
        }
    };
    // Its own runtime: the runtime of a test ends with the test.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    thread::spawn(move || runtime.block_on(sweep));
    sender
});

/// Removes the databases of dead processes now; for the harness's own test.
pub(super) async fn janitor_now() {
    janitor(&mut connect().await).await;
}

async fn janitor(postgres: &mut PgConnection) {
    let lock = sqlx::query("SELECT pg_try_advisory_lock($1)").bind(JANITOR_LOCK).fetch_one(&mut *postgres).await;
    // Another process is at it.
    if !lock.is_ok_and(|row| row.get(0)) {
        return;
    }
    for name in names(postgres).await {
        let owner = name.strip_prefix("test_").and_then(|rest| rest.rsplit_once('_')).map(|(owner, _)| owner);
        if owner.is_some_and(|owner| !lives(owner)) {
            remove(postgres, &name).await;
        }
    }
    execute(postgres, &format!("SELECT pg_advisory_unlock({JANITOR_LOCK})")).await;
}

/// The server may be stopping, or another janitor faster: neither is a reason to fail a test.
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

/// This process, told apart from a later one with the same id.
static OWNER: LazyLock<String> = LazyLock::new(|| {
    let pid = std::process::id();
    format!("{pid}_{}", started(pid).unwrap_or_default())
});

fn lives(owner: &str) -> bool {
    let Some((pid, start)) = owner.split_once('_') else { return false };
    let (Ok(pid), Ok(start)) = (pid.parse(), start.parse::<u64>()) else { return false };
    started(pid) == Some(start)
}

/// When a process started, in the kernel's ticks; the 22nd word of its line, counted after its name in brackets.
fn started(pid: u32) -> Option<u64> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    line.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}
