//! `millrace schedules`: shows schedules and their past fires, and fires one by hand.

use clap::{Args, Subcommand};
use queue::schedule::{Fired, Overview, Schedules};
use runtime::process;
use time::{OffsetDateTime, UtcOffset, format_description::BorrowedFormatItem, macros::format_description};

use crate::operator::{app, format_duration, one_line, print, print_json, table};

#[derive(Args)]
#[command(after_help = "\
Times are in UTC. The list follows the configuration of this command: give it the same variables as the workers.

Examples:
  millrace schedules
  millrace schedules fires daily_prices --limit 100
  millrace schedules fire daily_prices")]
pub struct Arguments {
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
    Fire { name: String },
}

/// Runs `millrace schedules`.
///
/// # Errors
/// When the database cannot be used, or there is no schedule of this name.
pub async fn program(Arguments { command, json }: Arguments) -> Result<(), String> {
    let schedules = app().await?.schedules;
    let fires = match command {
        None => {
            let all = schedules.overview().await.map_err(process::error_text)?;
            if json {
                return print_json(&all);
            }
            print(&schedules_table(&all))?;
            return Ok(());
        }
        Some(Command::Fires { name, limit }) => {
            if let Some(name) = &name {
                check_name(&schedules, name)?;
            }
            schedules.fires(name.as_deref(), limit).await.map_err(process::error_text)?
        }
        Some(Command::Fire { name }) => {
            check_name(&schedules, &name)?;
            let fired = schedules.fire_by_hand(&name).await.map_err(process::error_text)?;
            fired.ok_or_else(|| format!("there is no schedule {name:?}"))?;
            schedules.fires(Some(&name), 1).await.map_err(process::error_text)?
        }
    };
    if json {
        return print_json(&fires);
    }
    print(&fires_table(&fires))?;
    Ok(())
}

fn check_name(schedules: &Schedules, name: &str) -> Result<(), String> {
    let names = schedules.names();
    if names.contains(&name) {
        return Ok(());
    }
    Err(format!("there is no schedule {name:?}; there is {}", names.join(", ")))
}

fn schedules_table(all: &[Overview]) -> String {
    let rows: Vec<[String; 6]> = all
        .iter()
        .map(|schedule| {
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
        .collect();
    table(["SCHEDULE", "CRON", "CATCH UP", "LAST FIRE", "", "NEXT"], &rows)
}

fn fires_table(fires: &[Fired]) -> String {
    let rows: Vec<[String; 6]> = fires
        .iter()
        .map(|fire| {
            [
                one_line(&fire.schedule, 60),
                format_time(fire.fire_time),
                format_kind(&fire.kind),
                format_duration((fire.fired_at - fire.fire_time).as_seconds_f64()),
                fire.jobs.to_string(),
                fire.passed_over.to_string(),
            ]
        })
        .collect();
    table(["SCHEDULE", "FIRE TIME", "", "LATE", "JOBS", "PASSED OVER"], &rows)
}

fn format_kind(kind: &str) -> String {
    kind.replace('_', " ")
}

fn format_time(time: OffsetDateTime) -> String {
    const SECONDS: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    time.to_offset(UtcOffset::UTC).format(SECONDS).unwrap_or_default()
}
