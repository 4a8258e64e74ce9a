//! The smoke test script of docker-compose.test.yml, against real processes.

use std::{path::Path, process::Command, time::Duration};

use super::root;
use crate::harness::{
    database, needs,
    process::{Api, Process, start_worker},
};

async fn smoke(url: &str) -> (bool, String) {
    let mut command = Command::new("sh");
    command.arg(root().join("deploy/smoke.sh")).arg(url).current_dir(Path::new("/"));
    let mut script = Process::run("smoke.sh", command, &[("no_proxy", "*")]);
    let status = script.wait_for_exit(Duration::from_secs(80)).await;
    (status.success(), script.log())
}

#[tokio::test]
async fn it_succeeds_where_a_webhook_is_processed_and_fails_elsewhere() {
    if needs::program("curl").is_none() {
        return;
    }
    let database = database::fresh().await;
    let api = Api::start(&database.url, &[("PROCESSING_DELAY_SECONDS", "0.2")]).await;
    let worker = start_worker(&database.url, &[]).await;
    let (succeeded, output) = smoke(&api.url).await;
    assert!(succeeded && output.contains("PROCESSED"), "{output}");
    drop(worker);
    let signed = Api::start(&database.url, &[("WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]).await;
    let (succeeded, output) = smoke(&signed.url).await;
    assert!(!succeeded && output.contains("401 instead of 202"), "{output}");
}
