//! Claims by keys: each key gets its share, and none gets more running jobs than its limit.

use runtime::executor::once;

use super::{
    cases::{Column, jobs},
    runs::{PAUSES, QUEUES, differences, waited_for_lock},
    world::{OTHER, QUEUE, Row, World, worker},
};
use crate::{
    model::{
        guard::Rules,
        row::{Due, Job, Status},
    },
    store::claim::{self, Share},
};

/// More jobs than any test has.
const ALL: i64 = 1_000_000;

/// The keys of a claim: one gets all its jobs, the other one none of its priority.
const CLAIMED: i64 = 7;
const UNNAMED: i64 = 8;

/// Due jobs of a named key, and all others that the claim must not take: of another key, priority or queue, without a key,
/// not due, in another status, locked, or in a paused queue.
pub(super) async fn claim_shares(world: &World) -> Vec<String> {
    let mut all = Vec::new();
    for (queue, _) in QUEUES {
        for job in jobs(&[Column::Due]) {
            for (fair_key, priority) in [(Some(CLAIMED), 0), (Some(CLAIMED), 1), (Some(UNNAMED), 0), (None, 0)] {
                all.push(Row { queue, fair_key, priority, ..Row::new(all.len(), job) });
            }
        }
    }
    world.write(&all).await;
    world.execute(PAUSES).await;
    let is_locked = |row: &Row| row.number.is_multiple_of(3);
    let claimed = |row: &Row| {
        let is_named = (row.fair_key, row.priority) == (Some(CLAIMED), 0);
        let is_paused = QUEUES.contains(&(row.queue, true));
        row.job.claim(0, is_paused, Rules::ALL).filter(|_| is_named && !is_locked(row))
    };
    let statement = async || {
        let locked: Vec<&str> = all.iter().filter(|row| is_locked(row)).map(|row| &*row.id).collect();
        let shares = [Share { priority: 0, key: CLAIMED, jobs: ALL }];
        let claims = async {
            let mut ids = Vec::new();
            for (queue, _) in QUEUES {
                let found = claim::claim_shares(once(&world.subject), worker(0), queue, &shares, None, ALL).await?;
                ids.extend(found.into_iter().map(|job| job.id));
            }
            Ok(ids)
        };
        let (ids, waited) = world.while_locked(&locked, None, claims).await?;
        let expected = all.iter().filter(|row| claimed(row).is_some()).map(|row| row.id.clone());
        Ok([differences("claimed", ids, expected), waited_for_lock(waited)].concat())
    };
    world.check(&all, |row| claimed(row).into(), statement).await
}

/// Keys with a limit of two running jobs, and a claim of at most four: a key with none gets two, one with one gets one, one
/// with three gets none, and of the last one only one is left.
pub(super) async fn claim_limited(world: &World) -> Vec<String> {
    const RUNNING: [(i64, usize); 4] = [(1, 0), (2, 1), (3, 3), (4, 0)];
    let running = Job { status: Status::Running, holder: Some(1), attempts: 1, ..Job::new(Due::Now, false) };
    let waiting = Job::new(Due::Now, false);
    let mut all: Vec<Row> = Vec::new();
    let mut add = |queue, key, job, earlier| {
        all.push(Row { queue, fair_key: Some(key), earlier, ..Row::new(all.len(), job) });
    };
    for (key, count) in RUNNING {
        (0..count).for_each(|_| add(QUEUE, key, running, 0.0));
        // Running jobs of another queue do not count.
        (0..3).for_each(|_| add(OTHER, key, running, 0.0));
        (0..3).for_each(|number| add(QUEUE, key, waiting, 10.0 - f64::from(number)));
    }
    world.write(&all).await;
    let mut claimed: Vec<String> = Vec::new();
    for (key, jobs) in [(1, 2), (2, 1), (4, 1)] {
        let waits = |row: &&Row| row.fair_key == Some(key) && row.job.status == Status::Pending;
        claimed.extend(all.iter().filter(waits).take(jobs).map(|row| row.id.clone()));
    }
    let expected = |row: &Row| row.job.claim(0, false, Rules::ALL).filter(|_| claimed.contains(&row.id)).into();
    let statement = async || {
        let shares: Vec<Share> = RUNNING.iter().map(|(key, _)| Share { priority: 0, key: *key, jobs: 3 }).collect();
        let found = claim::claim_shares(once(&world.subject), worker(0), QUEUE, &shares, Some(2), 4).await?;
        Ok(differences("claimed", found.into_iter().map(|job| job.id).collect(), claimed.clone()))
    };
    world.check(&all, expected, statement).await
}
