//! Log files under load: they are rotated and compressed, no line is lost, and their total size is limited.

use std::{collections::BTreeMap, time::Duration};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::{System, files, lines, names};
use crate::harness::{eventually, http::send};

const SOON: Duration = Duration::from_secs(60);
const MEBIBYTE: u64 = 1 << 20;

#[tokio::test]
async fn two_processes_rotate_their_files_without_losing_a_line() {
    let system = System::start(2, &[("LOG_FILE_MB", "1")]).await;
    // Fills a little more than three files per process.
    system.log(500).await;
    eventually("full files are compressed", SOON, async || {
        names(&system.folder, ".jsonl.gz") >= 6 && names(&system.folder, ".jsonl") == 2
    })
    .await;
    assert!(files(&system.folder).iter().all(|(_, size)| *size <= MEBIBYTE), "{:?}", files(&system.folder));
    let mut seen = BTreeMap::<u32, u32>::new();
    // A line is written some time after its response.
    eventually("all lines are written", SOON, async || {
        seen.clear();
        for (_, line) in lines(&system.folder).await {
            let line: Value = serde_json::from_str(&line).expect("JSON");
            if let Some((number, _)) = line["path"].as_str().and_then(|path| path[1..].split_once("/noise-")) {
                *seen.entry(number.parse().expect("a number")).or_insert(0) += 1;
            }
        }
        seen.values().sum::<u32>() >= 1000
    })
    .await;
    assert!(seen.len() == 500 && seen.values().all(|times| *times == 2), "each line once per process: {seen:?}");
    let metrics = send(system.client.get(format!("{}/metrics", system.apis[0].url))).await.text;
    for output in ["stdout", "files"] {
        let line = format!("millrace_log_lines_dropped_total{{output=\"{output}\"}} 0");
        assert!(metrics.contains(&line), "{output}: {metrics}");
    }
}

#[tokio::test]
async fn the_total_size_of_all_files_is_limited() {
    let system = System::start(2, &[("LOG_FILE_MB", "1"), ("LOG_KEEP_MB", "4")]).await;
    // 24 MiB of lines, which compress to 18 MiB.
    let total = || files(&system.folder).iter().map(|(_, size)| size).sum::<u64>();
    let mut most = 0;
    for _ in 0..6 {
        system.log(300).await;
        most = most.max(total());
        // Each of the two processes may exceed the limit by one file, just after a rotation, and by more until its
        // cleaner gets processor time.
        eventually("the oldest files are removed", SOON, async || total() <= 6 * MEBIBYTE).await;
    }
    println!("24 MiB written, at most {most} bytes kept");
    assert!(lines(&system.folder).await.len() < 3000, "the oldest files are deleted");
    eventually("the total size is within the limit", SOON, async || total() <= 4 * MEBIBYTE).await;
}

#[tokio::test]
async fn the_next_process_compresses_the_file_of_a_dead_one() {
    let mut system = System::start(2, &[]).await;
    system.log(20).await;
    let mut dead = system.apis.remove(1);
    dead.process.signal(Signal::SIGKILL);
    dead.process.wait_for_exit(SOON).await;
    assert_eq!(names(&system.folder, ".gz"), 0);
    let before = lines(&system.folder).await;
    system.add(&[]).await;
    let compressed = format!("-{}-", dead.process.pid());
    eventually("only the file of the dead process is compressed", SOON, async || {
        let gz: Vec<_> = files(&system.folder).into_iter().map(|(path, _)| path.display().to_string()).collect();
        let gz: Vec<_> = gz.into_iter().filter(|path| path.ends_with(".gz")).collect();
        // The file is removed after its compressed one is complete.
        gz.len() == 1 && gz[0].contains(&compressed) && names(&system.folder, ".jsonl") == 2
    })
    .await;
    let after = lines(&system.folder).await;
    assert!(before.iter().all(|line| after.contains(line)), "no line is lost");
}
