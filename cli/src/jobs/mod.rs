//! `millrace jobs`: lists, shows, cancels and replays jobs.

mod cancel;
mod filter;
mod list;
mod replay;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use queue::status::{JobDetails, JobStatus};

use crate::{
    operator::{connect, order, parse_reason},
    output::{format_duration, format_time, one_line, print, print_json},
};

#[derive(Args)]
#[command(after_help = "\
Examples:
  millrace jobs list --queue process_transaction --state dead
  millrace jobs list --state running --columns id,worker,started --watch
  millrace jobs list --queue process_transaction --state waiting --attempts 3 --older-than 2h
  millrace jobs show 01KAJ3V1J4SJ9T7YQ0M2C6Z8XB
  millrace jobs show 01KAJ3V1J4SJ9T7YQ0M2C6Z8XB --payload --reason 'a customer asks'
  millrace jobs cancel 01KAJ3V1J4SJ9T7YQ0M2C6Z8XB --reason 'sent twice'
  millrace jobs cancel --queue process_transaction --error 'connection refused' --dry-run
  millrace jobs replay --queue process_transaction --error 'connection refused' --dry-run
  millrace jobs replay --queue process_transaction --error 'connection refused' --reason 'the processor is back'")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// List jobs, newest first
    List(list::Arguments),
    /// Show one job, and why it is not running
    Show {
        id: String,
        /// Also show its payload, which can contain personal data; this is recorded
        #[arg(long)]
        payload: bool,
        /// Why the payload is opened, shown to other operators
        #[arg(long, requires = "payload", value_parser = parse_reason)]
        reason: Option<String>,
    },
    /// Cancel waiting and running jobs
    ///
    /// A waiting job is cancelled at once. A running job is stopped as soon as its worker receives the request.
    Cancel(cancel::Arguments),
    /// Run dead jobs again, with a full set of attempts
    ///
    /// What a job changed when it was given up is undone: a FAILED transaction is PROCESSING again. A job that is named by
    /// its id may also be a cancelled one; --queue selects only dead jobs.
    Replay(replay::Arguments),
}

/// What is shown instead of a payload that is not opened.
const MASKED: &str = "masked; --payload shows it, which is recorded";
/// The recorded reason of opening a payload without one.
const OPENED: &str = "the payload was opened";

/// Runs `millrace jobs`.
///
/// # Errors
/// When the database cannot be used, or some of the jobs could not be changed.
pub(crate) async fn program(Arguments { command, json }: Arguments) -> Result<()> {
    let operator = connect().await?;
    match command {
        Command::List(arguments) => list::list(&operator, arguments, json).await,
        Command::Show { id, payload, reason } => {
            let job = if payload {
                operator.open(&id, &order(reason.as_deref().unwrap_or(OPENED))?).await?
            } else {
                operator.show(&id).await?
            };
            let mut job = job.with_context(|| format!("there is no job {id:?}"))?;
            if !payload {
                job.payload = serde_json::Value::Null;
            }
            if json { print_json(&job) } else { print(&details(&job, payload)?) }
        }
        Command::Cancel(arguments) => cancel::cancel(&operator, arguments, json).await,
        Command::Replay(arguments) => replay::replay(&operator, arguments, json).await,
    }
}

fn format_due(job: &JobStatus) -> String {
    let duration = format_duration(job.due_in_seconds);
    if job.due_in_seconds > 0.0 { format!("in {duration}") } else { format!("{duration} ago") }
}

/// The fields of one job in two columns, then what happened to it.
fn details(details: &JobDetails, is_opened: bool) -> Result<String> {
    let JobDetails { job, why, errors: _, events, replays, payload } = details;
    let or_none = |text: &Option<String>| text.as_deref().map_or_else(|| "-".into(), |text| one_line(text, 200));
    let lines = [
        ("job", one_line(&job.id, 60)),
        ("queue", one_line(&job.queue, 60)),
        ("state", format!("{}: {}", job.state.as_str(), one_line(why, 200))),
        ("due", format!("{} ({})", format_time(job.due_at), format_due(job))),
        ("runs", format!("{} ({} failed, {} crashed)", job.runs, job.failures, job.crashes)),
        ("replays", replays.to_string()),
        ("started", job.started_at.map_or_else(|| "-".into(), format_time)),
        ("ended", job.ended_at.map_or_else(|| "-".into(), format_time)),
        ("worker", or_none(&job.worker)),
        ("key", or_none(&job.key)),
        ("error group", or_none(&job.error_group)),
        ("correlation id", or_none(&job.correlation_id)),
        ("traceparent", or_none(&job.traceparent)),
        // JSON escapes characters that are not printable.
        ("payload", if is_opened { serde_json::to_string(payload)? } else { MASKED.into() }),
    ];
    let mut text: String = lines.iter().map(|(name, value)| format!("{name:<16}{value}\n")).collect();
    for event in events {
        let name = event.event.replace('_', " ");
        text.push_str(&format!("{name:<16}{}  {}\n", format_time(event.at), one_line(&event.text, 4000)));
    }
    Ok(text)
}
