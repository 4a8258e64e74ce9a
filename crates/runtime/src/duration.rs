//! Durations as operators write them in filters, limits and options, and as they read them.

use time::Duration;

/// The units of a duration, in seconds.
pub const UNITS: [(&str, u32); 4] = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];

/// Parses a duration such as `30s`, `10m`, `2h` or `1d`.
///
/// # Errors
/// When the text is something else. The text says what would be right.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let parse = || {
        let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let (_, seconds) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        // Rust would parse `+5`.
        let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
        let number = number.parse::<u32>().ok().filter(|_| is_number)?;
        Some(Duration::seconds(i64::from(number) * i64::from(seconds)))
    };
    parse().ok_or_else(|| "must be a duration such as 30s, 10m, 2h or 1d".into())
}

/// Formats a duration in its largest suitable unit, without its sign.
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
    use hostile::proptest::prelude::*;

    use super::*;

    #[test]
    fn a_duration_is_a_number_and_a_unit() {
        for (text, seconds) in [("30s", 30), ("10m", 600), ("2h", 7200), ("1d", 86_400), ("0s", 0)] {
            assert_eq!(parse_duration(text), Ok(Duration::seconds(seconds)), "{text}");
        }
        for text in ["", "m", "30", "-1s", "+1s", "1.5h", "1é", "4294967296s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hostile_durations_are_digits_and_a_unit() -> Result<(), hostile::Failure> {
        let corpus = include_str!("../../../tests/corpora/duration.txt");
        hostile::check_text(corpus, "[0-9]{1,12}[smhdw]?", |text| {
            let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
            let unit = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)].into_iter().find(|(name, _)| *name == unit);
            // More than 4,294,967,295 of a unit is refused.
            let number = number.parse::<u32>().ok();
            let expected =
                number.zip(unit).map(|(number, (_, seconds))| Duration::seconds(i64::from(number) * seconds));
            prop_assert_eq!(parse_duration(text).ok(), expected);
            Ok(())
        })
    }
}
