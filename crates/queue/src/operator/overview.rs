//! The state of all queues at one time: what is wrong, rates, estimates.

use std::time::{Duration, Instant};

use futures_util::future::join;
use serde::Serialize;
use time::OffsetDateTime;

pub use super::problem::{Problem, ProblemKind};
use super::{
    Operator,
    demand::{Demand, Objective, Window},
    groups::ErrorGroup,
    workers::WorkerInfo,
};
use crate::{
    counts::quantile,
    status::{COUNTED, QueueStatus, format_duration},
    store::operator::{
        self as sql,
        minutes::{LatencyRow, MinuteRow, last_hour, latencies},
    },
};
use runtime::error::Error;

/// The state of all queues.
#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// When rates, latencies, dead letters and finished jobs were read: up to ten seconds before `at` for a view that
    /// [watches](Operator::watch_overview), else at that time.
    #[serde(skip)]
    pub rates_at: OffsetDateTime,
    /// What is wrong, worst first, at most five; empty while all is well.
    pub problems: Vec<Problem>,
    pub queues: Vec<QueueOverview>,
}

impl Overview {
    /// Adds the problem of a feature. It is always listed: the fifth problem of the queues makes room for it.
    pub fn add_problem(&mut self, problem: Problem) {
        self.problems.truncate(MAX_PROBLEMS - 1);
        self.problems.push(problem);
    }
}

/// A queue with its rates and estimates. Rates are jobs per second.
#[derive(Debug, Clone, Serialize)]
pub struct QueueOverview {
    #[serde(flatten)]
    pub status: QueueStatus,
    /// Jobs that live workers can run at once.
    pub slots: u32,
    /// Jobs that came in over the last three minutes: enqueued, replayed, retried or snoozed.
    pub in_per_second: f64,
    /// The same over the last 15 minutes.
    pub in_per_second_15_min: f64,
    /// Runs that started over the last three minutes.
    pub out_per_second: f64,
    /// The same over the last 15 minutes.
    pub out_per_second_15_min: f64,
    /// 99 of 100 runs of the last 15 minutes started at most so long after they were due; `null` without runs, and above
    /// five minutes.
    pub wait_p99_seconds: Option<f64>,
    /// The mean duration of the runs of the last 15 minutes.
    pub mean_run_seconds: Option<f64>,
    /// The time until no due job is left, at the rates of the last three minutes; `null` if that never happens, or while no
    /// job has been due for over 5 s.
    pub drained_in_seconds: Option<f64>,
    /// How many more jobs come in than start, while a job has been due for over 5 s; `null` otherwise.
    pub growing_by_per_second: Option<f64>,
    /// The number of workers that the arrivals of the last 15 minutes need for the default [`Objective`]; `null` without
    /// runs.
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

/// The window of the present rates: long enough to even out single claims, short enough to follow a change.
pub(super) const NOW_SECONDS: f64 = 180.0;
/// A queue is behind when its oldest due job has waited for longer.
const BEHIND_SECONDS: f64 = 5.0;
/// The largest number of problems that are listed.
const MAX_PROBLEMS: usize = 5;

/// A cached snapshot is used for so much time. Rates, latencies, dead and finished jobs are most of the cost of an overview,
/// and change slowly: counts arrive with heartbeats, every five seconds.
const MAX_AGE: Duration = Duration::from_secs(10);

/// What a view that watches the queues keeps for ten seconds. It begins empty.
#[derive(Default)]
pub struct OverviewCache(Option<Snapshot>);

/// All that was read at one time, apart from the workers.
struct Snapshot {
    read: Instant,
    at: OffsetDateTime,
    queues: Vec<QueueStatus>,
    minutes: Vec<MinuteRow>,
    latencies: Vec<LatencyRow>,
    groups: Vec<ErrorGroup>,
}

impl Operator {
    /// Reads the state of all queues, in five statements whose cost has a bound, two at a time.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn overview(&self) -> Result<Overview, Error> {
        self.watch_overview(&mut OverviewCache::default()).await
    }

    /// The same for a view that looks every few seconds. Depths, pauses and workers are those of now, in two statements.
    /// The rest is read once in ten seconds, and [`Overview::rates_at`] says when.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn watch_overview(&self, cache: &mut OverviewCache) -> Result<Overview, Error> {
        if let Some(snapshot) = cache.0.as_ref().filter(|snapshot| snapshot.read.elapsed() < MAX_AGE) {
            let (queues, workers) = self.read_depths(snapshot).await?;
            return Ok(snapshot.overview(queues, &workers));
        }
        let (snapshot, workers) = self.read_snapshot().await?;
        let overview = snapshot.overview(snapshot.queues.clone(), &workers);
        cache.0 = Some(snapshot);
        Ok(overview)
    }

    async fn read_snapshot(&self) -> Result<(Snapshot, Vec<WorkerInfo>), Error> {
        let read = Instant::now();
        let queues = async {
            let queues = self.queues().await?;
            let names: Vec<String> = queues.iter().map(|queue| queue.name.clone()).collect();
            let latencies = latencies(&self.pool, &names).await?;
            Ok::<_, Error>((queues, latencies))
        };
        let others = async {
            let minutes = last_hour(&self.pool, None).await?;
            let workers = self.workers().await?;
            // Problems name the groups that die now; how many there are in all is not needed.
            let groups = self.groups_counted_to(None, 1).await?;
            Ok::<_, Error>((minutes, workers, groups))
        };
        // Views have two sessions. Both parts run to their end, because a statement that is given up costs its session.
        let (queues, others) = join(queues, others).await;
        let ((queues, latencies), (minutes, workers, groups)) = (queues?, others?);
        let at = OffsetDateTime::now_utc();
        Ok((Snapshot { read, at, queues, minutes, latencies, groups }, workers))
    }

    /// Reads the queues again, without dead and finished jobs, and the workers.
    async fn read_depths(&self, last: &Snapshot) -> Result<(Vec<QueueStatus>, Vec<WorkerInfo>), Error> {
        let names: Vec<String> = last.queues.iter().map(|queue| queue.name.clone()).collect();
        let (queues, workers) = join(sql::queues(&self.pool, COUNTED, 0, &names), self.workers()).await;
        let (mut queues, workers) = (queues?, workers?);
        for queue in &mut queues {
            if let Some(known) = last.queues.iter().find(|known| known.name == queue.name) {
                queue.dead = known.dead;
                queue.recently_done = known.recently_done;
            }
        }
        Ok((queues, workers))
    }

    /// Reads the state of one queue, in four statements; `None` if it has no jobs, workers or pause.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database is unreachable.
    pub async fn queue_overview(&self, name: &str) -> Result<Option<QueueOverview>, Error> {
        let Some(status) = self.queue(name).await? else { return Ok(None) };
        let minutes = last_hour(&self.pool, Some(name)).await?;
        let latency = latencies(&self.pool, &[name.to_owned()]).await?.pop();
        let workers = self.workers().await?;
        let estimated = estimate(status, &minutes.iter().collect::<Vec<_>>(), &workers);
        Ok(Some(with_latency(estimated, latency.as_ref())))
    }
}

impl Snapshot {
    /// The overview of these queues and workers, which were read now, with the rest of the snapshot.
    fn overview(&self, queues: Vec<QueueStatus>, workers: &[WorkerInfo]) -> Overview {
        let at = OffsetDateTime::now_utc();
        let queues: Vec<QueueOverview> = queues
            .into_iter()
            .map(|status| {
                let minutes: Vec<&MinuteRow> = self.minutes.iter().filter(|row| row.queue == status.name).collect();
                let latency = self.latencies.iter().find(|row| row.queue == status.name);
                with_latency(estimate(status, &minutes, workers), latency)
            })
            .collect();
        Overview { problems: problems(&queues, workers, &self.groups, at), queues, at, rates_at: self.at }
    }
}

/// Adds the figures that come from the latencies.
fn with_latency(queue: QueueOverview, latency: Option<&LatencyRow>) -> QueueOverview {
    let Some(latency) = latency else { return queue };
    let wait_p99_seconds = quantile(&latency.waits, 0.99).filter(|wait| wait.is_finite());
    QueueOverview { wait_p99_seconds, dead_24h: latency.dead_24h, ..queue }
}

/// Computes the rates and estimates of a queue from its minutes.
// Counts of jobs are far below 2^52.
#[allow(clippy::cast_precision_loss)]
pub(super) fn estimate(status: QueueStatus, minutes: &[&MinuteRow], workers: &[WorkerInfo]) -> QueueOverview {
    let demand = Demand::of(&status.name, minutes, workers);
    let now = Window::of(minutes, NOW_SECONDS);
    let (incoming, outgoing) = (now.rate(now.came), now.rate(now.started));
    let drain_rate = outgoing - incoming;
    // Jobs that are enqueued for later come in before they are due, so a difference counts only while due jobs wait.
    let is_behind = status.due > 0 && status.late.is_some_and(|late| late > BEHIND_SECONDS);
    QueueOverview {
        slots: demand.slots,
        in_per_second: incoming,
        in_per_second_15_min: demand.arrivals(),
        out_per_second: outgoing,
        out_per_second_15_min: demand.quarter.rate(demand.quarter.started),
        wait_p99_seconds: None,
        mean_run_seconds: demand.mean_run,
        drained_in_seconds: (is_behind && drain_rate > 0.0).then(|| status.due as f64 / drain_rate),
        growing_by_per_second: (is_behind && drain_rate <= 0.0).then_some(-drain_rate),
        workers_needed: demand.workers_for(0, &Objective::default()),
        workers_to_drain_in_10_min: demand.workers_for(status.due, &Objective::default()),
        dead_24h: 0,
        minutes: last_60_minutes(minutes),
        status,
    }
}

/// The last 60 minutes, oldest first; those without a row are zero.
// An age is positive, and below an hour.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn last_60_minutes(rows: &[&MinuteRow]) -> Vec<Minute> {
    let mut minutes = vec![Minute::default(); 60];
    for row in rows {
        let age = (row.age.max(0.0) / 60.0) as usize;
        if let Some(minute) = minutes.len().checked_sub(age + 1).and_then(|index| minutes.get_mut(index)) {
            minute.came += row.enqueued + row.again;
            minute.started += row.started;
            minute.dead += row.dead;
        }
    }
    minutes
}

/// Lists what is wrong, worst first.
fn problems(
    queues: &[QueueOverview],
    workers: &[WorkerInfo],
    groups: &[ErrorGroup],
    at: OffsetDateTime,
) -> Vec<Problem> {
    let ago = |since: OffsetDateTime| format_duration((at - since).as_seconds_f64());
    let of_queue = |kind, queue: &QueueOverview, text| Problem::of_queue(kind, &queue.status.name, text);
    let mut problems = Vec::new();
    for worker in workers.iter().filter(|worker| worker.live) {
        for (queue, error) in &worker.claim_errors {
            let text =
                format!("worker {} cannot claim from {queue}: {} ({})", worker.id, error.error, ago(error.since));
            problems.push(Problem::of_worker(ProblemKind::CANNOT_CLAIM, &worker.id, Some(queue), text));
        }
    }
    for queue in queues {
        let status = &queue.status;
        if status.due > 0 && status.workers == 0 && status.paused_at.is_none() {
            let text = format!("{} has due jobs and no live worker", status.name);
            problems.push(of_queue(ProblemKind::NO_WORKER, queue, text));
        }
        if let (Some(since), Some(reason)) = (status.paused_at, &status.reason) {
            let by = status.paused_by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
            let text = format!("{} has been paused for {}{by}: {reason}", status.name, ago(since));
            problems.push(of_queue(ProblemKind::PAUSED, queue, text));
        }
    }
    let mut dying: Vec<&ErrorGroup> = groups.iter().filter(|group| group.died_in_15_min > 0).collect();
    dying.sort_by_key(|group| -group.died_in_15_min);
    for group in dying {
        let error = group.sample_error.as_deref().unwrap_or("without an error");
        let at_least = if group.died_in_15_min >= 1000 { "at least " } else { "" };
        let text = format!("{at_least}{} jobs of {} died in 15 min: {error}", group.died_in_15_min, group.queue);
        problems.push(Problem::of_group(&group.queue, &group.group, text));
    }
    for queue in queues {
        let status = &queue.status;
        let is_late = status.late.is_some_and(|late| late > 60.0) && status.paused_at.is_none();
        if is_late
            && status.workers > 0
            && let Some(growth) = queue.growing_by_per_second
        {
            let sign = status.depth_is.sign(status.due);
            let text = format!("{} falls behind: {sign}{} jobs are due, +{growth:.1}/s", status.name, status.due);
            problems.push(of_queue(ProblemKind::BEHIND, queue, text));
        }
    }
    for worker in workers.iter().filter(|worker| !worker.live && worker.running > 0) {
        let silent = format_duration(worker.silent_seconds);
        let text = format!("worker {} has been silent for {silent} and holds {} jobs", worker.id, worker.running);
        problems.push(Problem::of_worker(ProblemKind::SILENT_WORKER, &worker.id, None, text));
    }
    problems.truncate(MAX_PROBLEMS);
    problems
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::status::DepthIs;

    /// 12 runs a second and no arrivals, in minutes that began so many seconds ago.
    fn minutes(ages: &[f64]) -> Vec<MinuteRow> {
        let minute = |age: &f64| {
            let started = (age.min(60.0) * 12.0).round() as i64;
            let queue = "q".to_owned();
            MinuteRow {
                had_earlier: false,
                queue,
                age: *age,
                enqueued: 0,
                started,
                again: 0,
                dead: 0,
                ended: started,
                run_us: started * 500_000,
            }
        };
        ages.iter().map(minute).collect()
    }

    /// A queue of one worker with so many due jobs, the oldest for so many seconds.
    pub(crate) fn queue(due: i64, late: f64) -> QueueStatus {
        QueueStatus {
            name: "q".into(),
            paused_at: None,
            paused_by: None,
            reason: None,
            resume_at: None,
            workers: 1,
            failing_workers: 0,
            claim_error: None,
            waiting: due,
            due,
            depth_is: DepthIs::Exact,
            running: 0,
            dead: 0,
            recently_done: 0,
            late: Some(late),
        }
    }

    #[test]
    fn the_end_of_a_steady_drain_is_estimated_within_a_tenth() {
        for ages in [&[30.0][..], &[10.0, 70.0, 130.0], &[50.0, 110.0, 170.0, 230.0]] {
            let rows = minutes(ages);
            let estimated = estimate(queue(1200, 60.0), &rows.iter().collect::<Vec<_>>(), &[]);
            let seconds = estimated.drained_in_seconds.expect("it drains");
            assert!((90.0..110.0).contains(&seconds), "{ages:?}: {seconds}");
            assert_eq!(estimated.growing_by_per_second, None);
        }
    }

    #[test]
    fn a_queue_that_keeps_up_has_no_estimate() {
        let rows = minutes(&[30.0, 90.0]);
        let rows: Vec<&MinuteRow> = rows.iter().collect();
        for status in [queue(0, -5.0), queue(3, 0.2)] {
            let estimated = estimate(status, &rows, &[]);
            assert_eq!((estimated.drained_in_seconds, estimated.growing_by_per_second), (None, None));
        }
        let stuck = estimate(queue(10, 60.0), &[], &[]);
        assert_eq!((stuck.drained_in_seconds, stuck.growing_by_per_second), (None, Some(0.0)));
    }

    #[test]
    fn minutes_are_placed_by_their_age() {
        let rows = minutes(&[-1.0, 59.0, 61.0, 3599.0, 3600.0]);
        let placed = last_60_minutes(&rows.iter().collect::<Vec<_>>());
        let started: Vec<usize> = (0..60).filter(|index| placed[*index].started != 0).collect();
        assert_eq!(started, [0, 58, 59]);
    }
}
