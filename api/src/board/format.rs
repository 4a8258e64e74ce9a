//! Formats numbers, times and commands for pages.

use std::fmt;

use askama::{FastWritable, filters::HtmlSafe};
use queue::status::{DepthIs, format_duration};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

pub(super) use crate::link::{encoded, link};

/// HTML that is written as it is. Only this module and the charts make it, from numbers and times.
pub(super) struct Html(pub(super) String);

impl fmt::Display for Html {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FastWritable for Html {
    fn write_into(&self, to: &mut dyn fmt::Write, _: &dyn askama::Values) -> askama::Result<()> {
        Ok(to.write_str(&self.0)?)
    }
}

impl HtmlSafe for Html {}

/// A number or a time, by value or behind any number of references, because loops and matches of templates borrow.
pub(super) trait Value<T> {
    fn get(&self) -> T;
}

impl<T, V: Value<T> + ?Sized> Value<T> for &V {
    fn get(&self) -> T {
        (**self).get()
    }
}

macro_rules! values {
    ($($Type:ty),+) => {
        $(impl Value<$Type> for $Type {
            fn get(&self) -> $Type {
                *self
            }
        })+
    };
}

values!(i64, f64, OffsetDateTime);

/// A whole number with separators.
pub(super) fn number(number: impl Value<i64>) -> String {
    let number = number.get();
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

/// A count that stops at `cap`.
pub(super) fn capped(count: impl Value<i64>, cap: i64) -> String {
    let count = count.get();
    if count >= cap { format!("≥ {}", number(count)) } else { number(count) }
}

/// A number of waiting or due jobs, which can be an estimate.
pub(super) fn depth(count: impl Value<i64>, is: &DepthIs) -> String {
    let count = count.get();
    format!("{}{}", is.sign(count), number(count))
}

/// A rate in jobs per second.
pub(super) fn rate(rate: impl Value<f64>) -> String {
    match rate.get() {
        0.0 => "0/s".into(),
        rate if rate.abs() < 0.01 => "< 0.01/s".into(),
        rate if rate.abs() < 10.0 => format!("{rate:.2}/s"),
        rate => format!("{rate:.0}/s"),
    }
}

/// A share as a percentage.
pub(super) fn percent(share: impl Value<f64>) -> String {
    match share.get() * 100.0 {
        percent if percent > 0.0 && percent < 1.0 => "< 1 %".into(),
        percent => format!("{percent:.0} %"),
    }
}

/// A duration in its largest suitable unit.
pub(super) fn seconds(seconds: impl Value<f64>) -> String {
    match seconds.get() {
        seconds if seconds.abs() < 0.1 => format!("{:.0} ms", seconds * 1000.0),
        seconds if seconds.abs() < 10.0 => format!("{seconds:.1} s"),
        seconds => format_duration(seconds),
    }
}

/// When something is due: `in 4 s` or `4 s ago`.
pub(super) fn due(in_seconds: impl Value<f64>) -> String {
    match in_seconds.get() {
        wait if wait > 0.0 => format!("in {}", seconds(wait)),
        wait => format!("{} ago", seconds(-wait)),
    }
}

/// The time since `at`.
pub(super) fn age(at: impl Value<OffsetDateTime>) -> String {
    seconds((OffsetDateTime::now_utc() - at.get()).as_seconds_f64().max(0.0))
}

/// A time in UTC, to the second. The script adds the local time.
pub(super) fn time(at: impl Value<OffsetDateTime>) -> Html {
    let text = rfc3339(at.get());
    Html(format!("<time datetime=\"{text}\">{text}</time>"))
}

/// A time in RFC 3339 in UTC, as exact as it is.
pub(super) fn exact(at: impl Value<OffsetDateTime>) -> String {
    at.get().to_offset(time::UtcOffset::UTC).format(&Rfc3339).unwrap_or_default()
}

/// A time in RFC 3339 in UTC, to the second.
pub(super) fn rfc3339(at: impl Value<OffsetDateTime>) -> String {
    let at = at.get().to_offset(time::UtcOffset::UTC);
    at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}

/// The dead letters of a queue.
pub(super) fn dead_link(queue: &str) -> String {
    link("/board/dead", &[("queue", Some(queue))])
}

/// The jobs of a queue in this state.
pub(super) fn jobs_link(state: &str, queue: &str) -> String {
    link("/board/jobs", &[("state", Some(state)), ("queue", Some(queue))])
}

/// The recorded actions on a target.
pub(super) fn audit_link(target: &str) -> String {
    link("/board/audit", &[("target", Some(target))])
}

/// The search for an id.
pub(super) fn find_link(id: &str) -> String {
    link("/board/find", &[("q", Some(id))])
}

/// The members of an object as `name: value`, without empty ones.
pub(super) fn members(object: &serde_json::Value) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let members = object.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    members.map(|(name, value)| (name.replace('_', " "), text(value))).collect()
}

/// A word of a shell command, quoted if it must be.
pub(super) fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A command with options; those without a value are left out. An option without a name is an argument.
pub(super) fn command(command: &str, options: &[(&str, Option<&str>)]) -> String {
    let mut text = format!("millrace {command}");
    for (option, value) in options {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            for word in [*option, &shell(value)].into_iter().filter(|word| !word.is_empty()) {
                text.push(' ');
                text.push_str(word);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_show_their_scope() {
        assert_eq!((number(0), number(-1234), number(1_234_567)), ("0".into(), "-1,234".into(), "1,234,567".into()));
        assert_eq!((capped(9_999, 10_000), capped(10_000, 10_000)), ("9,999".into(), "≥ 10,000".into()));
        assert_eq!(
            (rate(0.0), rate(0.004), rate(1.25), rate(120.4)),
            ("0/s".into(), "< 0.01/s".into(), "1.25/s".into(), "120/s".into())
        );
        assert_eq!((percent(0.0), percent(0.004), percent(0.96)), ("0 %".into(), "< 1 %".into(), "96 %".into()));
        assert_eq!(
            (seconds(0.05), seconds(4.0), seconds(600.0), seconds(86_400.0 * 3.0)),
            ("50 ms".into(), "4.0 s".into(), "10 min".into(), "3 d".into())
        );
        assert_eq!((due(4.0), due(-60.0)), ("in 4.0 s".into(), "60 s ago".into()));
    }

    #[test]
    fn links_and_commands_are_quoted() {
        assert_eq!(
            link("/board/jobs", &[("queue", Some("a b&c")), ("state", None), ("error", Some(""))]),
            "/board/jobs?queue=a%20b%26c"
        );
        assert_eq!(
            command("jobs list", &[("--queue", Some("x")), ("--error", Some("it's"))]),
            r"millrace jobs list --queue x --error 'it'\''s'"
        );
        assert_eq!((shell(""), shell("$(rm)")), ("''".into(), "'$(rm)'".into()));
    }
}
