//! `millrace replays`: shows, pauses, resumes and stops replays of dead letters.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use queue::{
    Operator, Page,
    operator::replays::{Replay, ReplayChange},
};
use uuid::Uuid;

use crate::{
    operator::{connect, order, parse_reason},
    output::{
        Screen, Style, format_ago, one_line, print_value, shell_quote,
        table::{Cell, Column, render},
    },
};

#[derive(Args)]
#[command(after_help = "\
`millrace dead replay` starts a replay. When all its jobs wait again, it is watching until they have ended, and may still
stop. A stopped replay cannot be resumed: start another one for the remaining dead letters.

Examples:
  millrace replays
  millrace replays --before 01932d5c-7d0a-7c3e-9f54-9d1f4e0c6a11 --limit 100
  millrace replays show 01932d5c-7d0a-7c3e-9f54-9d1f4e0c6a11 --wait
  millrace replays pause 01932d5c-7d0a-7c3e-9f54-9d1f4e0c6a11 --reason 'the processor is slow'
  millrace replays stop 01932d5c-7d0a-7c3e-9f54-9d1f4e0c6a11 --reason 'wrong group'")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// List at most this many replays
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// List only replays before this id; give the last id of the previous page
    #[arg(long, value_name = "ID")]
    before: Option<Uuid>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Show one replay
    Show {
        id: Uuid,
        /// Print the progress until the end; exit with 1 if it stops
        #[arg(long)]
        wait: bool,
    },
    /// Replay no further jobs until it is resumed
    Pause(Change),
    /// Continue a paused replay
    Resume(Change),
    /// End a replay; what it has replayed stays replayed
    Stop(Change),
}

#[derive(Args)]
struct Change {
    id: Uuid,
    /// The reason, shown to other operators
    #[arg(long, value_parser = parse_reason)]
    reason: String,
}

/// Runs `millrace replays`. Returns `false` if a replay that is waited for has stopped.
///
/// # Errors
/// When the database cannot be used, there is no such replay, or its state does not allow the change.
pub(crate) async fn program(Arguments { command, limit, before, json }: Arguments) -> Result<bool> {
    let operator = connect().await?;
    let replay = match command {
        None => {
            let Page { rows: replays, next } = operator.replays(before, limit).await?;
            print_value(json, &replays, || list(&replays, Screen::of_stdout()))?;
            if let Some(next) = next {
                eprintln!("note: for older replays add --before {next}");
            }
            return Ok(true);
        }
        Some(Command::Show { id, wait }) => {
            let replay = find(&operator, id).await?;
            if wait {
                return wait_for_end(&operator, replay, json).await;
            }
            replay
        }
        Some(Command::Pause(change)) => apply(&operator, change, ReplayChange::Pause).await?,
        Some(Command::Resume(change)) => apply(&operator, change, ReplayChange::Resume).await?,
        Some(Command::Stop(change)) => apply(&operator, change, ReplayChange::Stop).await?,
    };
    print_value(json, &replay, || describe_replay(&replay))?;
    Ok(true)
}

async fn find(operator: &Operator, id: Uuid) -> Result<Replay> {
    operator.find_replay(id).await?.with_context(|| format!("there is no replay {id}; `millrace replays` lists them"))
}

async fn apply(operator: &Operator, Change { id, reason }: Change, change: ReplayChange) -> Result<Replay> {
    let is_changed = operator.change_replay(id, change, &order(&reason)?).await?;
    let replay = find(operator, id).await?;
    if !is_changed {
        let allowed = match change {
            ReplayChange::Pause => "only a running replay can be paused",
            ReplayChange::Resume => "only a paused replay can be resumed",
            ReplayChange::Stop => "only a running or paused replay can be stopped",
        };
        bail!("the replay {id} is {}: {allowed}", one_line(&replay.state, 20));
    }
    Ok(replay)
}

/// Prints the progress of a replay to standard error until its end, then the replay. Returns whether it was completed.
///
/// # Errors
/// When the database cannot be used, or the output cannot be written.
pub(crate) async fn wait_for_end(operator: &Operator, mut replay: Replay, json: bool) -> Result<bool> {
    const EVERY: Duration = Duration::from_secs(1);
    let id = replay.id;
    eprintln!("replay {id}; Ctrl-C ends the waiting, `millrace replays stop {id} --reason …` the replay");
    let mut last = String::new();
    while replay.is_open() {
        let progress = progress(&replay);
        if progress != last {
            eprintln!("{progress}");
            last = progress;
        }
        tokio::time::sleep(EVERY).await;
        match operator.find_replay(id).await {
            Ok(Some(next)) => replay = next,
            Ok(None) => bail!("the replay {id} has been deleted"),
            Err(error) => eprintln!("not known now: {error}"),
        }
    }
    print_value(json, &replay, || describe_replay(&replay))?;
    Ok(replay.state == "done")
}

fn progress(replay: &Replay) -> String {
    format!("{}: {} replayed{}", one_line(&replay.state, 20), replay.replayed, skipped(replay))
}

fn skipped(replay: &Replay) -> String {
    if replay.skipped > 0 { format!(", {} skipped", replay.skipped) } else { String::new() }
}

/// The filter of a replay as options.
fn filter(replay: &Replay) -> String {
    let option =
        |name: &str, value: &Option<String>| value.as_ref().map(|value| format!("--{name} {}", shell_quote(value)));
    let options = [option("group", &replay.error_group), option("error", &replay.error)];
    options.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// One replay in two columns, and the commands that change it.
pub(crate) fn describe_replay(replay: &Replay) -> String {
    let stopped = replay.stopped_because.as_ref().map(|because| format!(": {}", one_line(because, 300)));
    let lines = [
        ("replay", replay.id.to_string()),
        ("queue", one_line(&replay.queue, 60)),
        ("filter", if filter(replay).is_empty() { "all dead letters".into() } else { filter(replay) }),
        ("state", format!("{}{}", one_line(&replay.state, 20), stopped.unwrap_or_default())),
        ("replayed", format!("{} of at most {}{}", replay.replayed, replay.max_jobs, skipped(replay))),
        ("pace", pace(replay)),
        ("started", format_ago(replay.created_at)),
        ("ended", replay.ended_at.map_or_else(|| "-".into(), format_ago)),
    ];
    let mut text: String = lines.iter().map(|(name, value)| format!("{name:<10}{value}\n")).collect();
    for skip in replay.skips.iter() {
        text.push_str(&format!("skipped   {}: {}\n", one_line(&skip.job, 60), one_line(&skip.cause, 300)));
    }
    let actions: &[&str] = match replay.state.as_str() {
        "running" => &["pause", "stop"],
        "watching" => &["stop"],
        "paused" => &["resume", "stop"],
        _ => &[],
    };
    for action in actions {
        text.push_str(&format!("millrace replays {action} {} --reason '…'\n", replay.id));
    }
    text
}

fn pace(replay: &Replay) -> String {
    let canary = if replay.canary > 0 { format!("{} first, ", replay.canary) } else { String::new() };
    format!("{}/s, {canary}stop above {:.0} % dead", replay.rate, replay.stop_if_dead * 100.0)
}

fn list(replays: &[Replay], screen: Screen) -> String {
    const COLUMNS: [Column; 9] = [
        Column::fixed("REPLAY"),
        Column::fixed("QUEUE"),
        Column::fixed("STATE"),
        Column::fixed("REPLAYED"),
        Column::optional("SKIPPED", 2),
        Column::optional("PACE", 4),
        Column::optional("STARTED", 1),
        Column::optional("FILTER", 3),
        Column::text("STOPPED BECAUSE"),
    ];
    if replays.is_empty() {
        return "There are no replays; `millrace dead replay` starts one.\n".into();
    }
    let rows = replays.iter().map(|replay| {
        let style = match replay.state.as_str() {
            "stopped" => Style::Bad,
            "paused" => Style::Warning,
            "done" => Style::Good,
            _ => Style::Plain,
        };
        vec![
            replay.id.to_string().into(),
            replay.queue.as_str().into(),
            Cell::new(&replay.state, style),
            replay.replayed.to_string().into(),
            replay.skipped.to_string().into(),
            pace(replay).into(),
            format_ago(replay.created_at).into(),
            filter(replay).into(),
            replay.stopped_because.as_deref().unwrap_or_default().into(),
        ]
    });
    render(&COLUMNS, rows, screen)
}
