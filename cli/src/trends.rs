//! `millrace trends`: what happened in a queue over time.

use anyhow::{Context as _, Result};
use clap::Args;
use queue::operator::trends::{TrendPoint, TrendWindow, Trends};

use crate::{
    operator::connect,
    output::{Screen, Style, format_duration, format_time, one_line, print_value},
};

#[derive(Args)]
#[command(after_help = "\
Each character is a minute (1h), ten minutes (24h) or two hours (14d), or several of them on a narrow terminal. DEPTH is
the number of waiting and running jobs, computed backwards from the present one. A blank in WAIT P99 means no runs, or waits
of more than five minutes. Marks are releases of workers, pauses, replays and discards.

Examples:
  millrace trends process_transaction
  millrace trends process_transaction --window 14d
  millrace trends process_transaction --json | jq '.points[] | [.at, .came, .started]'")]
pub(crate) struct Arguments {
    queue: String,
    /// The period: 1h, 24h or 14d
    #[arg(long, default_value = "1h", value_parser = TrendWindow::parse)]
    window: TrendWindow,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs `millrace trends`.
///
/// # Errors
/// When the database cannot be used, or the queue is unknown.
pub(crate) async fn program(Arguments { queue, window, json }: Arguments) -> Result<()> {
    let trends = connect().await?.trends(&queue, window).await?;
    let trends = trends.with_context(|| format!("there is no queue {queue:?}; `millrace queues` lists the queues"))?;
    print_value(json, &trends, || text(&trends, Screen::of_stdout()))
}

/// The columns before and after a line of characters.
const MARGIN: usize = 30;

// Counts of jobs are far below 2^52.
#[allow(clippy::cast_precision_loss)]
fn text(trends: &Trends, screen: Screen) -> String {
    let width = screen.width().map_or(usize::MAX, |width| width.saturating_sub(MARGIN).max(10));
    let count = |value: fn(&TrendPoint) -> i64| -> Vec<Option<f64>> {
        trends.points.iter().map(|point| Some(value(point) as f64)).collect()
    };
    let waits = trends.points.iter().map(|point| point.wait_p99_seconds).collect();
    let number = |most: f64| format!("{most:.0}");
    let present = trends.points.last().map_or(0, |point| point.depth);
    let depth = |most: f64| format!("{}{most:.0}", trends.depth_is.sign(present));
    let from = trends.points.first().map(|point| format_time(point.at)).unwrap_or_default();
    let step = format_duration(f64::from(trends.step_seconds));
    let mut text = format!("{}: {} from {from}, in steps of {step}\n\n", trends.queue, trends.window);
    for (name, values, most) in [
        ("CAME", count(|point| point.came), &number as &dyn Fn(f64) -> String),
        ("STARTED", count(|point| point.started), &number),
        ("DEAD", count(|point| point.dead), &number),
        ("DEPTH", count(|point| point.depth), &depth),
        ("WAIT P99", waits, &|most| {
            if most < 10.0 { format!("{:.0} ms", most * 1000.0) } else { format_duration(most) }
        }),
    ] {
        let highest = values.iter().flatten().copied().fold(0.0, f64::max);
        text.push_str(&format!("{name:<9} {}  at most {}\n", sparkline(&values, highest, width), most(highest)));
    }
    if !trends.marks.is_empty() {
        text.push('\n');
    }
    for mark in &trends.marks {
        let at = Style::Faint.paint(&format_time(mark.at), screen);
        text.push_str(&format!("{at}  {}\n", one_line(&mark.text, 300)));
    }
    text
}

/// One character for each value, or for the highest of several values where the width is smaller.
// The level is between 0 and 7.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(crate) fn sparkline(values: &[Option<f64>], highest: f64, width: usize) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let merged = values.len().div_ceil(width.max(1)).max(1);
    let level = |values: &[Option<f64>]| match values.iter().flatten().copied().reduce(f64::max) {
        None => ' ',
        Some(value) if value <= 0.0 => LEVELS[0],
        // Above zero it is at least the second level, so that a single job is seen.
        Some(value) => LEVELS[(1.0 + value / highest * 6.0).round().clamp(1.0, 7.0) as usize],
    };
    values.chunks(merged).map(level).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_level_for_each_value_and_fits() {
        let values = [Some(0.0), Some(1.0), Some(50.0), None, Some(100.0)];
        assert_eq!(sparkline(&values, 100.0, 80), "▁▂▅ █");
        assert_eq!(sparkline(&values, 100.0, 3), "▂▅█");
        assert_eq!(sparkline(&[], 0.0, 80), "");
    }
}
