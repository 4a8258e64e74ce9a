//! `millrace prove --sabotage`: plants known bugs, and counts the seeds that find each.

use anyhow::{Context as _, Result, bail};
use prove::{
    FAULTS, Fault, Finding, Options,
    sabotage::{Case, Caught, Seed, count, finders},
};
use runtime::sabotage::{Bug, IS_POSSIBLE};
use tokio_util::sync::CancellationToken;

use crate::output::{print, print_json};

/// All bugs.
pub(super) const ALL: &str = "all";

/// How many seeds run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seeds {
    /// For each bug and fault.
    pub count: u32,
    /// At once.
    pub jobs: usize,
}

/// Plants a bug, or all. Prints a line on standard error for each seed, and at the end a table with a line for each fault
/// that must find a bug. With `only`, it runs these faults instead. Returns whether each found it in at least 99 % of the
/// seeds.
///
/// # Errors
/// When this build has no bugs, the server does not start, or the run is interrupted.
pub(super) async fn run(
    bug: &str,
    only: &[String],
    seeds: Seeds,
    json: bool,
    options: &Options,
    stop: &CancellationToken,
) -> Result<bool> {
    if !IS_POSSIBLE {
        bail!("this build has no bugs to plant: build it with `cargo build --package millrace --features sabotage`");
    }
    let bugs = if bug == ALL { bugs() } else { vec![bug.parse().context("--sabotage")?] };
    let cases = cases(&bugs, only)?;
    let all = cases.len() * seeds.count as usize;
    let mut ended = 0_usize;
    let progress = |seed: &Seed| {
        ended += 1;
        eprintln!("[{ended}/{all}] {}", describe(seed));
    };
    let caught = count(options, &cases, seeds.count, seeds.jobs, stop, progress).await?;
    if json {
        caught.iter().try_for_each(print_json)?;
    } else {
        print(&table(&caught))?;
    }
    if stop.is_cancelled() {
        bail!("interrupted");
    }
    Ok(caught.iter().all(Caught::is_enough))
}

/// Each bug with each fault that must find it, or with these faults.
fn cases(bugs: &[Bug], only: &[String]) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for bug in bugs {
        let names: Vec<&str> =
            if only.is_empty() { finders(*bug).to_vec() } else { only.iter().map(String::as_str).collect() };
        for name in names {
            let fault: &Fault = FAULTS.iter().find(|fault| fault.name == name).context("no such fault")?;
            cases.push(Case { bug: *bug, fault });
        }
    }
    Ok(cases)
}

/// All bugs.
fn bugs() -> Vec<Bug> {
    Bug::NAMES.iter().filter_map(|name| name.parse().ok()).collect()
}

/// A seed in one line.
fn describe(seed: &Seed) -> String {
    let Seed { case, seed: number, result, seconds } = seed;
    let result = match result {
        Finding::Broken { measured, .. } => {
            format!("caught: {}", measured.verdict.examples.first().map_or("", String::as_str))
        }
        Finding::Kept(_) => "MISSED".to_owned(),
        Finding::Failed { error, folder } => format!("FAILED: {error} (see {})", folder.display()),
        Finding::NotRun { needs } => format!("NOT RUN: needs {needs}"),
    };
    format!("{}, {}, seed {number}, {seconds:.1} s, {result}", case.bug.name(), case.fault.name)
}

fn table(all: &[Caught]) -> String {
    let mut text =
        format!("{:<27} {:<16} {:>6} {:>7} {:>7}  MISSED SEEDS\n", "BUG", "FAULT", "SEEDS", "CAUGHT", "S/SEED");
    for Caught { bug, fault, seeds, caught, failed, missed_seeds, seconds, .. } in all {
        let missed: Vec<String> = missed_seeds.iter().map(u64::to_string).collect();
        let mut missed = if missed.is_empty() { "-".to_owned() } else { missed.join(" ") };
        if *failed > 0 {
            missed += &format!(" ({failed} failed)");
        }
        text += &format!("{bug:<27} {fault:<16} {seeds:>6} {caught:>7} {seconds:>7.1}  {missed}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_has_a_fault_that_must_find_it() {
        let found = cases(&bugs(), &[]).expect("known faults");
        assert_eq!(found.len(), Bug::NAMES.len());
    }

    #[test]
    fn the_table_names_missed_seeds() {
        let caught = Caught {
            bug: "fence-dropped",
            fault: "late-results",
            seeds: 3,
            caught: 1,
            failed: 1,
            missed_seeds: vec![7, 9],
            seconds: 2.04,
            example: None,
        };
        let text = table(&[caught]);
        let line = text.lines().nth(1).expect("a line");
        assert_eq!(line, "fence-dropped               late-results          3       1     2.0  7 9 (1 failed)");
    }
}
