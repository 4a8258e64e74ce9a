//! All files' lines in the order of their times, one line of each open file in memory.

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
    Range,
    lines::{self, Next},
    text,
};
use crate::boot::telemetry::files::{self, Form, LogFile};

/// How far a line may be from its neighbours, or from the time in its file's name: it gets its time before it waits to be
/// written, and clocks are set. A line further off would be left out of an export of its own time.
const ASTRAY: Duration = Duration::from_secs(60);
/// A file is opened this long before its lines are due, so that few are open at a time.
const EARLY: Duration = Duration::from_secs(2);

/// Files being read side by side.
pub(super) struct Merge {
    /// As texts, which compare like the times of lines.
    from: Vec<u8>,
    to: Vec<u8>,
    /// Nothing behind this is in the range.
    beyond: Vec<u8>,
    /// Not open yet, in the order of their beginnings.
    later: VecDeque<Later>,
    open: BinaryHeap<Reverse<Source>>,
    /// Lines that were passed over.
    pub(super) broken: u64,
    /// Files that could not be read to their ends.
    pub(super) unread: u64,
}

struct Later {
    path: PathBuf,
    form: Form,
    /// The time of the first line due, as a text; none means at once.
    due: Option<Vec<u8>>,
    size: u64,
}

/// An open file and its next line.
struct Source {
    line: Vec<u8>,
    reader: Box<dyn BufRead>,
    path: PathBuf,
}

impl Merge {
    /// Finds the files that can have lines of this range.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(super) fn open(directory: &Path, range: &Range) -> io::Result<Self> {
        let (first, last) = (range.from.saturating_sub(signed(ASTRAY)), range.to.saturating_add(signed(ASTRAY)));
        let later = all(directory)?
            .into_iter()
            .filter(|file| OffsetDateTime::from(file.written) >= first && file.start.is_none_or(|start| start < last));
        let later = later.map(|LogFile { path, form, start, size, .. }| {
            let due = start.map(|start| key(start.saturating_sub(signed(EARLY))));
            Later { path, form, due, size }
        });
        let mut later: Vec<_> = later.collect();
        later.sort_by(|a, b| a.due.cmp(&b.due));
        Ok(Self {
            from: key(range.from),
            to: key(range.to),
            beyond: key(last),
            later: later.into(),
            open: BinaryHeap::new(),
            broken: 0,
            unread: 0,
        })
    }

    /// Hands over every line of the range.
    ///
    /// # Errors
    /// Those of `take`.
    pub(super) fn each(&mut self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        loop {
            while let Some(later) = self.next_due() {
                self.begin(later);
            }
            let Some(Reverse(source)) = self.open.pop() else { return Ok(()) };
            let time = source.time();
            if time >= self.beyond.as_slice() {
                // The rest of this file is later still.
                continue;
            }
            if time >= self.from.as_slice() && time < self.to.as_slice() {
                if lines::is_whole(&source.line) {
                    take(&source.line)?;
                } else {
                    self.broken += 1;
                }
            }
            self.advance(source);
        }
    }

    /// The next file, if its lines may come before those of the open ones.
    fn next_due(&mut self) -> Option<Later> {
        let due = match (self.open.peek(), self.later.front()?) {
            (Some(Reverse(source)), Later { due: Some(due), .. }) => due.as_slice() <= source.time(),
            _ => true,
        };
        if due { self.later.pop_front() } else { None }
    }

    fn begin(&mut self, Later { path, form, size, .. }: Later) {
        match reader(&path, form, size) {
            Ok(reader) => self.advance(Source { line: Vec::new(), reader, path }),
            // Too old in the meantime.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.give_up(&path, &error),
        }
    }

    /// Reads up to the file's next line that is not before the range, and lines it up.
    fn advance(&mut self, mut source: Source) {
        loop {
            match lines::read(&mut source.reader, &mut source.line) {
                Ok(Next::Line) if source.time() < self.from.as_slice() => {}
                Ok(Next::Line) => return self.open.push(Reverse(source)),
                Ok(Next::Broken) => self.broken += 1,
                Ok(Next::End) => return,
                Err(error) => return self.give_up(&source.path, &error),
            }
        }
    }

    fn give_up(&mut self, path: &Path, error: &io::Error) {
        self.unread += 1;
        tracing::warn!(path = %path.display(), %error, "LOG_FILE_UNREADABLE");
    }
}

impl Source {
    fn time(&self) -> &[u8] {
        lines::time(&self.line).unwrap_or_default()
    }
}

impl Ord for Source {
    fn cmp(&self, other: &Self) -> Ordering {
        self.time().cmp(other.time()).then_with(|| self.path.cmp(&other.path))
    }
}

impl PartialOrd for Source {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Source {}

/// Every file once. A listing is not of one moment: a file that is compressed meanwhile can be missed under both of its
/// names, but not twice.
fn all(directory: &Path) -> io::Result<Vec<LogFile>> {
    let mut found = BTreeMap::new();
    for listing in [files::list(directory)?, files::list(directory)?] {
        for file in listing.into_iter().filter(|file| file.form != Form::Unfinished) {
            found.entry(file.stem.clone()).or_insert(file);
        }
    }
    Ok(found.into_values().collect())
}

/// Reads the file, which may have been compressed since it was found. Of one that is being written to, what it had then:
/// it could grow as fast as it is read.
fn reader(path: &Path, form: Form, size: u64) -> io::Result<Box<dyn BufRead>> {
    let compressed = |file| Box::new(BufReader::new(MultiGzDecoder::new(BufReader::new(file))));
    if form == Form::Compressed {
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

/// A time as lines have it.
fn key(time: OffsetDateTime) -> Vec<u8> {
    let text = text(time);
    text.strip_suffix('Z').unwrap_or(&text).as_bytes().to_vec()
}
