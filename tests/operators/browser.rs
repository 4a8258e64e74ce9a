//! The board in a real browser: headless Chromium walks through it and checks every page. See `browser.mjs`.

use std::{path::Path, process::Command, time::Duration};

use crate::harness::{
    needs, node,
    process::{Process, start_worker},
    scratch::Scratch,
    system::System,
};

const PACKAGES: [&str; 2] = ["axe-core@4.11.0", "puppeteer-core@24.8.2"];
const KEY: &str = "the-admin-key-of-this-test";
/// The walk takes 45 s alone on two cores.
const LONG: Duration = Duration::from_secs(400);

#[tokio::test]
async fn a_browser_walks_through_the_board_without_a_serious_fault() {
    let Some(chromium) = needs::program("chromium") else { return };
    let Some(packages) = node::packages(&PACKAGES) else { return };
    let system = System::start(&[("ADMIN_API_KEY", KEY), ("PROCESSING_DELAY_SECONDS", "0")]).await;
    let _worker = start_worker(&system.database.url, &[]).await;
    system.send_webhook("txn-1").await;
    let insert =
        "INSERT INTO apalis.jobs (id, job_type, job, status, run_at, done_at, attempts, failures, errors, error_group)
        SELECT '01K' || lpad(n::text, 23, '0'), 'process_transaction', convert_to('{}', 'UTF8'), 'Killed', now(),
               now() - n * interval '20 seconds', 12, 12,
               jsonb_build_array(jsonb_build_object('at', now(), 'run', 12, 'worker', 'w', 'error',
                   CASE WHEN n % 4 = 0 THEN 'processor returned 422 Unprocessable Entity'
                        ELSE 'error sending request: tcp connect error: Connection refused (os error 111)' END)),
               CASE WHEN n % 4 = 0 THEN 'b7c11' ELSE 'a1f09' END
        FROM generate_series(1, 400) AS n";
    sqlx::query(insert).execute(&system.database.pool().await).await.expect("dead letters");

    let folder = Scratch::new();
    std::os::unix::fs::symlink(packages.join("node_modules"), folder.join("node_modules")).expect("a link");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/operators/browser.mjs");
    std::fs::copy(script, folder.join("browser.mjs")).expect("a copy");
    let mut node = Command::new("node");
    node.arg(folder.join("browser.mjs")).args([&system.api.url, KEY, "txn-1"]).arg(chromium).current_dir(&*folder);
    // To look at the pages: BOARD_PICTURES=FOLDER cargo test …
    node.args(std::env::var_os("BOARD_PICTURES"));
    // A browser has a clock of its own. Chromium waits for absolute times, which `.ci/at` does not move.
    let mut walk = Process::run("node", node, &[("LD_PRELOAD", "")]);
    let status = walk.wait_for_exit(LONG).await;
    assert!(status.success(), "{}", walk.log());
}
