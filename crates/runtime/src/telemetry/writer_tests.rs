//! Lines and their files: none is lost at a turn, none is halved, and the folder stays small.

use std::{cell::Cell, io::Read};

use flate2::read::GzDecoder;
use time::macros::datetime;

use super::{super::keeper, *};
use crate::telemetry::files::{Form, list};

const SIZES: Sizes = Sizes { file: 10_000, keep: 100_000, age: Duration::from_secs(3600) };

/// A folder of one test's own, removed with what is in it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("millrace-writer-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    fn writer(&self, now: fn() -> OffsetDateTime) -> Writer {
        Writer::with(&self.0, "test", SIZES, Keeper::asleep(), now).expect("a writer")
    }

    /// All lines, in the order of the files.
    fn lines(&self) -> Vec<String> {
        let mut text = String::new();
        for file in list(&self.0).expect("a list") {
            let mut reader: Box<dyn Read> = match file.form {
                Form::Compressed => Box::new(GzDecoder::new(File::open(&file.path).expect("a file"))),
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

fn write(writer: &mut Writer, numbers: std::ops::Range<usize>) {
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
fn a_full_file_is_followed_by_another_and_no_line_is_lost() {
    let folder = Folder::new("full");
    let mut writer = folder.writer(OffsetDateTime::now_utc);
    write(&mut writer, 0..1000);
    let files = list(&folder.0).expect("a list");
    assert!(files.len() > 5 && files.iter().all(|file| file.size <= SIZES.file), "{files:?}");
    assert_eq!(folder.lines(), expected(0..1000));
    // Compressed, all but the one that is being written to.
    keeper::tidy(&folder.0, SIZES).expect("tidy");
    let open = list(&folder.0).expect("a list").iter().filter(|file| file.form == Form::Lines).count();
    assert_eq!(open, 1);
    assert_eq!(folder.lines(), expected(0..1000));
    drop(writer);
    keeper::tidy(&folder.0, SIZES).expect("tidy");
    assert!(list(&folder.0).expect("a list").iter().all(|file| file.form == Form::Compressed));
    assert_eq!(folder.lines(), expected(0..1000));
}

#[test]
fn a_new_day_has_a_new_file() {
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
fn the_folder_stays_small_and_the_oldest_goes_first() {
    let folder = Folder::new("small");
    let mut writer = folder.writer(OffsetDateTime::now_utc);
    for round in 0..40 {
        write(&mut writer, round * 1000..(round + 1) * 1000);
        let sizes = Sizes { keep: 60_000, ..SIZES };
        keeper::tidy(&folder.0, sizes).expect("tidy");
        let total: u64 = list(&folder.0).expect("a list").iter().map(|file| file.size).sum();
        assert!(total <= sizes.keep, "{total}");
    }
    let kept = folder.lines();
    assert_eq!(kept, expected(40_000 - kept.len()..40_000), "the newest, without a gap");
    keeper::tidy(&folder.0, Sizes { age: Duration::ZERO, ..SIZES }).expect("tidy");
    assert_eq!(list(&folder.0).expect("a list").len(), 1, "what is old goes, but not what is written to");
}

#[test]
fn trouble_costs_lines_of_files_and_nothing_else() {
    let folder = Folder::new("trouble");
    let mut writer = folder.writer(OffsetDateTime::now_utc);
    write(&mut writer, 0..10);
    // A file that takes nothing, not even its own end: the next one is another.
    let full = File::options().write(true).open("/dev/full").expect("/dev/full");
    writer.open.as_mut().expect("an open file").file = full;
    write(&mut writer, 10..20);
    assert_eq!(writer.lost.load(Ordering::Relaxed), 10);
    assert_eq!(writer.trouble.as_ref().map(|trouble| trouble.lost), Some(10));
    // There is room again.
    let trouble = writer.trouble.as_mut().expect("trouble");
    (trouble.tried, trouble.failed) = (trouble.tried - RETRY, trouble.failed - SETTLED);
    write(&mut writer, 20..30);
    assert!(writer.trouble.is_none());
    assert_eq!(folder.lines(), [expected(0..10), expected(20..30)].concat());
    // The folder is gone, and made anew.
    fs::remove_dir_all(&folder.0).expect("removed");
    writer.open = None;
    write(&mut writer, 30..40);
    assert_eq!(folder.lines(), expected(30..40));
}

#[test]
fn trouble_that_comes_and_goes_is_one_trouble() {
    let folder = Folder::new("flapping");
    let mut writer = folder.writer(OffsetDateTime::now_utc);
    for round in 1..=3 {
        let full = File::options().write(true).open("/dev/full").expect("/dev/full");
        writer.open.as_mut().expect("an open file").file = full;
        write(&mut writer, 0..1);
        // There is room for a moment, and every line of it is written.
        writer.trouble.as_mut().expect("trouble").tried -= RETRY;
        write(&mut writer, 1..3);
        let trouble = writer.trouble.as_ref().expect("not over yet");
        assert_eq!((trouble.lost, trouble.failing), (round, false), "reported once, when it began");
    }
    writer.trouble.as_mut().expect("trouble").failed -= SETTLED;
    write(&mut writer, 3..4);
    assert!(writer.trouble.is_none());
    assert_eq!(folder.lines().len(), 7);
}
