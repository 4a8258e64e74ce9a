//! The proof: each promise of Millrace, checked on this machine under real faults and load.
//!
//! A [`Fault`] gets a fresh database, an API, two workers and clients that keep posting. Each process has its own
//! connection through a proxy and, on our own server, its own database role. Everything that clients, the processor and
//! the schedule saw goes to a `history` outside the database; triggers add what the product wrote. At the end the
//! `checker` reads that history once.
//!
//! All random choices come from one seed. The moments at which the operating system runs the processes do not, so a seed
//! repeats the choices, not every interleaving.

mod checker;
pub mod child;
mod clients;
pub mod cpu;
mod early;
mod engine;
mod faults;
mod file_limit;
mod helpers;
mod history;
mod members;
mod processor;
pub mod proxy;
mod replies;
pub mod sabotage;
mod scene;
mod server;
mod small_disk;
mod store;
mod task;
mod worker;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use runtime::sabotage::Bug;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub use self::{
    checker::Verdict,
    clients::RateReport,
    faults::{EXTERNAL, FAULTS, Fault},
    worker::program as worker_program,
};
use self::{
    scene::{Place, Scene},
    server::Server,
};

/// How the proof runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// The `millrace` program whose subcommands are the processes under test.
    pub program: PathBuf,
    /// The `millrace` program of the release before, for the fault `upgrade`.
    pub previous: Option<PathBuf>,
    /// The folder for the server, the logs and the histories. It is removed, unless a fault was bad.
    pub folder: PathBuf,
    /// The user's server; unset: our own is started.
    pub database_url: Option<String>,
    /// The source of all random choices.
    pub seed: u64,
    /// The number of clients, each of which waits for its response.
    pub clients: usize,
    /// More webhooks a second, however slow the responses are.
    pub rate: Option<u32>,
    /// The number of waiting jobs in the fault `backlog`.
    pub backlog: u32,
    /// The number of kills in the fault `limit-kills`.
    pub kills: u32,
    /// How long faults last that have a length, such as a pinned snapshot.
    pub time: Duration,
    /// A bug of the processes under test.
    pub sabotage: Option<Bug>,
    /// The shell command of the fault [`EXTERNAL`].
    pub during: Option<String>,
}

/// The result of one fault.
#[derive(Debug, Serialize)]
pub struct Report {
    pub fault: &'static str,
    /// What was done.
    pub about: &'static str,
    #[serde(flatten)]
    pub result: Finding,
}

/// What came of a fault.
#[derive(Debug, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Finding {
    /// Every promise was kept.
    Kept(Measured),
    /// A promise was broken. The folder has the history and the logs.
    Broken { measured: Measured, folder: PathBuf },
    /// The fault could not be carried out to its end.
    Failed { error: String, folder: PathBuf },
    /// The fault cannot run here.
    NotRun { needs: &'static str },
}

/// The figures of a fault.
#[derive(Debug, Serialize)]
pub struct Measured {
    #[serde(flatten)]
    pub verdict: Verdict,
    /// From the end of the fault until a new webhook is acknowledged and settled, in seconds.
    pub recovery_s: f64,
    /// The whole time, in seconds.
    pub time_s: f64,
    /// Of [`Options::rate`], unless the fault was cut short.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateReport>,
}

impl Finding {
    /// Whether it shows that a promise was broken, or that it could not be checked to the end.
    pub fn is_bad(&self) -> bool {
        matches!(self, Self::Broken { .. } | Self::Failed { .. })
    }
}

/// Runs faults one after the other, until `stop`. `report` gets each result as soon as it is there.
///
/// # Errors
/// When the server does not start or stop.
pub async fn run(
    options: &Options,
    faults: &[&Fault],
    stop: &CancellationToken,
    mut report: impl FnMut(Report),
) -> Result<()> {
    std::fs::create_dir_all(&options.folder).with_context(|| format!("cannot create {}", options.folder.display()))?;
    let mut server = Server::start(&options.folder.join("postgres"), options.database_url.as_deref()).await?;
    let mut is_bad = false;
    for (fault, seed) in faults.iter().zip(options.seed..) {
        let place =
            Place { folder: options.folder.join(fault.name), database: format!("prove_{}_{seed}", std::process::id()) };
        let run = stop.run_until_cancelled(prove(options, fault, &mut server, &place, seed)).await;
        let Some(result) = run else {
            let _ = server.drop_database(&place.database).await;
            break;
        };
        is_bad |= result.is_bad();
        report(Report { fault: fault.name, about: fault.about, result });
    }
    server.stop().await?;
    if !is_bad {
        // What is left there are logs of faults that passed.
        let _ = std::fs::remove_dir_all(&options.folder);
    }
    Ok(())
}

async fn prove(options: &Options, fault: &Fault, server: &mut Server, place: &Place, seed: u64) -> Finding {
    if let Some(needs) = fault.missing(server, options) {
        return Finding::NotRun { needs };
    }
    let (begun, folder) = (Instant::now(), place.folder.clone());
    let measured = async {
        let scene = Scene::start(options, server, place.clone(), seed).await?;
        scene.note(format!("begin: {}", fault.about));
        let is_cut_short = options.sabotage.is_some() && !fault.changes_server();
        let early = if is_cut_short { Some(scene.early_check()?) } else { None };
        let whole = carry_out(options, fault, scene);
        let (verdict, recovery, rate) = match early {
            None => whole.await?,
            Some(early) => tokio::select! {
                finished = whole => finished?,
                verdict = early.until_broken() => (verdict?, Duration::ZERO, None),
            },
        };
        server.drop_database(&place.database).await?;
        let (recovery_s, time_s) = (recovery.as_secs_f64(), begun.elapsed().as_secs_f64());
        anyhow::Ok(Measured { verdict, recovery_s, time_s, rate })
    };
    match measured.await {
        Ok(measured) if measured.verdict.is_kept() => {
            let _ = std::fs::remove_dir_all(&folder);
            Finding::Kept(measured)
        }
        Ok(measured) => {
            if options.sabotage.is_some() {
                let _ = std::fs::remove_dir_all(&folder);
            }
            Finding::Broken { measured, folder }
        }
        Err(error) => {
            // The next fault needs a server, and this one's database is of no use to it.
            let cleaned_up = match server.ensure_running().await {
                Ok(()) => server.drop_database(&place.database).await,
                down => down,
            };
            let error = match cleaned_up {
                Ok(()) => format!("{error:#}"),
                Err(other) => format!("{error:#}; {other:#}"),
            };
            Finding::Failed { error, folder }
        }
    }
}

/// Carries out a fault to its end, and checks the whole history. Also returns the recovery time.
async fn carry_out(
    options: &Options,
    fault: &Fault,
    mut scene: Scene<'_>,
) -> Result<(Verdict, Duration, Option<RateReport>)> {
    fault.run(&mut scene).await?;
    scene.note("end");
    let recovery = match scene.recovery {
        Some(measured) => measured,
        // It says nothing about a planted bug.
        None if options.sabotage.is_some() => Duration::ZERO,
        None => scene.recover().await?,
    };
    let (history, rate) = scene.finish().await?;
    Ok((checker::check(history.read()?)?, recovery, rate))
}
