//! Faults of what is around the processes and the database: a pooler, Redis, and full disks.

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::processes::kill;
use crate::{
    helpers,
    members::role,
    proxy::Target,
    scene::{LEASE, Scene, WORKERS},
    small_disk::{self, SmallDisk},
    store,
};

/// The size of a disk that will be full, in MiB.
const SMALL: u32 = 64;
/// The tables that are on the small disk: those that grow with each webhook.
const TABLES: [&str; 2] = ["transactions", "apalis.jobs"];

/// Restarts all processes with one more variable.
pub(super) async fn restart_with(scene: &mut Scene<'_>, name: &str, value: &str) -> Result<()> {
    scene.members.iter_mut().for_each(|member| member.variables.push((name.to_owned(), value.to_owned())));
    restart_all(scene).await
}

/// Takes the last variable back.
pub(super) async fn restart_without(scene: &mut Scene<'_>) -> Result<()> {
    scene.members.iter_mut().for_each(|member| drop(member.variables.pop()));
    restart_all(scene).await
}

async fn restart_all(scene: &mut Scene<'_>) -> Result<()> {
    for place in 0..scene.members.len() {
        kill(scene, place).await?;
        scene.restart(place).await?;
    }
    Ok(())
}

/// Each process shares a few sessions. PgBouncer dies and comes back, and then a worker does.
pub(super) async fn use_pooler(scene: &mut Scene<'_>) -> Result<()> {
    let users: Vec<String> = scene.members.iter().map(|member| role(member.name)).collect();
    let pooler = helpers::pgbouncer(scene.server, &users, None, &scene.folder).await?;
    let address = pooler.address;
    scene.members.iter().for_each(|member| member.proxy.connect_to(Target::Tcp(address.to_string())));
    restart_with(scene, "DATABASE_POOLER", "transaction").await?;
    scene.run_until_acknowledged(50).await?;
    pooler.child.signal(Signal::SIGKILL)?;
    drop(pooler);
    scene.run_for_random(0..1000).await;
    let _pooler = helpers::pgbouncer(scene.server, &users, Some(address), &scene.folder).await?;
    scene.run_until_acknowledged(20).await?;
    let place = WORKERS[scene.random.usize(0..WORKERS.len())];
    kill(scene, place).await?;
    scene.restart(place).await?;
    scene.run_until_acknowledged(20).await?;
    let direct = scene.server.target()?;
    scene.members.iter().for_each(|member| member.proxy.connect_to(direct.clone()));
    restart_without(scene).await
}

/// Redis holds caches and limits. It hangs, it dies, and it comes back empty.
pub(super) async fn lose_redis(scene: &mut Scene<'_>) -> Result<()> {
    let redis = helpers::redis(None, &scene.folder).await?;
    let address = redis.address;
    restart_with(scene, "REDIS_URL", &format!("redis://{address}/0")).await?;
    scene.run_until_acknowledged(50).await?;
    redis.child.signal(Signal::SIGSTOP)?;
    scene.run_for(LEASE * 2).await;
    redis.child.signal(Signal::SIGKILL)?;
    drop(redis);
    scene.run_until_acknowledged(20).await?;
    let _redis = helpers::redis(Some(address), &scene.folder).await?;
    scene.run_until_acknowledged(20).await?;
    restart_without(scene).await
}

/// The tables that grow are on a disk of their own, which is full for three leases.
pub(super) async fn fill_disk(scene: &mut Scene<'_>) -> Result<()> {
    let disk = SmallDisk::mount(std::env::temp_dir().join(format!("prove-data-{}", std::process::id())), SMALL)?;
    let server = scene.server.maintenance()?;
    let (user, group) = small_disk::owner(server.get_socket().context("a server with a socket")?)?;
    disk.give_to(user, group)?;
    let mut session = scene.session().await?;
    store::create_tablespace(&mut session, &disk.folder).await?;
    store::move_tables(&mut session, &TABLES, store::SMALL_DISK).await?;
    scene.run_until_acknowledged(20).await?;
    disk.fill()?;
    scene.run_for(LEASE * 3).await;
    disk.free()?;
    scene.run_until_acknowledged(20).await?;
    store::move_tables(&mut session, &TABLES, "pg_default").await?;
    Ok(store::drop_tablespace(&mut session).await?)
}

/// The logs of all processes are on a disk of their own, which is full for three leases. The work goes on.
pub(super) async fn fill_logs(scene: &mut Scene<'_>) -> Result<()> {
    let disk = SmallDisk::mount(std::env::temp_dir().join(format!("prove-logs-{}", std::process::id())), SMALL)?;
    let logs = disk.folder.join("logs").display().to_string();
    restart_with(scene, "LOG_DIR", &logs).await?;
    scene.run_until_acknowledged(20).await?;
    disk.fill()?;
    scene.run_for(LEASE * 3).await;
    scene.run_until_acknowledged(50).await?;
    disk.free()?;
    scene.run_until_acknowledged(20).await?;
    restart_without(scene).await
}
