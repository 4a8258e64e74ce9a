//! The report of a benchmark, as a table for people or as JSON for programs.

use std::time::Duration;

use serde::Serialize;

use crate::output::table;

/// The limit that a measurement must meet.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

/// A figure with its unit.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Figure {
    pub what: String,
    pub value: f64,
    /// For example `/s`, `ms`, `KiB` or `%`.
    pub unit: &'static str,
}

/// One line of the report: a figure, and its baseline if it has one.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Measurement {
    pub measure: &'static str,
    #[serde(flatten)]
    pub figure: Figure,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Figure>,
    /// The figure divided by its baseline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub met: Option<bool>,
}

impl Measurement {
    /// A figure: the median of the runs.
    pub(super) fn new(measure: &'static str, what: impl Into<String>, runs: Vec<f64>, unit: &'static str) -> Self {
        let figure = Figure { what: what.into(), value: median(runs), unit };
        Self { measure, figure, baseline: None, ratio: None, target: None, met: None }
    }

    /// Adds the baseline, which has the same unit.
    pub(super) fn compared_with(self, what: impl Into<String>, runs: Vec<f64>) -> Self {
        let baseline = Figure { what: what.into(), value: median(runs), unit: self.figure.unit };
        Self { ratio: Some(self.figure.value / baseline.value), baseline: Some(baseline), ..self }
    }

    /// Sets the target. It limits the ratio if there is a baseline, otherwise the figure.
    pub(super) fn target(self, target: Target) -> Self {
        let met = target.is_met(self.ratio.unwrap_or(self.figure.value));
        Self { target: Some(target), met: Some(met), ..self }
    }
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

/// All measurements, and the machine and settings that they were made with.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub version: &'static str,
    pub date: String,
    pub cores: usize,
    pub postgresql: String,
    pub optimized: bool,
    pub seconds: f64,
    pub runs: usize,
    pub connections: usize,
    pub lines: Vec<Measurement>,
}

impl Report {
    /// The report as a table.
    pub(super) fn text(&self) -> String {
        let rows: Vec<[String; 6]> = self.lines.iter().map(row).collect();
        let Self { version, date, cores, postgresql, seconds, runs, connections, .. } = self;
        format!(
            "Millrace {version}, {date}: {cores} cores, {postgresql} with fsync, {connections} connections, \
             medians of {runs} runs of {seconds} s\n\n{}{}",
            table::plain(["FIGURE", "", "BASELINE OF THE SAME RUN", "", "RATIO", "TARGET"], &rows),
            if self.optimized { "" } else { "\nThis is a debug build: its figures are meaningless.\n" },
        )
    }
}

fn row(line: &Measurement) -> [String; 6] {
    let target = match (line.target, line.met) {
        (Some(target), met) => {
            let unit = if line.ratio.is_some() { "" } else { line.figure.unit };
            let (sign, value) = match target {
                Target::AtLeast(value) => ("≥", value),
                Target::AtMost(value) => ("≤", value),
            };
            format!("{sign} {}{}", number(value, unit), if met == Some(true) { "" } else { "  MISSED" })
        }
        (None, _) => String::new(),
    };
    let (what, value) = line.baseline.as_ref().map(|b| (b.what.clone(), number(b.value, b.unit))).unwrap_or_default();
    [
        line.figure.what.clone(),
        number(line.figure.value, line.figure.unit),
        what,
        value,
        line.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
        target,
    ]
}

/// Formats a number with about three significant digits and separated thousands.
fn number(value: f64, unit: &str) -> String {
    let digits = match value.abs() {
        large if large >= 100.0 => {
            let whole = format!("{value:.0}");
            let split = |(at, c): (usize, char)| {
                let thousands = at > 0 && (whole.len() - at).is_multiple_of(3) && whole.as_bytes()[at - 1] != b'-';
                thousands.then_some(',').into_iter().chain([c])
            };
            whole.chars().enumerate().flat_map(split).collect()
        }
        medium if medium >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    match unit {
        "" => digits,
        "/s" | "%" => format!("{digits}{unit}"),
        unit => format!("{digits} {unit}"),
    }
}

/// The median.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The percentile of ascending durations by nearest rank, in milliseconds; `share` is between 0 and 1.
pub(super) fn percentile(ascending: &[Duration], share: f64) -> f64 {
    let rank = (ascending.len() as f64 * share).ceil() as usize;
    ascending.get(rank.saturating_sub(1)).map_or(f64::NAN, |found| found.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        assert_eq!(number(1_234_567.8, "/s"), "1,234,568/s");
        assert_eq!(number(999.6, ""), "1,000");
        assert_eq!(number(-123.4, "ms"), "-123 ms");
        assert_eq!(number(12.34, "ms"), "12.3 ms");
        assert_eq!(number(0.456, "%"), "0.46%");
    }

    #[test]
    fn median_and_nearest_rank() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        let ascending: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!((percentile(&ascending, 0.5), percentile(&ascending, 0.99)), (100.0, 198.0));
        assert_eq!(percentile(&ascending[..1], 0.99), 1.0);
    }

    #[test]
    fn a_missed_target_is_marked() {
        let measurement = || Measurement::new("x", "one", vec![10.0], "/s");
        let missed = measurement().compared_with("two", vec![20.0]).target(Target::AtLeast(0.6));
        assert!(row(&missed)[5].ends_with("MISSED") && missed.met == Some(false));
        let met = measurement().target(Target::AtMost(10.0));
        assert_eq!(row(&met)[5], "≤ 10.0/s");
    }
}
