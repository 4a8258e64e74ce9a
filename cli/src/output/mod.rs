//! What commands print: text that is safe to print, colours, JSON and tables.

pub(crate) mod table;
pub(crate) mod watch;

use std::{
    ffi::OsString,
    io::{self, IsTerminal as _, Write as _},
};

use anyhow::{Result, anyhow};
use queue::status::QueueStatus;
pub(crate) use queue::status::format_duration;
use serde::Serialize;
use time::{OffsetDateTime, UtcOffset, format_description::BorrowedFormatItem, macros::format_description};

/// What standard output can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Screen {
    /// Columns and lines of the terminal; `None` for a pipe or a file.
    pub size: Option<(usize, usize)>,
    /// Whether colours may be used.
    pub colour: bool,
}

impl Screen {
    /// For text without colours and without a limit of its width.
    pub(crate) const PLAIN: Self = Self { size: None, colour: false };

    /// Standard output. Colours are used on a terminal, except with `NO_COLOR` or `TERM=dumb`.
    pub(crate) fn of_stdout() -> Self {
        let stdout = io::stdout();
        if !stdout.is_terminal() {
            return Self::PLAIN;
        }
        let size = rustix::termios::tcgetwinsize(&stdout).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
        Self {
            size: size.map(|size| (size.ws_col.into(), size.ws_row.into())),
            colour: terminal_has_colours(|name| std::env::var_os(name)),
        }
    }

    /// The columns of the terminal.
    pub(crate) fn width(self) -> Option<usize> {
        self.size.map(|(columns, _)| columns)
    }
}

/// Whether colours may be used on a terminal with these variables: not with `NO_COLOR` (<https://no-color.org>), unless it
/// is empty, nor with `TERM=dumb`.
fn terminal_has_colours(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let is_set = |name| variable(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && variable("TERM").is_none_or(|term| term != "dumb")
}

/// How a text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Style {
    #[default]
    Plain,
    Good,
    Warning,
    Bad,
    Faint,
}

impl Style {
    /// Colours a text, if the screen has colours.
    pub(crate) fn paint(self, text: &str, screen: Screen) -> String {
        let code = match self {
            _ if !screen.colour => return text.to_owned(),
            Self::Plain => return text.to_owned(),
            Self::Good => 32,
            Self::Warning => 33,
            Self::Bad => 31,
            Self::Faint => 2,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// Prints to standard output. A closed pipe is not an error: a reader such as `head` may stop early.
///
/// # Errors
/// When the text cannot be written, for example to a full disk.
pub(crate) fn print(text: &str) -> Result<()> {
    print_bytes(text.as_bytes())
}

/// Like [`print()`], for a generated text.
///
/// # Errors
/// When the text cannot be written.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<()> {
    report(write(bytes))
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(bytes).and_then(|()| stdout.flush())
}

/// Reports a failed write to standard output, except to a closed pipe.
///
/// # Errors
/// When it failed for another reason.
pub(crate) fn report(written: io::Result<()>) -> Result<()> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(anyhow!("standard output: {error}")),
        _ => Ok(()),
    }
}

/// Prints a value as indented JSON with a final newline.
///
/// # Errors
/// When the value cannot be serialised, or the output cannot be written.
pub(crate) fn print_json(value: &impl Serialize) -> Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// Prints a value as JSON, or as text for people.
///
/// # Errors
/// When the value cannot be serialised, or the output cannot be written.
pub(crate) fn print_value(json: bool, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
    if json { print_json(value) } else { print(&text()) }
}

/// Makes foreign text safe to print: one line of at most `limit` characters, without characters that control a terminal
/// or the direction of writing.
pub(crate) fn one_line(text: &str, limit: usize) -> String {
    let clean: String = text.chars().map(|c| if is_unsafe(c) { ' ' } else { c }).collect();
    match clean.chars().count() {
        count if count <= limit => clean,
        _ => clean.chars().take(limit.saturating_sub(1)).chain(['…']).collect(),
    }
}

fn is_unsafe(c: char) -> bool {
    let is_invisible =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    c.is_control() || is_invisible
}

/// Formats how long ago a time was, by the clock of this machine.
pub(crate) fn format_ago(at: OffsetDateTime) -> String {
    format!("{} ago", format_duration((OffsetDateTime::now_utc() - at).as_seconds_f64().max(0.0)))
}

/// Formats a time in UTC, to the second.
pub(crate) fn format_time(time: OffsetDateTime) -> String {
    const SECONDS: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    time.to_offset(UtcOffset::UTC).format(SECONDS).unwrap_or_default()
}

/// Formats a count that stops at `limit`: there it means "at least".
pub(crate) fn format_count(count: i64, limit: i64) -> String {
    if count < limit { count.to_string() } else { format!("{limit}+") }
}

/// Formats a number of waiting or due jobs, which can be an estimate.
pub(crate) fn format_depth(count: i64, queue: &QueueStatus) -> String {
    format!("{}{count}", queue.depth_is.sign(count))
}

/// Quotes a text for a shell, if it needs that.
pub(crate) fn shell_quote(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/@%+".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", one_line(text, 500).replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_stays_on_one_line() {
        assert_eq!(one_line("a\n\u{1b}[31mb", 20), "a  [31mb");
        assert_eq!(one_line("abcdef", 4), "abc…");
        assert_eq!(one_line("a\u{202e}b\u{200b}c", 20), "a b c");
    }

    #[test]
    fn a_terminal_has_colours_unless_a_variable_refuses_them() {
        let cases = [(None, None, true), (Some("xterm"), Some(""), true), (Some("dumb"), None, false)];
        for (term, no_color, expected) in cases.into_iter().chain([(Some("xterm"), Some("1"), false)]) {
            let variable = |name: &str| if name == "TERM" { term } else { no_color }.map(OsString::from);
            assert_eq!(terminal_has_colours(variable), expected, "{term:?} {no_color:?}");
        }
    }

    #[test]
    fn text_without_colours_is_unchanged() {
        assert_eq!(Style::Bad.paint("dead", Screen::PLAIN), "dead");
        let coloured = Screen { colour: true, ..Screen::PLAIN };
        assert_eq!(Style::Bad.paint("dead", coloured), "\u{1b}[31mdead\u{1b}[0m");
        assert_eq!(Style::Plain.paint("done", coloured), "done");
    }

    #[test]
    fn texts_are_quoted_for_a_shell() {
        for (text, quoted) in
            [("process_transaction", "process_transaction"), ("", "''"), ("it's; rm", r"'it'\''s; rm'")]
        {
            assert_eq!(shell_quote(text), quoted);
        }
    }
}
