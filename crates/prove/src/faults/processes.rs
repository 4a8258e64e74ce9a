//! Faults of the product's processes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use sqlx::Connection as _;

use super::faketime;
use crate::{
    child::STOP_TIMEOUT,
    scene::{API, LEASE, PATIENCE, Scene, WORKERS},
    store,
};

const TIMES: usize = 3;
/// How long a packet to the database takes when the API dies after a response.
const ON_THE_WAY: Duration = Duration::from_millis(100);

pub(super) async fn kill_workers(scene: &mut Scene<'_>) -> Result<()> {
    for _ in 0..TIMES {
        scene.run_for_random(0..500).await;
        let place = WORKERS[scene.random.usize(0..WORKERS.len())];
        kill(scene, place).await?;
        // The jobs of the dead worker are run by the other one, or by the new one.
        scene.run_for_random(0..1500).await;
        scene.restart(place).await?;
    }
    Ok(())
}

/// The first and the last time, the API dies right after a response, while what it has sent to the database is on its way.
/// None of that arrives. So a response that did not wait for its commit is a lost webhook.
pub(super) async fn kill_api(scene: &mut Scene<'_>) -> Result<()> {
    for time in 0..TIMES {
        scene.run_for_random(0..500).await;
        if time % 2 == 0 {
            kill_after_response(scene).await?;
        } else {
            kill(scene, API).await?;
        }
        scene.restart(API).await?;
        scene.run_until_acknowledged(20).await?;
    }
    Ok(())
}

async fn kill_after_response(scene: &mut Scene<'_>) -> Result<()> {
    scene.member(API)?.proxy.set_delay(ON_THE_WAY);
    // The requests of before have got their responses.
    scene.run_for(ON_THE_WAY * 4).await;
    let (begun, acknowledged) = (Instant::now(), scene.clients.acknowledged());
    while scene.clients.acknowledged() == acknowledged && begun.elapsed() < PATIENCE {
        tokio::time::sleep(ON_THE_WAY / 20).await;
    }
    let member = scene.member(API)?;
    member.child.signal(Signal::SIGKILL)?;
    member.proxy.cut();
    member.child.wait(STOP_TIMEOUT).await?;
    member.proxy.set_delay(Duration::ZERO);
    Ok(())
}

/// Kills a process with SIGKILL and waits for its end.
pub(super) async fn kill(scene: &mut Scene<'_>, place: usize) -> Result<()> {
    let child = &mut scene.member(place)?.child;
    child.signal(Signal::SIGKILL)?;
    child.wait(STOP_TIMEOUT).await.map(drop)
}

/// The frozen worker holds jobs whose calls are under way. The other worker takes them over, and still runs them when the
/// late results of the frozen one arrive. These must not count.
pub(super) async fn freeze_worker(scene: &mut Scene<'_>) -> Result<()> {
    scene.processor.set_delay(LEASE);
    scene.run_for_random(500..1000).await;
    let place = WORKERS[scene.random.usize(0..WORKERS.len())];
    scene.member(place)?.child.signal(Signal::SIGSTOP)?;
    scene.processor.set_delay(LEASE * 4);
    scene.run_for(LEASE * 3).await;
    scene.member(place)?.child.signal(Signal::SIGCONT)?;
    scene.run_for(LEASE * 2).await;
    scene.processor.set_delay(Duration::ZERO);
    Ok(())
}

/// The lock of a row keeps the worker from renewing its lease after it thaws. So it has no lease, for long enough to see
/// whether it claims nevertheless.
pub(super) async fn expire_lease(scene: &mut Scene<'_>) -> Result<()> {
    scene.run_for_random(0..300).await;
    let place = WORKERS[scene.random.usize(0..WORKERS.len())];
    let child = &scene.member(place)?.child;
    let pid = child.pid();
    child.signal(Signal::SIGSTOP)?;
    scene.run_for(LEASE * 3 / 2).await;
    let mut session = scene.session().await?;
    if !store::lock_worker(&mut session, pid).await? {
        bail!("the frozen worker has no row");
    }
    scene.member(place)?.child.signal(Signal::SIGCONT)?;
    scene.run_for(LEASE).await;
    session.close().await?;
    scene.run_for(LEASE / 2).await;
    Ok(())
}

/// A second SIGTERM during the grace period changes nothing.
pub(super) async fn stop_worker(scene: &mut Scene<'_>) -> Result<()> {
    for place in WORKERS {
        stop_twice(scene, place).await?;
        scene.run_for_random(0..500).await;
        scene.restart(place).await?;
    }
    Ok(())
}

pub(super) async fn stop_api(scene: &mut Scene<'_>) -> Result<()> {
    stop_twice(scene, API).await?;
    scene.restart(API).await?;
    scene.run_until_acknowledged(20).await
}

async fn stop_twice(scene: &mut Scene<'_>, place: usize) -> Result<()> {
    let second = Duration::from_millis(scene.random.u64(0..100));
    let child = &mut scene.member(place)?.child;
    child.signal(Signal::SIGTERM)?;
    tokio::time::sleep(second).await;
    child.stop().await
}

pub(super) async fn change_clock(scene: &mut Scene<'_>) -> Result<()> {
    let library = faketime().context("the package faketime")?;
    let place = WORKERS[1];
    for offset in ["+1h", "-1h"] {
        kill(scene, place).await?;
        let member = scene.member(place)?;
        let own = member.variables.len();
        let variables = [("LD_PRELOAD", library), ("FAKETIME", offset), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        member.variables.extend(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
        scene.restart(place).await?;
        scene.run_for(LEASE * 3).await;
        scene.member(place)?.variables.truncate(own);
    }
    kill(scene, place).await?;
    scene.restart(place).await
}
