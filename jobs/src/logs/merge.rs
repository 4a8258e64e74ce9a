//! K-way merge of all log files by timestamp. It holds one line of each open file in memory.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BinaryHeap, VecDeque},
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use flate2::read::MultiGzDecoder;
use time::OffsetDateTime;

use super::{
    lines::{self, Entry},
    range::{Range, format_time},
};
use runtime::telemetry::files::{self, FileState, LogFile};

/// How far the timestamp of a line may be out of order, or from the time in its file's name: a line gets its timestamp
/// before it waits to be written, and clocks are adjusted. A line further off may be missing from an export.
const MAX_DISORDER: Duration = Duration::from_secs(60);
/// A file is opened this long before its first line is needed, so that few files are open at a time.
const OPEN_AHEAD: Duration = Duration::from_secs(2);

/// A merge of log files for one time range.
pub(super) struct Merge {
    /// The limits as text, which compares like the timestamps of lines.
    from: Vec<u8>,
    to: Vec<u8>,
    /// After a line with this timestamp a file has no more lines of the range.
    stop: Vec<u8>,
    /// Files that are not open yet, ordered by their first line.
    pending: VecDeque<PendingFile>,
    open: BinaryHeap<Reverse<OpenFile>>,
    /// Lines that were skipped.
    pub(super) broken: u64,
    /// Files that could not be read to the end.
    pub(super) unread: u64,
}

struct PendingFile {
    path: PathBuf,
    state: FileState,
    /// The timestamp from which on the file must be open; `None` means from the start.
    due: Option<Vec<u8>>,
    size: u64,
}

/// An open file and its next line.
struct OpenFile {
    line: Vec<u8>,
    reader: Box<dyn BufRead + Send>,
    path: PathBuf,
}

impl Merge {
    /// Finds the files that may contain lines of this range.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(super) fn open(directory: &Path, range: &Range) -> io::Result<Self> {
        let disorder = signed(MAX_DISORDER);
        let (first, last) = (range.from.saturating_sub(disorder), range.to.saturating_add(disorder));
        let files = list_files(directory)?
            .into_iter()
            .filter(|file| OffsetDateTime::from(file.modified) >= first && file.start.is_none_or(|start| start < last));
        let pending = files.map(|LogFile { path, state, start, size, .. }| {
            let due = start.map(|start| sort_key(start.saturating_sub(signed(OPEN_AHEAD))));
            PendingFile { path, state, due, size }
        });
        let mut pending: Vec<_> = pending.collect();
        pending.sort_by(|a, b| a.due.cmp(&b.due));
        Ok(Self {
            from: sort_key(range.from),
            to: sort_key(range.to),
            stop: sort_key(last),
            pending: pending.into(),
            open: BinaryHeap::new(),
            broken: 0,
            unread: 0,
        })
    }

    /// Calls `emit` for every line of the range, in order.
    ///
    /// # Errors
    /// When `emit` fails.
    pub(super) fn for_each(&mut self, mut emit: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        loop {
            while let Some(file) = self.next_due() {
                self.open_file(file);
            }
            let Some(Reverse(file)) = self.open.pop() else { return Ok(()) };
            let timestamp = file.timestamp();
            if timestamp >= self.stop.as_slice() {
                // The rest of this file is even later.
                continue;
            }
            if timestamp >= self.from.as_slice() && timestamp < self.to.as_slice() {
                if lines::is_complete(&file.line) {
                    emit(&file.line)?;
                } else {
                    self.broken += 1;
                }
            }
            self.advance(file);
        }
    }

    /// The next pending file, if its lines may come before those of the open files.
    fn next_due(&mut self) -> Option<PendingFile> {
        let due = match (self.open.peek(), self.pending.front()?) {
            (Some(Reverse(file)), PendingFile { due: Some(due), .. }) => due.as_slice() <= file.timestamp(),
            _ => true,
        };
        if due { self.pending.pop_front() } else { None }
    }

    fn open_file(&mut self, PendingFile { path, state, size, .. }: PendingFile) {
        match open_reader(&path, state, size) {
            Ok(reader) => self.advance(OpenFile { line: Vec::new(), reader, path }),
            // The file was deleted meanwhile, because it was too old.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.count_unread(&path, &error),
        }
    }

    /// Reads up to the file's next line that is not before the range, and puts the file back into the heap.
    fn advance(&mut self, mut file: OpenFile) {
        loop {
            match lines::read_line(&mut file.reader, &mut file.line) {
                Ok(Entry::Line) if file.timestamp() < self.from.as_slice() => {}
                Ok(Entry::Line) => return self.open.push(Reverse(file)),
                Ok(Entry::Broken) => self.broken += 1,
                Ok(Entry::End) => return,
                Err(error) => return self.count_unread(&file.path, &error),
            }
        }
    }

    fn count_unread(&mut self, path: &Path, error: &io::Error) {
        self.unread += 1;
        tracing::warn!(path = %path.display(), %error, "cannot read a log file; the export lacks its lines");
    }
}

impl OpenFile {
    fn timestamp(&self) -> &[u8] {
        lines::timestamp(&self.line).unwrap_or_default()
    }
}

impl Ord for OpenFile {
    fn cmp(&self, other: &Self) -> Ordering {
        self.timestamp().cmp(other.timestamp()).then_with(|| self.path.cmp(&other.path))
    }
}

impl PartialOrd for OpenFile {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for OpenFile {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for OpenFile {}

/// Lists every file once. A directory listing is not atomic: it can miss both names of a file that is being compressed.
/// Two listings in a row cannot.
fn list_files(directory: &Path) -> io::Result<Vec<LogFile>> {
    let mut found = BTreeMap::new();
    for listing in [files::list(directory)?, files::list(directory)?] {
        for file in listing.into_iter().filter(|file| file.state != FileState::Unfinished) {
            found.entry(file.stem.clone()).or_insert(file);
        }
    }
    Ok(found.into_values().collect())
}

/// Opens a file, which may have been compressed since it was listed. A file that is still being written is read up to its
/// present size only: otherwise it could grow as fast as it is read.
fn open_reader(path: &Path, state: FileState, size: u64) -> io::Result<Box<dyn BufRead + Send>> {
    let compressed = |file| Box::new(BufReader::new(MultiGzDecoder::new(BufReader::new(file))));
    if state == FileState::Compressed {
        return Ok(compressed(File::open(path)?));
    }
    match File::open(path) {
        Ok(file) => {
            let size = file.metadata().map_or(size, |now| now.len());
            Ok(Box::new(BufReader::new(file.take(size))))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut path = path.as_os_str().to_owned();
            path.push(".gz");
            Ok(compressed(File::open(path)?))
        }
        Err(error) => Err(error),
    }
}

fn signed(duration: Duration) -> time::Duration {
    time::Duration::try_from(duration).unwrap_or(time::Duration::MAX)
}

/// A time in the format of the timestamps in lines.
fn sort_key(time: OffsetDateTime) -> Vec<u8> {
    let text = format_time(time);
    text.strip_suffix('Z').unwrap_or(&text).as_bytes().to_vec()
}
