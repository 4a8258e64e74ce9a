//! The demand of a queue: how many workers its arrivals need, and how many run its due jobs in time.
//!
//! One computation for the overview, `millrace scale` and the gauge `millrace_workers_needed`. Arrivals and durations are
//! those of the last 15 minutes. Workers are enough if at most 80 % of their slots are in use, and if 99 of 100 jobs start
//! within the objective: by Erlang's formula C for jobs that arrive independently of each other.

use super::workers::WorkerInfo;
use crate::store::operator::minutes::MinuteRow;

/// Rates of the demand come from the last 15 minutes.
const QUARTER_SECONDS: f64 = 900.0;
/// Counts arrive with heartbeats, on average so late.
const LAG_SECONDS: f64 = 2.5;
/// The share of its slots that a worker should use: at more, jobs wait for each other.
const UTILISATION: f64 = 0.8;
/// The share of jobs that may wait for longer than the objective.
const LATE_SHARE: f64 = 0.01;
/// No estimate is larger.
const MOST_WORKERS: f64 = 1e6;

/// What the workers of a queue should achieve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Objective {
    /// 99 of 100 jobs start at most so many seconds after they are due.
    pub wait_seconds: f64,
    /// No due job is left after so many seconds.
    pub drain_seconds: f64,
}

impl Default for Objective {
    /// 30 s, and ten minutes.
    fn default() -> Self {
        Self { wait_seconds: 30.0, drain_seconds: 600.0 }
    }
}

/// The sums of some minutes, and the length of their time in seconds.
#[derive(Debug, Default)]
pub(super) struct Window {
    seconds: f64,
    pub came: i64,
    pub started: i64,
    ended: i64,
    run_us: i64,
}

impl Window {
    /// Sums the minutes of the last `length`. A new queue, which had no minute before, is measured from its first one: it has no
    /// rate of the time before. An idle queue has one, of zero.
    pub(super) fn of(minutes: &[&MinuteRow], length: f64) -> Self {
        let mut window = Self::default();
        let known_before = minutes.iter().find(|row| row.had_earlier || row.age >= length);
        if let Some(row) = known_before {
            // When the first whole minute of this time began.
            let start = row.age + ((length - row.age) / 60.0).floor() * 60.0;
            window.seconds = (start - LAG_SECONDS).max(1.0);
        }
        for row in minutes.iter().filter(|row| row.age < length) {
            window.seconds = window.seconds.max(row.age - LAG_SECONDS).max(1.0);
            window.came += row.enqueued + row.again;
            window.started += row.started;
            window.ended += row.ended;
            window.run_us += row.run_us;
        }
        window
    }

    // Counts of jobs are far below 2^52.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn rate(&self, count: i64) -> f64 {
        if self.seconds > 0.0 { count as f64 / self.seconds } else { 0.0 }
    }
}

/// What decides how many workers a queue needs.
pub(super) struct Demand {
    pub quarter: Window,
    /// Slots of all live workers, and the most of one.
    pub slots: u32,
    pub per_worker: u32,
    /// Live workers that report slots of this queue.
    pub workers: usize,
    /// The mean duration of the runs of the last 15 minutes.
    pub mean_run: Option<f64>,
}

impl Demand {
    // Counts of jobs are far below 2^52.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn of(queue: &str, minutes: &[&MinuteRow], workers: &[WorkerInfo]) -> Self {
        let quarter = Window::of(minutes, QUARTER_SECONDS);
        let reports = workers.iter().filter(|worker| worker.live).filter_map(|worker| worker.report.as_ref());
        let slots: Vec<u32> = reports.filter_map(|report| Some(report.queues.get(queue)?.slots)).collect();
        let mean_run = (quarter.ended > 0).then(|| quarter.run_us as f64 / 1e6 / quarter.ended as f64);
        let per_worker = slots.iter().max().copied().unwrap_or(0);
        Self { quarter, slots: slots.iter().sum(), per_worker, workers: slots.len(), mean_run }
    }

    /// Jobs that come in each second.
    pub(super) fn arrivals(&self) -> f64 {
        self.quarter.rate(self.quarter.came)
    }

    /// The workers that the arrivals need, and `due` jobs beyond them; `None` without runs or without a live worker.
    // Counts of jobs are far below 2^52; the result is positive and capped.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(super) fn workers_for(&self, due: i64, objective: &Objective) -> Option<u32> {
        let run = self.mean_run?;
        if self.per_worker == 0 {
            return None;
        }
        let steady = slots_for(self.arrivals() * run, run, objective.wait_seconds);
        // While a backlog is drained, its jobs wait anyway, so only the share of used slots counts.
        let draining = (self.arrivals() + due as f64 / objective.drain_seconds) * run / UTILISATION;
        let workers = steady.max(draining) / f64::from(self.per_worker);
        Some(workers.ceil().clamp(1.0, MOST_WORKERS) as u32)
    }

    /// The workers that the queue needs now. A paused queue needs none, and so does one without jobs. A queue whose runs
    /// are not known yet needs one.
    pub(super) fn workers_needed(&self, due: i64, running: i64, paused: bool, objective: &Objective) -> u32 {
        let is_idle = due == 0 && running == 0 && self.quarter.came == 0;
        if paused || is_idle { 0 } else { self.workers_for(due, objective).unwrap_or(1) }
    }
}

/// The slots for `load` jobs that run at the same time on average, each for `run` seconds, so that 99 of 100 wait for at
/// most `wait` seconds, and at most 80 % of the slots are in use.
fn slots_for(load: f64, run: f64, wait: f64) -> f64 {
    let by_use = (load / UTILISATION).ceil().max(1.0);
    if load <= 0.0 || load > MOST_WORKERS {
        return by_use;
    }
    // The inverse of Erlang's formula B, one slot after the other.
    let (mut slots, mut inverse) = (0.0, 1.0);
    while slots < 2.0 * MOST_WORKERS {
        slots += 1.0;
        inverse = 1.0 + slots / load * inverse;
        if slots < by_use {
            continue;
        }
        let blocked = 1.0 / inverse;
        let use_share = load / slots;
        let waits = blocked / (1.0 - use_share * (1.0 - blocked));
        if waits * (-(slots - load) * wait / run.max(1e-6)).exp() <= LATE_SHARE {
            break;
        }
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_jobs_need_slots_for_their_load_and_long_ones_for_their_waits() {
        // Load, run and objective in seconds, slots. The last three are from a table of Erlang C.
        for (load, run, wait, slots) in [
            (0.0, 0.1, 30.0, 1.0),
            (0.5, 0.1, 30.0, 1.0),
            (8.0, 0.1, 30.0, 10.0),
            (80.0, 0.1, 30.0, 100.0),
            (1.0, 600.0, 0.0, 5.0),
            (2.0, 600.0, 0.0, 7.0),
            (5.0, 600.0, 0.0, 12.0),
        ] {
            let found = slots_for(load, run, wait);
            assert!((found - slots).abs() < 0.5, "{load} {run} {wait}: {found} instead of {slots}");
        }
        assert!(slots_for(6.0, 60.0, 30.0) < slots_for(6.0, 60.0, 1.0), "a stricter objective needs more");
        assert!(slots_for(5e5, 1.0, 1.0).is_finite());
    }

    /// A minute of a queue that is new in this hour, in which `jobs` of half a second came and ran.
    fn minute(age: f64, jobs: i64) -> MinuteRow {
        MinuteRow {
            queue: "q".into(),
            had_earlier: false,
            age,
            enqueued: jobs,
            started: jobs,
            again: 0,
            dead: 0,
            ended: jobs,
            run_us: jobs * 500_000,
        }
    }

    #[test]
    fn an_idle_time_counts_in_a_rate_and_the_time_before_the_first_job_does_not() {
        let came_per_second = |minutes: &[MinuteRow], length| {
            let window = Window::of(&minutes.iter().collect::<Vec<_>>(), length);
            window.rate(window.came)
        };
        let (three, quarter) = (180.0, QUARTER_SECONDS);
        let is = |found: f64, jobs: f64, seconds: f64| (found - jobs / seconds).abs() < 1e-9;
        // 30 jobs ten seconds ago. The whole minutes of the last three began 130 s ago, and those of the last 15 began 850 s ago.
        let new = [minute(10.0, 30)];
        assert!(is(came_per_second(&new, three), 30.0, 7.5), "it is new");
        let idle_for_ten_minutes = [minute(610.0, 6), minute(10.0, 30)];
        assert!(is(came_per_second(&idle_for_ten_minutes, three), 30.0, 127.5));
        assert!(is(came_per_second(&idle_for_ten_minutes, quarter), 36.0, 607.5), "its first job is in this time");
        let idle_for_half_an_hour = [minute(1810.0, 6), minute(10.0, 30)];
        assert!(is(came_per_second(&idle_for_half_an_hour, quarter), 30.0, 847.5));
        let idle_for_a_night = [MinuteRow { had_earlier: true, ..minute(10.0, 30) }];
        assert!(is(came_per_second(&idle_for_a_night, quarter), 30.0, 847.5));
        let busy = [minute(190.0, 60), minute(130.0, 60), minute(70.0, 60), minute(10.0, 10)];
        assert!(is(came_per_second(&busy, three), 130.0, 127.5));
        assert!(is(came_per_second(&[], three), 0.0, 1.0));
    }

    #[test]
    fn a_backlog_needs_more_workers_the_sooner_it_must_be_drained() {
        // 12 jobs a second of half a second each: 6 slots in use.
        let minutes = minute(602.5, 7200);
        let demand = Demand { slots: 20, per_worker: 4, workers: 5, ..Demand::of("q", &[&minutes], &[]) };
        let objective = Objective::default();
        assert_eq!(demand.workers_for(0, &objective), Some(2));
        assert_eq!(demand.workers_for(12_000, &objective), Some(5));
        assert_eq!(demand.workers_for(12_000, &Objective { drain_seconds: 60.0, ..objective }), Some(34));
        assert_eq!(demand.workers_needed(12_000, 3, true, &objective), 0, "paused");
        let unknown = Demand { mean_run: None, ..demand };
        assert_eq!((unknown.workers_for(5, &objective), unknown.workers_needed(5, 0, false, &objective)), (None, 1));
    }
}
