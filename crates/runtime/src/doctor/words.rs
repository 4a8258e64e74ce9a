//! Figures in words, and names in SQL.

use crate::duration::format_duration;

/// A number of bytes in its largest suitable unit.
pub(super) fn bytes(bytes: f64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    let mut value = bytes / 1024.0;
    for unit in UNITS {
        if value < 1024.0 {
            return format!("{value:.0} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.0} PB")
}

/// A duration in its largest suitable unit.
pub(super) fn seconds(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.0} ms", seconds * 1000.0) } else { format_duration(seconds) }
}

/// A large number, rounded: `1.2 million`.
pub(super) fn about(number: f64) -> String {
    match number {
        number if number < 10_000.0 => format!("{number:.0}"),
        number if number < 1e6 => format!("{:.0},000", number / 1e3),
        number if number < 1e9 => format!("{:.1} million", number / 1e6),
        number => format!("{:.1} billion", number / 1e9),
    }
}

/// A statement on one line, cut to 160 characters.
pub(super) fn one_line(query: &str) -> String {
    const LONGEST: usize = 160;
    let line = query.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

/// A name in SQL.
pub(super) fn name(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.chars().all(is_plain) && !name.starts_with(|c: char| c.is_ascii_digit()) && !name.is_empty() {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

/// A text in SQL.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_units() {
        assert_eq!([bytes(8192.0), bytes(5e9)], ["8 kB", "5 GB"]);
        assert_eq!([seconds(0.25), seconds(300.0), seconds(1e6)], ["250 ms", "5 min", "12 d"]);
        assert_eq!(
            [about(17.0), about(25_000.0), about(1.25e6), about(1.6e9)],
            ["17", "25,000", "1.2 million", "1.6 billion"]
        );
        assert_eq!([name("jobs_dead"), name("My \"app\""), name("1a")], ["jobs_dead", "\"My \"\"app\"\"\"", "\"1a\""]);
        assert_eq!(literal("it's"), "'it''s'");
    }
}
