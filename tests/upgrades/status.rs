//! `migrate --status` and `--wait`: missing migrations are shown without a change, and a starting database is awaited.

use std::{path::PathBuf, str::FromStr, time::Duration};

use sqlx::postgres::PgConnectOptions;
use tokio::{
    net::{TcpListener, UnixStream},
    task::JoinHandle,
};

use super::{empty_database, value};
use crate::harness::{database::TestDatabase, eventually, port::Port, process::Process};

const SOON: Duration = Duration::from_secs(30);

fn start(url: &str, arguments: &[&str]) -> Process {
    Process::start(&[&["migrate"], arguments].concat(), &[("DATABASE_URL", url), ("LOG_FORMAT", "json")])
}

/// The Unix socket of the database's server.
fn socket_of(database: &TestDatabase) -> PathBuf {
    let options = PgConnectOptions::from_str(&database.url).unwrap();
    options.get_socket().expect("a socket").join(format!(".s.PGSQL.{}", options.get_port()))
}

/// Forwards each TCP connection to the socket.
fn forward(listener: TcpListener, socket: PathBuf) -> JoinHandle<()> {
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = UnixStream::connect(&socket).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    })
}

#[tokio::test]
async fn a_status_shows_missing_migrations_and_changes_nothing() {
    let (database, pool) = empty_database().await;
    let mut status = start(&database.url, &["--status"]);
    assert_eq!(status.wait_for_exit(SOON).await.code(), Some(1), "{}", status.log());
    let log = status.log();
    assert!(log.contains("0 migrations applied, ") && log.contains("20261121090100 create transactions"), "{log}");
    assert!(log.contains("run `millrace migrate`"), "{log}");
    let tables = "(SELECT count(*) FROM pg_tables WHERE schemaname IN ('public', 'apalis'))";
    assert_eq!(value(&pool, tables).await, "0");

    // One process waits until another one has migrated.
    let mut waiting = start(&database.url, &["--status", "--wait", "60"]);
    waiting.wait_for_line("migrations are missing").await;
    let mut migrate = start(&database.url, &[]);
    assert!(migrate.wait_for_exit(SOON).await.success(), "{}", migrate.log());
    assert!(waiting.wait_for_exit(SOON).await.success(), "{}", waiting.log());
    assert!(waiting.log().contains(" migrations applied, 0 missing"), "{}", waiting.log());
}

/// Without one snapshot, what another process migrates between two reads looks like the objects of another program.
#[tokio::test]
async fn a_status_during_a_migration_is_that_of_one_moment() {
    let (database, pool) = empty_database().await;
    const LEDGER: &str = "CREATE TABLE public._sqlx_migrations
        (version bigint, description text, installed_on timestamptz, success boolean, checksum bytea, execution_time bigint)";
    sqlx::raw_sql(LEDGER).execute(&pool).await.unwrap();
    let mut lock = pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE public._sqlx_migrations").execute(&mut *lock).await.unwrap();
    let mut status = start(&database.url, &["--status"]);
    // It has read that apalis has no ledger, and waits for ours.
    let is_waiting =
        "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'public._sqlx_migrations'::regclass AND NOT granted)";
    eventually("the status waits", SOON, async || sqlx::query_scalar(is_waiting).fetch_one(&pool).await.unwrap()).await;
    const MIGRATED: &str = "CREATE FUNCTION public.generate_ulid() RETURNS text LANGUAGE sql AS $$SELECT ''$$";
    sqlx::raw_sql(MIGRATED).execute(&pool).await.unwrap();
    lock.rollback().await.unwrap();
    assert_eq!(status.wait_for_exit(SOON).await.code(), Some(1), "{}", status.log());
    assert!(status.log().contains("0 migrations applied, "), "{}", status.log());
}

#[tokio::test]
async fn migrate_waits_for_a_starting_database() {
    let (database, _pool) = empty_database().await;
    let socket = socket_of(&database);
    let options = PgConnectOptions::from_str(&database.url).unwrap();
    // Nothing listens there yet.
    let port = Port::free();
    let address = port.address();
    let url = format!("postgres://{}@{address}/{}?sslmode=disable", options.get_username(), database.name);
    for arguments in [&[][..], &["--wait", "1"], &["--status"]] {
        let mut migrate = start(&url, arguments);
        assert_eq!(migrate.wait_for_exit(SOON).await.code(), Some(1), "{arguments:?}");
        assert!(migrate.log().contains("Connection refused"), "{arguments:?}: {}", migrate.log());
    }
    let mut waiting = start(&url, &["--wait"]);
    waiting.wait_for_line("waiting for the database").await;
    let listener = TcpListener::bind(address).await.unwrap();
    let forwarding = forward(listener, socket);
    assert!(waiting.wait_for_exit(SOON).await.success(), "{}", waiting.log());
    forwarding.abort();
}

#[tokio::test]
async fn an_ipv6_address_stands_in_brackets() {
    let (database, _pool) = empty_database().await;
    // A machine without IPv6 uses an IPv4 address instead.
    let listener = match TcpListener::bind("[::1]:0").await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind("127.0.0.1:0").await.unwrap(),
    };
    let address = listener.local_addr().unwrap();
    let user = PgConnectOptions::from_str(&database.url).unwrap().get_username().to_owned();
    let forwarding = forward(listener, socket_of(&database));
    let url = format!("postgres://{user}:any@{address}/{}?sslmode=disable", database.name);
    let mut migrate = start(&url, &[]);
    assert!(migrate.wait_for_exit(SOON).await.success(), "{}", migrate.log());
    let shown = format!("postgres://{user}@{address}/{}", database.name);
    assert!(migrate.log().contains(&shown), "{shown}: {}", migrate.log());
    forwarding.abort();
}
