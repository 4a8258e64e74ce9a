//! Wire types of the log export: formats and file names.

use jobs::logs::{Format, Range};
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use crate::validation::Choice;

impl Choice for Format {
    const ALL: &'static [Self] = &[Self::Lines, Self::Gzip];

    fn name(self) -> &'static str {
        match self {
            Self::Lines => "jsonl",
            Self::Gzip => "jsonl.gz",
        }
    }
}

/// The form of a time in a file name.
const FILE_TIME: &[BorrowedFormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second]Z");

/// The file name of an export, valid on every operating system.
pub(super) fn file_name(range: &Range, format: Format) -> String {
    let plain = |time: OffsetDateTime| time.format(FILE_TIME).unwrap_or_default();
    format!("millrace-logs-{}-{}.{}", plain(range.from()), plain(range.to()), format.name())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn the_file_name_has_range_and_format() {
        let range = Range::new(datetime!(2024-01-15 10:30 UTC), datetime!(2024-01-16 0:00 UTC)).expect("a range");
        let name = file_name(&range, Format::Gzip);
        assert_eq!(name, "millrace-logs-20240115T103000Z-20240116T000000Z.jsonl.gz");
    }
}
