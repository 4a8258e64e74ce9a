//! Faults of the load: storms, poison, unknown kinds and a large backlog.

use std::time::Instant;

use anyhow::{Result, bail};
use futures_util::future::join_all;
use queue::Job as _;

use super::processes::kill;
use crate::{
    clients::{Extra, Reply},
    scene::{PATIENCE, Scene, WORKERS},
    store,
    worker::{Poison, PoisonJob},
};

/// How many posts of one id are under way at once.
const POSTS: u32 = 100;

/// Half of the posts repeat the first payload, the others contradict it with 15 different ones.
pub(super) async fn storm(scene: &mut Scene<'_>) -> Result<()> {
    for number in 0..10 {
        let id = format!("storm-{number}");
        // The first payload is the sender's own, also if a contradiction arrives earlier; so it is recorded first.
        let first = scene.clients.extra();
        while let Reply::Again = first.post(&id, 0).await {}
        let clients: Vec<Extra> = (0..POSTS).map(|_| scene.clients.extra()).collect();
        join_all(clients.iter().zip(0..).map(|(client, post)| client.post(&id, post % 2 * (post % 30)))).await;
        scene.run_for_random(0..100).await;
    }
    Ok(())
}

/// Jobs that end their worker are quarantined after three crashes; until then the workers are started again, as a
/// supervisor does.
pub(super) async fn poison(scene: &mut Scene<'_>) -> Result<()> {
    scene.memory_is_unbounded = true;
    let mut session = scene.session().await?;
    let mut dead = 0;
    for poison in Poison::ALL {
        store::add_job(&mut session, PoisonJob::NAME, &serde_json::to_value(PoisonJob { poison })?).await?;
        dead += 1;
        let begun = Instant::now();
        while store::dead(&mut session, PoisonJob::NAME).await? < dead {
            if begun.elapsed() > PATIENCE {
                bail!("the job that does {poison:?} is no dead letter after {PATIENCE:?}");
            }
            for place in WORKERS {
                if !scene.member(place)?.child.is_running()? {
                    scene.restart(place).await?;
                }
            }
            scene.run_for_random(50..200).await;
        }
    }
    // A thread that an endless loop blocks is lost until its process ends, and may keep it from stopping in time.
    for place in WORKERS {
        kill(scene, place).await?;
        scene.restart(place).await?;
    }
    Ok(())
}

/// They wait for a worker of another release, and hold up no other job.
pub(super) async fn unknown_kinds(scene: &mut Scene<'_>) -> Result<()> {
    const KIND: &str = "prove_unknown";
    const JOBS: i64 = 1000;
    let mut session = scene.session().await?;
    store::add_jobs(&mut session, KIND, JOBS).await?;
    scene.run_until_acknowledged(100).await?;
    let waiting = store::unfinished(&mut session, KIND).await?;
    if waiting != JOBS {
        bail!("{waiting} of {JOBS} jobs of an unknown kind wait");
    }
    Ok(())
}

pub(super) async fn backlog(scene: &mut Scene<'_>) -> Result<()> {
    const KIND: &str = "prove_noop";
    let mut session = scene.session().await?;
    store::pause(&mut session, KIND).await?;
    let jobs = i64::from(scene.options.backlog);
    store::add_jobs(&mut session, KIND, jobs).await?;
    scene.run_for(scene.options.time).await;
    let waiting = store::unfinished(&mut session, KIND).await?;
    if waiting != jobs {
        bail!("{waiting} of {jobs} jobs wait in the paused queue");
    }
    Ok(())
}
