//! The files of `LOG_DIR`: their names, and what the names and metadata tell about them.
//!
//! Process 4711 created `api-4711-20261121T155305.123456Z.jsonl` at that time, and locks it while it writes. When the file is
//! full, it is compressed to `….jsonl.gz`; `….gz.new` is an unfinished compression.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use time::{OffsetDateTime, PrimitiveDateTime, format_description::BorrowedFormatItem, macros::format_description};

const START_FORMAT: &[BorrowedFormatItem<'_>] =
    format_description!("[year][month][day]T[hour][minute][second].[subsecond digits:6]Z");
const LINES_SUFFIX: &str = ".jsonl";
const COMPRESSED_SUFFIX: &str = ".jsonl.gz";
const UNFINISHED_SUFFIX: &str = ".gz.new";

/// The state of a log file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileState {
    /// Plain lines; a process may still append to it.
    Lines,
    /// Compressed and complete.
    Compressed,
    /// An unfinished compression; its process may have died.
    Unfinished,
}

/// A log file.
#[derive(Debug, Clone)]
pub struct LogFile {
    /// The path.
    pub path: PathBuf,
    /// The name without the suffix of its state, so that it is the same before and after the compression.
    pub stem: String,
    /// The state, according to the suffix.
    pub state: FileState,
    /// When the file was created; `None` if its name has another format.
    pub start: Option<OffsetDateTime>,
    /// The time of the last line.
    pub modified: SystemTime,
    /// The size in bytes.
    pub size: u64,
}

/// The name of a file that a process creates now.
///
/// # Errors
/// When the time cannot be formatted, which no present time causes.
pub fn new_name(process: &str, now: OffsetDateTime) -> io::Result<String> {
    let start = now.format(START_FORMAT).map_err(io::Error::other)?;
    Ok(format!("{process}-{}-{start}{LINES_SUFFIX}", std::process::id()))
}

/// The paths of a file after its compression and during it.
pub(super) fn compressed_paths(lines: &Path) -> (PathBuf, PathBuf) {
    let append = |ending: &str| {
        let mut path = lines.as_os_str().to_owned();
        path.push(ending);
        PathBuf::from(path)
    };
    (append(".gz"), append(UNFINISHED_SUFFIX))
}

/// All log files of the folder, oldest first, without those that are removed during the listing.
///
/// # Errors
/// When the folder cannot be read.
pub fn list(directory: &Path) -> io::Result<Vec<LogFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Some((stem, state)) = entry.file_name().to_str().and_then(parse_name) else { continue };
        let Ok(metadata) = entry.metadata() else { continue };
        if !metadata.is_file() {
            continue;
        }
        let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let start = parse_start(&stem);
        files.push(LogFile { path: entry.path(), stem, state, start, modified, size: metadata.len() });
    }
    files.sort_by_cached_key(|file| (file.start.map_or(file.modified, SystemTime::from), file.stem.clone()));
    Ok(files)
}

fn parse_name(name: &str) -> Option<(String, FileState)> {
    [
        (COMPRESSED_SUFFIX, FileState::Compressed),
        (UNFINISHED_SUFFIX, FileState::Unfinished),
        (LINES_SUFFIX, FileState::Lines),
    ]
    .into_iter()
    .find_map(|(ending, state)| {
        let stem = name.strip_suffix(ending)?;
        // The name of an unfinished compression contains the suffix of the original file.
        Some((stem.strip_suffix(LINES_SUFFIX).unwrap_or(stem).to_owned(), state))
    })
}

fn parse_start(stem: &str) -> Option<OffsetDateTime> {
    let (_, start) = stem.rsplit_once('-')?;
    PrimitiveDateTime::parse(start, START_FORMAT).ok().map(PrimitiveDateTime::assume_utc)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn names_contain_the_start_and_the_state() {
        let begun = datetime!(2026-11-21 15:53:05.123456 UTC);
        let name = new_name("bench-worker", begun).expect("a name");
        assert!(name.starts_with("bench-worker-") && name.ends_with("-20261121T155305.123456Z.jsonl"), "{name}");
        let (gz, new) = compressed_paths(Path::new(&name));
        for (name, state) in [
            (name.clone(), FileState::Lines),
            (gz.display().to_string(), FileState::Compressed),
            (new.display().to_string(), FileState::Unfinished),
        ] {
            let (stem, read) = parse_name(&name).expect("a name of a log file");
            assert_eq!((read, parse_start(&stem)), (state, Some(begun)), "{name}");
        }
        assert_eq!(parse_name("notes.txt"), None);
        let older = parse_name("api-4711.2026-11-20.jsonl").expect("a name of an earlier release");
        assert_eq!((parse_start(&older.0), older.1), (None, FileState::Lines));
    }
}
