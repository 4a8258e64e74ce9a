//! `millrace prove --sabotage`: plants known bugs, and counts the seeds that find each.

use anyhow::{Context as _, Result, bail};
use prove::{
    FAULTS, Fault, Options,
    sabotage::{Caught, count, finders},
};
use runtime::sabotage::{Bug, IS_POSSIBLE};
use tokio_util::sync::CancellationToken;

use crate::output::{print, print_json};

/// All bugs, one after the other.
pub(super) const ALL: &str = "all";

/// Plants a bug, or all, and prints a line for each fault that must find it. With `only`, it runs these faults instead.
/// Returns whether each found it in at least 99 % of the seeds.
///
/// # Errors
/// When this build has no bugs, the server does not start, or the run is interrupted.
pub(super) async fn run(
    bug: &str,
    only: &[String],
    seeds: u32,
    json: bool,
    options: &Options,
    stop: &CancellationToken,
) -> Result<bool> {
    if !IS_POSSIBLE {
        bail!("this build has no bugs to plant: build it with `cargo build --package millrace --features sabotage`");
    }
    let bugs = if bug == ALL { bugs() } else { vec![bug.parse().context("--sabotage")?] };
    if !json {
        print(&format!("{:<27} {:<18} {:>8} {:>7}\n", "BUG", "FAULT", "CAUGHT", "S/SEED"))?;
    }
    let mut is_enough = true;
    for bug in bugs {
        let names: Vec<&str> =
            if only.is_empty() { finders(bug).to_vec() } else { only.iter().map(String::as_str).collect() };
        for name in names {
            let fault: &Fault = FAULTS.iter().find(|fault| fault.name == name).context("no such fault")?;
            let caught = count(options, bug, fault, seeds, stop).await?;
            if stop.is_cancelled() {
                bail!("interrupted");
            }
            is_enough &= caught.is_enough();
            if json { print_json(&caught)? } else { print(&line(&caught))? }
        }
    }
    Ok(is_enough)
}

/// All bugs.
fn bugs() -> Vec<Bug> {
    names().iter().filter_map(|name| name.parse().ok()).collect()
}

/// The names of all bugs.
pub(super) fn names() -> &'static [&'static str] {
    Bug::NAMES
}

fn line(caught: &Caught) -> String {
    let Caught { bug, fault, seeds, seconds, .. } = caught;
    let verdict = match caught.failed {
        0 => String::new(),
        failed => format!("  {failed} FAILED"),
    };
    let counts = format!("{}/{seeds}", caught.caught);
    let example = caught.example.as_ref().map(|example| format!("    {example}\n")).unwrap_or_default();
    format!("{bug:<27} {fault:<18} {counts:>8} {seconds:>7.1}{verdict}\n{example}")
}
