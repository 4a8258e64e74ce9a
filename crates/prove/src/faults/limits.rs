//! The fault of limited keys: workers are killed while they run jobs of keys of which one may run at once.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use queue::{FairKey, Job as _};
use sqlx::PgConnection;

use super::processes::kill;
use crate::{
    history::Event,
    scene::{PATIENCE, Scene, WORKERS},
    store,
    task::Limited,
};

/// A worker that dies stops its keys until its lease is over. So there are enough that others go on.
const KEYS: usize = 16;
/// Unfinished jobs before each kill.
const BACKLOG: usize = 10 * KEYS;
/// A thousand kills take half an hour.
const PROGRESS_EVERY: u32 = 100;

/// Each kill hits a run at work. The checker reads that no two runs of a key were at work at once. That every job is done
/// at the end shows that no kill has kept the slot of a key.
pub(super) async fn kill_workers(scene: &mut Scene<'_>) -> Result<()> {
    let mut session = scene.session().await?;
    let kills = scene.options.kills;
    for number in 1..=kills {
        fill(scene, &mut session).await?;
        scene.run_for_random(0..200).await;
        let place = WORKERS[scene.random.usize(0..WORKERS.len())];
        let pid = scene.member(place)?.child.pid();
        wait_for_work(scene, &mut session, pid).await?;
        kill(scene, place).await?;
        scene.history.record(Event::Killed { pid });
        scene.processor.forget(pid);
        scene.restart(place).await?;
        if number.is_multiple_of(PROGRESS_EVERY) && number < kills {
            eprintln!("{number} of {kills} kills");
        }
    }
    scene.run_until_no_job(Limited::NAME).await?;
    let dead = store::dead(&mut session, Limited::NAME).await?;
    if dead > 0 {
        scene.history.record(Event::Broken { what: format!("{dead} jobs of limited keys were not done") });
    }
    Ok(())
}

/// Adds jobs of random keys, up to the backlog. In turn from the first key, all would soon be of that key: few are added at a
/// time.
async fn fill(scene: &mut Scene<'_>, session: &mut PgConnection) -> Result<()> {
    let unfinished = usize::try_from(store::unfinished(session, Limited::NAME).await?)?;
    let ids = scene.task_ids(BACKLOG.saturating_sub(unfinished)).into_iter();
    let jobs = ids.map(|id| {
        let key = format!("key-{}", scene.random.usize(0..KEYS));
        let number = FairKey::of(&key).number();
        (id, key, number)
    });
    let jobs: Vec<_> = jobs.collect();
    Ok(store::add_limited(session, &jobs).await?)
}

/// Waits until the process is at work, and no job would become a dead letter by its death. Adds jobs meanwhile, because all
/// others may be done before a job that has lost two workers.
async fn wait_for_work(scene: &mut Scene<'_>, session: &mut PgConnection, pid: u32) -> Result<()> {
    let begun = Instant::now();
    while store::has_two_crashes(session, Limited::NAME).await? || !scene.processor.is_at_work(pid) {
        if begun.elapsed() > PATIENCE {
            bail!("no limited job is at work in a worker after {PATIENCE:?}");
        }
        scene.run_for(Duration::from_millis(10)).await;
        fill(scene, session).await?;
    }
    Ok(())
}
