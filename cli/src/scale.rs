//! `millrace scale`: how many workers are needed.

use anyhow::{Result, ensure};
use clap::Args;
use queue::operator::{
    demand::Objective,
    scale::{QueueScale, Scale},
};
use runtime::duration::parse_duration;

use crate::{
    operator::connect,
    output::{
        Screen, Style, format_duration, print_value,
        table::{Cell, Column, render},
    },
};

#[derive(Args)]
#[command(after_help = "\
ARRIVALS is the number of workers for the jobs that come in: at most 80 % of their slots are in use, and 99 of 100 jobs
start within --objective. DRAIN is the number that also runs all due jobs within --drain-in. NEEDED is DRAIN, but 0 for a
queue that is paused or idle, and 1 while no run is known. Arrivals and durations are those of the last 15 minutes. Each
worker runs all queues, so the result is the largest NEEDED. The gauge millrace_workers_needed shows NEEDED for the
default objective.

Exits with 0 if there are enough workers, and with 1 if more are needed.

Examples:
  millrace scale
  millrace scale --objective 5s --drain-in 30m
  millrace scale --json | jq .workers_needed")]
pub(crate) struct Arguments {
    /// Show only this queue
    #[arg(long)]
    queue: Option<String>,
    /// 99 of 100 jobs start within this time after they are due
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = seconds)]
    objective: f64,
    /// No due job is left after this time
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = at_least_a_second)]
    drain_in: f64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    parse_duration(text).map(|duration| duration.as_seconds_f64())
}

fn at_least_a_second(text: &str) -> Result<f64, String> {
    seconds(text).and_then(|seconds| if seconds < 1.0 { Err("must be at least 1s".into()) } else { Ok(seconds) })
}

/// Runs `millrace scale`. Returns whether there are enough workers.
///
/// # Errors
/// When the database cannot be used, or the queue is unknown.
pub(crate) async fn program(Arguments { queue, objective, drain_in, json }: Arguments) -> Result<bool> {
    let mut scale = connect().await?.scale(&Objective { wait_seconds: objective, drain_seconds: drain_in }).await?;
    if let Some(name) = queue {
        scale.queues.retain(|queue| queue.queue == name);
        ensure!(!scale.queues.is_empty(), "there is no queue {name:?}; `millrace queues` lists the queues");
        scale.workers_needed = scale.queues.iter().map(|queue| queue.workers_needed).max().unwrap_or(0);
    }
    print_value(json, &scale, || text(&scale, Screen::of_stdout()))?;
    Ok(scale.is_enough())
}

fn text(scale: &Scale, screen: Screen) -> String {
    const COLUMNS: [Column; 9] = [
        Column::fixed("QUEUE"),
        Column::fixed("WORKERS"),
        Column::fixed("NEEDED"),
        Column::optional("ARRIVALS", 2),
        Column::optional("DRAIN", 3),
        Column::optional("DUE", 1),
        Column::optional("RUNNING", 5),
        Column::optional("DRAINED IN", 4),
        Column::text("BASIS"),
    ];
    let style = if scale.is_enough() { Style::Good } else { Style::Bad };
    let noun = if scale.workers_needed == 1 { "worker" } else { "workers" };
    let verdict = format!("{} {noun} needed, {} live", scale.workers_needed, scale.workers);
    let mut text = format!(
        "{}  (99 of 100 jobs start within {}, due jobs are drained within {})\n",
        style.paint(&verdict, screen),
        format_duration(scale.objective_seconds),
        format_duration(scale.drain_in_seconds)
    );
    if !scale.queues.is_empty() {
        text.push('\n');
        text.push_str(&render(&COLUMNS, scale.queues.iter().map(row), screen));
    }
    text
}

fn row(queue: &QueueScale) -> Vec<Cell> {
    let count = |count: Option<u32>| count.map_or_else(|| "-".into(), |count| count.to_string());
    let is_short = usize::try_from(queue.workers_needed).is_ok_and(|needed| needed > queue.workers);
    vec![
        queue.queue.as_str().into(),
        queue.workers.to_string().into(),
        Cell::new(&queue.workers_needed.to_string(), if is_short { Style::Bad } else { Style::Plain }),
        count(queue.workers_for_arrivals).into(),
        count(queue.workers_to_drain).into(),
        format!("{}{}", queue.depth_is.sign(queue.due), queue.due).into(),
        queue.running.to_string().into(),
        queue.drained_in_seconds.map_or_else(|| "-".into(), format_duration).into(),
        queue.basis.as_str().into(),
    ]
}
