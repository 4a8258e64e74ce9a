//! Reader of the lines of one log file. It parses timestamps and detects broken lines.

use std::io::{self, BufRead};

use serde::de::IgnoredAny;

use runtime::telemetry::json::LINE_PREFIX;

/// Millrace logs no longer lines. A longer line is skipped without being buffered.
const MAX_LINE_BYTES: usize = 1 << 20;
/// The length of a timestamp in bytes, without its `Z`.
const TIMESTAMP_BYTES: std::ops::RangeInclusive<usize> = 19..=29;

/// The next entry of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// A line with a valid timestamp.
    Line,
    /// Another line, for example one that a crashed process has not finished.
    Broken,
    /// The end of the file.
    End,
}

/// Reads the next line into `line`, without its newline.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Entry> {
    line.clear();
    let mut long = false;
    loop {
        let filled = match reader.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            filled => filled?,
        };
        if filled.is_empty() {
            return Ok(if line.is_empty() && !long { Entry::End } else { Entry::Broken });
        }
        let end = filled.iter().position(|byte| *byte == b'\n');
        let part = filled.get(..end.unwrap_or(filled.len())).unwrap_or(filled);
        if line.len() + part.len() > MAX_LINE_BYTES {
            long = true;
            line.clear();
        } else if !long {
            line.extend_from_slice(part);
        }
        let read = part.len() + usize::from(end.is_some());
        reader.consume(read);
        if end.is_some() {
            return Ok(if !long && timestamp(line).is_some() { Entry::Line } else { Entry::Broken });
        }
    }
}

/// The timestamp of a line in UTC, without its `Z`. In this form the byte order of timestamps is their order in time.
pub(super) fn timestamp(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(LINE_PREFIX.as_bytes())?;
    let end = rest.iter().take(TIMESTAMP_BYTES.end() + 2).position(|byte| *byte == b'"')?;
    let time = rest.get(..end)?.strip_suffix(b"Z")?;
    let is_time = time.iter().enumerate().all(|(at, byte)| match at {
        4 | 7 => *byte == b'-',
        10 => *byte == b'T',
        13 | 16 => *byte == b':',
        19 => *byte == b'.',
        _ => byte.is_ascii_digit(),
    });
    (TIMESTAMP_BYTES.contains(&time.len()) && is_time).then_some(time)
}

/// Whether the line is complete, valid JSON.
pub(super) fn is_complete(line: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(line).is_ok()
}
