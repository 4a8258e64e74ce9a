//! `millrace schedules`: shows schedules with their next and past fires, fires one by hand, and skips a fire.

mod text;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand};
use queue::schedule::{FirePosition, Fired, Schedules, Skip};

use crate::{
    operator::{app, order, parse_reason},
    output::{Screen, format_time, print_value, shell_quote},
};

#[derive(Args)]
#[command(after_help = "\
Times are in UTC. The list has the schedules of this command's configuration: give it the same variables as the workers. The
cron expressions are those that the workers registered last.

The outcome of a fire is the state of its jobs that needs most attention. Finished jobs are deleted after a day.

Examples:
  millrace schedules
  millrace schedules fires daily_prices --limit 100 --before 2026-12-01T00:15:00Z
  millrace schedules fire daily_prices --reason 'the prices of yesterday are wrong'
  millrace schedules skip-next daily_prices --reason 'the provider is down for maintenance'")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// List past fires, newest first
    Fires {
        /// List only fires of this schedule
        name: Option<String>,
        /// List at most this many fires
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// List only fires before this time; with SCHEDULE@TIME also those of later schedules at this time
        #[arg(long, value_name = "TIME")]
        before: Option<FirePosition>,
    },
    /// Fire a schedule now, in addition to its regular times
    Fire {
        name: String,
        /// The reason, shown to other operators
        #[arg(long, value_parser = parse_reason)]
        reason: String,
    },
    /// Skip the next fire of a schedule; the fire after it is as usual
    ///
    /// What is due or was missed fires first.
    SkipNext {
        name: String,
        /// The reason, shown to other operators
        #[arg(long, value_parser = parse_reason)]
        reason: String,
    },
}

/// Runs `millrace schedules`.
///
/// # Errors
/// When the database cannot be used, or there is no schedule of this name.
pub(crate) async fn program(Arguments { command, json }: Arguments) -> Result<()> {
    let schedules = app().await?.schedules;
    let fires = match command {
        None => {
            let all = schedules.overview().await?;
            return print_value(json, &all, || text::overview(&all, Screen::of_stdout()));
        }
        Some(Command::Fires { name, limit, before }) => {
            if let Some(name) = &name {
                check_name(&schedules, name)?;
            }
            let page = schedules.fires(name.as_deref(), before.as_ref(), limit).await?;
            print_fires(&page.rows, json)?;
            if let Some(next) = page.next {
                eprintln!("note: for older fires add --before {}", shell_quote(&next.to_string()));
            }
            return Ok(());
        }
        Some(Command::Fire { name, reason }) => {
            check_name(&schedules, &name)?;
            let fired = schedules.fire(&name, &order(&reason)?).await?;
            fired.with_context(|| format!("there is no schedule {name:?}"))?;
            let mut fires = schedules.fires(Some(&name), None, 50).await?.rows;
            // A later fire that is skipped already is listed first.
            fires.retain(|fire| fire.kind == "by_hand");
            fires.truncate(1);
            fires
        }
        Some(Command::SkipNext { name, reason }) => {
            check_name(&schedules, &name)?;
            let time = skip_next(&schedules, &name, &reason).await?;
            let mut fires = schedules.fires(Some(&name), None, 50).await?.rows;
            fires.retain(|fire| fire.fire_time == time);
            fires
        }
    };
    print_fires(&fires, json)
}

fn print_fires(fires: &[Fired], json: bool) -> Result<()> {
    print_value(json, &fires, || text::fires(fires, Screen::of_stdout()))
}

async fn skip_next(schedules: &Schedules, name: &str, reason: &str) -> Result<time::OffsetDateTime> {
    match schedules.skip_next(name, &order(reason)?).await? {
        Skip::Skipped(time) => Ok(time),
        Skip::AlreadySkipped(next) => {
            let by = next.skipped_by.unwrap_or_default();
            bail!("the next fire of {name:?}, at {}, is already skipped by {by}", format_time(next.time))
        }
        Skip::NoTime => bail!("the schedule {name:?} has no next time"),
        Skip::NotFound => bail!("there is no schedule {name:?}"),
    }
}

fn check_name(schedules: &Schedules, name: &str) -> Result<()> {
    let names = schedules.names();
    ensure!(names.contains(&name), "there is no schedule {name:?}; the schedules are: {}", names.join(", "));
    Ok(())
}
