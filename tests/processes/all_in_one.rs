//! The all-in-one (`cargo run`): all processes in one, started in an empty folder, with data that survives a restart.

use std::{collections::BTreeMap, path::Path, process::Command, time::Duration};

use embedded_postgres::RunningServer;
use nix::sys::signal::Signal;
use reqwest::Client;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::harness::{
    eventually,
    http::send,
    process::{Process, http_client},
    scratch::Scratch,
};

struct AllInOne {
    process: Process,
    url: String,
    client: Client,
}

impl AllInOne {
    async fn start(folder: &Path, delay: &str) -> Self {
        let mut command = Command::new("env");
        // Under `nohup`, this test run ignores the signal of a closed terminal.
        command.args(["--default-signal=HUP", env!("CARGO_BIN_EXE_millrace")]).current_dir(folder);
        let mut process = Process::run("all-in-one", command, &[("PORT", "0"), ("PROCESSING_DELAY_SECONDS", delay)]);
        let line = process.wait_for_line("API docs").await;
        // The last line of the banner: those before it have been read as well.
        process.wait_for_line("?wait=60").await;
        let url = line.trim().trim_start_matches("API docs").trim().trim_end_matches("/docs").to_owned();
        Self { process, url, client: http_client() }
    }

    async fn post_webhook(&self, id: &str) -> Value {
        let webhook = json!({
            "transaction_id": id, "source_account": "a", "destination_account": "b", "amount": 1500, "currency": "INR",
        });
        let response = send(self.client.post(format!("{}/v1/webhooks/transactions", self.url)).json(&webhook)).await;
        assert_eq!(response.status, 202, "{response:?}");
        response.json()
    }

    async fn get(&self, id: &str, wait: u8) -> Value {
        send(self.client.get(format!("{}/v1/transactions/{id}?wait={wait}", self.url))).await.json()
    }

    /// Stops it like Ctrl-C.
    async fn stop(self, folder: &Path) -> String {
        self.stop_by(Signal::SIGINT, folder).await
    }

    /// Stops it by a signal, asserts that its PostgreSQL has ended, and returns the log.
    async fn stop_by(mut self, signal: Signal, folder: &Path) -> String {
        let server = RunningServer::find(&folder.join(".millrace/postgres")).expect("its PostgreSQL");
        self.process.signal(signal);
        let status = self.process.wait_for_exit(Duration::from_secs(20)).await;
        assert_eq!(status.code(), Some(0), "{}", self.process.log());
        assert!(!Path::new(&format!("/proc/{}", server.pid())).exists(), "PostgreSQL still runs");
        self.process.log()
    }
}

fn seconds(transaction: &Value, field: &str) -> f64 {
    let time = OffsetDateTime::parse(transaction[field].as_str().unwrap_or_default(), &Rfc3339);
    time.unwrap_or_else(|error| panic!("{field}: {error}: {transaction}")).unix_timestamp_nanos() as f64 / 1e9
}

#[tokio::test]
async fn data_survives_a_stop_and_a_wait_does_not_start_again() {
    // An idle machine is late by milliseconds, a busy one by seconds: by less than half of the delay.
    const DELAY: f64 = 16.5;
    let folder = Scratch::new();
    let first = AllInOne::start(&folder, &DELAY.to_string()).await;
    first.assert_log_contains(&["/docs", "/metrics", "curl -i", "Ctrl-C", &format!("{DELAY} s later")]);
    first.post_webhook("done").await;
    // At the stop this one has waited for half of its delay.
    tokio::time::sleep(Duration::from_secs_f64(DELAY / 2.0)).await;
    first.post_webhook("waiting").await;
    let done = first.get("done", 30).await;
    assert_eq!(done["status"], "PROCESSED", "{done}");
    let late = seconds(&done, "processed_at") - seconds(&done, "created_at") - DELAY;
    assert!((0.0..DELAY / 2.0).contains(&late), "{late}: {done}");
    let metrics = send(first.client.get(format!("{}/metrics", first.url))).await.text;
    assert!(metrics.contains("millrace_jobs_enqueued_total{queue=\"process_transaction\"} 2\n"), "{metrics}");
    let log = first.stop(&folder).await;
    for level in ["ERROR", "panicked"] {
        assert!(!log.contains(level), "{log}");
    }

    // Another delay shows that the wait keeps the first one.
    let second = AllInOne::start(&folder, "600").await;
    assert_eq!(second.get("done", 0).await, done, "a settled transaction does not change");
    let waited = second.get("waiting", 30).await;
    assert_eq!(waited["status"], "PROCESSED", "{waited}");
    let due = seconds(&waited, "created_at") + DELAY;
    // A wait that starts again would end later: the stop came after the first one was processed.
    let again = seconds(&done, "processed_at") + DELAY;
    assert!((due..again).contains(&seconds(&waited, "processed_at")), "due {due}, again {again}: {waited}");
    second.stop(&folder).await;
    // One log file for each run, with the id of its process in the name; two if midnight has passed.
    let mut runs = BTreeMap::<String, String>::new();
    for file in std::fs::read_dir(folder.join(".millrace/logs")).unwrap().map(|file| file.unwrap().path()) {
        let text = crate::logs::text(&file);
        assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{}: {text}", file.display());
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
        *runs.entry(name.split('-').nth(1).expect("a process id").to_owned()).or_default() += &text;
    }
    assert_eq!(runs.len(), 2, "log files of two runs: {:?}", runs.keys());
    assert!(runs.values().all(|text| text.contains("COMPLETED_REQUEST")), "{runs:?}");
}

#[tokio::test]
async fn after_a_kill_it_starts_again_with_its_data() {
    let folder = Scratch::new();
    let mut first = AllInOne::start(&folder, "1").await;
    let sent = first.post_webhook("t").await;
    first.process.signal(Signal::SIGKILL);
    first.process.wait_for_exit(Duration::from_secs(10)).await;
    drop(first);
    let second = AllInOne::start(&folder, "600").await;
    let settled = second.get("t", 20).await;
    assert_eq!((&settled["status"], &settled["created_at"]), (&json!("PROCESSED"), &sent["created_at"]));
    // A second one in the same folder is refused with the process id of the first.
    let mut second_in_folder = Process::start_in(&folder, &[], &[("PORT", "0")]);
    assert!(!second_in_folder.wait_for_exit(Duration::from_secs(20)).await.success());
    assert!(second_in_folder.log().contains(&format!("(pid {})", second.process.pid())), "{}", second_in_folder.log());
    assert_eq!(second.get("t", 0).await, settled);
    // A closed terminal stops it, together with its PostgreSQL.
    second.stop_by(Signal::SIGHUP, &folder).await;
}

#[tokio::test]
async fn it_serves_the_workers_health_port() {
    let (database, folder) = (crate::harness::database::fresh().await, Scratch::new());
    let variables =
        [("PORT", "0"), ("WORKER_HEALTH_PORT", "0"), ("DATABASE_URL", &*database.url), ("LOG_FORMAT", "json")];
    let mut process = Process::start_in(&folder, &[], &variables);
    let line: Value = serde_json::from_str(&process.wait_for_line("serving health and metrics").await).expect("JSON");
    let url = format!("http://{}/readyz", line["address"].as_str().expect("an address"));
    let client = http_client();
    eventually("the worker is ready", Duration::from_secs(60), async || send(client.get(&url)).await.status == 200)
        .await;
}

/// The error names the working folder, and no variable that was not set.
#[tokio::test]
async fn a_read_only_working_folder_is_reported() {
    let nowhere = Path::new("/proc");
    let mut process = Process::start_in(nowhere, &[], &[("PORT", "0")]);
    assert_eq!(process.wait_for_exit(Duration::from_secs(20)).await.code(), Some(1));
    let log = process.log();
    assert!(log.contains("working folder: /proc/.millrace cannot be written") && !log.contains("LOG_DIR"), "{log}");

    // With an external database, the folder is not needed.
    let database = crate::harness::database::fresh().await;
    let variables = [("PORT", "0"), ("DATABASE_URL", &*database.url)];
    let mut process = Process::start_in(nowhere, &[], &variables);
    process.wait_for_line("API docs").await;
    // Another thread writes the log.
    process.wait_for_line("logging to standard output only").await;
}

/// `cargo run` in a subfolder uses the workspace's data folder.
#[tokio::test]
async fn cargo_run_in_a_subfolder_uses_the_workspaces_data() {
    let cli = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = cli.parent().expect("a workspace");
    let folder = workspace.join("api");
    let under_cargo = [("CARGO_MANIFEST_DIR", env!("CARGO_MANIFEST_DIR"))];
    for (variables, home) in [(&under_cargo[..], workspace.join(".millrace")), (&[], folder.join(".millrace"))] {
        let mut process = Process::start_in(&folder, &["queues"], variables);
        let found = process.wait_for_exit(Duration::from_secs(20)).await.success();
        // On a developer's machine an all-in-one may be running, which the command then finds.
        let named = process.log().contains(&format!("keeps its data in {}", home.display()));
        assert!(named || (found && home.starts_with(workspace)), "{}: {}", home.display(), process.log());
    }
}

impl AllInOne {
    fn assert_log_contains(&self, texts: &[&str]) {
        let log = self.process.log();
        for text in texts {
            assert!(log.contains(text), "{text:?}: {log}");
        }
    }
}
