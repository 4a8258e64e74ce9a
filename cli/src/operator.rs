//! Shared helpers of the operator commands: the database connection, output, and plain-text tables.

use std::{fmt::Write as _, io::Write as _};

use anyhow::{Error, Result, anyhow};
use jobs::app::{self, App};
use queue::{
    Operator,
    operator::audit::{Order, Via},
};
use runtime::{config::EnvReader, db::Database};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::{all_in_one, data_dir::data_dir};

/// Connects the operator interface of the queue to the database that [`app()`] finds.
///
/// # Errors
/// When the configuration is wrong, or the database cannot be reached or has another schema.
pub async fn connect() -> Result<Operator> {
    Ok(app().await?.operator)
}

/// Connects all features to `DATABASE_URL`, or to the PostgreSQL of an all-in-one process that runs in this folder.
///
/// # Errors
/// When the configuration is wrong, or the database cannot be reached or has another schema.
pub async fn app() -> Result<App> {
    let mut vars = EnvReader::from_env();
    let config = app::Config::read(&mut vars);
    vars.finish(())?;
    let database = match config.database.clone() {
        Some(database) => database,
        None => Database::parse(&all_in_one::running_database().ok_or_else(|| {
            let data_dir = std::path::absolute(data_dir()).unwrap_or_default();
            anyhow!(
                "DATABASE_URL is unset, and no all-in-one keeps its data in {}: set DATABASE_URL, such as \
                 postgres://user:password@localhost:5432/millrace, or change to the folder in which `cargo run` runs",
                data_dir.display()
            )
        })?)
        .map_err(Error::msg)?,
    };
    let app = App::start(&database, &config, "operator", &CancellationToken::new())?;
    app.check_schema().await.map_err(Error::msg)?;
    Ok(app)
}

/// The order of the person who runs this command: the name in `MILLRACE_ACTOR`, else user and host.
///
/// # Errors
/// When the reason or the name is empty or too long.
pub fn order(reason: Option<&str>) -> Result<Order> {
    let actor = std::env::var("MILLRACE_ACTOR").ok().filter(|name| !name.trim().is_empty()).unwrap_or_else(|| {
        let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
        let user = user.map_or_else(|| "unknown".into(), |user| user.name);
        let host =
            nix::unistd::gethostname().map_or_else(|_| "host".into(), |name| name.to_string_lossy().into_owned());
        format!("{user}@{host}")
    });
    Order::new(&actor, Via::Cli, reason.unwrap_or("not given")).map_err(anyhow::Error::msg)
}

/// Prints to standard output. A closed pipe is not an error: a reader such as `head` may stop early.
///
/// # Errors
/// When the text cannot be written, for example to a full disk.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(anyhow!("standard output: {error}")),
        _ => Ok(()),
    }
}

/// Prints a value as JSON.
///
/// # Errors
/// When the value cannot be serialised, or the output cannot be written.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    print(&format!("{text}\n"))
}

/// Prints rows as JSON, or as a table with this head.
///
/// # Errors
/// When a row cannot be serialised, or the output cannot be written.
pub fn print_rows<R: Serialize, const N: usize>(
    json: bool,
    head: [&str; N],
    rows: &[R],
    cells: impl Fn(&R) -> [String; N],
) -> Result<()> {
    if json {
        return print_json(&rows);
    }
    print(&table(head, &rows.iter().map(cells).collect::<Vec<_>>()))
}

/// Formats aligned columns with two blanks between them; numbers are right-aligned.
pub fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let is_number = |cell: &str| !cell.is_empty() && cell.chars().all(|c| c.is_ascii_digit() || c == '+');
    let numeric: [bool; N] =
        std::array::from_fn(|column| !rows.is_empty() && rows.iter().all(|row| is_number(&row[column])));
    let mut text = String::new();
    let mut line = |cells: [&str; N]| {
        let mut line = String::new();
        for (column, cell) in cells.iter().enumerate() {
            // Writing to a String never fails.
            let _ = match numeric[column] {
                true => write!(line, "{cell:>width$}  ", width = widths[column]),
                false => write!(line, "{cell:<width$}  ", width = widths[column]),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    };
    line(head);
    for row in rows {
        line(std::array::from_fn(|column| row[column].as_str()));
    }
    text
}

/// Makes foreign text safe to print: one line of at most `limit` characters, without control characters.
pub fn one_line(text: &str, limit: usize) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match clean.chars().count() {
        count if count <= limit => clean,
        _ => clean.chars().take(limit.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// Formats a duration in its largest suitable unit.
pub fn format_duration(seconds: f64) -> String {
    match seconds.abs() {
        seconds if seconds < 120.0 => format!("{seconds:.0} s"),
        seconds if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        seconds if seconds < 172_800.0 => format!("{:.0} h", seconds / 3600.0),
        seconds => format!("{:.0} d", seconds / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_with_their_text() {
        let rows = [["one", "7", "x"], ["three", "10000+", ""]].map(|row| row.map(str::to_owned));
        let expected = "NAME        N  WHY\none         7  x\nthree  10000+\n";
        assert_eq!(table(["NAME", "N", "WHY"], &rows), expected);
    }

    #[test]
    fn foreign_text_stays_on_one_line() {
        assert_eq!(one_line("a\n\u{1b}[31mb", 20), "a  [31mb");
        assert_eq!(one_line("abcdef", 4), "abc…");
    }
}
