//! The Procfile, run by a real runner (honcho): release, start, one webhook, stop.

use std::{os::unix::fs::PermissionsExt, time::Duration};

use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use super::{read, tools};
use crate::harness::{
    database, eventually,
    port::Port,
    process::{Process, http_client},
    scratch::Scratch,
};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn the_procfile_releases_serves_and_stops() {
    let Some(tools) = tools() else { return };
    let database = database::fresh().await;
    let pool = database.pool().await;
    // Empty the database, so that the release step has migrations to apply.
    for statement in ["DROP SCHEMA apalis CASCADE", "DROP SCHEMA public CASCADE", "CREATE SCHEMA public"] {
        sqlx::query(AssertSqlSafe(statement)).execute(&pool).await.unwrap();
    }
    let folder = Scratch::new();
    std::fs::write(folder.join("Procfile"), read("Procfile")).unwrap();
    let path = programs(&folder);
    let port = Port::free();
    let variables =
        [("DATABASE_URL", &*database.url), ("PROCESSING_DELAY_SECONDS", "0.2"), ("PATH", &path), tools.variable()];
    let honcho = |arguments: &[&str]| {
        let mut command = tools.program("honcho");
        command.arg("start").args(arguments).current_dir(&*folder);
        Process::run("honcho", command, &variables)
    };
    let mut release = honcho(&["release"]);
    assert!(release.wait_for_exit(SOON).await.success(), "{}", release.log());

    let mut running = honcho(&["--port", &port.to_string(), "web", "worker"]);
    running.wait_for_line("worker started").await;
    let (client, url) = (http_client(), format!("http://127.0.0.1:{port}"));
    eventually("the API is ready", SOON, async || {
        client.get(format!("{url}/readyz")).send().await.is_ok_and(|response| response.status() == 200)
    })
    .await;
    let webhook = json!({
        "transaction_id": "txn_proc", "source_account": "a", "destination_account": "b", "amount": 1, "currency": "EUR",
    });
    let response = client.post(format!("{url}/v1/webhooks/transactions")).json(&webhook).send().await.unwrap();
    assert_eq!(response.status(), 202);
    let response = client.get(format!("{url}/v1/transactions/txn_proc?wait=30")).send().await.unwrap();
    let settled: Value = response.json().await.unwrap();
    assert_eq!(settled["status"], "PROCESSED", "{settled}");

    let children = descendants(running.pid());
    assert!(children.len() >= 2, "{children:?}");
    // Wait for the last log line of both: a signal while honcho prints makes it fail and leave its children behind.
    running.wait_for_line("path=\"/v1/transactions/txn_proc\"").await;
    running.wait_for_line("job done").await;
    running.signal(Signal::SIGTERM);
    // honcho starts each program through a shell, and the signal ends that shell at once. The programs end later and write
    // their exit status to a file.
    running.wait_for_exit(SOON).await;
    for name in ["api", "worker"] {
        let status = folder.join(name).with_extension("status");
        eventually("it has ended", SOON, async || {
            std::fs::read_to_string(&status).is_ok_and(|text| text.ends_with('\n'))
        })
        .await;
        let status = std::fs::read_to_string(status).unwrap();
        assert_eq!(status, "0\n", "{name} did not stop gracefully:\n{}", running.log());
    }
    for child in children {
        let gone = || nix::sys::signal::kill(Pid::from_raw(child), None).is_err();
        eventually("all child processes have ended", SOON, async || gone()).await;
    }
}

/// A `PATH` with scripts for the three programs of the image. The tests build only `millrace`, so `api` and `worker` run its
/// subcommands. Each script writes the exit status to a file.
fn programs(folder: &Scratch) -> String {
    let millrace = env!("CARGO_BIN_EXE_millrace");
    for (name, command) in [("api", "api"), ("worker", "worker"), ("millrace", "")] {
        let program = folder.join(name);
        // honcho's signal reaches this shell too. It must outlive the program to read its exit status.
        let script = format!(
            "#!/bin/sh\ntrap : TERM\n'{millrace}' {command} \"$@\"\nstatus=$?\n\
             echo $status > '{}.status'\nexit $status\n",
            program.display()
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap())
}

/// The ids of all child processes, their children included.
fn descendants(of: u32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{of}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let mut found: Vec<i32> =
        lists.flat_map(|list| list.split(' ').filter_map(|id| id.parse().ok()).collect::<Vec<_>>()).collect();
    for child in found.clone() {
        found.extend(descendants(child.cast_unsigned()));
    }
    found
}
