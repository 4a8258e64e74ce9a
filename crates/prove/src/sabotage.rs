//! Planted bugs: how many seeds of a fault find one.

use anyhow::Result;
use runtime::sabotage::Bug;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::{Fault, Finding, Options, Report, run};

/// The faults that must find a bug.
pub fn finders(bug: Bug) -> &'static [&'static str] {
    match bug {
        Bug::AcknowledgeBeforeCommit => &["api-killed"],
        Bug::FenceDropped | Bug::ResultWithoutToken => &["late-results"],
        Bug::ScheduleFiredTwice | Bug::ConflictSwallowed | Bug::RescueOfLiveWorker => &["api-stopped"],
        Bug::NoRecheckAfterListen => &["listener-missed"],
        Bug::LeaseKeptOverFreeze => &["lease-expired"],
        Bug::RetrySkipsBackoff => &["retries"],
        Bug::SettlementNotConditional => &["worker-frozen"],
    }
}

/// How many seeds of a fault found a bug.
#[derive(Debug, Serialize)]
pub struct Caught {
    pub bug: &'static str,
    pub fault: &'static str,
    pub seeds: u32,
    /// Seeds in which a promise was found broken.
    pub caught: u32,
    /// Seeds in which the fault failed. These count as missed.
    pub failed: u32,
    /// The average time of a seed, in seconds.
    pub seconds: f64,
    /// What the first seed found, or why the first fault failed.
    pub example: Option<String>,
}

impl Caught {
    /// Whether at least 99 % of the seeds found the bug.
    pub fn is_enough(&self) -> bool {
        self.seeds > 0 && self.caught * 100 >= self.seeds * 99
    }

    fn add(&mut self, report: Report, seconds: &mut f64) {
        let example = match report.result {
            Finding::Broken { measured, .. } => {
                self.caught += 1;
                *seconds += measured.time_s;
                measured.verdict.examples.into_iter().next()
            }
            Finding::Kept(measured) => {
                *seconds += measured.time_s;
                None
            }
            Finding::Failed { error, .. } => {
                self.failed += 1;
                Some(error)
            }
            Finding::NotRun { needs } => {
                self.failed += 1;
                Some(format!("not run: needs {needs}"))
            }
        };
        self.example = self.example.take().or(example);
    }
}

/// Plants the bug of the options, and runs a fault with this many seeds, from the options' one on.
///
/// # Errors
/// When the server does not start or stop.
pub async fn count(
    options: &Options,
    bug: Bug,
    fault: &'static Fault,
    seeds: u32,
    stop: &CancellationToken,
) -> Result<Caught> {
    let options = Options { sabotage: Some(bug), ..options.clone() };
    let mut caught =
        Caught { bug: bug.name(), fault: fault.name, seeds, caught: 0, failed: 0, seconds: 0.0, example: None };
    let (faults, mut seconds) = (vec![fault; usize::try_from(seeds)?], 0.0);
    run(&options, &faults, stop, |report| caught.add(report, &mut seconds)).await?;
    caught.seconds = seconds / f64::from(seeds.saturating_sub(caught.failed).max(1));
    Ok(caught)
}
