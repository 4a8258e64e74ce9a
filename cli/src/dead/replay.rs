//! `millrace dead replay`: starts a replay of dead letters.

use anyhow::{Result, bail};
use clap::Args;
use queue::{
    Job as _, Operator,
    operator::replays::{MAX_RATE, Pace, ReplayDeadLetters, Selected, StartedReplay},
};

use super::selection::{SelectionArguments, describe, select};
use crate::{
    operator::{order, parse_reason},
    output::{format_duration, print_value},
    replays::{describe_replay, wait_for_end},
};

#[derive(Args)]
#[command(after_help = "\
Exits with 0 when the replay has started, or with --wait when it is done. Exits with 1 if nothing is selected, if some of the
jobs were already replayed twice or more, or with --wait if the replay has stopped.

Examples:
  millrace dead replay --queue process_transaction --dry-run
  millrace dead replay --queue process_transaction --group 3f1c02aa --rate 20/s --reason 'the processor is back' --wait")]
pub(super) struct Arguments {
    #[command(flatten)]
    selection: SelectionArguments,
    /// The rate: jobs per second (20/s), minute (600/min) or hour (5000/h)
    #[arg(long, default_value = "20/s", value_parser = parse_rate)]
    rate: f64,
    /// Replay at most this many jobs
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=i32::MAX.into()))]
    limit: u32,
    /// Replay this many jobs first, and the others when these have ended; 0: no canary
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=i32::MAX.into()))]
    canary: u32,
    /// Stop when more than this share of the ended jobs has died again
    #[arg(long, default_value = "20%", value_name = "SHARE", value_parser = parse_share)]
    stop_if_dead: f64,
    /// Also replay jobs that were already replayed twice or more; without this, nothing starts if there are any
    #[arg(long)]
    include_replayed: bool,
    /// The reason, shown to other operators
    #[arg(long, required_unless_present = "dry_run", value_parser = parse_reason)]
    reason: Option<String>,
    /// Print the number of selected jobs and five of them, and replay none
    #[arg(long)]
    dry_run: bool,
    /// Print the progress until the end
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
}

/// Starts a replay, and waits for its end if that is wanted.
///
/// # Errors
/// When the database cannot be used, nothing is selected, jobs were replayed too often before, or a replay that is waited for has stopped.
pub(super) async fn run(operator: &Operator, arguments: Arguments, json: bool) -> Result<bool> {
    let Arguments { selection, rate, limit, canary, stop_if_dead, include_replayed, reason, dry_run, wait } = arguments;
    let selection = selection.selection();
    let selected = select(operator, &selection).await?;
    let pace = Pace { rate, limit, canary, stop_if_dead, include_replayed };
    if dry_run {
        print_value(json, &selected, || describe(&selected) + &plan(&selected, pace))?;
        return Ok(true);
    }
    let replay = match operator.start_replay(&selection, pace, &order(reason.as_deref().unwrap_or_default())?).await? {
        StartedReplay::Started(replay) => *replay,
        StartedReplay::ReplayedBefore(count) => bail!(
            "{count} of the selected jobs were already replayed twice or more; add --include-replayed to replay them again"
        ),
    };
    warn_without_worker(operator).await?;
    if wait {
        return wait_for_end(operator, replay, json).await;
    }
    print_value(json, &replay, || describe_replay(&replay))?;
    Ok(true)
}

/// What a replay would do.
fn plan(selected: &Selected, pace: Pace) -> String {
    let count = selected.count.min(pace.limit.into());
    let first = i64::from(pace.canary).min(count);
    let at_least = if selected.is_capped && count == selected.count { "at least " } else { "" };
    // Counts of jobs are far below 2^52.
    #[allow(clippy::cast_precision_loss)]
    let seconds = count as f64 / pace.rate;
    let canary = match first {
        0 => String::new(),
        first => format!("the first {first}, then, when they have ended, the others; "),
    };
    let again = match selected.replayed_before {
        0 => String::new(),
        jobs => format!(
            "{jobs} of the selected jobs were already replayed twice or more; replaying them needs --include-replayed.\n"
        ),
    };
    again
        + &format!(
            "Would replay {at_least}{count} of them in {at_least}{}: {canary}it stops when more than {:.0} % have died again.\n",
            format_duration(seconds),
            pace.stop_if_dead * 100.0
        )
}

/// A replay runs in a worker.
async fn warn_without_worker(operator: &Operator) -> Result<()> {
    let runs_it = |report: &queue::operator::workers::Report| report.queues.contains_key(ReplayDeadLetters::NAME);
    let workers = operator.workers().await?;
    if !workers.iter().any(|worker| worker.live && worker.report.as_ref().is_none_or(runs_it)) {
        eprintln!("note: no live worker runs replays; this one begins when a worker starts");
    }
    Ok(())
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let (number, seconds) = match text.split_once('/') {
        None => (text, 1.0),
        Some((number, "s")) => (number, 1.0),
        Some((number, "min" | "m")) => (number, 60.0),
        Some((number, "h")) => (number, 3600.0),
        Some(_) => ("", 1.0),
    };
    let rate = number.trim().parse::<f64>().ok().map(|number| number / seconds);
    let rate = rate.filter(|rate| *rate > 0.0 && *rate <= MAX_RATE);
    rate.ok_or_else(|| format!("must be a rate above 0 and at most {MAX_RATE}/s, such as 20/s, 600/min or 5000/h"))
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().ok().map(|percent| percent / 100.0),
        None => text.parse::<f64>().ok(),
    };
    let share = share.filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "must be a share from 0% to 100%, such as 20%".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_in_a_time() {
        for (text, rate) in [("20/s", 20.0), ("20", 20.0), ("600/min", 10.0), ("1800/h", 0.5), ("0.5/s", 0.5)] {
            assert_eq!(parse_rate(text), Ok(rate), "{text}");
        }
        for text in ["", "0", "-1/s", "20/d", "NaN", "inf", "10001/s", "20 per second"] {
            assert!(parse_rate(text).is_err_and(|problem| problem.starts_with("must be ")), "{text}");
        }
    }

    #[test]
    fn a_share_is_a_percentage_or_a_fraction() {
        for (text, share) in [("20%", 0.2), ("0.2", 0.2), ("100%", 1.0), ("0%", 0.0)] {
            assert_eq!(parse_share(text), Ok(share), "{text}");
        }
        for text in ["", "20", "101%", "-1%", "NaN%", "%"] {
            assert!(parse_share(text).is_err_and(|problem| problem.starts_with("must be ")), "{text}");
        }
    }
}
