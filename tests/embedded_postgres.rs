//! The PostgreSQL that `cargo run` brings along: survives our death, keeps its data, and never runs as root or on TCP.

use crate::harness::{eventually, scratch::Scratch};
use jobs::boot::postgres::{Cluster, Error, Running, Search, Settings};
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

/// Generous: four servers may be starting at once on two cores.
const SOON: Duration = Duration::from_secs(60);

/// Set for the process that holds a cluster until it is killed: its directory.
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

async fn refused(settings: Settings) -> Error {
    Cluster::start(settings).await.expect_err("a refusal")
}

async fn ask(url: &str, question: &'static str) -> String {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar(question).fetch_one(&mut connection).await.unwrap()
}

async fn write_note(url: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql("CREATE TABLE notes AS SELECT 'kept' AS note").execute(&mut connection).await.unwrap();
}

const READ_NOTE: &str = "SELECT note FROM notes";

fn process_exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn it_stops_without_a_trace_and_keeps_its_data() {
    let scratch = Scratch::new();
    let cluster = start(&scratch).await;
    cluster.ensure_database("mill race").await.unwrap();
    cluster.ensure_database("mill race").await.unwrap();
    write_note(&cluster.url("mill race")).await;
    let pid = cluster.pid();
    cluster.stop().await.unwrap();
    assert!(!process_exists(pid), "the server is still there");
    assert!(Running::find(&scratch).is_none());

    let cluster = start(&scratch).await;
    assert_eq!(ask(&cluster.url("mill race"), READ_NOTE).await, "kept");
    let pid = cluster.pid();
    drop(cluster);
    assert!(!process_exists(pid), "dropping left the server behind");
}

#[tokio::test]
async fn it_runs_by_our_settings_and_off_the_network() {
    let scratch = Scratch::new();
    let mut settings = settings(&scratch);
    settings.durable = true;
    settings.extra.push(("work_mem".into(), "7MB".into()));
    let cluster = Cluster::start(settings).await.unwrap();
    let url = cluster.url("postgres");
    for (question, answer) in [
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
        assert_eq!(ask(&url, question).await, answer, "{question}");
    }
    // Its sockets: a folder of which only its account and root see the inside.
    let sockets = scratch.join("run");
    assert_eq!(fs::metadata(&sockets).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(fs::read_dir(&sockets).is_ok_and(|mut entries| entries.next().is_some()));
    cluster.stop().await.unwrap();

    let cluster = start(&scratch).await;
    assert_eq!(ask(&cluster.url("postgres"), "SHOW fsync").await, "off");
}

#[tokio::test]
async fn its_process_has_no_rights_of_roots_and_no_part_in_ctrl_c() {
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
        assert_eq!(ids("Groups:"), [0; 0], "supplementary groups were kept");
    } else {
        assert!(ids("Uid:").iter().all(|uid| *uid == geteuid().as_raw()), "{status}");
    }
    let pid = Pid::from_raw(cluster.pid().cast_signed());
    assert_eq!(getpgid(Some(pid)).unwrap(), pid, "it is in our process group");
}

#[tokio::test]
async fn a_second_owner_is_refused_and_told_who_the_first_is() {
    let scratch = Scratch::new();
    let cluster = start(&scratch).await;
    let message = refused(settings(&scratch)).await.to_string();
    assert!(message.contains(&format!("(pid {})", std::process::id())), "{message}");
    let real = fs::canonicalize(&*scratch).unwrap();
    assert!(message.contains(&*real.to_string_lossy()), "{message}");
    assert_eq!(ask(&cluster.url("postgres"), "SELECT 'unharmed'").await, "unharmed");
}

#[tokio::test]
async fn killed_without_warning_it_starts_again_with_its_data() {
    if let Some(directory) = std::env::var_os(HOLD) {
        return hold(&PathBuf::from(directory)).await;
    }
    let scratch = Scratch::new();
    let mut holder = holder(&scratch, "killed_without_warning_it_starts_again_with_its_data");
    eventually("the other process has its server", SOON, async || {
        Running::find(&scratch).is_some_and(|server| server.is_ready())
    })
    .await;
    let orphan = Running::find(&scratch).unwrap();
    write_note(&orphan.url("postgres")).await;
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(process_exists(orphan.pid()), "kill -9 leaves the server behind: what this test is about");

    // Had the server inherited the owner's lock, this would be refused.
    let cluster = start(&scratch).await;
    assert_ne!(cluster.pid(), orphan.pid());
    assert_eq!(ask(&cluster.url("postgres"), READ_NOTE).await, "kept");
}

/// This test binary once more, to hold a cluster until it is killed; or until we are, when its input ends.
fn holder(directory: &Path, test: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&format!("embedded_postgres::{test}"), "--exact", "--quiet"]).env(HOLD, directory);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

async fn hold(directory: &Path) {
    let _cluster = start(directory).await;
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

#[tokio::test]
async fn leftovers_of_a_power_failure_do_not_stop_it() {
    let scratch = Scratch::new();
    // An initdb that was interrupted.
    start(&scratch).await.stop().await.unwrap();
    fs::remove_dir_all(scratch.join("data")).unwrap();
    fs::create_dir_all(scratch.join("data.new-1/base")).unwrap();
    let cluster = start(&scratch).await;
    assert!(!scratch.join("data.new-1").exists());
    write_note(&cluster.url("postgres")).await;
    cluster.stop().await.unwrap();
    // A process id that is another program's by now: ours.
    let pid = std::process::id();
    let (data, sockets) = (scratch.join("data"), scratch.join("run"));
    fs::create_dir_all(&sockets).unwrap();
    for file in [data.join("postmaster.pid"), sockets.join(".s.PGSQL.5432.lock")] {
        fs::write(file, format!("{pid}\n{}\n1\n5432\n{}\n\n1 1\nready\n", data.display(), sockets.display())).unwrap();
    }
    let cluster = start(&scratch).await;
    assert_eq!(ask(&cluster.url("postgres"), READ_NOTE).await, "kept");
}

#[tokio::test]
async fn below_a_private_folder_it_works_for_root_and_for_others() {
    let scratch = Scratch::new();
    let private = scratch.join("private");
    fs::create_dir(&private).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    let directory = private.join("postgres");
    let news = Arc::new(Mutex::new(String::new()));
    let (mut settings, said) = (settings(&directory), Arc::clone(&news));
    settings.progress = Arc::new(move |line| said.lock().unwrap().push_str(line));
    let cluster = Cluster::start(settings.clone()).await.unwrap_or_else(|error| panic!("{error}"));
    write_note(&cluster.url("postgres")).await;
    cluster.stop().await.unwrap();

    let said = news.lock().unwrap().clone();
    if geteuid().is_root() {
        // Its account cannot enter, so the data are elsewhere, a link leads there, and we were told.
        let target = fs::read_link(&directory).unwrap();
        assert!(target.starts_with("/var/lib/millrace"), "{}", target.display());
        assert!(said.contains(&*target.to_string_lossy()), "{said:?}");
    } else {
        assert!(!directory.is_symlink(), "the folder is ours, so it is used as it is");
        assert_eq!(said, "");
    }
    let cluster = Cluster::start(settings).await.unwrap();
    assert_eq!(ask(&cluster.url("postgres"), READ_NOTE).await, "kept");
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_gets_a_short_one() {
    let scratch = Scratch::new();
    let deep = scratch.join("a folder, \"quoted\"".repeat(5)).join("x".repeat(60));
    let cluster = start(&deep).await;
    assert_eq!(ask(&cluster.url("postgres"), "SELECT 'reached'").await, "reached");
    let sockets = ask(&cluster.url("postgres"), "SHOW unix_socket_directories").await;
    cluster.stop().await.unwrap();
    assert!(!Path::new(sockets.trim_matches('"')).exists(), "{sockets} stays behind");
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let scratch = Scratch::new();
    let mut wrong = settings(&scratch);
    wrong.search = Search::parse("/nowhere/bin");
    let message = refused(wrong).await.to_string();
    assert!(message.starts_with("PG_BIN_DIR: /nowhere/bin: "), "{message}");

    let mut wrong = settings(&scratch);
    wrong.extra.push(("no_such_setting".into(), "1".into()));
    let message = refused(wrong).await.to_string();
    assert!(message.contains("unrecognized configuration parameter \"no_such_setting\""), "{message}");

    let data = scratch.join("data");
    fs::write(data.join("PG_VERSION"), "9\n").unwrap();
    let message = refused(settings(&scratch)).await.to_string();
    assert!(message.contains("made by PostgreSQL 9"), "{message}");
    assert!(data.join("global").exists(), "the data must stay as they are");

    fs::remove_file(data.join("PG_VERSION")).unwrap();
    let message = refused(settings(&scratch)).await.to_string();
    assert!(message.contains("is not a data directory"), "{message}");
}
