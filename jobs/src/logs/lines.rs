//! One file's lines, with their times; what is torn or none of ours is told apart.

use std::io::{self, BufRead};

use serde::de::IgnoredAny;

use crate::boot::telemetry::json::BEGINNING;

/// A longer line is none of ours: it is passed over without being kept.
const LONGEST: usize = 1 << 20;
/// The shortest and the longest text of a time, without its `Z`.
const TIME: std::ops::RangeInclusive<usize> = 19..=29;

/// What comes next in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// A line whose time can be read.
    Line,
    /// Something else: a line that a dying process has not finished, say.
    Broken,
    /// Nothing.
    End,
}

/// Reads the next line into `line`, without its end.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn read(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Next> {
    line.clear();
    let mut long = false;
    loop {
        let filled = match reader.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            filled => filled?,
        };
        if filled.is_empty() {
            return Ok(if line.is_empty() && !long { Next::End } else { Next::Broken });
        }
        let end = filled.iter().position(|byte| *byte == b'\n');
        let part = filled.get(..end.unwrap_or(filled.len())).unwrap_or(filled);
        if line.len() + part.len() > LONGEST {
            long = true;
            line.clear();
        } else if !long {
            line.extend_from_slice(part);
        }
        let read = part.len() + usize::from(end.is_some());
        reader.consume(read);
        if end.is_some() {
            return Ok(if !long && time(line).is_some() { Next::Line } else { Next::Broken });
        }
    }
}

/// The time of a line, in UTC, without the `Z` at its end: so written, the order of texts is that of times.
pub(super) fn time(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(BEGINNING.as_bytes())?;
    let end = rest.iter().take(TIME.end() + 2).position(|byte| *byte == b'"')?;
    let time = rest.get(..end)?.strip_suffix(b"Z")?;
    let is_time = time.iter().enumerate().all(|(at, byte)| match at {
        4 | 7 => *byte == b'-',
        10 => *byte == b'T',
        13 | 16 => *byte == b':',
        19 => *byte == b'.',
        _ => byte.is_ascii_digit(),
    });
    (TIME.contains(&time.len()) && is_time).then_some(time)
}

/// Whether it is the whole of what was written: a JSON object.
pub(super) fn is_whole(line: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(line).is_ok()
}
