//! Tests of exports from prepared directories: exactly the lines of the range, in order, next to any other files.

use std::{fs, io::Write, path::PathBuf};

use flate2::{Compression, write::GzEncoder};
use time::{OffsetDateTime, macros::datetime};

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

    /// Writes a log file with lines at these milliseconds after noon; its name has the time of the first line.
    fn write_file(&self, process: &str, millis: impl IntoIterator<Item = i64>, compressed: bool) -> Vec<(i64, String)> {
        let lines: Vec<_> = millis.into_iter().map(|at| (at, line(process, at))).collect();
        let start = NOON + time::Duration::milliseconds(lines.first().map_or(0, |(at, _)| *at));
        let name = runtime::telemetry::files::new_name(process, start).expect("a name");
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

    /// The lines of an export, and the merge with its counters.
    fn export(&self, from: i64, to: i64) -> (Vec<String>, Merge) {
        let range = Range::new(at(from), at(to)).expect("a range");
        let (mut text, mut count, mut merge) = (Vec::new(), 0, Merge::open(&self.0, &range).expect("a merge"));
        write_lines(&mut merge, &mut text, &mut count).expect("an export");
        let lines: Vec<_> = String::from_utf8(text).expect("UTF-8").lines().map(str::to_owned).collect();
        assert_eq!(lines.len() as u64, count);
        (lines, merge)
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
    format!(r#"{{"timestamp":"{}","level":"info","event":"{process} {millis}"}}"#, format_time(at(millis)))
}

#[test]
fn a_range_is_exact_and_in_order_across_files_and_processes() {
    let folder = Folder::new("range");
    // The timestamps have different numbers of digits, and the files overlap.
    let mut all = folder.write_file("api", (0..300_000).step_by(250), true);
    all.extend(folder.write_file("api", (300_000..600_000).step_by(250), false));
    all.extend(folder.write_file("worker", (100..600_000).step_by(1100), false));
    all.extend(folder.write_file("worker", (600_050..700_000).step_by(1100), true));
    all.sort();
    for (from, to) in
        [(0, 1_000_000), (1000, 1001), (1000, 1000), (299_000, 601_000), (250, 500), (-5000, 0), (700_000, 800_000)]
    {
        let expected: Vec<_> = all.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, line)| line).collect();
        let (lines, merge) = folder.export(from, to);
        assert!(lines.iter().eq(expected.iter().copied()), "{from}..{to}: {} of {}", lines.len(), expected.len());
        assert_eq!((merge.broken, merge.unread), (0, 0));
    }
}

#[test]
fn broken_lines_are_left_out_and_counted() {
    let folder = Folder::new("broken");
    let good = [line("api", 1000), line("api", 2000)];
    let torn = line("api", 3000);
    let long = format!(r#"{{"timestamp":"2026-11-20T12:00:01.5Z","event":"{}"}}"#, "x".repeat(2 << 20));
    let nuls = line("api", 1700).replace("info", "\0\0\0\0");
    let text = [&good[0], "not JSON", "", &long, &nuls, &good[1], &torn[..torn.len() - 7]].join("\n");
    fs::write(folder.0.join("api-1-20261120T120000.000000Z.jsonl"), text).expect("written");
    // A file of an earlier release, a truncated file, and a file that is not a log.
    fs::write(folder.0.join("api-2.2026-11-20.jsonl"), line("old", 1500) + "\n").expect("written");
    fs::write(folder.0.join("api-3-20261120T120000.000000Z.jsonl.gz"), [0x1f, 0x8b, 8, 0]).expect("written");
    fs::write(folder.0.join("notes.txt"), line("note", 1500)).expect("written");
    let (lines, merge) = folder.export(0, 10_000);
    assert_eq!(lines, [good[0].clone(), line("old", 1500), good[1].clone()]);
    assert_eq!((merge.broken, merge.unread), (5, 1));
}

#[test]
fn a_file_that_is_compressed_during_the_export_is_read_once() {
    let folder = Folder::new("meanwhile");
    let written = folder.write_file("api", (0..10_000).step_by(10), false);
    let range = Range::new(at(0), at(10_000)).expect("a range");
    // For a moment both the plain and the compressed file exist.
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
        .for_each(|_| {
            sent += 1;
            Ok(())
        })
        .expect("read");
    assert_eq!((sent, merge.unread), (written.len(), 0), "listed under the old name, read under the new one");
}

/// The logs in a directory, whether it exists or not.
fn logs(directory: PathBuf) -> Logs {
    Logs { directory: Some(Arc::from(directory)), permits: Arc::new(Semaphore::new(MAX_EXPORTS)) }
}

fn minute() -> Range {
    Range::new(at(0), at(60_000)).expect("a range")
}

#[tokio::test]
async fn an_export_stops_when_the_client_disconnects() {
    use futures_util::StreamExt;
    let folder = Folder::new("leaves");
    folder.write_file("api", 0..50_000, false);
    let logs = logs(folder.0.clone());
    let mut open = Vec::new();
    for _ in 0..MAX_EXPORTS {
        let export = logs.open(minute()).await.expect("an export");
        open.push(Box::pin(export.stream(Format::Lines, "test".into())));
    }
    for stream in &mut open {
        assert!(stream.next().await.expect("a chunk").is_ok_and(|chunk| !chunk.is_empty()));
    }
    assert_eq!(logs.open(minute()).await.err(), Some(ExportError::Busy));
    drop(open);
    // Each export returns its permit once its thread has noticed the disconnect.
    let all = u32::try_from(MAX_EXPORTS).expect("few");
    let permits = tokio::time::timeout(std::time::Duration::from_secs(20), logs.permits.acquire_many(all)).await;
    assert!(permits.is_ok());
}

#[tokio::test]
async fn an_export_that_ends_early_does_not_look_complete() {
    use futures_util::StreamExt;
    let folder = Folder::new("part");
    folder.write_file("api", 0..1000, false);
    let export = logs(folder.0.clone()).open(minute()).await.expect("an export");
    let complete: Vec<_> = export.stream(Format::Gzip, "test".into()).collect().await;
    assert!(!complete.is_empty() && complete.iter().all(Result::is_ok));
    let (sink, stream) = Sink::new(Handle::current());
    drop(sink);
    let failed: Vec<_> = stream.collect().await;
    assert!(matches!(&failed[..], [Err(_)]), "{} chunks", failed.len());
}

#[tokio::test]
async fn an_unreadable_directory_refuses_the_export_and_leaves_no_permit_behind() {
    let folder = Folder::new("unreadable");
    let logs = logs(folder.0.join("nowhere"));
    for _ in 0..=MAX_EXPORTS {
        let error = logs.open(minute()).await.err();
        assert!(
            matches!(&error, Some(ExportError::Unreadable(reason)) if reason.contains("nowhere: No such")),
            "{error:?}"
        );
    }
    assert_eq!(logs.permits.available_permits(), MAX_EXPORTS);
}

#[test]
fn hostile_files_give_every_line_once_or_as_broken() -> Result<(), hostile::Failure> {
    use hostile::proptest::prelude::*;
    use runtime::telemetry::json::LINE_PREFIX;

    let grammar =
        "(\\{\"timestamp\":\"[0-9]{4}-[0-9]{2}-[0-9]{2}T12:00:00(\\.[0-9]{0,11})?Z\"\\}\n|[a-z]{0,3}\n?){0,6}";
    hostile::check_bytes(
        include_str!("../../../tests/corpora/log.txt"),
        grammar.prop_map(String::into_bytes),
        |bytes| {
            let (mut reader, mut line) = (std::io::BufReader::with_capacity(7, bytes), Vec::new());
            let mut expected = bytes.split_inclusive(|byte| *byte == b'\n');
            loop {
                let entry = lines::read_line(&mut reader, &mut line).expect("memory does not fail");
                let Some(given) = expected.next() else {
                    prop_assert_eq!(entry, lines::Entry::End);
                    return Ok(());
                };
                let whole = given.strip_suffix(b"\n");
                prop_assert_eq!(&*line, whole.unwrap_or(given));
                let timestamp = lines::timestamp(&line);
                prop_assert_eq!(entry == lines::Entry::Line, whole.is_some() && timestamp.is_some());
                if let Some(timestamp) = timestamp {
                    // In this form the order of bytes is the order of time.
                    prop_assert!((19..=29).contains(&timestamp.len()), "{:?}", timestamp);
                    prop_assert!(timestamp.iter().all(|byte| byte.is_ascii_digit() || b"-T:.".contains(byte)));
                    prop_assert_eq!((line.starts_with(LINE_PREFIX.as_bytes()), timestamp[10]), (true, b'T'));
                }
            }
        },
    )
}
