//! `millrace prove` runs faults, reports them, and removes its data. All faults take minutes, so they run in `.ci/run`.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{cluster, eventually, process::Process, scratch::Scratch};

/// Three faults take 25 s on an idle machine.
const LONG: Duration = Duration::from_secs(240);

async fn prove(folder: &Scratch, arguments: &[&str]) -> (Option<i32>, String) {
    let mut prove = Process::start_in(folder, &[&["prove"], arguments].concat(), &[]);
    let status = prove.wait_for_exit(LONG).await;
    (status.code(), prove.log())
}

/// The results by the name of their fault.
fn reports(log: &str) -> Vec<Value> {
    let json = log.find('{').map_or("", |begin| &log[begin..]);
    let reports = serde_json::Deserializer::from_str(json).into_iter();
    reports.map(|report| report.unwrap_or_else(|error| panic!("{error}: {log}"))).collect()
}

#[tokio::test]
async fn it_reports_the_figures_of_each_fault() {
    let folder = Scratch::new();
    let faults = ["--only", "worker-killed", "--only", "duplicates", "--only", "limit-kills", "--kills", "3"];
    let (status, log) = prove(&folder, &[&faults[..], &["--clients", "4", "--seed", "7", "--json"]].concat()).await;
    assert_eq!(status, Some(0), "{log}");
    let reports = reports(&log);
    let names: Vec<&str> = reports.iter().filter_map(|report| report["fault"].as_str()).collect();
    assert_eq!(names, ["worker-killed", "duplicates", "limit-kills"]);
    for report in &reports {
        assert_eq!((&report["verdict"], &report["lost"], &report["doubled"]), (&"kept".into(), &0.into(), &0.into()));
        let is_positive = |name: &str| report[name].as_f64().is_some_and(|value| value > 0.0);
        assert!(is_positive("acknowledged") && is_positive("recovery_s") && is_positive("time_s"), "{report}");
    }
    assert!(!folder.join(".millrace/prove/7").exists(), "the data folder is removed");
}

#[tokio::test]
async fn on_another_server_it_uses_scratch_databases_and_says_what_cannot_run() {
    let folder = Scratch::new();
    let url = cluster::server().await.url("postgres");
    let faults = ["--only", "connection-cut", "--only", "postgres-killed"];
    let arguments = [&faults[..], &["--clients", "2", "--database-url", &url]].concat();
    let (status, log) = prove(&folder, &arguments).await;
    assert_eq!(status, Some(3), "a fault that was named did not run: {log}");
    let line = |name: &str| log.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{log}"));
    assert!(line("connection-cut").ends_with("kept"), "{log}");
    assert!(line("postgres-killed").contains("not run: needs a server of its own"), "{log}");
}

#[tokio::test]
async fn a_command_of_the_user_is_a_fault() {
    let folder = Scratch::new();
    let command = "echo harmed; until [ -e repaired ]; do sleep 0.1; done; exit 3";
    let mut prove = Process::start_in(&folder, &["prove", "--during", command, "--clients", "2", "--seed", "7"], &[]);
    let history = folder.join(".millrace/prove/7/external/history.jsonl");
    let is_harmed = || std::fs::read_to_string(&history).is_ok_and(|text| text.contains("harmed: harmed"));
    eventually("the command runs", LONG, async || is_harmed()).await;
    std::fs::write(folder.join("repaired"), "").expect("a file that the command waits for");
    assert_eq!(prove.wait_for_exit(LONG).await.code(), Some(1), "{}", prove.log());
    assert!(prove.log().contains("FAILED: the command ended with exit status: 3"), "{}", prove.log());
}

#[tokio::test]
async fn it_lists_the_faults_and_refuses_unknown_ones() {
    let folder = Scratch::new();
    let (status, log) = prove(&folder, &["--list"]).await;
    assert!(status == Some(0) && log.contains("commit-reply-lost"), "{log}");
    let (status, log) = prove(&folder, &["--only", "flood"]).await;
    assert!(status == Some(2) && log.contains("flood") && log.contains("worker-killed"), "{log}");
}

#[tokio::test]
async fn a_normal_build_has_no_bugs_to_plant() {
    let folder = Scratch::new();
    let (status, log) = prove(&folder, &["--sabotage", "fence-dropped"]).await;
    assert!(status == Some(1) && log.contains("--features sabotage"), "{log}");
    let (status, log) = prove(&folder, &["--sabotage", "gremlins"]).await;
    assert!(status == Some(2) && log.contains("rescue-of-live-worker"), "{log}");
    assert!(!folder.join(".millrace").exists(), "nothing was started");
}

#[tokio::test]
async fn an_interrupted_proof_removes_its_data() {
    let folder = Scratch::new();
    let arguments = ["prove", "--only", "snapshot-pinned", "--seconds", "600", "--seed", "7"];
    let mut prove = Process::start_in(&folder, &arguments, &[]);
    let history = folder.join(".millrace/prove/7/snapshot-pinned/history.jsonl");
    eventually("the fault runs", LONG, async || history.exists()).await;
    prove.signal(Signal::SIGTERM);
    assert_eq!(prove.wait_for_exit(LONG).await.code(), Some(1), "{}", prove.log());
    assert!(prove.log().contains("interrupted"), "{}", prove.log());
    assert!(!folder.join(".millrace/prove/7").exists(), "the data folder is removed");
}
