//! `millrace dead`: dead letters by their errors; replays and discards them.

mod discard;
mod replay;
mod selection;

use anyhow::Result;
use clap::{Args, Subcommand};
use queue::operator::groups::{ErrorGroup, MAX_COUNTED};

use crate::{
    operator::connect,
    output::{
        Screen, Style, format_ago, format_count, one_line, print_value, shell_quote,
        table::{Cell, Column, render},
    },
};

#[derive(Args)]
#[command(after_help = "\
A group has the dead letters of one queue whose last errors are equal apart from numbers, ids and quoted parts. 15 MIN
counts those of its newest 1000 that died in the last 15 minutes. OLDEST and NEWEST say when its oldest job and the last
of its newest 1000 died. Counts stop at 10000.

Examples:
  millrace dead
  millrace dead --queue process_transaction
  millrace dead replay --queue process_transaction --error 'connection refused' --dry-run
  millrace dead replay --queue process_transaction --error 'connection refused' --rate 20/s --limit 500 --canary 10 \\
      --stop-if-dead 20% --reason 'the processor is back' --wait
  millrace dead discard --queue process_transaction --group 3f1c02aa --reason 'sent twice by mistake'")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Show only dead letters of this queue
    #[arg(long)]
    queue: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Run dead letters again: at a rate, a few first, and stop if too many die again
    ///
    /// The replay is a job itself: it survives restarts, and `millrace replays` shows, pauses and stops it. Dead letters that
    /// die after its start are not taken.
    Replay(replay::Arguments),
    /// Give dead letters up for good: no replay by a filter takes them again
    Discard(discard::Arguments),
}

/// Runs `millrace dead`. Returns `false` if nothing is selected.
///
/// # Errors
/// When the database cannot be used, or a replay that is waited for has stopped.
pub(crate) async fn program(Arguments { command, queue, json }: Arguments) -> Result<bool> {
    let operator = connect().await?;
    match command {
        None => {
            let groups = operator.dead_groups(queue.as_deref()).await?;
            print_value(json, &groups, || text(&groups, Screen::of_stdout()))?;
            Ok(true)
        }
        Some(Command::Replay(arguments)) => replay::run(&operator, arguments, json).await,
        Some(Command::Discard(arguments)) => discard::run(&operator, arguments, json).await,
    }
}

/// The groups, each with its error on a line of its own, and the command that looks closer at the largest one.
pub(crate) fn text(groups: &[ErrorGroup], screen: Screen) -> String {
    const COLUMNS: [Column; 8] = [
        Column::fixed("QUEUE"),
        Column::fixed("GROUP"),
        Column::fixed("COUNT"),
        Column::optional("SHARE", 1),
        Column::fixed("15 MIN"),
        Column::optional("OLDEST", 4),
        Column::optional("NEWEST", 2),
        Column::optional("SAMPLE JOB", 3),
    ];
    let Some(largest) = groups.first() else { return "There are no dead letters.\n".into() };
    let table = render(&COLUMNS, groups.iter().map(row), screen);
    let mut lines = table.lines();
    let mut text = format!("{}\n", lines.next().unwrap_or_default());
    for group in groups {
        text.push_str(&format!("{}\n", lines.next().unwrap_or_default()));
        let error = one_line(group.sample_error.as_deref().unwrap_or("no error is recorded"), 300);
        text.push_str(&format!("    {}\n", Style::Bad.paint(&error, screen)));
    }
    lines.for_each(|line| text.push_str(&format!("{line}\n")));
    let command = format!(
        "millrace dead replay --queue {} --group {} --dry-run",
        shell_quote(&largest.queue),
        shell_quote(&largest.group)
    );
    text.push_str(&format!("\n{}\n", Style::Faint.paint(&command, screen)));
    text
}

fn row(group: &ErrorGroup) -> Vec<Cell> {
    let style = if group.died_in_15_min > 0 { Style::Bad } else { Style::Plain };
    vec![
        group.queue.as_str().into(),
        shell_quote(&group.group).into(),
        format_count(group.count, MAX_COUNTED).into(),
        format!("{:.0} %", group.share * 100.0).into(),
        Cell::new(&format_count(group.died_in_15_min, 1000), style),
        group.first_died_at.map_or_else(|| "-".into(), format_ago).into(),
        group.last_died_at.map_or_else(|| "-".into(), format_ago).into(),
        group.newest_job.as_str().into(),
    ]
}
