//! `millrace bench` measures everything, checks what it measured, and leaves nothing behind.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{process::Process, scratch::Scratch};

/// It sends as fast as it can beside all other tests; this is for a machine that has much else to do.
const LONG: Duration = Duration::from_secs(240);

#[tokio::test]
async fn the_benchmark_measures_everything() {
    let folder = Scratch::new();
    let arguments = ["bench", "--seconds", "1", "--runs", "1", "--clients", "8", "--json"];
    let mut bench = Process::start_in(&folder, &arguments, &[]);
    let status = bench.wait_for_exit(LONG).await;
    let log = bench.log();
    assert!(status.success(), "{log}");
    let (progress, json) = log.split_once("\n{\n").unwrap_or_else(|| panic!("no JSON: {log}"));
    let report: Value = serde_json::from_str(&format!("{{{json}")).unwrap_or_else(|error| panic!("{error}: {json}"));
    let lines = report["lines"].as_array().expect("lines");
    for measure in ["ingest", "drain", "pickup", "full", "log", "reads", "items", "prices", "idle"] {
        let mut of_it = lines.iter().filter(|line| line["measure"] == measure).peekable();
        assert!(of_it.peek().is_some(), "no {measure}: {json}");
        // A difference may be less than nothing; a rate, and what it is compared with, may not.
        let rates = of_it.filter(|line| line["unit"] == "/s" && measure != "idle");
        for rate in rates {
            let positive = |value: &Value| value.as_f64().is_some_and(|value| value > 0.0);
            assert!(positive(&rate["value"]), "{rate}");
            assert!(rate["baseline"].is_null() || positive(&rate["baseline"]["value"]), "{rate}");
        }
    }
    assert!(progress.contains("Drain: "), "it says how far it is: {progress}");
    assert!(!folder.join(".millrace/bench").exists(), "it leaves nothing behind");
}

#[tokio::test]
async fn an_interrupted_benchmark_leaves_nothing_behind() {
    let folder = Scratch::new();
    let mut bench = Process::start_in(&folder, &["bench", "--only", "idle"], &[]);
    let server = folder.join(".millrace/bench/data/postmaster.pid");
    crate::harness::eventually("its PostgreSQL runs", LONG, async || server.exists()).await;
    bench.signal(Signal::SIGTERM);
    let status = bench.wait_for_exit(LONG).await;
    assert_eq!(status.code(), Some(1), "{}", bench.log());
    assert!(bench.log().contains("interrupted"), "{}", bench.log());
    assert!(!folder.join(".millrace/bench").exists(), "it leaves nothing behind");
}
