//! Faults of the connections between the processes and the database.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::scene::{LEASE, PATIENCE, Scene};

/// How many replies each process loses.
const COMMITS: u32 = 10;

pub(super) async fn cut(scene: &mut Scene<'_>) -> Result<()> {
    for _ in 0..5 {
        scene.members.iter().for_each(|member| member.proxy.cut());
        scene.run_for_random(100..1000).await;
    }
    Ok(())
}

pub(super) async fn delay(scene: &mut Scene<'_>) -> Result<()> {
    scene.members.iter().for_each(|member| member.proxy.set_delay(Duration::from_millis(100)));
    scene.run_for(scene.options.time).await;
    scene.members.iter().for_each(|member| member.proxy.set_delay(Duration::ZERO));
    Ok(())
}

/// No packet tells the processes that their connections are dead.
pub(super) async fn silence(scene: &mut Scene<'_>) -> Result<()> {
    scene.members.iter().for_each(|member| member.proxy.silence());
    scene.run_for(LEASE * 3).await;
    scene.members.iter().for_each(|member| member.proxy.end_silence());
    Ok(())
}

/// A commit whose reply is lost has happened, and its process cannot know.
pub(super) async fn lose_commits(scene: &mut Scene<'_>) -> Result<()> {
    scene.members.iter().for_each(|member| member.proxy.lose_commits(COMMITS));
    let begun = Instant::now();
    while scene.members.iter().any(|member| member.proxy.commits_to_lose() > 0) && begun.elapsed() < PATIENCE {
        scene.run_for(Duration::from_millis(100)).await;
    }
    Ok(())
}
