//! The Procfile, run by a real runner: released, started, used, stopped.

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
async fn it_releases_serves_and_stops() {
    let Some(tools) = tools() else { return };
    let database = database::fresh().await;
    let pool = database.pool().await;
    // The release step has something to do.
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
        client.get(format!("{url}/readyz")).send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    let webhook = json!({
        "transaction_id": "txn_proc", "source_account": "a", "destination_account": "b", "amount": 1, "currency": "EUR",
    });
    let answer = client.post(format!("{url}/v1/webhooks/transactions")).json(&webhook).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    let answer = client.get(format!("{url}/v1/transactions/txn_proc?wait=30")).send().await.unwrap();
    let settled: Value = answer.json().await.unwrap();
    assert_eq!(settled["status"], "PROCESSED", "{settled}");

    let children = descendants(running.pid());
    assert!(children.len() >= 2, "{children:?}");
    // The runner must not be printing when the signal comes: it fails then, and leaves its children behind.
    running.wait_for_line("path=\"/v1/transactions/txn_proc\"").await;
    running.signal(Signal::SIGTERM);
    // The runner starts each through a shell, which ends by the signal at once; the programs end in their own time, and
    // write their status down.
    running.wait_for_exit(SOON).await;
    for name in ["api", "worker"] {
        let status = folder.join(name).with_extension("status");
        eventually("it has ended", SOON, async || std::fs::read_to_string(&status).is_ok_and(|it| it.ends_with('\n')))
            .await;
        let status = std::fs::read_to_string(status).unwrap();
        assert_eq!(status, "0\n", "{name} was not stopped in good order:\n{}", running.log());
    }
    for child in children {
        let gone = || nix::sys::signal::kill(Pid::from_raw(child), None).is_err();
        eventually("nothing is left", SOON, async || gone()).await;
    }
}

/// A `PATH` with the three programs of the image: two of them are the third one's commands, and the tests build that one.
/// Each writes its status down when it has ended.
fn programs(folder: &Scratch) -> String {
    let millrace = env!("CARGO_BIN_EXE_millrace");
    for (name, command) in [("api", "api"), ("worker", "worker"), ("millrace", "")] {
        let program = folder.join(name);
        // The runner's signal reaches the shell as well, which must outlive the program to ask for its status.
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

/// The processes below this one.
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
