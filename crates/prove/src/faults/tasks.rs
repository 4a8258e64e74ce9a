//! Faults that watch single runs of jobs: late results, missed notifications, and retries.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

use super::processes::kill;
use crate::{
    child,
    history::Event,
    processor::Order::{Fail, GoOn, Hold},
    scene::{LEASE, PATIENCE, Scene, WORKERS},
    store,
    worker::WITHOUT_SCHEDULE,
};

/// Enough that both workers get some of the later runs.
const TASKS: usize = 20;
/// The longest pause that a failed run asks for.
const PAUSE_MS: u64 = 600;
/// After its commit a task must start within this time. It takes 0.6 s on an idle machine: a listener reconnects after
/// 0.5 s. A poll would come after a minute.
const MISSED_START: Duration = Duration::from_secs(10);
/// From the end of the listeners' sessions to the commit: the workers have noticed, and are not back yet.
const UNHEARD: Duration = Duration::from_millis(200);
/// How often a commit is tried while no worker listens.
const TRIES: usize = 20;

/// Adds tasks, and returns their ids.
async fn add(scene: &mut Scene<'_>, count: usize, pauses_ms: &[u64]) -> Result<Vec<String>> {
    let tasks = scene.task_ids(count);
    let mut session = scene.session().await?;
    for task in &tasks {
        store::add_task(&mut session, task, pauses_ms).await?;
    }
    Ok(tasks)
}

async fn until_started(scene: &mut Scene<'_>, tasks: &[String], run: i32) -> Result<()> {
    let what = format!("all tasks begin their run {run}");
    scene.run_until(&what, |scene| Ok(scene.processor.started(tasks, run) == tasks.len())).await
}

/// The first runs of the tasks end while their third ones go on, some of them in the same worker.
pub(super) async fn deliver_late_results(scene: &mut Scene<'_>) -> Result<()> {
    const KIND: &str = "prove_task";
    let frozen = WORKERS[scene.random.usize(0..WORKERS.len())];
    let other = WORKERS.into_iter().find(|place| *place != frozen).unwrap_or(frozen);
    scene.processor.order(&[Hold]);
    // The worker that will be frozen runs alone, so that it gets all tasks.
    kill(scene, other).await?;
    let tasks = add(scene, TASKS, &[]).await?;
    until_started(scene, &tasks, 1).await?;
    scene.member(frozen)?.child.signal(Signal::SIGSTOP)?;
    scene.restart(other).await?;
    until_started(scene, &tasks, 2).await?;
    let log = format!("{}.log", scene.member(frozen)?.name);
    scene.member(frozen)?.child.signal(Signal::SIGCONT)?;
    scene.run_for(LEASE / 2).await;
    scene.processor.order(&[Hold, Fail, Hold]);
    until_started(scene, &tasks, 3).await?;
    scene.processor.order(&[GoOn, Fail, Hold]);
    // Each late result is dropped, or it completes a job. The third runs go on until then.
    let mut session = scene.session().await?;
    let begun = Instant::now();
    loop {
        let (waiting, log) = (store::unfinished(&mut session, KIND).await?, scene.folder.join(&log));
        let dropped = child::count_lines_with(&log, |line| line.contains("result dropped") && line.contains(KIND))?;
        if dropped >= usize::try_from(waiting)? {
            break;
        }
        if begun.elapsed() > PATIENCE {
            bail!("the late results have no effect after {PATIENCE:?}");
        }
        scene.run_for(Duration::from_millis(50)).await;
    }
    scene.processor.order(&[GoOn]);
    Ok(())
}

/// A worker that is connected again must look for jobs itself: the notification is gone, and the next poll comes late.
pub(super) async fn miss_notifications(scene: &mut Scene<'_>) -> Result<()> {
    let mut session = scene.session().await?;
    let listeners = store::sessions(&mut session, "listener").await?.len();
    scene.clients.pause(true);
    let own = [("QUEUE_POLL_SECONDS", "60"), (WITHOUT_SCHEDULE, "1")];
    for place in WORKERS {
        let variables = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        scene.member(place)?.variables.extend(variables);
        kill(scene, place).await?;
        scene.restart(place).await?;
    }
    // Without load and without a schedule nothing else wakes the workers, once the jobs of the killed ones are done.
    let begun = Instant::now();
    while store::unsettled(&mut session).await? > 0 && begun.elapsed() < PATIENCE {
        scene.run_for(Duration::from_millis(50)).await;
    }
    let committed = commit_unheard(scene, listeners).await?;
    let within_ms = u64::try_from(MISSED_START.as_millis())?;
    scene.history.record(Event::Expected { job: committed.clone(), within_ms });
    let (tasks, begun) = ([committed], Instant::now());
    // The checker decides; this only waits until there is something to see.
    while scene.processor.started(&tasks, 1) == 0 && begun.elapsed() < MISSED_START {
        scene.run_for(Duration::from_millis(50)).await;
    }
    for place in WORKERS {
        let variables = &mut scene.member(place)?.variables;
        variables.truncate(variables.len() - own.len());
        kill(scene, place).await?;
        scene.restart(place).await?;
    }
    scene.clients.pause(false);
    Ok(())
}

/// Commits a task while none of this many processes listens, and returns its id.
async fn commit_unheard(scene: &mut Scene<'_>, listeners: usize) -> Result<String> {
    let mut session = scene.session().await?;
    for _ in 0..TRIES {
        // All listen, and both workers have polled.
        let begun = Instant::now();
        while store::sessions(&mut session, "listener").await?.len() < listeners && begun.elapsed() < PATIENCE {
            scene.run_for(Duration::from_millis(50)).await;
        }
        scene.run_for(UNHEARD).await;
        let pids = store::sessions(&mut session, "listener").await?;
        store::terminate(&mut session, &pids).await?;
        scene.run_for(UNHEARD).await;
        if let Some(task) = add(scene, 1, &[]).await?.pop()
            && store::sessions(&mut session, "listener").await?.is_empty()
        {
            return Ok(task);
        }
    }
    bail!("in {TRIES} tries, a listener was always back before the commit")
}

/// The pauses are longer than the backoff of the tasks, so they are what the next run has to wait for.
pub(super) async fn retry(scene: &mut Scene<'_>) -> Result<()> {
    let pauses_ms = [scene.random.u64(300..PAUSE_MS), scene.random.u64(300..PAUSE_MS)];
    let tasks = add(scene, TASKS, &pauses_ms).await?;
    let runs = i32::try_from(pauses_ms.len() + 1)?;
    until_started(scene, &tasks, runs).await
}
