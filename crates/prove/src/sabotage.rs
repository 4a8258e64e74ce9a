//! Planted bugs: how many seeds of a fault find one.
//!
//! A seed ends as soon as the checker has found a broken promise. All seeds share one server, and several may run at once.

use std::time::Instant;

use anyhow::Result;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use runtime::sabotage::Bug;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::{
    Fault, Finding, Options, prove,
    scene::{self, Place},
    server::Server,
};

/// The faults that must find a bug.
pub fn finders(bug: Bug) -> &'static [&'static str] {
    match bug {
        Bug::AcknowledgeBeforeCommit => &["api-killed"],
        Bug::FenceDropped | Bug::ResultWithoutToken => &["late-results"],
        Bug::ScheduleFiredTwice | Bug::ConflictSwallowed => &["api-stopped"],
        Bug::NoRecheckAfterListen => &["listener-missed"],
        Bug::LeaseKeptOverFreeze => &["lease-expired"],
        Bug::RetrySkipsBackoff => &["retries"],
        Bug::SettlementNotConditional | Bug::RescueOfLiveWorker => &["worker-frozen"],
    }
}

/// A bug, and a fault that must find it.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub bug: Bug,
    pub fault: &'static Fault,
}

/// The end of one seed.
#[derive(Debug)]
pub struct Seed {
    pub case: Case,
    pub seed: u64,
    pub result: Finding,
    /// Its length, in seconds.
    pub seconds: f64,
}

/// How many seeds of a fault found a bug.
#[derive(Debug, Serialize)]
pub struct Caught {
    pub bug: &'static str,
    pub fault: &'static str,
    /// Seeds that have run.
    pub seeds: u32,
    /// Seeds in which a promise was found broken.
    pub caught: u32,
    /// Seeds in which the fault failed. These count as missed.
    pub failed: u32,
    /// All seeds that did not catch it, in the order in which they ended.
    pub missed_seeds: Vec<u64>,
    /// The average length of a seed, in seconds.
    pub seconds: f64,
    /// What the first seed found, or why the first fault failed.
    pub example: Option<String>,
}

impl Caught {
    fn new(case: Case) -> Self {
        let (bug, fault) = (case.bug.name(), case.fault.name);
        let missed_seeds = Vec::new();
        Self { bug, fault, seeds: 0, caught: 0, failed: 0, missed_seeds, seconds: 0.0, example: None }
    }

    /// Whether at least 99 % of the seeds found the bug.
    pub fn is_enough(&self) -> bool {
        self.seeds > 0 && self.caught * 100 >= self.seeds * 99
    }

    fn add(&mut self, seed: Seed) {
        let example = match seed.result {
            Finding::Broken { measured, .. } => {
                self.caught += 1;
                measured.verdict.examples.into_iter().next()
            }
            other => {
                self.missed_seeds.push(seed.seed);
                self.failed += u32::from(!matches!(other, Finding::Kept(_)));
                match other {
                    Finding::Failed { error, .. } => Some(error),
                    Finding::NotRun { needs } => Some(format!("not run: needs {needs}")),
                    Finding::Kept(_) | Finding::Broken { .. } => None,
                }
            }
        };
        self.example = self.example.take().or(example);
        self.seconds = (self.seconds * f64::from(self.seeds) + seed.seconds) / f64::from(self.seeds + 1);
        self.seeds += 1;
    }
}

/// Plants the bug of each case, and runs its fault with this many seeds, from the options' one on. Up to `jobs` seeds run at
/// once. `progress` gets each seed as soon as it is over. After `stop`, the seeds that have not ended are left out.
///
/// # Errors
/// When the server does not start or stop.
pub async fn count(
    options: &Options,
    cases: &[Case],
    seeds: u32,
    jobs: usize,
    stop: &CancellationToken,
    mut progress: impl FnMut(&Seed),
) -> Result<Vec<Caught>> {
    std::fs::create_dir_all(&options.folder)?;
    let server = Server::start_for(jobs, &options.folder.join("postgres"), options.database_url.as_deref()).await?;
    let template = format!("prove_{}_template", std::process::id());
    if server.is_ours() {
        server.create_database(&template).await?;
        scene::prepare(&server, &template).await?;
    }
    let mut all: Vec<Caught> = cases.iter().map(|case| Caught::new(*case)).collect();
    let mut waiting =
        (0..cases.len()).flat_map(|case| (options.seed..).take(seeds as usize).map(move |seed| (case, seed)));
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() < jobs.max(1)
            && let Some((number, seed)) = waiting.next()
            && let Some(case) = cases.get(number)
        {
            let place = Place {
                folder: options.folder.join(format!("{}-{}-{seed}", case.bug.name(), case.fault.name)),
                database: format!("prove_{}_{number}_{seed}", std::process::id()),
            };
            let shared = server.share(&template)?;
            let seed = run_seed(options, *case, shared, place, seed, stop);
            running.push(async move { (number, seed.await) });
        }
        let Some((number, ended)) = running.next().await else { break };
        let Some(ended) = ended else { continue };
        progress(&ended);
        if let Some(caught) = all.get_mut(number) {
            caught.add(ended);
        }
    }
    drop(running);
    server.stop().await?;
    if all.iter().all(|caught| caught.failed == 0) {
        // What is left there are logs of seeds that came to their end.
        let _ = std::fs::remove_dir_all(&options.folder);
    }
    Ok(all)
}

/// Runs one seed; `None` if it was stopped.
async fn run_seed(
    options: &Options,
    case: Case,
    mut server: Server,
    place: Place,
    seed: u64,
    stop: &CancellationToken,
) -> Option<Seed> {
    if stop.is_cancelled() {
        return None;
    }
    let (begun, options) = (Instant::now(), Options { sabotage: Some(case.bug), ..options.clone() });
    let run = stop.run_until_cancelled(prove(&options, case.fault, &mut server, &place, seed)).await;
    let Some(result) = run else {
        let _ = server.drop_database(&place.database).await;
        return None;
    };
    Some(Seed { case, seed, result, seconds: begun.elapsed().as_secs_f64() })
}
