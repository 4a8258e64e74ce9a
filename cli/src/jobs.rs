//! `millrace jobs`: list them, look at one, cancel, replay.

use clap::{Args, Subcommand};
use jobs::{
    boot::process,
    queue::{
        Operator,
        status::{Cancelled, Filter, JobDetails, JobStatus, Replayed, State},
    },
};

use crate::{
    operator::{connect, one_line, print, print_json, span, table},
    report::Report,
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
        /// Only of this queue
        #[arg(long)]
        queue: Option<String>,
        /// Only in this state: waiting, running, done, dead or cancelled
        #[arg(long, value_parser = state)]
        state: Option<State>,
        /// Only with this text in the last error
        #[arg(long)]
        error: Option<String>,
        /// Only before this id: the last of the page before
        #[arg(long, value_name = "ID")]
        before: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Show one job, and why it is not running
    Show { id: String },
    /// End jobs: waiting ones at once, running ones as soon as their worker hears of it
    Cancel {
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Run dead jobs again, with all their tries and with what they gave up
    ///
    /// By its id a cancelled job runs again as well; a filter finds dead ones only.
    Replay {
        #[arg(required_unless_present = "queue", conflicts_with = "queue")]
        ids: Vec<String>,
        /// All dead jobs of this queue
        #[arg(long)]
        queue: Option<String>,
        /// Only those with this text in the last error
        #[arg(long, requires = "queue")]
        error: Option<String>,
        /// Only say which they are
        #[arg(long)]
        dry_run: bool,
    },
}

fn state(text: &str) -> Result<State, String> {
    let found = State::ALL.into_iter().find(|state| state.as_str() == text);
    found.ok_or_else(|| "must be waiting, running, done, dead or cancelled".into())
}

/// Does what it is told.
///
/// # Errors
/// Why it could not, or could not for some of the jobs.
pub async fn program(Arguments { command, json }: Arguments) -> Result<(), String> {
    let operator = connect().await?;
    match command {
        Command::List { queue, state, error, before, limit } => {
            let filter = Filter { queue, state, error, before };
            let listed = operator.list(&filter, limit).await.map_err(process::text)?;
            if json {
                print_json(&listed.jobs)?;
            } else {
                print(&overview(&listed.jobs))?;
            }
            if let Some(end) = listed.searched_to {
                let end = one_line(&end, 60);
                eprintln!(
                    "note: not all jobs were looked at: finished ones, and all but the first 10000 waiting ones of a queue, \
                     only down to {end}; to go on from there, add --before {end}"
                );
            }
            Ok(())
        }
        Command::Show { id } => {
            let found = operator.show(&id).await.map_err(process::text)?;
            let job = found.ok_or_else(|| format!("there is no job {id:?}"))?;
            if json {
                return print_json(&job);
            }
            print(&details(&job)?)?;
            Ok(())
        }
        Command::Cancel { ids } => {
            let mut report = Report::begin(json, ids.len())?;
            while let Some(id) = report.next(&ids) {
                let (result, good) = match operator.cancel(id).await {
                    Ok(Cancelled::AtOnce) => ("cancelled", true),
                    Ok(Cancelled::Requested) => {
                        ("running: ended by its worker, or by the one that takes it over", true)
                    }
                    Ok(Cancelled::Ended) => ("had ended before", false),
                    Ok(Cancelled::NotFound) => ("not found", false),
                    Err(error) => (failed(id, &error), false),
                };
                report.add(id, result, good)?;
            }
            report.end()
        }
        Command::Replay { ids, queue, error, dry_run } => {
            let ids = match queue {
                None => ids,
                Some(queue) => {
                    let dead = operator.dead(&queue, error.as_deref()).await.map_err(process::text)?;
                    dead.into_iter().map(|job| job.id).collect()
                }
            };
            let mut report = Report::begin(json, ids.len())?;
            while let Some(id) = report.next(&ids) {
                let replayed = if dry_run { would_replay(&operator, id).await } else { operator.replay(id).await };
                let (result, good) = match replayed {
                    Ok(Replayed::Replayed) if dry_run => ("would be replayed", true),
                    Ok(Replayed::Replayed) => ("replayed", true),
                    Ok(Replayed::NotDead) => ("not dead", false),
                    Ok(Replayed::KeyTaken) => ("not replayed: another job with its key waits or runs", false),
                    Ok(Replayed::NotFound) => ("not found", false),
                    Err(error) => (failed(id, &error), false),
                };
                report.add(id, result, good)?;
            }
            report.end()
        }
    }
}

async fn would_replay(operator: &Operator, id: &str) -> Result<Replayed, jobs::error::Error> {
    Ok(match operator.show(id).await?.map(|details| details.job.state) {
        None => Replayed::NotFound,
        Some(State::Dead | State::Cancelled) => Replayed::Replayed,
        Some(_) => Replayed::NotDead,
    })
}

fn failed(id: &str, error: &jobs::error::Error) -> &'static str {
    eprintln!("{id}: {error}");
    "failed"
}

fn due(job: &JobStatus) -> String {
    let span = span(job.due_in_seconds);
    if job.due_in_seconds > 0.0 { format!("in {span}") } else { format!("{span} ago") }
}

fn overview(jobs: &[JobStatus]) -> String {
    let rows: Vec<[String; 7]> = jobs
        .iter()
        .map(|job| {
            [
                one_line(&job.id, 60),
                one_line(&job.queue, 60),
                job.state.as_str().to_owned(),
                job.runs.to_string(),
                job.failures.to_string(),
                due(job),
                one_line(job.last_error.as_deref().unwrap_or_default(), 60),
            ]
        })
        .collect();
    table(["ID", "QUEUE", "STATE", "RUNS", "FAILURES", "DUE", "LAST ERROR"], &rows)
}

/// Two columns, then the errors and the payload.
fn details(JobDetails { job, why, errors, payload }: &JobDetails) -> Result<String, String> {
    let or_none = |text: &Option<String>| text.as_deref().map_or_else(|| "-".into(), |text| one_line(text, 200));
    let lines = [
        ("job", one_line(&job.id, 60)),
        ("queue", one_line(&job.queue, 60)),
        ("state", format!("{}: {}", job.state.as_str(), one_line(why, 200))),
        ("due", format!("{} ({})", job.due_at, due(job))),
        ("runs", format!("{} ({} failed, {} crashed)", job.runs, job.failures, job.crashes)),
        ("started", job.started_at.map_or_else(|| "-".into(), |at| at.to_string())),
        ("ended", job.ended_at.map_or_else(|| "-".into(), |at| at.to_string())),
        ("worker", or_none(&job.worker)),
        ("correlation id", or_none(&job.correlation_id)),
        ("traceparent", or_none(&job.traceparent)),
        // JSON escapes what is not printable.
        ("payload", serde_json::to_string(payload).map_err(process::text)?),
    ];
    let mut text: String = lines.iter().map(|(name, value)| format!("{name:<16}{value}\n")).collect();
    for error in errors.as_array().into_iter().flatten() {
        let part = |name: &str| error[name].as_str().unwrap_or("-").to_owned();
        let error = one_line(&part("error"), 4000);
        text.push_str(&format!("{:<16}{}  {error}\n", "error", one_line(&part("at"), 40)));
    }
    Ok(text)
}
