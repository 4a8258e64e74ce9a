//! `millrace queues`: shows, pauses and resumes queues.

use anyhow::{Result, anyhow, ensure};
use clap::{Args, Subcommand};
use queue::{
    operator::pauses::parse_until,
    status::{COUNTED, QueueStatus},
};
use time::OffsetDateTime;

use crate::operator::{connect, format_duration, one_line, order, print, print_rows};

#[derive(Args)]
#[command(after_help = "\
Counts stop at 10000. DONE counts only among the 10000 newest jobs of all queues.

Examples:
  millrace queues
  millrace queues --json
  millrace queues pause process_transaction --reason 'the processor is down until 14:00'
  millrace queues resume process_transaction")]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Stop workers from claiming jobs of a queue; running jobs continue
    Pause {
        queue: String,
        /// The reason, shown to other operators
        #[arg(long)]
        reason: String,
        /// Resume by itself at this time (2026-12-01T14:00:00Z) or after this time (30m, 2h, 1d)
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
    },
    /// Resume a paused queue
    Resume {
        queue: String,
        /// The reason, shown to other operators
        #[arg(long)]
        reason: Option<String>,
    },
}

/// Runs `millrace queues`.
///
/// # Errors
/// When the database cannot be used, or the queue to resume was not paused.
pub async fn program(Arguments { command, json }: Arguments) -> Result<()> {
    let operator = connect().await?;
    let queues = operator.queues().await?;
    let queue = match command {
        None if queues.is_empty() && !json => {
            return print("There are no queues: no queue has a job, a worker or a pause.\n");
        }
        None => return print_queues(json, &queues),
        Some(Command::Pause { queue, reason, until }) => {
            let order = order(Some(&reason))?;
            let until = until.as_deref().map(|text| parse_until(text, OffsetDateTime::now_utc())).transpose();
            let until = until.map_err(|problem| anyhow!("--until {problem}"))?;
            let known = operator.pause(&queue, until, &order).await?;
            ensure!(known, "there is no queue {queue:?}; `millrace queues` lists the queues");
            queue
        }
        Some(Command::Resume { queue, reason }) => {
            ensure!(operator.resume(&queue, &order(reason.as_deref())?).await?, "the queue {queue:?} was not paused");
            queue
        }
    };
    let mut changed = operator.queues().await?;
    changed.retain(|status| status.name == queue);
    print_queues(json, &changed)
}

/// Why workers claim nothing from the queue; empty when they can.
fn claim_obstacle(queue: &QueueStatus) -> String {
    match (&queue.reason, &queue.claim_error) {
        (Some(reason), _) => format!("paused: {}", one_line(reason, 60)),
        (None, Some(error)) => {
            format!("claims of {} of {} workers fail: {}", queue.failing_workers, queue.workers, one_line(error, 120))
        }
        (None, None) => String::new(),
    }
}

fn print_queues(json: bool, queues: &[QueueStatus]) -> Result<()> {
    const HEAD: [&str; 9] = ["QUEUE", "WORKERS", "WAITING", "DUE", "RUNNING", "DEAD", "DONE", "OLDEST DUE", ""];
    let count = |count: i64| if count < COUNTED { count.to_string() } else { format!("{COUNTED}+") };
    print_rows(json, HEAD, queues, |queue| {
        [
            one_line(&queue.name, 60),
            queue.workers.to_string(),
            count(queue.waiting),
            count(queue.due),
            queue.running.to_string(),
            count(queue.dead),
            count(queue.recently_done),
            queue.late.filter(|late| *late > 0.0).map_or_else(|| "-".into(), format_duration),
            claim_obstacle(queue),
        ]
    })
}
