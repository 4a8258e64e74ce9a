//! The state of all queues at one time: what is wrong, rates, estimates.

use std::collections::BTreeMap;

use serde::Serialize;
use time::{Duration, OffsetDateTime};

use super::{Operator, groups::ErrorGroup, workers::WorkerInfo};
use crate::{
    counts::quantile,
    status::{COUNTED, QueueStatus},
    store::{
        gauges::Measured,
        operator::{
            minutes::{self as sql, MinuteRow},
            workers::workers,
        },
    },
};
use runtime::{db::Pool, error::Error};

/// The state of all queues.
#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// What is wrong, worst first, at most five; empty while all is well.
    pub problems: Vec<Problem>,
    pub queues: Vec<QueueOverview>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// A sentence.
    pub text: String,
    /// The queue that it concerns.
    pub queue: Option<String>,
    /// The worker that it concerns.
    pub worker: Option<String>,
}

/// A queue with its rates and estimates. Rates are jobs per second.
#[derive(Debug, Clone, Serialize)]
pub struct QueueOverview {
    #[serde(flatten)]
    pub status: QueueStatus,
    /// Jobs that live workers can run at once.
    pub slots: u32,
    /// Jobs that became due or will: enqueued, retried and snoozed, over the last minutes.
    pub in_per_second: f64,
    /// The same over the last 15 minutes.
    pub in_per_second_15_min: f64,
    /// Runs that started, over the last minutes.
    pub out_per_second: f64,
    /// The same over the last 15 minutes.
    pub out_per_second_15_min: f64,
    /// 99 of 100 runs of the last 15 minutes started at most so long after they were due; `null` without runs, and above
    /// five minutes.
    pub wait_p99_seconds: Option<f64>,
    /// The mean duration of the runs of the last 15 minutes.
    pub mean_run_seconds: Option<f64>,
    /// When no due job is left, at the present rates; `null` while no job is due for over 5 s, or if that never happens.
    pub drained_in_seconds: Option<f64>,
    /// How many jobs a second come in beyond those that start, while a job is due for over 5 s.
    pub growing_by_per_second: Option<f64>,
    /// The number of workers that the arrivals of the last 15 minutes need; `null` without runs.
    pub workers_needed: Option<u32>,
    /// The number of workers that also run all due jobs within ten minutes.
    pub workers_to_drain_in_10_min: Option<u32>,
    /// Jobs that became dead letters in the last 24 hours.
    pub dead_24h: i64,
    /// The last 60 minutes, oldest first: jobs that came in, runs that started, new dead letters.
    pub minutes: Vec<Minute>,
}

/// One minute of a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Minute {
    pub came: i64,
    pub started: i64,
    pub dead: i64,
}

/// The window of the present rate: long enough to even out single claims, short enough to follow a change.
const NOW: Duration = Duration::minutes(3);
const QUARTER: Duration = Duration::minutes(15);
/// Counts arrive with heartbeats, on average so late.
const LAG: Duration = Duration::milliseconds(2500);
/// The share of its slots that a worker should use: at more, jobs wait for each other.
const UTILISATION: f64 = 0.8;
const DRAIN_SECONDS: f64 = 600.0;
/// A queue is behind when its oldest due job has waited for longer.
const BEHIND_SECONDS: f64 = 5.0;
/// At most so many problems are named.
const PROBLEMS: usize = 5;

impl Operator {
    /// Reads the state of all queues, in five statements whose cost has a bound.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn overview(&self) -> Result<Overview, Error> {
        let queues = self.queues().await?;
        let names: Vec<String> = queues.iter().map(|queue| queue.name.clone()).collect();
        let minutes = sql::last_hour(&self.pool).await?;
        let latencies = sql::latencies(&self.pool, &names).await?;
        let mut latencies: BTreeMap<_, _> = latencies.into_iter().map(|row| (row.queue.clone(), row)).collect();
        let workers = self.workers().await?;
        let groups = self.dead_groups(None).await?;
        let at = self.now();
        let queues: Vec<QueueOverview> = queues
            .into_iter()
            .map(|status| {
                let minutes: Vec<&MinuteRow> = minutes.iter().filter(|row| row.queue == status.name).collect();
                let latency = latencies.remove(&status.name);
                let mut queue = estimate(status, &minutes, &workers, at);
                if let Some(latency) = latency {
                    queue.wait_p99_seconds = quantile(&latency.waits, 0.99).filter(|wait| wait.is_finite());
                    queue.dead_24h = latency.dead_24h;
                }
                queue
            })
            .collect();
        Ok(Overview { problems: problems(&queues, &workers, &groups, at), queues, at })
    }
}

/// The sums of some minutes, and the length of their time in seconds.
#[derive(Debug, Default)]
struct Window {
    seconds: f64,
    came: i64,
    started: i64,
    ended: i64,
    run_us: i64,
}

impl Window {
    /// Sums the minutes of the last `length`. A queue that had no minute before is measured from its first one.
    fn of(minutes: &[&MinuteRow], at: OffsetDateTime, length: Duration) -> Self {
        let since = at - length;
        let inside = minutes.iter().filter(|row| OffsetDateTime::from(row.minute) > since);
        let mut window = Self::default();
        let mut first = None;
        for row in inside {
            first.get_or_insert(OffsetDateTime::from(row.minute));
            window.came += row.enqueued + row.again;
            window.started += row.started;
            window.ended += row.ended;
            window.run_us += row.run_us;
        }
        window.seconds = first.map_or(0.0, |first| (at - first - LAG).as_seconds_f64().max(1.0));
        window
    }

    // Counts of jobs are far below 2^52.
    #[allow(clippy::cast_precision_loss)]
    fn rate(&self, count: i64) -> f64 {
        if self.seconds > 0.0 { count as f64 / self.seconds } else { 0.0 }
    }
}

/// What decides how many workers a queue needs.
struct Demand {
    quarter: Window,
    /// Slots of all live workers, and the most of one.
    slots: u32,
    per_worker: u32,
    /// The mean duration of the runs of the last 15 minutes.
    mean_run: Option<f64>,
}

impl Demand {
    // Counts of jobs are far below 2^52.
    #[allow(clippy::cast_precision_loss)]
    fn of(queue: &str, minutes: &[&MinuteRow], workers: &[WorkerInfo], at: OffsetDateTime) -> Self {
        let quarter = Window::of(minutes, at, QUARTER);
        let reports = workers.iter().filter(|worker| worker.live).filter_map(|worker| worker.report.as_ref());
        let slots: Vec<u32> = reports.filter_map(|report| Some(report.queues.get(queue)?.slots)).collect();
        let mean_run = (quarter.ended > 0).then(|| quarter.run_us as f64 / 1e6 / quarter.ended as f64);
        Self { quarter, slots: slots.iter().sum(), per_worker: slots.iter().max().copied().unwrap_or(0), mean_run }
    }

    /// The workers that the arrivals of the last 15 minutes need, and `due` jobs within ten minutes; `None` without runs.
    // The number is positive and capped.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn workers(&self, due: i64) -> Option<u32> {
        let rate = self.quarter.rate(self.quarter.came) + due as f64 / DRAIN_SECONDS;
        let needed = rate * self.mean_run? / (f64::from(self.per_worker) * UTILISATION);
        (self.per_worker > 0).then(|| needed.ceil().clamp(1.0, 1e6) as u32)
    }
}

/// How many workers these queues need so that nothing waits for longer than ten minutes, by name. A paused queue needs
/// none, and so does one without jobs. A queue whose runs are not known yet needs one.
pub(crate) async fn workers_needed(pool: &Pool, measured: &[Measured]) -> sqlx::Result<BTreeMap<String, u32>> {
    let minutes = sql::last_hour(pool).await?;
    let workers: Vec<WorkerInfo> = workers(pool).await?.into_iter().map(WorkerInfo::from).collect();
    let at = OffsetDateTime::now_utc();
    let needed = measured.iter().map(|queue| {
        let minutes: Vec<&MinuteRow> = minutes.iter().filter(|row| row.queue == queue.queue).collect();
        let demand = Demand::of(&queue.queue, &minutes, &workers, at);
        let is_idle = queue.due == 0 && queue.running == 0 && demand.quarter.came == 0;
        let needed = if queue.paused || is_idle { 0 } else { demand.workers(queue.due).unwrap_or(1) };
        (queue.queue.clone(), needed)
    });
    Ok(needed.collect())
}

// Counts of jobs are far below 2^52.
#[allow(clippy::cast_precision_loss)]
fn estimate(status: QueueStatus, minutes: &[&MinuteRow], workers: &[WorkerInfo], at: OffsetDateTime) -> QueueOverview {
    let demand = Demand::of(&status.name, minutes, workers, at);
    let now = Window::of(minutes, at, NOW);
    let (incoming, outgoing) = (now.rate(now.came), now.rate(now.started));
    let net = outgoing - incoming;
    // Jobs that are enqueued for later come in before they are due, so a difference counts only while due jobs wait.
    let is_behind = status.due > 0 && status.late.is_some_and(|late| late > BEHIND_SECONDS);
    QueueOverview {
        slots: demand.slots,
        in_per_second: incoming,
        in_per_second_15_min: demand.quarter.rate(demand.quarter.came),
        out_per_second: outgoing,
        out_per_second_15_min: demand.quarter.rate(demand.quarter.started),
        wait_p99_seconds: None,
        mean_run_seconds: demand.mean_run,
        drained_in_seconds: (is_behind && net > 0.0).then(|| status.due as f64 / net),
        growing_by_per_second: (is_behind && net <= 0.0).then_some(-net),
        workers_needed: demand.workers(0),
        workers_to_drain_in_10_min: demand.workers(status.due),
        dead_24h: 0,
        minutes: last_60(minutes, at),
        status,
    }
}

fn last_60(rows: &[&MinuteRow], at: OffsetDateTime) -> Vec<Minute> {
    let mut minutes = vec![Minute::default(); 60];
    for row in rows {
        let age = (at - OffsetDateTime::from(row.minute)).whole_minutes();
        // A minute that begins after `at`, by another clock, belongs to the last one.
        if let Ok(age) = usize::try_from(age.max(0))
            && let Some(minute) = minutes.len().checked_sub(age + 1).and_then(|index| minutes.get_mut(index))
        {
            minute.came += row.enqueued + row.again;
            minute.started += row.started;
            minute.dead += row.dead;
        }
    }
    minutes
}

/// Names what is wrong, worst first.
fn problems(
    queues: &[QueueOverview],
    workers: &[WorkerInfo],
    groups: &[ErrorGroup],
    at: OffsetDateTime,
) -> Vec<Problem> {
    let ago = |since: OffsetDateTime| duration((at - since).as_seconds_f64());
    let of_queue =
        |queue: &QueueOverview, text: String| Problem { text, queue: Some(queue.status.name.clone()), worker: None };
    let mut problems = Vec::new();
    for worker in workers.iter().filter(|worker| worker.live) {
        for (queue, error) in &worker.claim_errors {
            let text =
                format!("worker {} cannot claim from {queue}: {} ({})", worker.id, error.error, ago(error.since));
            problems.push(Problem { text, queue: Some(queue.clone()), worker: Some(worker.id.clone()) });
        }
    }
    for queue in queues {
        let status = &queue.status;
        if status.due > 0 && status.workers == 0 && status.paused_at.is_none() {
            problems.push(of_queue(queue, format!("{} has due jobs and no live worker", status.name)));
        }
        if let (Some(since), Some(reason)) = (status.paused_at, &status.reason) {
            let by = status.paused_by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
            problems.push(of_queue(queue, format!("{} is paused for {}{by}: {reason}", status.name, ago(since))));
        }
    }
    for group in groups.iter().filter(|group| group.died_in_15_min > 0) {
        let error = group.sample_error.as_deref().unwrap_or("without an error");
        let at_least = if group.died_in_15_min >= 1000 { "at least " } else { "" };
        let text = format!("{at_least}{} jobs of {} died in 15 min: {error}", group.died_in_15_min, group.queue);
        problems.push(Problem { text, queue: Some(group.queue.clone()), worker: None });
    }
    for queue in queues {
        let status = &queue.status;
        let is_late = status.late.is_some_and(|late| late > 60.0) && status.paused_at.is_none();
        if is_late
            && status.workers > 0
            && let Some(growth) = queue.growing_by_per_second
        {
            let at_least = if status.due >= COUNTED { "at least " } else { "" };
            let text = format!("{} falls behind: {at_least}{} jobs are due, +{growth:.1}/s", status.name, status.due);
            problems.push(of_queue(queue, text));
        }
    }
    for worker in workers.iter().filter(|worker| !worker.live && worker.running > 0) {
        let silent = duration(worker.silent_seconds);
        let text = format!("worker {} is silent for {silent} and holds {} jobs", worker.id, worker.running);
        problems.push(Problem { text, queue: None, worker: Some(worker.id.clone()) });
    }
    problems.truncate(PROBLEMS);
    problems
}

/// Formats a duration in its largest suitable unit.
fn duration(seconds: f64) -> String {
    match seconds.abs() {
        seconds if seconds < 120.0 => format!("{seconds:.0} s"),
        seconds if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        seconds if seconds < 172_800.0 => format!("{:.0} h", seconds / 3600.0),
        seconds => format!("{:.0} d", seconds / 86_400.0),
    }
}
