//! `millrace schedules`: shows schedules and their past fires, and fires one by hand.

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};
use queue::schedule::{Fired, Overview, Schedules};

use crate::{
    operator::{app, order, parse_reason},
    output::{format_duration, format_time, one_line, print_rows},
};

#[derive(Args)]
#[command(after_help = "\
Times are in UTC. The list follows the configuration of this command: give it the same variables as the workers.

Examples:
  millrace schedules
  millrace schedules fires daily_prices --limit 100
  millrace schedules fire daily_prices --reason 'the prices of yesterday are wrong'")]
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
    },
    /// Fire a schedule now, in addition to its regular times
    Fire {
        name: String,
        /// The reason, shown to other operators
        #[arg(long, value_parser = parse_reason)]
        reason: Option<String>,
    },
}

/// Runs `millrace schedules`.
///
/// # Errors
/// When the database cannot be used, or there is no schedule of this name.
pub(crate) async fn program(Arguments { command, json }: Arguments) -> Result<()> {
    let schedules = app().await?.schedules;
    let fires = match command {
        None => return print_schedules(json, &schedules.overview().await?),
        Some(Command::Fires { name, limit }) => {
            if let Some(name) = &name {
                check_name(&schedules, name)?;
            }
            schedules.fires(name.as_deref(), limit).await?
        }
        Some(Command::Fire { name, reason }) => {
            check_name(&schedules, &name)?;
            let fired = schedules.fire_by_order(&name, &order(reason.as_deref())?).await?;
            fired.with_context(|| format!("there is no schedule {name:?}"))?;
            schedules.fires(Some(&name), 1).await?
        }
    };
    print_fires(json, &fires)
}

fn check_name(schedules: &Schedules, name: &str) -> Result<()> {
    let names = schedules.names();
    ensure!(names.contains(&name), "there is no schedule {name:?}; there is {}", names.join(", "));
    Ok(())
}

fn print_schedules(json: bool, all: &[Overview]) -> Result<()> {
    print_rows(json, ["SCHEDULE", "CRON", "CATCH UP", "LAST FIRE", "", "NEXT"], all, |schedule| {
        let last = schedule.latest.first();
        [
            schedule.name.to_owned(),
            one_line(&schedule.cron, 40),
            schedule.catch_up.to_owned(),
            last.map_or_else(|| "-".into(), |fire| format_time(fire.fire_time)),
            last.map_or_else(|| "-".into(), |fire| format_kind(&fire.kind)),
            schedule.next.map_or_else(|| "-".into(), format_time),
        ]
    })
}

fn print_fires(json: bool, fires: &[Fired]) -> Result<()> {
    print_rows(json, ["SCHEDULE", "FIRE TIME", "", "LATE", "JOBS", "PASSED OVER"], fires, |fire| {
        [
            one_line(&fire.schedule, 60),
            format_time(fire.fire_time),
            format_kind(&fire.kind),
            format_duration((fire.fired_at - fire.fire_time).as_seconds_f64()),
            fire.jobs.to_string(),
            fire.passed_over.to_string(),
        ]
    })
}

fn format_kind(kind: &str) -> String {
    kind.replace('_', " ")
}
