//! Log files: rotation loses and splits no line, and the folder stays within its limits.

use std::{cell::Cell, io::Read};

use flate2::read::GzDecoder;
use time::macros::datetime;

use super::{super::cleaner, *};
use crate::telemetry::files::{FileState, list};

const LIMITS: FileLimits = FileLimits { file_size: 10_000, total_size: 100_000, max_age: Duration::from_secs(3600) };

/// The folder of one test, removed with its contents at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("millrace-writer-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    fn writer(&self, now: fn() -> OffsetDateTime) -> FileWriter {
        FileWriter::with(&self.0, "test", LIMITS, Cleaner::disconnected(), now).expect("a writer")
    }

    /// The lines of all files, oldest file first.
    fn lines(&self) -> Vec<String> {
        let mut text = String::new();
        for file in list(&self.0).expect("a list") {
            let mut reader: Box<dyn Read> = match file.state {
                FileState::Compressed => Box::new(GzDecoder::new(File::open(&file.path).expect("a file"))),
                _ => Box::new(File::open(&file.path).expect("a file")),
            };
            reader.read_to_string(&mut text).expect("text");
        }
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn line(number: usize) -> String {
    format!("line {number:06} {}\n", "x".repeat(number % 97))
}

fn write(writer: &mut FileWriter, numbers: std::ops::Range<usize>) {
    for number in numbers {
        writer.write_all(line(number).as_bytes()).expect("infallible");
        if number % 7 == 0 {
            writer.flush().expect("infallible");
        }
    }
    writer.flush().expect("infallible");
}

fn expected(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| line(number).trim_end_matches('\n').to_owned()).collect()
}

#[test]
fn a_full_file_is_followed_by_another_without_losing_a_line() {
    let folder = Folder::new("full");
    let mut writer = folder.writer(OffsetDateTime::now_utc);
    write(&mut writer, 0..1000);
    let files = list(&folder.0).expect("a list");
    assert!(files.len() > 5 && files.iter().all(|file| file.size <= LIMITS.file_size), "{files:?}");
    assert_eq!(folder.lines(), expected(0..1000));
    // All files are compressed except the current one.
    cleaner::clean(&folder.0, LIMITS).expect("a cleaning");
    let open = list(&folder.0).expect("a list").iter().filter(|file| file.state == FileState::Lines).count();
    assert_eq!(open, 1);
    assert_eq!(folder.lines(), expected(0..1000));
    drop(writer);
    cleaner::clean(&folder.0, LIMITS).expect("a cleaning");
    assert!(list(&folder.0).expect("a list").iter().all(|file| file.state == FileState::Compressed));
    assert_eq!(folder.lines(), expected(0..1000));
}

#[test]
fn a_new_day_begins_a_new_file() {
    thread_local!(static NOW: Cell<OffsetDateTime> = const { Cell::new(datetime!(2026-11-21 23:59:59.999 UTC)) });
    let folder = Folder::new("day");
    let mut writer = folder.writer(|| NOW.get());
    write(&mut writer, 0..3);
    NOW.set(datetime!(2026-11-22 00:00:00.001 UTC));
    write(&mut writer, 3..5);
    let starts: Vec<_> = list(&folder.0).expect("a list").into_iter().filter_map(|file| file.start).collect();
    assert_eq!(starts, [datetime!(2026-11-21 23:59:59.999 UTC), datetime!(2026-11-22 00:00:00.001 UTC)]);
    assert_eq!(folder.lines(), expected(0..5));
}

#[test]
fn the_oldest_files_are_removed_when_the_folder_is_too_large() {
    let folder = Folder::new("small");
    let mut writer = folder.writer(OffsetDateTime::now_utc);
    for round in 0..40 {
        write(&mut writer, round * 1000..(round + 1) * 1000);
        let limits = FileLimits { total_size: 60_000, ..LIMITS };
        cleaner::clean(&folder.0, limits).expect("a cleaning");
        let total: u64 = list(&folder.0).expect("a list").iter().map(|file| file.size).sum();
        assert!(total <= limits.total_size, "{total}");
    }
    let lines = folder.lines();
    assert_eq!(lines, expected(40_000 - lines.len()..40_000), "the newest lines must remain, without a gap");
    cleaner::clean(&folder.0, FileLimits { max_age: Duration::ZERO, ..LIMITS }).expect("a cleaning");
    assert_eq!(list(&folder.0).expect("a list").len(), 1, "old files must be removed, except the current one");
}

#[test]
fn an_outage_loses_its_lines_only() {
    let folder = Folder::new("outage");
    let mut writer = folder.writer(OffsetDateTime::now_utc);
    write(&mut writer, 0..10);
    // This file accepts no line and cannot be truncated, so the writer must create another one.
    let full = File::options().write(true).open("/dev/full").expect("/dev/full");
    writer.open.as_mut().expect("an open file").file = full;
    write(&mut writer, 10..20);
    assert_eq!(writer.lost_lines.load(Ordering::Relaxed), 10);
    assert_eq!(writer.outage.as_ref().map(|outage| outage.lost_lines), Some(10));
    // The disk has room again, and the recovery period has passed.
    let outage = writer.outage.as_mut().expect("an outage");
    (outage.last_try, outage.last_failure) = (outage.last_try - RETRY_INTERVAL, outage.last_failure - RECOVERY_PERIOD);
    write(&mut writer, 20..30);
    assert!(writer.outage.is_none());
    assert_eq!(folder.lines(), [expected(0..10), expected(20..30)].concat());
    // The folder is removed; the writer must create it again.
    fs::remove_dir_all(&folder.0).expect("removed");
    writer.open = None;
    write(&mut writer, 30..40);
    assert_eq!(folder.lines(), expected(30..40));
}

#[test]
fn intermittent_failures_are_one_outage() {
    let folder = Folder::new("flapping");
    let mut writer = folder.writer(OffsetDateTime::now_utc);
    for round in 1..=3 {
        let full = File::options().write(true).open("/dev/full").expect("/dev/full");
        writer.open.as_mut().expect("an open file").file = full;
        write(&mut writer, 0..1);
        // The disk has room for a moment, and these lines are written.
        writer.outage.as_mut().expect("an outage").last_try -= RETRY_INTERVAL;
        write(&mut writer, 1..3);
        let outage = writer.outage.as_ref().expect("the outage must continue");
        assert_eq!((outage.lost_lines, outage.is_failing), (round, false), "it must be one outage with all lost lines");
    }
    writer.outage.as_mut().expect("an outage").last_failure -= RECOVERY_PERIOD;
    write(&mut writer, 3..4);
    assert!(writer.outage.is_none());
    assert_eq!(folder.lines().len(), 7);
}
