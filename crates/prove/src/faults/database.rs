//! Faults of the database server.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    scene::{LEASE, Scene},
    store,
};

const RESTARTS: usize = 10;
/// Half of a file of the write-ahead log. The tables of a fault are smaller.
const HALF_A_LOG_FILE: u64 = 8 << 20;

/// After the death of one backend the server ends all sessions and recovers, because shared memory may be damaged.
pub(super) async fn kill_backend(scene: &mut Scene<'_>) -> Result<()> {
    for _ in 0..3 {
        scene.run_for_random(100..600).await;
        let mut session = scene.session().await?;
        let pids = store::sessions(&mut session, "%").await?;
        let pid = pids.get(scene.random.usize(0..pids.len().max(1))).context("no session of the product")?;
        kill(Pid::from_raw(*pid), Signal::SIGKILL)?;
        scene.run_until_acknowledged(20).await?;
    }
    Ok(())
}

pub(super) async fn kill_server(scene: &mut Scene<'_>) -> Result<()> {
    crash(scene, Signal::SIGKILL).await
}

pub(super) async fn restart_server(scene: &mut Scene<'_>) -> Result<()> {
    for _ in 0..RESTARTS {
        // SIGQUIT is PostgreSQL's immediate shutdown: the next start recovers from the log.
        crash(scene, Signal::SIGQUIT).await?;
    }
    Ok(())
}

async fn crash(scene: &mut Scene<'_>, signal: Signal) -> Result<()> {
    scene.run_for_random(0..500).await;
    scene.server.crash(signal).await?;
    scene.run_for_random(0..1000).await;
    scene.server.start_again().await?;
    scene.run_until_acknowledged(20).await
}

/// No file of the write-ahead log can be written to its end. PostgreSQL panics, recovers, and at last stops, as when the disk
/// of the log is full. It starts again when there is room.
pub(super) async fn fill_wal(scene: &mut Scene<'_>) -> Result<()> {
    scene.run_for_random(100..600).await;
    scene.server.limit_files(HALF_A_LOG_FILE)?;
    let (begun, mut has_failed) = (Instant::now(), false);
    while begun.elapsed() < LEASE * 3 {
        let switched = match scene.session().await {
            Ok(mut session) => store::switch_wal(&mut session).await.is_ok(),
            Err(_) => false,
        };
        has_failed |= !switched;
        scene.run_for(Duration::from_millis(100)).await;
    }
    ensure!(has_failed, "PostgreSQL has written its log in spite of the limit");
    scene.server.crash(Signal::SIGQUIT).await?;
    scene.server.start_again().await?;
    scene.run_until_acknowledged(20).await
}

pub(super) async fn terminate_sessions(scene: &mut Scene<'_>) -> Result<()> {
    terminate(scene, "%", 10, Duration::from_millis(500)).await
}

/// Without a listener, jobs are found by polls.
pub(super) async fn terminate_listeners(scene: &mut Scene<'_>) -> Result<()> {
    terminate(scene, "listener", 50, Duration::from_millis(100)).await
}

/// Ends the product's sessions of this role, several times with a pause after each.
async fn terminate(scene: &mut Scene<'_>, role: &str, times: usize, pause: Duration) -> Result<()> {
    let mut session = scene.session().await?;
    for _ in 0..times {
        let pids = store::sessions(&mut session, role).await?;
        store::terminate(&mut session, &pids).await?;
        scene.run_for(pause).await;
    }
    Ok(())
}

/// The product's sessions are ended too, so that it has to open new ones, and cannot.
pub(super) async fn take_connections(scene: &mut Scene<'_>) -> Result<()> {
    let mut watcher = scene.session().await?;
    let (mut others, begun) = (Vec::new(), Instant::now());
    while begun.elapsed() < LEASE * 5 {
        while let Ok(other) = scene.session().await {
            others.push(other);
        }
        let pids = store::sessions(&mut watcher, "%").await?;
        store::terminate(&mut watcher, &pids).await?;
        scene.run_for(Duration::from_millis(100)).await;
    }
    Ok(())
}

pub(super) async fn make_read_only(scene: &mut Scene<'_>) -> Result<()> {
    let mut session = scene.session().await?;
    store::configure(&mut session, "default_transaction_read_only", Some("on")).await?;
    scene.run_for(LEASE * 5).await;
    // This session is read-only by now; a setting of the server can be changed nevertheless.
    store::configure(&mut session, "default_transaction_read_only", None).await?;
    Ok(())
}

pub(super) async fn pin_snapshot(scene: &mut Scene<'_>) -> Result<()> {
    let mut session = scene.session().await?;
    store::pin_snapshot(&mut session).await?;
    scene.run_for(scene.options.time).await;
    Ok(())
}
