//! `millrace workers`: shows the workers and what they hold, and drains one.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};
use queue::{Operator, Page, operator::workers::WorkerInfo, status::JobStatus};
use serde_json::json;

use crate::{
    operator::{connect, order, parse_reason},
    output::{
        Screen, Style, format_ago, format_duration, format_time, one_line, print, print_json, print_value, shell_quote,
        table::{Cell, Column, render},
        watch::watch,
    },
};

#[derive(Args)]
#[command(after_help = "\
LAST SEEN is the time since the last heartbeat, and the lease: after the lease other workers take over its jobs. RUNNING has
the running jobs and the slots of all queues. Pages are in the order of the ids; on each page live workers come first.

Examples:
  millrace workers
  millrace workers --watch
  millrace workers show 01KAJ3V1J4SJ9T7YQ0M2C6Z8XB
  millrace workers drain 01KAJ3V1J4SJ9T7YQ0M2C6Z8XB --reason 'its host is replaced'")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// List at most this many workers
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// List only workers after this id
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    /// Refresh every 2 s, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Show one worker, its queues, and the jobs that it holds and since when
    Show {
        worker: String,
        /// List at most this many jobs
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Ask a worker to claim no more jobs, and to end when its jobs have ended
    Drain {
        worker: String,
        /// The reason, shown to other operators
        #[arg(long, value_parser = parse_reason)]
        reason: String,
    },
}

/// Runs `millrace workers`.
///
/// # Errors
/// When the database cannot be used, or there is no such worker.
pub(crate) async fn program(arguments: Arguments) -> Result<()> {
    let Arguments { command, limit, after, watch: watched, json } = arguments;
    let operator = connect().await?;
    match command {
        None => {
            if watched {
                return watch(async |screen| {
                    let workers = operator.list_workers(after.as_deref(), limit).await?.rows;
                    Ok(if json { serde_json::to_string(&workers)? + "\n" } else { list(&workers, screen) })
                })
                .await;
            }
            let Page { rows: workers, next } = operator.list_workers(after.as_deref(), limit).await?;
            print_value(json, &workers, || list(&workers, Screen::of_stdout()))?;
            if let Some(next) = next {
                eprintln!("note: for more workers add --after {}", shell_quote(&next));
            }
            Ok(())
        }
        Some(Command::Show { worker, limit }) => {
            let info = find(&operator, &worker).await?;
            let held = operator.held_by(&worker, limit).await?;
            if json {
                return print_json(&json!({ "worker": info, "held": held }));
            }
            let screen = Screen::of_stdout();
            print(&(describe(&info, screen) + "\n" + &jobs(&held, screen)))
        }
        Some(Command::Drain { worker, reason }) => {
            let is_known = operator.drain_worker(&worker, &order(&reason)?).await?;
            ensure!(is_known, "there is no worker {worker:?}; `millrace workers` lists them");
            // A worker without jobs may have stopped by now, and then it has no row.
            let found = operator.find_worker(&worker).await?;
            print_value(json, &found, || match &found {
                Some(info) => format!(
                    "The worker stops claiming with its next heartbeat, and ends when its {} jobs have ended.\n",
                    info.running
                ),
                None => "The worker has stopped.\n".into(),
            })
        }
    }
}

async fn find(operator: &Operator, id: &str) -> Result<WorkerInfo> {
    let found = operator.find_worker(id).await?;
    found.with_context(|| format!("there is no worker {id:?}; `millrace workers` lists them"))
}

fn list(workers: &[WorkerInfo], screen: Screen) -> String {
    const COLUMNS: [Column; 10] = [
        Column::fixed("WORKER"),
        Column::optional("HOST", 3),
        Column::optional("PID", 8),
        Column::optional("VERSION", 4),
        Column::optional("UP", 6),
        Column::fixed("LAST SEEN"),
        Column::optional("RUNNING", 1),
        Column::optional("OLDEST RUN", 5),
        Column::optional("LISTENS", 7),
        Column::text("STATE"),
    ];
    if workers.is_empty() {
        return "There are no workers; `millrace worker` starts one.\n".into();
    }
    let newest = mixed_versions(workers);
    let table = render(&COLUMNS, workers.iter().map(|worker| row(worker, newest.is_some())), screen);
    let mixed = newest.map(|versions| format!("{} {versions}\n", Style::Warning.paint("✘ mixed versions:", screen)));
    mixed.unwrap_or_default() + &table
}

/// The versions of the live workers and how many workers have each, if there is more than one version.
fn mixed_versions(workers: &[WorkerInfo]) -> Option<String> {
    let mut versions: BTreeMap<String, usize> = BTreeMap::new();
    for worker in workers.iter().filter(|worker| worker.live) {
        *versions.entry(version(worker)).or_default() += 1;
    }
    let counted = versions.iter().map(|(version, count)| format!("{version} ({count})"));
    (versions.len() > 1).then(|| counted.collect::<Vec<_>>().join(", "))
}

/// Workers of an earlier release report nothing.
fn version(worker: &WorkerInfo) -> String {
    worker.report.as_ref().map_or_else(|| "earlier release".into(), |report| one_line(&report.version, 60))
}

fn row(worker: &WorkerInfo, is_mixed: bool) -> Vec<Cell> {
    let report = worker.report.as_ref();
    let (state, state_style) = state(worker);
    let slots =
        report.map_or_else(|| "?".into(), |r| r.queues.values().map(|queue| queue.slots).sum::<u32>().to_string());
    let is_late = worker.silent_seconds > worker.lease_seconds / 2.0;
    let is_deaf = report.is_some_and(|report| !report.listening);
    let listens = report.map_or("-", |report| if report.listening { "yes" } else { "no, polls" });
    vec![
        worker.id.as_str().into(),
        report.map_or("-", |report| &report.host).into(),
        report.map_or_else(|| "-".into(), |report| report.pid.to_string()).into(),
        Cell::new(&version(worker), if is_mixed { Style::Warning } else { Style::Plain }),
        since(worker.started_at).into(),
        Cell::new(&last_seen(worker), if is_late { Style::Bad } else { Style::Plain }),
        format!("{}/{slots}", worker.running).into(),
        worker.oldest_run_seconds.map_or_else(|| "-".into(), format_duration).into(),
        Cell::new(listens, if is_deaf { Style::Warning } else { Style::Plain }),
        Cell::new(&state, state_style),
    ]
}

fn last_seen(worker: &WorkerInfo) -> String {
    format!("{} of {}", format_duration(worker.silent_seconds), format_duration(worker.lease_seconds))
}

/// What the worker does or why it does nothing.
fn state(worker: &WorkerInfo) -> (String, Style) {
    let errors: Vec<String> = worker
        .claim_errors
        .iter()
        .map(|(queue, error)| format!("cannot claim from {queue} ({}): {}", since(error.since), error.error))
        .collect();
    let is_draining = worker.report.as_ref().is_some_and(|report| report.draining);
    match worker.live {
        false if worker.running > 0 => (format!("dead, holds {} jobs", worker.running), Style::Bad),
        false => ("dead".into(), Style::Faint),
        true if !errors.is_empty() => (errors.join("; "), Style::Bad),
        true if is_draining => ("draining".into(), Style::Warning),
        true if worker.drain_requested => ("asked to drain".into(), Style::Warning),
        true => ("live".into(), Style::Good),
    }
}

fn since(at: time::OffsetDateTime) -> String {
    format_ago(at).replace(" ago", "")
}

/// One worker in two columns, then its queues.
fn describe(worker: &WorkerInfo, screen: Screen) -> String {
    let report = worker.report.as_ref();
    let (state, style) = state(worker);
    let lines = [
        ("worker", one_line(&worker.id, 60)),
        ("state", style.paint(&one_line(&state, 500), screen)),
        ("host", report.map_or_else(|| "-".into(), |r| format!("{}, process {}", one_line(&r.host, 100), r.pid))),
        ("version", version(worker)),
        ("started", format!("{} ({})", format_time(worker.started_at), format_ago(worker.started_at))),
        (
            "last seen",
            format!(
                "{} ago; its lease is {}",
                format_duration(worker.silent_seconds),
                format_duration(worker.lease_seconds)
            ),
        ),
        ("listens", report.map_or("-", |r| if r.listening { "yes" } else { "no, it polls" }).into()),
    ];
    let mut text: String = lines.iter().map(|(name, value)| format!("{name:<11}{value}\n")).collect();
    let Some(report) = report else { return text };
    let columns = [
        Column::fixed("QUEUE"),
        Column::fixed("SLOTS"),
        Column::fixed("RUNNING"),
        Column::optional("LAST CLAIM", 1),
        Column::text("CLAIM ERROR"),
    ];
    let rows = report.queues.iter().map(|(name, queue)| {
        let error = worker.claim_errors.get(name).map(|error| format!("{} ({})", error.error, since(error.since)));
        vec![
            name.as_str().into(),
            queue.slots.to_string().into(),
            queue.running.to_string().into(),
            queue.last_claim.map_or_else(|| "-".into(), format_ago).into(),
            Cell::new(&error.unwrap_or_default(), Style::Bad),
        ]
    });
    text.push('\n');
    text + &render(&columns, rows, screen)
}

/// The jobs that a worker holds.
fn jobs(held: &[JobStatus], screen: Screen) -> String {
    const COLUMNS: [Column; 5] = [
        Column::fixed("JOB"),
        Column::fixed("QUEUE"),
        Column::fixed("HELD SINCE"),
        Column::fixed("FOR"),
        Column::optional("RUNS", 1),
    ];
    if held.is_empty() {
        return "It holds no job.\n".into();
    }
    let rows = held.iter().map(|job| {
        vec![
            job.id.as_str().into(),
            job.queue.as_str().into(),
            job.started_at.map_or_else(|| "-".into(), format_time).into(),
            job.started_at.map_or_else(|| "-".into(), since).into(),
            job.runs.to_string().into(),
        ]
    });
    render(&COLUMNS, rows, screen)
}

#[cfg(test)]
mod tests {
    use queue::operator::workers::Report;

    use super::*;

    fn worker(id: &str, live: bool, version: &str) -> WorkerInfo {
        WorkerInfo {
            id: id.into(),
            live,
            started_at: time::OffsetDateTime::UNIX_EPOCH,
            silent_seconds: 1.0,
            lease_seconds: 15.0,
            running: 0,
            oldest_run_seconds: None,
            drain_requested: false,
            report: Some(Report {
                host: "host".into(),
                pid: 1,
                version: version.into(),
                listening: true,
                draining: false,
                queues: BTreeMap::new(),
            }),
            claim_errors: BTreeMap::new(),
        }
    }

    #[test]
    fn mixed_versions_of_live_workers_are_flagged() {
        let same = [worker("a", true, "1.0"), worker("b", true, "1.0"), worker("c", false, "0.9")];
        assert_eq!(mixed_versions(&same), None, "a dead worker does not count");
        let mixed = [worker("a", true, "1.0"), worker("b", true, "1.1"), worker("c", true, "1.1")];
        let text = list(&mixed, Screen::PLAIN);
        assert!(text.starts_with("✘ mixed versions: 1.0 (1), 1.1 (2)\nWORKER"), "{text}");
    }
}
