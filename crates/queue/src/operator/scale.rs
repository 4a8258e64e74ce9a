//! How many workers are needed, and why.

use std::collections::BTreeMap;

use serde::Serialize;
use time::OffsetDateTime;

use super::{
    Operator,
    demand::{Demand, Objective},
    overview::estimate,
    workers::WorkerInfo,
};
use crate::{
    status::DepthIs,
    store::{
        gauges::Measured,
        operator::{
            minutes::{self as sql, MinuteRow},
            workers::workers,
        },
    },
};
use runtime::{db::Pool, error::Error};

/// How many workers all queues need.
#[derive(Debug, Clone, Serialize)]
pub struct Scale {
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// 99 of 100 jobs should start at most so long after they are due.
    pub objective_seconds: f64,
    /// No due job should be left after this time.
    pub drain_in_seconds: f64,
    /// Live workers.
    pub workers: usize,
    /// The most that a queue needs: each worker runs all queues of its program.
    pub workers_needed: u32,
    pub queues: Vec<QueueScale>,
}

impl Scale {
    /// Whether there are enough workers.
    pub fn is_enough(&self) -> bool {
        usize::try_from(self.workers_needed).is_ok_and(|needed| self.workers >= needed)
    }
}

/// How many workers a queue needs, and the figures that say so.
#[derive(Debug, Clone, Serialize)]
pub struct QueueScale {
    pub queue: String,
    /// Live workers that run it.
    pub workers: usize,
    /// For the arrivals and the due jobs: 0 while it is paused or idle, and 1 while its runs are not known.
    pub workers_needed: u32,
    /// For the arrivals alone; `null` without runs or without a live worker.
    pub workers_for_arrivals: Option<u32>,
    /// For the arrivals, and to run all due jobs in time.
    pub workers_to_drain: Option<u32>,
    pub is_paused: bool,
    pub due: i64,
    /// Whether `due` is counted or estimated.
    pub depth_is: DepthIs,
    pub running: i64,
    /// Jobs that come in each second, over the last 15 minutes.
    pub arrivals_per_second: f64,
    /// The mean duration of the runs of the last 15 minutes.
    pub mean_run_seconds: Option<f64>,
    /// The jobs that one worker runs at once.
    pub slots_per_worker: u32,
    /// When no due job is left with the present workers; `null` if that never happens, or nothing waits.
    pub drained_in_seconds: Option<f64>,
    /// The figures in a sentence.
    pub basis: String,
}

impl Operator {
    /// Computes how many workers each queue needs for this objective, in three statements whose cost has a bound.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn scale(&self, objective: &Objective) -> Result<Scale, Error> {
        let statuses = self.queues().await?;
        let minutes = sql::last_hour(&self.pool, None).await?;
        let workers = self.workers().await?;
        let queues: Vec<QueueScale> = statuses
            .into_iter()
            .map(|status| {
                let minutes: Vec<&MinuteRow> = minutes.iter().filter(|row| row.queue == status.name).collect();
                let demand = Demand::of(&status.name, &minutes, &workers);
                let is_paused = status.paused_at.is_some();
                QueueScale {
                    workers: demand.workers,
                    workers_needed: demand.workers_needed(status.due, status.running, is_paused, objective),
                    workers_for_arrivals: demand.workers_for(0, objective),
                    workers_to_drain: demand.workers_for(status.due, objective),
                    is_paused,
                    due: status.due,
                    depth_is: status.depth_is,
                    running: status.running,
                    arrivals_per_second: demand.arrivals(),
                    mean_run_seconds: demand.mean_run,
                    slots_per_worker: demand.per_worker,
                    basis: basis(&demand, status.due, status.depth_is, is_paused),
                    queue: status.name.clone(),
                    drained_in_seconds: estimate(status, &minutes, &workers).drained_in_seconds,
                }
            })
            .collect();
        Ok(Scale {
            at: OffsetDateTime::now_utc(),
            objective_seconds: objective.wait_seconds,
            drain_in_seconds: objective.drain_seconds,
            workers: workers.iter().filter(|worker| worker.live).count(),
            workers_needed: queues.iter().map(|queue| queue.workers_needed).max().unwrap_or(0),
            queues,
        })
    }
}

/// The figures in a sentence.
fn basis(demand: &Demand, due: i64, depth_is: DepthIs, is_paused: bool) -> String {
    if is_paused {
        return "it is paused".into();
    }
    let Some(run) = demand.mean_run else { return "no run has ended in the last 15 min".into() };
    if demand.per_worker == 0 {
        return "no live worker runs it, so the slots of a worker are not known".into();
    }
    let (arrivals, slots) = (demand.arrivals(), demand.per_worker);
    let sign = depth_is.sign(due);
    let load = arrivals * run;
    format!("{arrivals:.2}/s × {run:.3} s = {load:.2} jobs at once, {sign}{due} due, {slots} slots a worker")
}

/// How many workers these queues need for the default objective, by name.
pub(crate) async fn workers_needed(pool: &Pool, measured: &[Measured]) -> sqlx::Result<BTreeMap<String, u32>> {
    let minutes = sql::last_hour(pool, None).await?;
    let workers: Vec<WorkerInfo> = workers(pool).await?.into_iter().map(WorkerInfo::from).collect();
    let needed = measured.iter().map(|queue| {
        let minutes: Vec<&MinuteRow> = minutes.iter().filter(|row| row.queue == queue.queue).collect();
        let demand = Demand::of(&queue.queue, &minutes, &workers);
        (queue.queue.clone(), demand.workers_needed(queue.due, queue.running, queue.paused, &Objective::default()))
    });
    Ok(needed.collect())
}
