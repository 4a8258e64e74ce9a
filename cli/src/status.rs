//! `millrace status`: what is wrong, and the state of all queues.

use anyhow::Result;
use clap::Args;
use jobs::overview;
use queue::operator::overview::{Overview, QueueOverview};

use crate::{
    operator::app,
    output::{
        Screen, Style, format_depth, format_duration, format_time, one_line, print_value,
        table::{Cell, Column, render},
        watch::watch,
    },
    trends::sparkline,
};

#[derive(Args)]
#[command(after_help = "\
IN/S and OUT/S count the last 3 minutes; IN 15M, OUT 15M, WAIT P99 and NEEDED the last 15. NEEDED is the number of workers for
the present arrivals, and 10 MIN the number that also runs all due jobs within 10 minutes. DRAINED IN is \"keeps up\" while no
job is due for more than 5 s. Each character of STARTED, 60 MIN is three minutes. Waiting and due jobs are counted up to 10000;
≈ is an estimate, ≥ means at least.

Exits with 0 if all is well, and with 1 if there is a problem.

Examples:
  millrace status
  millrace status --watch
  millrace status --json | jq '.queues[] | {name, due, drained_in_seconds}'")]
pub(crate) struct Arguments {
    /// Refresh every 2 s, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Print JSON; with --watch one line for each refresh
    #[arg(long)]
    json: bool,
}

/// Runs `millrace status`. Returns whether all is well.
///
/// # Errors
/// When the database cannot be used, or the output cannot be written.
pub(crate) async fn program(Arguments { watch: watched, json }: Arguments) -> Result<bool> {
    let app = app().await?;
    if watched {
        let view = async |screen| {
            let overview = overview::read(&app).await?;
            if json {
                Ok(serde_json::to_string(&overview)? + "\n")
            } else {
                Ok(text(&overview, screen, screen.width()))
            }
        };
        watch(view).await?;
        return Ok(true);
    }
    let overview = overview::read(&app).await?;
    print_value(json, &overview, || text(&overview, Screen::of_stdout(), None))?;
    Ok(overview.problems.is_empty())
}

/// The verdict and the queues. A view that is watched has no line that is wider than the terminal.
fn text(overview: &Overview, screen: Screen, width: Option<usize>) -> String {
    let mut text = verdict(overview, screen, width);
    if overview.queues.is_empty() {
        text.push_str("There are no queues: no queue has a job, a worker or a pause.\n");
        return text;
    }
    text.push('\n');
    text.push_str(&queues(&overview.queues, screen));
    text
}

/// The verdict, then each problem with the command that shows more.
fn verdict(overview: &Overview, screen: Screen, width: Option<usize>) -> String {
    let at = format_time(overview.at);
    let verdict = match overview.problems.len() {
        0 => Style::Good.paint("Healthy", screen),
        1 => Style::Bad.paint("1 problem", screen),
        count => Style::Bad.paint(&format!("{count} problems"), screen),
    };
    let mut text = format!("{verdict}  ({at})\n");
    for problem in &overview.problems {
        // Four columns are the indent and the cross.
        let longest = width.map_or(500, |width| width.saturating_sub(4));
        let cross = Style::Bad.paint("✘", screen);
        text.push_str(&format!("  {cross} {}\n", one_line(&problem.text, longest)));
        text.push_str(&format!("    {}\n", Style::Faint.paint(&problem.command, screen)));
    }
    text
}

/// The table of queues with their rates and estimates.
pub(crate) fn queues(queues: &[QueueOverview], screen: Screen) -> String {
    const COLUMNS: [Column; 17] = [
        Column::fixed("QUEUE"),
        Column::optional("WAITING", 10),
        Column::fixed("DUE"),
        Column::optional("OLDEST DUE", 6),
        Column::optional("RUNNING", 7),
        Column::optional("IN/S", 8),
        Column::optional("OUT/S", 8),
        Column::optional("IN 15M", 12),
        Column::optional("OUT 15M", 12),
        Column::optional("WAIT P99", 11),
        Column::optional("DRAINED IN", 1),
        Column::optional("WORKERS", 4),
        Column::optional("NEEDED", 3),
        Column::optional("10 MIN", 9),
        Column::optional("DEAD 24 H", 2),
        Column::optional("STARTED, 60 MIN", 13),
        Column::text("PAUSED"),
    ];
    render(&COLUMNS, queues.iter().map(row), screen)
}

/// The characters of the chart of an hour.
const CHART_WIDTH: usize = 20;
/// A queue whose oldest due job has waited for less keeps up with its arrivals.
const KEEPS_UP_SECONDS: f64 = 5.0;

fn row(queue: &QueueOverview) -> Vec<Cell> {
    let status = &queue.status;
    let sign = status.depth_is.sign(status.due);
    let count = |count: Option<u32>| count.map_or_else(|| "-".into(), |count| count.to_string());
    let (drained, is_bad) = match (queue.drained_in_seconds, queue.growing_by_per_second) {
        _ if status.due == 0 => ("-".into(), false),
        _ if status.paused_at.is_some() => ("not while paused".into(), false),
        // Jobs start as soon as they are due. Rates say nothing about so few: jobs are enqueued long before they are due.
        _ if status.late.is_none_or(|late| late < KEEPS_UP_SECONDS) => ("keeps up".into(), false),
        (Some(seconds), _) => (format!("{sign}{}", format_duration(seconds)), false),
        (None, Some(growth)) => (format!("never at this rate: +{}/s", rate(growth)), true),
        (None, None) => ("not known".into(), false),
    };
    let wait = match queue.wait_p99_seconds {
        Some(seconds) if seconds < 10.0 => format!("≤ {:.0} ms", seconds * 1000.0),
        Some(seconds) => format!("≤ {}", format_duration(seconds)),
        None if queue.out_per_second_15_min > 0.0 => "> 5 min".into(),
        None => "-".into(),
    };
    let bad_if = |is_bad: bool| if is_bad { Style::Bad } else { Style::Plain };
    let needed = queue.workers_needed.is_some_and(|needed| i64::from(needed) > status.workers);
    vec![
        status.name.as_str().into(),
        format_depth(status.waiting, status).into(),
        format_depth(status.due, status).into(),
        status.late.filter(|late| *late > 0.0).map_or_else(|| "-".into(), format_duration).into(),
        format!("{}/{}", status.running, queue.slots).into(),
        rate(queue.in_per_second).into(),
        rate(queue.out_per_second).into(),
        rate(queue.in_per_second_15_min).into(),
        rate(queue.out_per_second_15_min).into(),
        wait.into(),
        Cell::new(&drained, bad_if(is_bad)),
        Cell::new(&status.workers.to_string(), bad_if(status.workers == 0 && status.due > 0)),
        Cell::new(&count(queue.workers_needed), bad_if(needed)),
        format!("{}{}", queue.workers_to_drain_in_10_min.map_or("", |_| sign), count(queue.workers_to_drain_in_10_min))
            .into(),
        Cell::new(&queue.dead_24h.to_string(), bad_if(queue.dead_24h > 0)),
        started(queue).into(),
        Cell::new(&pause(queue), Style::Warning),
    ]
}

/// The runs that started in the last hour, as a line of characters. The present minute is left out: it is not over.
// Counts of jobs are far below 2^52.
#[allow(clippy::cast_precision_loss)]
fn started(queue: &QueueOverview) -> String {
    let minutes = queue.minutes.split_last().map_or(&queue.minutes[..], |(_, full)| full);
    let values: Vec<Option<f64>> = minutes.iter().map(|minute| Some(minute.started as f64)).collect();
    sparkline(&values, values.iter().flatten().copied().fold(0.0, f64::max), CHART_WIDTH)
}

/// By whom and why a queue is paused; empty if it is not.
fn pause(queue: &QueueOverview) -> String {
    let status = &queue.status;
    if status.paused_at.is_none() {
        return String::new();
    }
    let by = status.paused_by.as_ref().map(|by| format!("by {by}: ")).unwrap_or_default();
    let until = status.resume_at.map(|at| format!(" (until {})", format_time(at))).unwrap_or_default();
    format!("{by}{}{until}", status.reason.as_deref().unwrap_or_default())
}

fn rate(per_second: f64) -> String {
    if per_second < 99.95 { format!("{per_second:.1}") } else { format!("{per_second:.0}") }
}
