//! `millrace jobs`: lists, shows, cancels and replays jobs.

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use queue::{
    Operator,
    status::{Cancelled, Filter, JobDetails, JobStatus, Replayed, State},
};
use runtime::error::Error;

use crate::{
    bulk_results::change_each,
    operator::{connect, format_duration, one_line, order, print, print_json, print_rows},
};

#[derive(Args)]
#[command(after_help = "\
Examples:
  millrace jobs list --queue process_transaction --state dead
  millrace jobs show 01KAJ3V1J4SJ9T7YQ0M2C6Z8XB
  millrace jobs cancel 01KAJ3V1J4SJ9T7YQ0M2C6Z8XB
  millrace jobs replay --queue process_transaction --error 'connection refused' --dry-run
  millrace jobs replay --queue process_transaction --error 'connection refused'")]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// List jobs, newest first
    List {
        /// List only jobs of this queue
        #[arg(long)]
        queue: Option<String>,
        /// List only jobs in this state: waiting, running, done, dead or cancelled
        #[arg(long, value_parser = parse_state)]
        state: Option<State>,
        /// List only jobs whose last error contains this text
        #[arg(long)]
        error: Option<String>,
        /// List only jobs before this id; give the last id of the previous page
        #[arg(long, value_name = "ID")]
        before: Option<String>,
        /// List at most this many jobs
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Show one job, and why it is not running
    Show { id: String },
    /// Cancel waiting and running jobs
    ///
    /// A waiting job is cancelled at once. A running job is stopped as soon as its worker receives the request.
    Cancel {
        #[arg(required = true)]
        ids: Vec<String>,
        /// The reason, shown to other operators
        #[arg(long)]
        reason: Option<String>,
    },
    /// Run dead jobs again, with a full set of attempts
    ///
    /// What a job changed when it was given up is undone: a FAILED transaction is PROCESSING again. A job that is named by
    /// its id may also be a cancelled one; --queue selects only dead jobs.
    Replay {
        #[arg(required_unless_present = "queue", conflicts_with = "queue")]
        ids: Vec<String>,
        /// Replay all dead jobs of this queue
        #[arg(long)]
        queue: Option<String>,
        /// Replay only jobs whose last error contains this text
        #[arg(long, requires = "queue")]
        error: Option<String>,
        /// Print the selected jobs, and replay none of them
        #[arg(long)]
        dry_run: bool,
        /// The reason, shown to other operators
        #[arg(long)]
        reason: Option<String>,
    },
}

fn parse_state(text: &str) -> Result<State, &'static str> {
    let found = State::ALL.into_iter().find(|state| state.as_str() == text);
    found.ok_or("must be waiting, running, done, dead or cancelled")
}

/// Runs `millrace jobs`.
///
/// # Errors
/// When the database cannot be used, or some of the jobs could not be changed.
pub async fn program(Arguments { command, json }: Arguments) -> Result<()> {
    let operator = connect().await?;
    match command {
        Command::List { queue, state, error, before, limit } => {
            let filter = Filter { queue, state, error, before };
            let listed = operator.list(&filter, limit).await?;
            const HEAD: [&str; 7] = ["ID", "QUEUE", "STATE", "RUNS", "FAILURES", "DUE", "LAST ERROR"];
            print_rows(json, HEAD, &listed.jobs, row)?;
            if let Some(end) = listed.searched_to {
                let end = one_line(&end, 60);
                eprintln!(
                    "note: not all jobs were searched: finished jobs, and waiting jobs beyond the first 10000 of a queue, \
                     only down to {end}; to continue from there, add --before {end}"
                );
            }
            Ok(())
        }
        Command::Show { id } => {
            let job = operator.show(&id).await?.with_context(|| format!("there is no job {id:?}"))?;
            if json { print_json(&job) } else { print(&details(&job)?) }
        }
        Command::Cancel { ids, reason } => {
            let order = order(reason.as_deref())?;
            change_each(json, &ids, async |id| {
                Ok(match operator.cancel(id, &order).await? {
                    Cancelled::AtOnce => ("cancelled", true),
                    Cancelled::Requested => {
                        ("running: its worker, or the next worker that claims it, will cancel it", true)
                    }
                    Cancelled::Ended => ("already ended", false),
                    Cancelled::NotFound => ("not found", false),
                })
            })
            .await
        }
        Command::Replay { ids, queue, error, dry_run, reason } => {
            let order = order(reason.as_deref())?;
            let ids = match queue {
                None => ids,
                Some(queue) => {
                    let dead = operator.dead(&queue, error.as_deref()).await?;
                    dead.into_iter().map(|job| job.id).collect()
                }
            };
            change_each(json, &ids, async |id| {
                let replayed =
                    if dry_run { would_replay(&operator, id).await } else { operator.replay(id, &order).await };
                Ok(match replayed? {
                    Replayed::Replayed if dry_run => ("would be replayed", true),
                    Replayed::Replayed => ("replayed", true),
                    Replayed::NotDead => ("not dead", false),
                    Replayed::KeyTaken => ("not replayed: another job with the same key is waiting or running", false),
                    Replayed::NotFound => ("not found", false),
                })
            })
            .await
        }
    }
}

async fn would_replay(operator: &Operator, id: &str) -> Result<Replayed, Error> {
    Ok(match operator.show(id).await?.map(|details| details.job.state) {
        None => Replayed::NotFound,
        Some(State::Dead | State::Cancelled) => Replayed::Replayed,
        Some(_) => Replayed::NotDead,
    })
}

fn format_due(job: &JobStatus) -> String {
    let duration = format_duration(job.due_in_seconds);
    if job.due_in_seconds > 0.0 { format!("in {duration}") } else { format!("{duration} ago") }
}

fn row(job: &JobStatus) -> [String; 7] {
    [
        one_line(&job.id, 60),
        one_line(&job.queue, 60),
        job.state.as_str().to_owned(),
        job.runs.to_string(),
        job.failures.to_string(),
        format_due(job),
        one_line(job.last_error.as_deref().unwrap_or_default(), 60),
    ]
}

/// The fields of one job in two columns, then its errors.
fn details(JobDetails { job, why, errors, payload }: &JobDetails) -> Result<String> {
    let or_none = |text: &Option<String>| text.as_deref().map_or_else(|| "-".into(), |text| one_line(text, 200));
    let lines = [
        ("job", one_line(&job.id, 60)),
        ("queue", one_line(&job.queue, 60)),
        ("state", format!("{}: {}", job.state.as_str(), one_line(why, 200))),
        ("due", format!("{} ({})", job.due_at, format_due(job))),
        ("runs", format!("{} ({} failed, {} crashed)", job.runs, job.failures, job.crashes)),
        ("started", job.started_at.map_or_else(|| "-".into(), |at| at.to_string())),
        ("ended", job.ended_at.map_or_else(|| "-".into(), |at| at.to_string())),
        ("worker", or_none(&job.worker)),
        ("correlation id", or_none(&job.correlation_id)),
        ("traceparent", or_none(&job.traceparent)),
        // JSON escapes characters that are not printable.
        ("payload", serde_json::to_string(payload)?),
    ];
    let mut text: String = lines.iter().map(|(name, value)| format!("{name:<16}{value}\n")).collect();
    for error in errors.as_array().into_iter().flatten() {
        let part = |name: &str| error[name].as_str().unwrap_or("-").to_owned();
        let error = one_line(&part("error"), 4000);
        text.push_str(&format!("{:<16}{}  {error}\n", "error", one_line(&part("at"), 40)));
    }
    Ok(text)
}
