//! The embedded PostgreSQL of `cargo run`: it survives a kill, keeps its data, and never runs as root or on TCP.

use crate::harness::{eventually, scratch::Scratch};
use embedded_postgres::{Cluster, Error, RunningServer, Search, Settings};
use nix::unistd::{Pid, geteuid, getpgid};
use sqlx::{Connection, PgConnection};
use std::{
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

/// A long deadline, because four servers may start at once on two cores.
const SOON: Duration = Duration::from_secs(60);

/// The variable with the directory, for the process that holds a cluster until it is killed.
const HOLD: &str = "MILLRACE_TEST_HOLD";

fn settings(directory: &Path) -> Settings {
    Settings {
        durable: false,
        max_connections: 20,
        search: std::env::var("PG_BIN_DIR").map(|value| Search::parse(&value)).unwrap_or_default(),
        ..Settings::new(directory)
    }
}

async fn start(directory: &Path) -> Cluster {
    Cluster::start(settings(directory)).await.unwrap_or_else(|error| panic!("{error}"))
}

async fn start_error(settings: Settings) -> Error {
    Cluster::start(settings).await.expect_err("a refused start")
}

async fn query(url: &str, query: &'static str) -> String {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap()
}

/// Writes a row that [`READ_NOTE`] reads.
async fn write_note(url: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql("CREATE TABLE notes AS SELECT 'kept' AS note").execute(&mut connection).await.unwrap();
}

const READ_NOTE: &str = "SELECT note FROM notes";

fn process_exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn a_stop_ends_the_server_and_keeps_its_data() {
    let scratch = Scratch::new();
    let cluster = start(&scratch).await;
    cluster.ensure_database("mill race").await.unwrap();
    cluster.ensure_database("mill race").await.unwrap();
    write_note(&cluster.url("mill race")).await;
    let pid = cluster.pid();
    cluster.stop().await.unwrap();
    assert!(!process_exists(pid), "the server still runs");
    assert!(RunningServer::find(&scratch).is_none());

    let cluster = start(&scratch).await;
    assert_eq!(query(&cluster.url("mill race"), READ_NOTE).await, "kept");
    let pid = cluster.pid();
    drop(cluster);
    assert!(!process_exists(pid), "the server still runs after the drop");
}

#[tokio::test]
async fn the_server_has_our_settings_and_no_tcp_port() {
    let scratch = Scratch::new();
    let mut settings = settings(&scratch);
    settings.durable = true;
    settings.extra.push(("work_mem".into(), "7MB".into()));
    let cluster = Cluster::start(settings).await.unwrap();
    let url = cluster.url("postgres");
    for (statement, expected) in [
        ("SHOW listen_addresses", ""),
        ("SHOW fsync", "on"),
        ("SHOW synchronous_commit", "on"),
        ("SHOW full_page_writes", "on"),
        ("SHOW max_connections", "20"),
        ("SHOW work_mem", "7MB"),
        ("SHOW server_encoding", "UTF8"),
        ("SHOW timezone", "UTC"),
        ("SELECT coalesce(inet_server_addr()::text, 'a socket')", "a socket"),
        (
            "SELECT string_agg(name, ' ' ORDER BY name) FROM pg_available_extensions WHERE name IN ('hstore', 'pg_trgm')",
            "hstore pg_trgm",
        ),
    ] {
        assert_eq!(query(&url, statement).await, expected, "{statement}");
    }
    // Only the server's account and root may enter the socket folder.
    let sockets = scratch.join("run");
    assert_eq!(fs::metadata(&sockets).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(fs::read_dir(&sockets).is_ok_and(|mut entries| entries.next().is_some()));
    cluster.stop().await.unwrap();

    let cluster = start(&scratch).await;
    assert_eq!(query(&cluster.url("postgres"), "SHOW fsync").await, "off");
}

#[tokio::test]
async fn the_server_runs_without_root_rights_and_outside_our_process_group() {
    let scratch = Scratch::new();
    let cluster = start(&scratch).await;
    let status = fs::read_to_string(format!("/proc/{}/status", cluster.pid())).unwrap();
    let ids = |name: &str| -> Vec<u32> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().map(|id| id.parse().unwrap()).collect()
    };
    if geteuid().is_root() {
        assert!(ids("Uid:").iter().all(|uid| *uid != 0), "{status}");
        assert!(ids("Gid:").iter().all(|gid| *gid != 0), "{status}");
        assert_eq!(ids("Groups:"), [0; 0], "the server kept supplementary groups");
    } else {
        assert!(ids("Uid:").iter().all(|uid| *uid == geteuid().as_raw()), "{status}");
    }
    let pid = Pid::from_raw(cluster.pid().cast_signed());
    assert_eq!(getpgid(Some(pid)).unwrap(), pid, "the server is in our process group");
}

#[tokio::test]
async fn a_second_owner_is_refused_with_the_process_id_of_the_first() {
    let scratch = Scratch::new();
    let cluster = start(&scratch).await;
    let message = start_error(settings(&scratch)).await.to_string();
    assert!(message.contains(&format!("(pid {})", std::process::id())), "{message}");
    let real = fs::canonicalize(&*scratch).unwrap();
    assert!(message.contains(&*real.to_string_lossy()), "{message}");
    assert_eq!(query(&cluster.url("postgres"), "SELECT 'unharmed'").await, "unharmed");
}

#[tokio::test]
async fn after_a_kill_the_server_starts_again_with_its_data() {
    if let Some(directory) = std::env::var_os(HOLD) {
        return hold_cluster(&PathBuf::from(directory)).await;
    }
    let scratch = Scratch::new();
    let mut holder = start_holder(&scratch, "after_a_kill_the_server_starts_again_with_its_data");
    eventually("the other process has started its server", SOON, async || {
        RunningServer::find(&scratch).is_some_and(|server| server.is_ready())
    })
    .await;
    let orphan = RunningServer::find(&scratch).unwrap();
    write_note(&orphan.url("postgres")).await;
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(process_exists(orphan.pid()), "the server must outlive a killed owner");

    // If the server had inherited the owner's lock, this start would be refused.
    let cluster = start(&scratch).await;
    assert_ne!(cluster.pid(), orphan.pid());
    assert_eq!(query(&cluster.url("postgres"), READ_NOTE).await, "kept");
}

/// Starts this test binary to hold a cluster until it is killed. Its input ends when this process ends.
fn start_holder(directory: &Path, test: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&format!("embedded_postgres::{test}"), "--exact", "--quiet"]).env(HOLD, directory);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

async fn hold_cluster(directory: &Path) {
    let _cluster = start(directory).await;
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

#[tokio::test]
async fn files_left_by_a_power_failure_do_not_prevent_a_start() {
    let scratch = Scratch::new();
    // The folder of an interrupted initdb.
    start(&scratch).await.stop().await.unwrap();
    fs::remove_dir_all(scratch.join("data")).unwrap();
    fs::create_dir_all(scratch.join("data.new-1/base")).unwrap();
    let cluster = start(&scratch).await;
    assert!(!scratch.join("data.new-1").exists());
    write_note(&cluster.url("postgres")).await;
    cluster.stop().await.unwrap();
    // A process id that now belongs to another program: this one.
    let pid = std::process::id();
    let (data, sockets) = (scratch.join("data"), scratch.join("run"));
    fs::create_dir_all(&sockets).unwrap();
    for file in [data.join("postmaster.pid"), sockets.join(".s.PGSQL.5432.lock")] {
        fs::write(file, format!("{pid}\n{}\n1\n5432\n{}\n\n1 1\nready\n", data.display(), sockets.display())).unwrap();
    }
    let cluster = start(&scratch).await;
    assert_eq!(query(&cluster.url("postgres"), READ_NOTE).await, "kept");
}

#[tokio::test]
async fn a_cluster_in_a_private_folder_works_for_root_and_other_users() {
    let scratch = Scratch::new();
    let private = scratch.join("private");
    fs::create_dir(&private).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    let directory = private.join("postgres");
    let lines = Arc::new(Mutex::new(String::new()));
    let (mut settings, progress) = (settings(&directory), Arc::clone(&lines));
    settings.progress = Arc::new(move |line| progress.lock().unwrap().push_str(line));
    let cluster = Cluster::start(settings.clone()).await.unwrap_or_else(|error| panic!("{error}"));
    write_note(&cluster.url("postgres")).await;
    cluster.stop().await.unwrap();

    let progress = lines.lock().unwrap().clone();
    if geteuid().is_root() {
        // The server's account cannot enter the folder. The data are in another folder with a link to it, which is reported.
        let target = fs::read_link(&directory).unwrap();
        assert!(target.starts_with("/var/lib/millrace"), "{}", target.display());
        assert!(progress.contains(&*target.to_string_lossy()), "{progress:?}");
    } else {
        assert!(!directory.is_symlink(), "the user owns the folder, so it is used directly");
        assert_eq!(progress, "");
    }
    let cluster = Cluster::start(settings).await.unwrap();
    assert_eq!(query(&cluster.url("postgres"), READ_NOTE).await, "kept");
}

#[tokio::test]
async fn a_path_that_is_too_long_for_a_socket_gets_a_short_socket_path() {
    let scratch = Scratch::new();
    let deep = scratch.join("a folder, \"quoted\"".repeat(5)).join("x".repeat(60));
    let cluster = start(&deep).await;
    assert_eq!(query(&cluster.url("postgres"), "SELECT 'reached'").await, "reached");
    let sockets = query(&cluster.url("postgres"), "SHOW unix_socket_directories").await;
    cluster.stop().await.unwrap();
    assert!(!Path::new(sockets.trim_matches('"')).exists(), "{sockets} still exists");
}

#[tokio::test]
async fn start_errors_contain_advice() {
    let scratch = Scratch::new();
    let mut wrong = settings(&scratch);
    wrong.search = Search::parse("/nowhere/bin");
    let message = start_error(wrong).await.to_string();
    assert!(message.starts_with("PG_BIN_DIR: /nowhere/bin: "), "{message}");

    let mut wrong = settings(&scratch);
    wrong.extra.push(("no_such_setting".into(), "1".into()));
    let message = start_error(wrong).await.to_string();
    assert!(message.contains("unrecognized configuration parameter \"no_such_setting\""), "{message}");

    let data = scratch.join("data");
    fs::write(data.join("PG_VERSION"), "9\n").unwrap();
    let message = start_error(settings(&scratch)).await.to_string();
    assert!(message.contains("made by PostgreSQL 9"), "{message}");
    assert!(data.join("global").exists(), "the data must not change");

    fs::remove_file(data.join("PG_VERSION")).unwrap();
    let message = start_error(settings(&scratch)).await.to_string();
    assert!(message.contains("is not a data directory"), "{message}");
}
