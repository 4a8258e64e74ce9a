//! Files under load: full ones are followed by others and compressed, no line is lost, and all together stay small.

use std::{collections::BTreeMap, time::Duration};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::{System, files, lines, names};
use crate::harness::{eventually, http::send};

const SOON: Duration = Duration::from_secs(60);
const MEBIBYTE: u64 = 1 << 20;

#[tokio::test]
async fn two_processes_lose_no_line_when_their_files_are_full() {
    let system = System::start(2, &[("LOG_FILE_MB", "1")]).await;
    // Three files each, and a bit.
    system.log(500).await;
    eventually("what is full is compressed", SOON, async || {
        names(&system.folder, ".jsonl.gz") >= 6 && names(&system.folder, ".jsonl") == 2
    })
    .await;
    assert!(files(&system.folder).iter().all(|(_, size)| *size <= MEBIBYTE), "{:?}", files(&system.folder));
    let mut seen = BTreeMap::new();
    for (_, line) in lines(&system.folder) {
        let line: Value = serde_json::from_str(&line).expect("JSON");
        if let Some((number, _)) = line["path"].as_str().and_then(|path| path[1..].split_once("/noise-")) {
            *seen.entry(number.parse::<u32>().expect("a number")).or_insert(0) += 1;
        }
    }
    assert!(seen.len() == 500 && seen.values().all(|times| *times == 2), "each line once a process: {seen:?}");
    let metrics = send(system.client.get(format!("{}/metrics", system.apis[0].url))).await.text;
    for output in ["stdout", "files"] {
        let line = format!("millrace_log_lines_dropped_total{{output=\"{output}\"}} 0");
        assert!(metrics.contains(&line), "{output}: {metrics}");
    }
}

#[tokio::test]
async fn all_files_together_stay_small() {
    let system = System::start(2, &[("LOG_FILE_MB", "1"), ("LOG_KEEP_MB", "4")]).await;
    // Compressed, it is still 18 MiB.
    let mut most = 0;
    for _ in 0..6 {
        system.log(300).await;
        most = most.max(files(&system.folder).iter().map(|(_, size)| size).sum());
    }
    assert!(lines(&system.folder).len() < 3000, "the oldest have gone");
    println!("24 MiB written, at most {most} bytes kept");
    // A file more for each process that has just turned.
    assert!(most <= 6 * MEBIBYTE, "{most}");
    eventually("within its bound", SOON, async || {
        files(&system.folder).iter().map(|(_, size)| size).sum::<u64>() <= 4 * MEBIBYTE
    })
    .await;
}

#[tokio::test]
async fn a_dead_processs_file_is_compressed_by_the_next_one() {
    let mut system = System::start(2, &[]).await;
    system.log(20).await;
    let mut dead = system.apis.remove(1);
    dead.process.signal(Signal::SIGKILL);
    dead.process.wait_for_exit(SOON).await;
    assert_eq!(names(&system.folder, ".gz"), 0);
    let before = lines(&system.folder);
    system.add(&[]).await;
    let compressed = format!("-{}-", dead.process.pid());
    eventually("the dead one's is compressed, and no other", SOON, async || {
        let gz: Vec<_> = files(&system.folder).into_iter().map(|(path, _)| path.display().to_string()).collect();
        let gz: Vec<_> = gz.into_iter().filter(|path| path.ends_with(".gz")).collect();
        gz.len() == 1 && gz[0].contains(&compressed)
    })
    .await;
    assert_eq!(names(&system.folder, ".jsonl"), 2);
    let after = lines(&system.folder);
    assert!(before.iter().all(|line| after.contains(line)), "nothing is lost by it");
}
