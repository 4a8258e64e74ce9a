//! Jobs whose rows the database refuses to change, such as by a trigger or a constraint that a user has added.
//!
//! One such row fails a statement for many jobs. The jobs are then tried in halves, down to the single ones that fail.
//! These are left out for a while, at most 1,000 of them, so that the others are delayed once in that time.
//!
//! While a job is left out of claims, a queue with fair shares claims by due time alone, and low-water marks stay.
//! Queues with a limit for each key are not covered: there one refused row fails every claim that includes it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::write_results::may_be_of_one_row;
use runtime::error::causes;

/// The most jobs of [`RefusedJobs::samples`].
const SAMPLES: usize = 5;
/// How long a job is left out before it is tried again.
const LEFT_OUT: Duration = Duration::from_secs(60);
/// The most jobs that are left out. Further ones are found again by each statement.
const MOST: usize = 1000;
/// The most lines of log about such jobs in the time for which one is left out.
const MOST_LINES: u32 = 10;

/// The jobs that are left out, and until when.
#[derive(Debug)]
pub(crate) struct RefusedJobs {
    /// What the database refuses, for the log.
    action: &'static str,
    until: HashMap<String, Instant>,
    /// How many times samples were taken.
    samples: usize,
    lines: u32,
    lines_since: Instant,
}

impl RefusedJobs {
    pub(crate) fn new(action: &'static str) -> Self {
        Self { action, until: HashMap::new(), samples: 0, lines: 0, lines_since: Instant::now() }
    }

    /// Whether no job is left out any more.
    pub(crate) fn is_empty(&mut self) -> bool {
        let now = Instant::now();
        self.until.retain(|_, until| *until > now);
        self.until.is_empty()
    }

    /// The jobs that are left out.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.until.keys().cloned().collect()
    }

    /// These jobs without those that are left out, to be changed in parts.
    pub(crate) fn parts(&self, mut ids: Vec<String>) -> Parts<String> {
        ids.retain(|id| !self.until.contains_key(id));
        Parts::of(ids)
    }

    /// Up to five of these jobs with equal distances, each as one part. The first sample to try is the last job of all; at
    /// the next call it is the one before, so that every job has its turn.
    pub(crate) fn samples(&mut self, ids: Vec<String>) -> Vec<Vec<String>> {
        let step = ids.len().div_ceil(SAMPLES).max(1);
        let skip = self.samples % step;
        self.samples = self.samples.wrapping_add(1);
        let mut parts: Vec<Vec<String>> = ids.into_iter().rev().skip(skip).step_by(step).map(|id| vec![id]).collect();
        parts.reverse();
        parts
    }

    /// Whether this job is left out.
    pub(crate) fn contains(&self, id: &str) -> bool {
        self.until.contains_key(id)
    }

    /// Leaves out a job of which the database has refused the change.
    pub(crate) fn leave_out(&mut self, id: String, error: &sqlx::Error) {
        self.log(&id, error);
        if self.until.len() < MOST {
            self.until.insert(id, Instant::now() + LEFT_OUT);
        }
    }

    /// Logs that the database has refused to change a job.
    pub(crate) fn log(&mut self, id: &str, error: &sqlx::Error) {
        let now = Instant::now();
        if now >= self.lines_since + LEFT_OUT {
            (self.lines, self.lines_since) = (0, now);
        }
        self.lines = self.lines.saturating_add(1);
        if self.lines <= MOST_LINES {
            let (action, error) = (self.action, causes(error));
            tracing::warn!(job = id, action, error, "the database refuses to change a job; it is left out for a while");
        }
    }
}

/// Jobs that are changed in parts: of one that the database refuses, each half is tried, down to single jobs.
#[derive(Debug)]
pub(crate) struct Parts<T> {
    /// The parts to try, the next one last: the jobs keep their order.
    pub left: Vec<Vec<T>>,
    /// The single jobs that the database has refused.
    pub refused: Vec<(T, sqlx::Error)>,
    /// The error of the last part that was refused.
    error: Option<sqlx::Error>,
    /// Whether a job was changed.
    pub succeeds: bool,
}

impl<T> Parts<T> {
    /// All jobs as one part, if there are any.
    pub(crate) fn of(jobs: Vec<T>) -> Self {
        let left = if jobs.is_empty() { Vec::new() } else { vec![jobs] };
        Self { left, refused: Vec::new(), error: None, succeeds: false }
    }

    /// Takes the next part, of at most this many jobs.
    pub(crate) fn next(&mut self, most: usize) -> Option<Vec<T>> {
        let mut part = self.left.pop()?;
        if part.len() > most {
            let more = part.split_off(most);
            self.left.push(more);
        }
        Some(part)
    }

    /// Records the result of a part. `None` if the database has refused one of its rows.
    ///
    /// # Errors
    /// Returns every other error.
    pub(crate) fn record<R>(&mut self, part: Vec<T>, result: sqlx::Result<R>) -> sqlx::Result<Option<R>> {
        match result {
            Ok(changed) => Ok(Some(changed)),
            Err(error) if !may_be_of_one_row(&error) => Err(error),
            Err(error) => {
                self.refuse(part, error);
                Ok(None)
            }
        }
    }

    fn refuse(&mut self, mut part: Vec<T>, error: sqlx::Error) {
        if part.len() < 2 {
            self.refused.extend(part.pop().map(|job| (job, error)));
        } else {
            let half = part.split_off(part.len() / 2);
            self.left.extend([half, part]);
            self.error = Some(error);
        }
    }

    /// The jobs to leave out.
    ///
    /// # Errors
    /// Returns the last refusal if no job was changed: then the cause is hardly one of the rows.
    pub(crate) fn into_refused(mut self) -> sqlx::Result<Vec<(T, sqlx::Error)>> {
        if !self.succeeds
            && let Some(error) = self.refused.pop().map(|(_, error)| error).or(self.error)
        {
            return Err(error);
        }
        Ok(self.refused)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn halves_are_tried_until_the_refused_jobs_are_left_out() {
        let all: Vec<String> = (0..20).map(|number| number.to_string()).collect();
        let mut refused = RefusedJobs::new("claim");
        assert!(refused.is_empty());
        let (mut parts, mut changed, mut tries) = (refused.parts(all.clone()), Vec::new(), 0);
        while let Some(part) = parts.next(15) {
            tries += 1;
            if part.iter().any(|id| id == "3" || id == "17") {
                parts.refuse(part, sqlx::Error::RowNotFound);
            } else {
                changed.extend(part);
            }
        }
        parts.succeeds = true;
        for (id, error) in parts.into_refused().expect("jobs were changed") {
            refused.leave_out(id, &error);
        }
        let others: Vec<String> = all.iter().filter(|id| !["3", "17"].contains(&id.as_str())).cloned().collect();
        assert_eq!(changed, others, "in their order");
        assert!(tries <= 21, "{tries}");
        assert!(!refused.is_empty());
        let mut left_out = refused.ids();
        left_out.sort();
        assert_eq!(left_out, ["17", "3"]);
        assert_eq!(refused.parts(all).left, [others]);
        assert!(refused.parts(left_out).left.is_empty());
    }

    #[test]
    fn if_all_are_refused_none_is_left_out() {
        let mut parts = Parts::of(vec![1, 2]);
        while let Some(part) = parts.next(2) {
            parts.refuse(part, sqlx::Error::RowNotFound);
        }
        assert_eq!(parts.refused.len(), 2);
        assert!(parts.into_refused().is_err());
        let nothing = Parts::<u8>::of(Vec::new()).into_refused();
        assert!(nothing.is_ok_and(|refused| refused.is_empty()));
    }

    #[test]
    fn samples_are_of_the_whole_backlog() {
        let cases: [(usize, &[&str]); 5] = [
            (0, &[]),
            (1, &["0"]),
            (5, &["0", "1", "2", "3", "4"]),
            (7, &["0", "2", "4", "6"]),
            (1000, &["199", "399", "599", "799", "999"]),
        ];
        for (jobs, expected) in cases {
            let mut refused = RefusedJobs::new("claim");
            let ids: Vec<String> = (0..jobs).map(|number| number.to_string()).collect();
            let parts = refused.samples(ids.clone());
            assert_eq!(parts.concat(), expected, "{jobs} jobs");
            assert!(parts.iter().all(|part| part.len() == 1));
            let others = (0..jobs.div_ceil(SAMPLES)).flat_map(|_| refused.samples(ids.clone()));
            assert_eq!(others.flatten().collect::<HashSet<String>>().len(), jobs, "every job has its turn");
        }
    }
}
