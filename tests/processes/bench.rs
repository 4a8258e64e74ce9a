//! `millrace bench` measures everything, checks its results, and removes its data.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{process::Process, scratch::Scratch};

/// The benchmark runs at full speed together with all other tests; this deadline suffices on a busy machine.
const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn the_benchmark_measures_everything() {
    let folder = Scratch::new();
    let arguments = ["bench", "--seconds", "0.2", "--runs", "1", "--clients", "8", "--json"];
    let mut bench = Process::start_in(&folder, &arguments, &[]);
    let status = bench.wait_for_exit(LONG).await;
    let log = bench.log();
    assert!(status.success(), "{log}");
    let (progress, json) = log.split_once("\n{\n").unwrap_or_else(|| panic!("no JSON: {log}"));
    let report: Value = serde_json::from_str(&format!("{{{json}")).unwrap_or_else(|error| panic!("{error}: {json}"));
    let lines = report["lines"].as_array().expect("lines");
    for measure in [
        "ingest",
        "batches",
        "overload",
        "drain",
        "pickup",
        "pinned",
        "callbacks",
        "cold",
        "full",
        "log",
        "reads",
        "items",
        "prices",
        "idle",
        "operators",
    ] {
        let mut measured = lines.iter().filter(|line| line["measure"] == measure).peekable();
        assert!(measured.peek().is_some(), "no {measure}: {json}");
        // A difference may be negative; a rate and its baseline may not.
        let rates = measured.filter(|line| line["unit"] == "/s" && measure != "idle");
        for rate in rates {
            let positive = |value: &Value| value.as_f64().is_some_and(|value| value > 0.0);
            assert!(positive(&rate["value"]), "{rate}");
            assert!(rate["baseline"].is_null() || positive(&rate["baseline"]["value"]), "{rate}");
        }
    }
    assert!(progress.contains("Drain: "), "the progress is printed: {progress}");
    assert!(!folder.join(".millrace/bench").exists(), "the data folder is removed");
}

/// Full tables of 20,000 finished, 2,000 waiting and 200 dead jobs are enough: counters of PostgreSQL show whether any page
/// reads the whole table.
#[tokio::test]
async fn every_view_takes_five_statements_and_no_scan_of_jobs() {
    let folder = Scratch::new();
    let short = ["--seconds", "0.2", "--runs", "1", "--json"];
    let arguments = [&["bench", "--only", "operators", "--finished", "20000"][..], &short].concat();
    let mut bench = Process::start_in(&folder, &arguments, &[]);
    let status = bench.wait_for_exit(LONG).await;
    let log = bench.log();
    assert!(status.success(), "{log}");
    let (_, json) = log.split_once("\n{\n").unwrap_or_else(|| panic!("no JSON: {log}"));
    let report: Value = serde_json::from_str(&format!("{{{json}")).unwrap_or_else(|error| panic!("{error}: {json}"));
    let lines = report["lines"].as_array().expect("lines");
    for promise in ["the most statements", "sequential scans"] {
        let line = lines.iter().find(|line| line["what"].as_str().is_some_and(|what| what.starts_with(promise)));
        assert_eq!(line.map(|line| &line["met"]), Some(&Value::Bool(true)), "{json}");
    }
    // Each cost has a baseline without it.
    for cost in ["jobs that do nothing, 20 tabs watch", "jobs that do nothing, counted for operators"] {
        let line = lines.iter().find(|line| line["what"] == cost);
        assert!(line.is_some_and(|line| line["baseline"]["value"].as_f64() > Some(0.0)), "{cost}: {json}");
    }
}

#[tokio::test]
async fn an_interrupted_benchmark_removes_its_data() {
    let folder = Scratch::new();
    let mut bench = Process::start_in(&folder, &["bench", "--only", "idle"], &[]);
    let server = folder.join(".millrace/bench/data/postmaster.pid");
    crate::harness::eventually("the benchmark's PostgreSQL runs", LONG, async || server.exists()).await;
    bench.signal(Signal::SIGTERM);
    let status = bench.wait_for_exit(LONG).await;
    assert_eq!(status.code(), Some(1), "{}", bench.log());
    assert!(bench.log().contains("interrupted"), "{}", bench.log());
    assert!(!folder.join(".millrace/bench").exists(), "the data folder is removed");
}
