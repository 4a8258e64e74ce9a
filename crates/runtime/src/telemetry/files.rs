//! The files of a folder of logs: how they are called, and what is known of them without reading them.
//!
//! `api-4711-20261121T155305.123456Z.jsonl` was begun at that time by process 4711, who holds a lock on it for as long as
//! it writes there. `….jsonl.gz` is the same when it is full; `….gz.new` is being made of it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use time::{OffsetDateTime, PrimitiveDateTime, format_description::BorrowedFormatItem, macros::format_description};

const START: &[BorrowedFormatItem<'_>] =
    format_description!("[year][month][day]T[hour][minute][second].[subsecond digits:6]Z");
const LINES: &str = ".jsonl";
const COMPRESSED: &str = ".jsonl.gz";
const UNFINISHED: &str = ".gz.new";

/// What state a file is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Lines, which may still become more.
    Lines,
    /// As many as there will ever be.
    Compressed,
    /// Half of what is being compressed, or was when a process died.
    Unfinished,
}

/// A file of the folder.
#[derive(Debug, Clone)]
pub struct LogFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its name without what its form adds: the same before and after it is compressed.
    pub stem: String,
    /// In which state.
    pub form: Form,
    /// When it was begun; unknown for one that was named by somebody else.
    pub start: Option<OffsetDateTime>,
    /// When its last line was written.
    pub written: SystemTime,
    /// Its size in bytes.
    pub size: u64,
}

/// The name of a file that a process begins now.
///
/// # Errors
/// When the time has no such name, which no time of these millennia has not.
pub fn name(process: &str, now: OffsetDateTime) -> io::Result<String> {
    let start = now.format(START).map_err(io::Error::other)?;
    Ok(format!("{process}-{}-{start}{LINES}", std::process::id()))
}

/// What a file is called when it is compressed, and while it is being compressed.
pub(super) fn compressed(lines: &Path) -> (PathBuf, PathBuf) {
    let append = |ending: &str| {
        let mut path = lines.as_os_str().to_owned();
        path.push(ending);
        PathBuf::from(path)
    };
    (append(".gz"), append(UNFINISHED))
}

/// All files of logs in the folder, the oldest first. What vanishes meanwhile is left out.
///
/// # Errors
/// When the folder cannot be read.
pub fn list(directory: &Path) -> io::Result<Vec<LogFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Some((stem, form)) = entry.file_name().to_str().and_then(read_name) else { continue };
        let Ok(metadata) = entry.metadata() else { continue };
        if !metadata.is_file() {
            continue;
        }
        let written = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let start = read_start(&stem);
        files.push(LogFile { path: entry.path(), stem, form, start, written, size: metadata.len() });
    }
    files.sort_by_cached_key(|file| (file.start.map_or(file.written, SystemTime::from), file.stem.clone()));
    Ok(files)
}

fn read_name(name: &str) -> Option<(String, Form)> {
    [(COMPRESSED, Form::Compressed), (UNFINISHED, Form::Unfinished), (LINES, Form::Lines)].into_iter().find_map(
        |(ending, form)| {
            let stem = name.strip_suffix(ending)?;
            // What is being compressed has the name of its lines, ending included.
            Some((stem.strip_suffix(LINES).unwrap_or(stem).to_owned(), form))
        },
    )
}

fn read_start(stem: &str) -> Option<OffsetDateTime> {
    let (_, start) = stem.rsplit_once('-')?;
    PrimitiveDateTime::parse(start, START).ok().map(PrimitiveDateTime::assume_utc)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_name_says_when_and_in_which_form() {
        let begun = datetime!(2026-11-21 15:53:05.123456 UTC);
        let name = name("bench-worker", begun).expect("a name");
        assert!(name.starts_with("bench-worker-") && name.ends_with("-20261121T155305.123456Z.jsonl"), "{name}");
        let (gz, new) = compressed(Path::new(&name));
        for (name, form) in [
            (name.clone(), Form::Lines),
            (gz.display().to_string(), Form::Compressed),
            (new.display().to_string(), Form::Unfinished),
        ] {
            let (stem, read) = read_name(&name).expect("a name of ours");
            assert_eq!((read, read_start(&stem)), (form, Some(begun)), "{name}");
        }
        assert_eq!(read_name("notes.txt"), None);
        let older = read_name("api-4711.2026-11-20.jsonl").expect("of an earlier release");
        assert_eq!((read_start(&older.0), older.1), (None, Form::Lines));
    }
}
