//! `millrace queues`: what is in each queue; pause one, and have it go on.

use clap::{Args, Subcommand};
use jobs::{
    boot::process,
    queue::status::{COUNTED, QueueStatus},
};

use crate::operator::{connect, one_line, print, print_json, span, table};

#[derive(Args)]
#[command(after_help = "\
Counts end at 10000. DONE counts among the 10000 newest jobs of all queues.

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
    /// Have no worker claim from a queue; what runs goes on
    Pause {
        queue: String,
        /// Why, for whoever wonders
        #[arg(long)]
        reason: String,
    },
    /// Have a paused queue go on
    Resume { queue: String },
}

/// Does what it is told.
///
/// # Errors
/// Why it could not.
pub async fn program(Arguments { command, json }: Arguments) -> Result<(), String> {
    let operator = connect().await?;
    let queues = operator.queues().await.map_err(process::text)?;
    let queue = match command {
        None if json => return print_json(&queues),
        None if queues.is_empty() => {
            print("There are no queues: no job, no worker, no pause.\n")?;
            return Ok(());
        }
        None => {
            print(&overview(&queues))?;
            return Ok(());
        }
        Some(Command::Pause { queue, reason }) => {
            operator.pause(&queue, &reason).await.map_err(process::text)?;
            if !queues.iter().any(|known| known.name == queue) {
                eprintln!("note: no job and no worker is known of a queue {queue:?}; it is paused for when they come");
            }
            queue
        }
        Some(Command::Resume { queue }) => {
            if !operator.resume(&queue).await.map_err(process::text)? {
                return Err(format!("the queue {queue:?} was not paused"));
            }
            queue
        }
    };
    let queues = operator.queues().await.map_err(process::text)?;
    let changed: Vec<QueueStatus> = queues.into_iter().filter(|status| status.name == queue).collect();
    if json {
        return print_json(&changed);
    }
    print(&overview(&changed))?;
    Ok(())
}

/// Why nothing is claimed, if so.
fn trouble(queue: &QueueStatus) -> String {
    match (&queue.reason, &queue.claim_error) {
        (Some(reason), _) => format!("paused: {}", one_line(reason, 60)),
        (None, Some(error)) => {
            format!("claims of {} of {} workers fail: {}", queue.failing_workers, queue.workers, one_line(error, 120))
        }
        (None, None) => String::new(),
    }
}

fn overview(queues: &[QueueStatus]) -> String {
    let count = |count: i64| if count < COUNTED { count.to_string() } else { format!("{COUNTED}+") };
    let rows: Vec<[String; 9]> = queues
        .iter()
        .map(|queue| {
            [
                one_line(&queue.name, 60),
                queue.workers.to_string(),
                count(queue.waiting),
                count(queue.due),
                queue.running.to_string(),
                count(queue.dead),
                count(queue.recently_done),
                queue.late.filter(|late| *late > 0.0).map_or_else(|| "-".into(), span),
                trouble(queue),
            ]
        })
        .collect();
    table(["QUEUE", "WORKERS", "WAITING", "DUE", "RUNNING", "DEAD", "DONE", "OLDEST DUE", ""], &rows)
}
