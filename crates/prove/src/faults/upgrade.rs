//! An upgrade under load: the release before and this one share a database; forward, back, and forward again.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};
use sqlx::{migrate::Migrator, postgres::PgPoolOptions};
use url::Url;

use super::processes::kill;
use crate::{
    child::Child,
    members,
    scene::{API, Scene, WORKERS},
    store,
};

/// A migration waits up to a minute for tables that are in use.
const MIGRATION: Duration = Duration::from_secs(180);
/// The webhooks that each mix of releases must acknowledge.
const LOAD: usize = 50;

/// Which release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Release {
    Previous,
    Present,
}

/// The migrations of this release, with the way back.
fn migrations() -> Migrator {
    let mut migrator = sqlx::migrate!("../../migrations");
    migrator.dangerous_set_table_name("public._sqlx_migrations");
    migrator
}

/// The stage begins on the schema of this release, so the first step is the way back. From then on it is what an operator
/// does: migrate, then replace one process after the other.
pub(super) async fn roll(scene: &mut Scene<'_>) -> Result<()> {
    let last = last_migration_of_previous(scene).await?;
    roll_back(scene, last).await?;
    roll_forward(scene).await?;
    roll_back(scene, last).await?;
    roll_forward(scene).await
}

/// As `migrations/README.md` describes it: stop the processes, undo the migrations, start the release before. Meanwhile
/// clients get no response.
async fn roll_back(scene: &mut Scene<'_>, last: i64) -> Result<()> {
    for place in [WORKERS[0], API, WORKERS[1]] {
        stop(scene, place).await?;
    }
    let options = scene.server.options(&scene.database)?;
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await?;
    migrations().undo(&pool, last).await.context("cannot undo the migrations")?;
    pool.close().await;
    // It changes nothing, and fails if the schema is newer than that of the release before.
    migrate(scene, Release::Previous).await?;
    for place in [API, WORKERS[0], WORKERS[1]] {
        start(scene, place, Release::Previous).await?;
    }
    scene.note("all processes are of the release before");
    scene.run_until_acknowledged(LOAD).await?;
    scene.run_for(scene.options.time).await;
    Ok(())
}

/// The migrations run under load. Then each process is replaced, and both releases work side by side for a while: an old
/// and a new worker, with an API of either release.
async fn roll_forward(scene: &mut Scene<'_>) -> Result<()> {
    migrate(scene, Release::Present).await?;
    scene.note("migrated under the release before");
    scene.run_for(scene.options.time).await;
    let mut order = [API, WORKERS[0], WORKERS[1]];
    scene.random.shuffle(&mut order);
    for place in order {
        // A deployment ends most processes in peace; some die.
        if place != API && scene.random.bool() {
            kill(scene, place).await?
        } else {
            stop(scene, place).await?
        }
        start(scene, place, Release::Present).await?;
        scene.note(format!("replaced the process {place}"));
        scene.run_until_acknowledged(LOAD).await?;
        scene.run_for(scene.options.time).await;
    }
    Ok(())
}

/// The newest migration of the release before, which its own program applies to an empty database.
async fn last_migration_of_previous(scene: &mut Scene<'_>) -> Result<i64> {
    let database = format!("prove_previous_{}", std::process::id());
    scene.server.create_database(&database).await?;
    let mut variables = scene.member(API)?.variables.clone();
    for (_, value) in variables.iter_mut().filter(|(name, _)| name == "DATABASE_URL") {
        let mut url = Url::parse(value)?;
        url.set_path(&database);
        *value = url.into();
    }
    run(scene, Release::Previous, variables).await?;
    let mut session = store::connect(&scene.server.options(&database)?).await?;
    let last = store::last_migration(&mut session).await?;
    drop(session);
    scene.server.drop_database(&database).await?;
    if !migrations().iter().any(|migration| migration.version > last) {
        bail!("there is no migration between the two releases: name an older one with --previous");
    }
    Ok(last)
}

async fn migrate(scene: &mut Scene<'_>, release: Release) -> Result<()> {
    let variables = scene.member(API)?.variables.clone();
    run(scene, release, variables).await
}

/// Runs `millrace migrate` of a release to its end.
async fn run(scene: &mut Scene<'_>, release: Release, variables: Vec<(String, String)>) -> Result<()> {
    let program = program(scene, release)?;
    let command = members::command(&program, &scene.folder, "migrate", &variables);
    let mut child = Child::start(command, "migrate", &scene.folder)?;
    // The load goes on.
    let mut waited = Duration::ZERO;
    while child.is_running()? && waited < MIGRATION {
        const STEP: Duration = Duration::from_millis(100);
        scene.run_for(STEP).await;
        waited += STEP;
    }
    let status = child.wait(Duration::ZERO).await?;
    if !status.success() {
        bail!("migrate of {release:?} ended with {status}: see migrate.log");
    }
    Ok(())
}

fn program(scene: &Scene<'_>, release: Release) -> Result<PathBuf> {
    match release {
        Release::Present => Ok(scene.options.program.clone()),
        Release::Previous => scene.options.previous.clone().context("--previous"),
    }
}

async fn stop(scene: &mut Scene<'_>, place: usize) -> Result<()> {
    scene.member(place)?.child.stop().await
}

async fn start(scene: &mut Scene<'_>, place: usize, release: Release) -> Result<()> {
    let program = program(scene, release)?;
    scene.member(place)?.program = program;
    scene.restart(place).await
}
