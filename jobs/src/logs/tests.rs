//! Exports of folders that were written by hand: exactly the lines of the range, in their order, whatever else is there.

use std::{fs, io::Write, path::PathBuf};

use flate2::{Compression, write::GzEncoder};
use time::macros::datetime;

use super::*;

const NOON: OffsetDateTime = datetime!(2026-11-20 12:00 UTC);

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("millrace-logs-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    /// A file of lines at these milliseconds after noon, begun at the first of them.
    fn file(&self, process: &str, millis: impl IntoIterator<Item = i64>, compressed: bool) -> Vec<(i64, String)> {
        let lines: Vec<_> = millis.into_iter().map(|at| (at, line(process, at))).collect();
        let start = NOON + time::Duration::milliseconds(lines.first().map_or(0, |(at, _)| *at));
        let name = crate::boot::telemetry::files::name(process, start).expect("a name");
        let text: String = lines.iter().map(|(_, line)| format!("{line}\n")).collect();
        if compressed {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(text.as_bytes()).expect("compressed");
            fs::write(self.0.join(name + ".gz"), encoder.finish().expect("compressed")).expect("written");
        } else {
            fs::write(self.0.join(name), text).expect("written");
        }
        lines
    }

    /// What an export sends, and what it met.
    fn export(&self, from: i64, to: i64) -> (Vec<String>, Found) {
        let range = Range::new(at(from), at(to)).expect("a range");
        let (mut text, mut found) = (Vec::new(), Found::default());
        send(&self.0, &range, &mut text, &mut found).expect("an export");
        let lines: Vec<_> = String::from_utf8(text).expect("UTF-8").lines().map(str::to_owned).collect();
        assert_eq!(lines.len() as u64, found.lines);
        (lines, found)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn at(millis: i64) -> OffsetDateTime {
    NOON + time::Duration::milliseconds(millis)
}

fn line(process: &str, millis: i64) -> String {
    format!(r#"{{"timestamp":"{}","level":"info","event":"{process} {millis}"}}"#, text(at(millis)))
}

#[test]
fn a_range_is_exact_and_in_order_across_files_and_processes() {
    let folder = Folder::new("range");
    // Whole seconds and tenths have fewer digits than the others; and files overlap.
    let mut all = folder.file("api", (0..300_000).step_by(250), true);
    all.extend(folder.file("api", (300_000..600_000).step_by(250), false));
    all.extend(folder.file("worker", (100..600_000).step_by(1100), false));
    all.extend(folder.file("worker", (600_050..700_000).step_by(1100), true));
    all.sort();
    for (from, to) in
        [(0, 1_000_000), (1000, 1001), (1000, 1000), (299_000, 601_000), (250, 500), (-5000, 0), (700_000, 800_000)]
    {
        let expected: Vec<_> = all.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, line)| line).collect();
        let (lines, found) = folder.export(from, to);
        assert!(lines.iter().eq(expected.iter().copied()), "{from}..{to}: {} of {}", lines.len(), expected.len());
        assert_eq!((found.broken, found.unread), (0, 0));
    }
}

#[test]
fn what_is_no_line_is_left_out_and_counted() {
    let folder = Folder::new("broken");
    let good = [line("api", 1000), line("api", 2000)];
    let torn = line("api", 3000);
    let long = format!(r#"{{"timestamp":"2026-11-20T12:00:01.5Z","event":"{}"}}"#, "x".repeat(2 << 20));
    let nuls = line("api", 1700).replace("info", "\0\0\0\0");
    let text = [&good[0], "not JSON", "", &long, &nuls, &good[1], &torn[..torn.len() - 7]].join("\n");
    fs::write(folder.0.join("api-1-20261120T120000.000000Z.jsonl"), text).expect("written");
    // Of an earlier release, cut short, and none of ours.
    fs::write(folder.0.join("api-2.2026-11-20.jsonl"), line("old", 1500) + "\n").expect("written");
    fs::write(folder.0.join("api-3-20261120T120000.000000Z.jsonl.gz"), [0x1f, 0x8b, 8, 0]).expect("written");
    fs::write(folder.0.join("notes.txt"), line("note", 1500)).expect("written");
    let (lines, found) = folder.export(0, 10_000);
    assert_eq!(lines, [good[0].clone(), line("old", 1500), good[1].clone()]);
    assert_eq!((found.broken, found.unread), (5, 1));
}

#[test]
fn a_file_that_is_compressed_meanwhile_is_read_once() {
    let folder = Folder::new("meanwhile");
    let written = folder.file("api", (0..10_000).step_by(10), false);
    let range = Range::new(at(0), at(10_000)).expect("a range");
    // Between the rename and the removal there are both.
    let lines = fs::read_dir(&folder.0).expect("a folder").next().expect("a file").expect("a file").path();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&fs::read(&lines).expect("text")).expect("compressed");
    let mut compressed = lines.clone().into_os_string();
    compressed.push(".gz");
    fs::write(compressed, encoder.finish().expect("compressed")).expect("written");
    assert_eq!(folder.export(0, 10_000).0.len(), written.len());
    let mut merge = Merge::open(&folder.0, &range).expect("a merge");
    fs::remove_file(lines).expect("removed");
    let mut sent = 0;
    merge
        .each(|_| {
            sent += 1;
            Ok(())
        })
        .expect("read");
    assert_eq!((sent, merge.unread), (written.len(), 0), "found under its old name, read under its new one");
}

#[tokio::test]
async fn a_reader_that_leaves_ends_the_reading() {
    use futures_util::StreamExt;
    let folder = Folder::new("leaves");
    folder.file("api", 0..50_000, false);
    let logs = Logs { directory: Some(Arc::from(folder.0.as_path())), places: Arc::new(Semaphore::new(AT_ONCE)) };
    let export = || logs.export(Range::new(at(0), at(60_000)).expect("a range"), Format::Lines, "test".into());
    let mut open: Vec<_> = (0..AT_ONCE).map(|_| Box::pin(export().expect("a place"))).collect();
    for stream in &mut open {
        assert!(stream.next().await.expect("a piece").is_ok_and(|piece| !piece.is_empty()));
    }
    assert!(matches!(export().map(drop), Err(Refused::Busy)));
    drop(open);
    // Each gives its place back when its thread has noticed.
    let all = u32::try_from(AT_ONCE).expect("few");
    let places = tokio::time::timeout(std::time::Duration::from_secs(20), logs.places.acquire_many(all)).await;
    assert!(places.is_ok());
}

#[tokio::test]
async fn a_part_does_not_look_like_the_whole() {
    use futures_util::StreamExt;
    let folder = Folder::new("part");
    folder.file("api", 0..1000, false);
    let logs = |path: PathBuf| Logs { directory: Some(Arc::from(path)), places: Arc::new(Semaphore::new(AT_ONCE)) };
    let export = |logs: Logs| logs.export(Range::new(at(0), at(60_000)).expect("a range"), Format::Gzip, "test".into());
    let whole: Vec<_> = export(logs(folder.0.clone())).expect("a place").collect().await;
    assert!(!whole.is_empty() && whole.iter().all(Result::is_ok));
    let broken: Vec<_> = export(logs(folder.0.join("nowhere"))).expect("a place").collect().await;
    assert!(matches!(&broken[..], [Err(_)]), "{} pieces", broken.len());
}
