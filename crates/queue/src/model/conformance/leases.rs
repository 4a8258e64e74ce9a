//! The statements about workers: rescue, lost claims, and the rows of workers.

use std::{collections::HashSet, time::Duration};

use runtime::executor::once;

use super::{
    cases::{Column, jobs, rows},
    runs::{differences, done_runs, ids_and_tokens, waited_for_lock},
    world::{Expected, NAMES, OTHER, QUEUE, Row, World, worker},
};
use crate::{
    model::{
        guard::Rules,
        row::{Job, Name, Status},
    },
    store::{
        self,
        leases::{self, WorkerLease},
    },
};

const LEASE: Duration = Duration::from_secs(15);

/// Worker a is silent, and worker b has renewed its lease since the check.
pub(super) async fn rescue(world: &World) -> Vec<String> {
    rescue_of(world, async || {
        let silent = leases::workers(once(&world.subject), "the rescuer").await?;
        leases::renew(once(&world.subject), worker(1), "", LEASE, None, None).await?;
        Ok(silent)
    })
    .await
}

/// Neither worker had a row at the check, and worker b has one since.
pub(super) async fn rescue_without_row(world: &World) -> Vec<String> {
    rescue_of(world, async || {
        world.execute("DELETE FROM apalis.workers WHERE id = 'worker-a'").await;
        let without_row = |name: &str| WorkerLease { worker: name.into(), version: None, lease: None };
        Ok(NAMES.map(without_row).to_vec())
    })
    .await
}

async fn rescue_of(world: &World, check: impl AsyncFnOnce() -> sqlx::Result<Vec<WorkerLease>>) -> Vec<String> {
    let all = rows(jobs(&[Column::Crashes, Column::Due, Column::Failures]));
    world.write(&all).await;
    let is_locked = |row: &Row| row.number.is_multiple_of(5);
    let rescued = |row: &Row| {
        let rescue = |worker: Name| row.job.rescue(worker, worker == 1, Rules::ALL);
        rescue(0).or_else(|| rescue(1)).filter(|_| !is_locked(row))
    };
    let statement = async || {
        let silent = check().await?;
        let locked: Vec<&str> = all.iter().filter(|row| is_locked(row)).map(|row| &*row.id).collect();
        let rescue = leases::rescue(once(&world.subject), &silent);
        let (queues, waited) = world.while_locked(&locked, None, rescue).await?;
        let expected = all.iter().filter_map(rescued).count();
        let count = (queues.len() != expected).then(|| format!("{} rescued, not {expected}", queues.len()));
        Ok(waited_for_lock(waited).into_iter().chain(count).collect())
    };
    world.check(&all, |row| rescued(row).into(), statement).await
}

/// Both workers are named as in [`rescue`], and two thirds of the jobs.
pub(super) async fn rescue_some(world: &World) -> Vec<String> {
    let all = rows(jobs(&[Column::Crashes, Column::Due]));
    world.write(&all).await;
    let is_locked = |row: &Row| row.number.is_multiple_of(5);
    let is_named = |row: &Row| !row.number.is_multiple_of(3);
    let rescued = |row: &Row| row.job.rescue(0, false, Rules::ALL).filter(|_| is_named(row) && !is_locked(row));
    let statement = async || {
        let silent = leases::workers(once(&world.subject), "the rescuer").await?;
        leases::renew(once(&world.subject), worker(1), "", LEASE, None, None).await?;
        let held = leases::find_held(once(&world.subject), &silent).await?;
        let is_held = |row: &&Row| row.job.status == Status::Running && row.job.holder.is_some();
        let held = differences("held", held, all.iter().filter(is_held).map(|row| row.id.clone()));
        let locked: Vec<&str> = all.iter().filter(|row| is_locked(row)).map(|row| &*row.id).collect();
        let named: Vec<String> = all.iter().filter(|row| is_named(row)).map(|row| row.id.clone()).collect();
        let rescue = leases::rescue_some(once(&world.subject), &silent, &named);
        let (_, waited) = world.while_locked(&locked, None, rescue).await?;
        Ok([held, waited_for_lock(waited)].concat())
    };
    world.check(&all, |row| rescued(row).into(), statement).await
}

/// Worker a knows a third of the runs, and of another third an earlier run.
pub(super) async fn find_lost_claims(world: &World) -> Vec<String> {
    let all: Vec<Row> = rows(jobs(&[Column::Due]))
        .into_iter()
        .map(|row| if row.number.is_multiple_of(7) { Row { queue: OTHER, ..row } } else { row })
        .collect();
    world.write(&all).await;
    let token = |row: &Row| i32::from(row.job.attempts);
    let known = |row: &Row| match row.number % 3 {
        0 => Some(token(row)),
        1 => Some(token(row) - 1),
        _ => None,
    };
    let statement = async || {
        let (ids, tokens): (Vec<String>, Vec<i32>) =
            all.iter().filter_map(|row| Some((row.id.clone(), known(row)?))).unzip();
        let found = store::find_lost_claims(&world.subject, worker(0), &[QUEUE], &ids, &tokens).await?;
        let run = |queue: &str, id: &str, token: i32| format!("{queue} {id} {token}");
        let found = found.iter().map(|lost| run(&lost.queue, &lost.id, lost.token)).collect();
        let is_lost = |row: &&Row| row.queue == QUEUE && row.job.is_lost(0, known(row) == Some(token(row)), Rules::ALL);
        let lost = all.iter().filter(is_lost).map(|row| run(row.queue, &row.id, token(row)));
        Ok(differences("found lost", found, lost))
    };
    world.check(&all, |_| Expected::Unchanged, statement).await
}

/// Worker a gives back each job with tokens that are too old, right, or never given.
pub(super) async fn give_back_lost_claims(world: &World) -> Vec<String> {
    let (all, tokens) = done_runs();
    world.write(&all).await;
    let is_locked = |row: &Row| row.number.is_multiple_of(5);
    let given_back = |row: &Row| row.job.give_back(tokens[row.number], Rules::ALL).filter(|_| !is_locked(row));
    let statement = async || {
        let locked: Vec<&str> = all.iter().filter(|row| is_locked(row)).map(|row| &*row.id).collect();
        let (ids, tokens) = ids_and_tokens(&all, &tokens);
        let give_back = store::give_back_lost_claims(&world.subject, worker(0), &ids, &tokens);
        let (count, waited) = world.while_locked(&locked, None, give_back).await?;
        let expected = all.iter().filter_map(given_back).count() as u64;
        let count = (count != expected).then(|| format!("{count} given back, not {expected}"));
        Ok(waited_for_lock(waited).into_iter().chain(count).collect())
    };
    world.check(&all, |row| given_back(row).into(), statement).await
}

/// The reads that find silent workers. A running job without a worker's name gets one.
///
/// Worker `missing` has no row, and `own` asks. It is found if it holds a job, unless it asks itself.
pub(super) async fn find_workers(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    for (missing, own, holds) in [(0, 1, true), (1, 0, true), (0, 0, true), (0, 1, false), (1, 0, false)] {
        let is_held = |job: &Job| job.status == Status::Running && job.holder == Some(missing);
        let all = rows(jobs(&[]).into_iter().filter(|job| holds || !is_held(job)));
        world.write(&all).await;
        let delete = sqlx::query("DELETE FROM apalis.workers WHERE id = $1").bind(worker(missing));
        delete.execute(once(&world.direct)).await.expect("one worker less");
        let is_locked = |row: &Row| row.number.is_multiple_of(5);
        let named = |row: &Row| {
            let is_unnamed = row.job.status == Status::Running && row.job.holder.is_none();
            (is_unnamed && !is_locked(row)).then_some(Job { holder: Some(Name::MAX), ..row.job })
        };
        let statement = async || {
            let locked: Vec<&str> = all.iter().filter(|row| is_locked(row)).map(|row| &*row.id).collect();
            let find = leases::holders_without_row(once(&world.subject), worker(own));
            let (without_row, waited) = world.while_locked(&locked, None, find).await?;
            let with_row = leases::workers(once(&world.subject), worker(own)).await?;
            let with_row: Vec<String> = with_row.into_iter().map(|lease| lease.worker).collect();
            let others = |expected: &dyn Fn(Name) -> bool| -> Vec<String> {
                [0, 1]
                    .into_iter()
                    .filter(|name| *name != own && expected(*name))
                    .map(|name| worker(name).into())
                    .collect()
            };
            let without_row = differences("without a row", without_row, others(&|name| name == missing && holds));
            let with_row = differences("with a row", with_row, others(&|name| name != missing));
            Ok([without_row, with_row, waited_for_lock(waited)].concat())
        };
        found.extend(world.check(&all, |row| named(row).into(), statement).await);
        if !found.is_empty() {
            break;
        }
    }
    found
}

/// The row of a worker stays while the worker holds a job. Worker a holds one; worker b has only ended runs.
pub(super) async fn delete_workers(world: &World) -> Vec<String> {
    let holds = |row: &Row| row.job.holder == Some(1) && row.job.status == Status::Running;
    let all: Vec<Row> = rows(jobs(&[])).into_iter().filter(|row| !holds(row)).collect();
    let mut found = Vec::new();
    for dead in [false, true] {
        world.write(&all).await;
        let statement = async || {
            world.execute("INSERT INTO apalis.workers (id, worker_type, storage_name) VALUES ('new', 'a', 'b')").await;
            world.execute("UPDATE apalis.workers SET last_seen = now() - interval '1 day' WHERE id <> 'new'").await;
            if dead {
                leases::delete_dead_workers(&world.subject, LEASE).await?;
            } else {
                for name in NAMES {
                    leases::delete_worker(once(&world.subject), name).await?;
                }
            }
            let rows = sqlx::query_scalar("SELECT id FROM apalis.workers").fetch_all(once(&world.direct)).await?;
            let expected: HashSet<String> = [worker(0), "new"].map(str::to_owned).into();
            Ok(differences("left", rows, expected))
        };
        found.extend(world.check(&all, |_| Expected::Unchanged, statement).await);
    }
    found
}
