//! `millrace queues`: shows, pauses and resumes queues.

mod show;

use anyhow::{Result, bail, ensure};
use clap::{Args, Subcommand};
use queue::{
    operator::pauses::{PauseEnd, Pausing},
    status::{COUNTED, QueueStatus},
};

use crate::{
    operator::{connect, order, parse_reason},
    output::{
        Screen, Style, format_count, format_depth, format_duration, format_time, one_line, print, print_value,
        table::{Cell, Column, render},
    },
};

#[derive(Args)]
#[command(after_help = "\
Counts stop at 10000. Beyond that, WAITING and DUE are estimates (≈) or lower limits (≥). DONE counts only among the
10000 newest jobs of all queues.

Examples:
  millrace queues
  millrace queues --json
  millrace queues show process_transaction
  millrace queues pause process_transaction --reason 'the processor is down' --until 30m
  millrace queues resume process_transaction --reason 'the processor is back'")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Show one queue, its dead letters by their errors, and who paused and resumed it
    Show {
        queue: String,
        /// List at most this many actions of operators
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Stop workers from claiming jobs of a queue; running jobs continue
    Pause {
        queue: String,
        /// The reason, shown to other operators
        #[arg(long, value_parser = parse_reason)]
        reason: String,
        /// Resume by itself at this time (2026-12-01T14:00:00Z) or after this time (30m, 2h, 1d)
        #[arg(long, value_name = "TIME")]
        until: Option<PauseEnd>,
    },
    /// Resume a paused queue
    Resume {
        queue: String,
        /// The reason, shown to other operators
        #[arg(long, value_parser = parse_reason)]
        reason: String,
    },
}

/// Runs `millrace queues`.
///
/// # Errors
/// When the database cannot be used, or the queue to resume was not paused.
pub(crate) async fn program(Arguments { command, json }: Arguments) -> Result<()> {
    let operator = connect().await?;
    let queue = match command {
        None => {
            let queues = operator.queues().await?;
            if queues.is_empty() && !json {
                return print("There are no queues: no queue has a job, a worker or a pause.\n");
            }
            return print_queues(json, &queues);
        }
        Some(Command::Show { queue, limit }) => return show::show(&operator, &queue, limit, json).await,
        Some(Command::Pause { queue, reason, until }) => {
            let order = order(&reason)?;
            match operator.pause(&queue, until, &order).await? {
                Pausing::Paused => queue,
                Pausing::UnknownQueue => bail!(unknown(&queue)),
                Pausing::EndIsPast => bail!("--until {}", PauseEnd::MUST_FOLLOW),
            }
        }
        Some(Command::Resume { queue, reason }) => {
            if !operator.resume(&queue, &order(&reason)?).await? {
                ensure!(operator.queue(&queue).await?.is_some(), unknown(&queue));
                bail!("the queue {queue:?} was not paused");
            }
            queue
        }
    };
    let mut changed = operator.queues().await?;
    changed.retain(|status| status.name == queue);
    print_queues(json, &changed)
}

fn unknown(queue: &str) -> String {
    format!("there is no queue {queue:?}; `millrace queues` lists the queues")
}

/// Why workers claim nothing from the queue; empty when they can.
fn claim_obstacle(queue: &QueueStatus) -> String {
    match (&queue.reason, &queue.claim_error) {
        (Some(reason), _) => {
            let by = queue.paused_by.as_ref().map(|by| format!(" by {}", one_line(by, 60))).unwrap_or_default();
            let until = queue.resume_at.map(|at| format!(" until {}", format_time(at))).unwrap_or_default();
            format!("paused{by}{until}: {}", one_line(reason, 60))
        }
        (None, Some(error)) => {
            format!("claims of {} of {} workers fail: {}", queue.failing_workers, queue.workers, one_line(error, 120))
        }
        (None, None) => String::new(),
    }
}

fn print_queues(json: bool, queues: &[QueueStatus]) -> Result<()> {
    const COLUMNS: [Column; 9] = [
        Column::fixed("QUEUE"),
        Column::fixed("WORKERS"),
        Column::optional("WAITING", 2),
        Column::fixed("DUE"),
        Column::optional("RUNNING", 1),
        Column::optional("DEAD", 3),
        Column::optional("DONE", 5),
        Column::optional("OLDEST DUE", 4),
        Column::text(""),
    ];
    print_value(json, &queues, || render(&COLUMNS, queues.iter().map(row), Screen::of_stdout()))
}

fn row(queue: &QueueStatus) -> Vec<Cell> {
    let count = |count: i64| format_count(count, COUNTED);
    vec![
        queue.name.as_str().into(),
        queue.workers.to_string().into(),
        format_depth(queue.waiting, queue).into(),
        format_depth(queue.due, queue).into(),
        queue.running.to_string().into(),
        count(queue.dead).into(),
        count(queue.recently_done).into(),
        queue.late.filter(|late| *late > 0.0).map_or_else(|| "-".into(), format_duration).into(),
        Cell::new(&claim_obstacle(queue), Style::Warning),
    ]
}
