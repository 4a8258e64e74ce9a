//! `millrace prove`: checks every promise on this machine, under real faults and load.

mod sabotage;

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, bail};
use clap::{Args, builder::PossibleValuesParser};
use prove::{EXTERNAL, FAULTS, Fault, Finding, Measured, Options, RateReport, Report};
use runtime::{
    sabotage::Bug,
    shutdown::{GRACE, Shutdown},
};

use crate::{
    data_dir::data_dir,
    output::{print, print_json},
};

#[derive(Args)]
#[command(after_help = "\
Each fault gets a fresh database, an API, two workers and clients that keep posting. At the end a checker reads what the
clients, the processor and the database saw: nothing acknowledged is lost, nothing happens twice, states only move forward.
Without --database-url it starts a separate PostgreSQL in .millrace/prove; with it, it creates scratch databases there.

Exit status: 0 if every promise was kept, 1 if one was broken or a fault failed, 3 if a fault named by --only could not
run here. A fault that could not run never counts as passed. The history and the logs of a failed fault are kept in
.millrace/prove.

Examples:
  millrace prove
  millrace prove --only worker-killed --only commit-reply-lost
  millrace prove --only limit-kills --kills 1000
  millrace prove --seed 42 --json
  millrace prove --database-url postgres://me:password@localhost/postgres
  millrace prove --sabotage all --seeds 20 --jobs 4   (in a build with the feature sabotage)
  millrace prove --database-url postgres://… --during 'patronictl switchover --force'")]
pub(crate) struct Arguments {
    /// Run only this fault; may be repeated
    #[arg(long, value_name = "FAULT", value_parser = PossibleValuesParser::new(FAULTS.iter().map(|fault| fault.name)))]
    only: Vec<String>,
    /// List the faults, and run none
    #[arg(long)]
    list: bool,
    /// The seed of all random choices; a random one if absent
    #[arg(long)]
    seed: Option<u64>,
    /// Use this server instead of a separate one; its user must be allowed to create databases
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// The millrace program of the release before, for the fault `upgrade`; .ci/previous builds it
    #[arg(long, value_name = "PATH")]
    previous: Option<PathBuf>,
    /// The number of clients, each of which waits for its response
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=200))]
    clients: u16,
    /// Also post this many new webhooks a second, however slow the responses are
    #[arg(long, value_name = "WEBHOOKS", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: Option<u32>,
    /// The number of waiting jobs in the fault `backlog`
    #[arg(long, default_value_t = 1_000_000)]
    backlog: u32,
    /// The number of kills in the fault `limit-kills`, about one a second
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    kills: u32,
    /// How long faults last that have a length, such as a pinned snapshot
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Plant a bug, or `all`, and count the seeds that find it; needs a build with the feature sabotage
    #[arg(long, value_name = "BUG",
          value_parser = PossibleValuesParser::new(Bug::NAMES.iter().copied().chain([sabotage::ALL])))]
    sabotage: Option<String>,
    /// How many seeds run for each planted bug
    #[arg(long, default_value_t = 1, requires = "sabotage", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    seeds: u32,
    /// How many seeds of planted bugs run at once
    #[arg(long, default_value_t = 1, requires = "sabotage", value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    /// Run this shell command under load instead of the faults. Its first line of output says that the harm is done: the
    /// recovery is measured from then on, and the command may go on to repair it
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["only", "sabotage"])]
    during: Option<String>,
    /// Print one JSON object for each fault, or for each planted bug
    #[arg(long)]
    json: bool,
}

/// The exit status if a promise was broken or a fault failed.
const BAD: u8 = 1;
/// The exit status if a fault that the user has named could not run. Not 2, which is that of wrong arguments.
const NOT_RUN: u8 = 3;

/// What the exit status says about all faults.
#[derive(Default)]
struct Outcome {
    is_bad: bool,
    has_not_run: bool,
}

impl Outcome {
    fn add(&mut self, finding: &Finding) {
        self.is_bad |= finding.is_bad();
        self.has_not_run |= matches!(finding, Finding::NotRun { .. });
    }

    /// The exit status. A fault that did not run matters if the user has named it.
    fn status(&self, are_named: bool) -> u8 {
        match (self.is_bad, self.has_not_run && are_named) {
            (true, _) => BAD,
            (false, true) => NOT_RUN,
            (false, false) => 0,
        }
    }
}

/// Runs the faults, and prints a line for each as soon as it is over. Returns the exit status.
///
/// # Errors
/// When the server does not start, or the proof is interrupted.
pub(crate) async fn program(arguments: Arguments) -> Result<u8> {
    if arguments.list {
        let lines: Vec<String> = FAULTS.iter().map(|fault| format!("{:<20} {}\n", fault.name, fault.about)).collect();
        print(&lines.concat())?;
        return Ok(0);
    }
    let only = &arguments.only;
    let faults: Vec<&Fault> = match arguments.during {
        Some(_) => vec![&EXTERNAL],
        None => FAULTS.iter().filter(|fault| only.is_empty() || only.iter().any(|name| name == fault.name)).collect(),
    };
    let seed = arguments.seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0 >> 32);
    let options = Options {
        program: std::env::current_exe()?,
        // Each process runs in a folder of its own.
        previous: arguments.previous.map(std::path::absolute).transpose()?,
        folder: data_dir().join("prove").join(seed.to_string()),
        database_url: arguments.database_url,
        seed,
        clients: arguments.clients.into(),
        rate: arguments.rate,
        backlog: arguments.backlog,
        kills: arguments.kills,
        time: Duration::from_secs(arguments.seconds.into()),
        sabotage: None,
        during: arguments.during,
    };
    let shutdown = Shutdown::on_signals(GRACE)?;
    if let Some(bug) = arguments.sabotage {
        let seeds = sabotage::Seeds { count: arguments.seeds, jobs: arguments.jobs.into() };
        let is_enough = sabotage::run(&bug, only, seeds, arguments.json, &options, &shutdown.drain).await?;
        return Ok(if is_enough { 0 } else { BAD });
    }
    if !arguments.json {
        print(&format!("seed {seed}, {} faults\n{}", faults.len(), heading()))?;
    }
    let (mut outcome, mut printed) = (Outcome::default(), Ok(()));
    let report = |report: Report| {
        outcome.add(&report.result);
        let line = if arguments.json { print_json(&report) } else { print(&line(&report)) };
        printed = std::mem::replace(&mut printed, Ok(())).and(line);
    };
    prove::run(&options, &faults, &shutdown.drain, report).await?;
    printed?;
    if shutdown.drain.is_cancelled() {
        bail!("interrupted");
    }
    Ok(outcome.status(!only.is_empty()))
}

fn heading() -> String {
    format!("{:<20} {:>8} {:>9} {:>6} {:>8}  VERDICT\n", "FAULT", "LOAD", "RECOVERY", "LOST", "DOUBLED")
}

/// The line of a fault, and the broken promises below it.
fn line(report: &Report) -> String {
    let figures = |measured: &Measured, verdict: &str| {
        let Measured { verdict: found, recovery_s, rate, .. } = measured;
        let recovery = format!("{recovery_s:.2} s");
        let mut text = format!(
            "{:<20} {:>8} {recovery:>9} {:>6} {:>8}  {verdict}\n",
            report.fault, found.acknowledged, found.lost, found.doubled
        );
        if let Some(rate) = rate {
            let RateReport { offered_per_s, acknowledged_per_s, longest_wait_s, left_out } = rate;
            text += &format!(
                "    offered {offered_per_s}/s, acknowledged {acknowledged_per_s:.0}/s over the whole load, longest wait \
                 {longest_wait_s:.1} s, left out {left_out}\n"
            );
        }
        found.examples.iter().for_each(|example| text += &format!("    {example}\n"));
        text
    };
    match &report.result {
        Finding::Kept(measured) => figures(measured, "kept"),
        Finding::Broken { measured, folder } => {
            let broken = measured.verdict.broken;
            figures(measured, &format!("BROKEN ({broken} other broken promises; see {})", folder.display()))
        }
        Finding::Failed { error, folder } => {
            format!("{:<54}  FAILED: {error} (see {})\n", report.fault, folder.display())
        }
        Finding::NotRun { needs } => format!("{:<54}  not run: needs {needs}\n", report.fault),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_fault_that_did_not_run_is_no_success() {
        let not_run = || Finding::NotRun { needs: "Redis" };
        let failed = || Finding::Failed { error: "no disk".into(), folder: PathBuf::new() };
        for (findings, are_named, status) in [
            (vec![], true, 0),
            (vec![not_run()], false, 0),
            (vec![not_run()], true, 3),
            (vec![failed()], false, 1),
            (vec![not_run(), failed()], true, 1),
        ] {
            let mut outcome = Outcome::default();
            findings.iter().for_each(|finding| outcome.add(finding));
            assert_eq!(outcome.status(are_named), status, "{findings:?}, named: {are_named}");
        }
    }
}
