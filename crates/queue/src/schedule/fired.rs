//! Past fires, and what came of their jobs.

use serde::Serialize;
use time::OffsetDateTime;

use super::store;

/// A row of the ledger.
#[derive(Debug, Clone, Serialize)]
pub struct Fired {
    pub schedule: String,
    /// The nominal time.
    #[serde(with = "time::serde::rfc3339")]
    pub fire_time: OffsetDateTime,
    /// `on_time`, `made_up`, `skipped` or `by_hand`.
    pub kind: String,
    #[serde(with = "time::serde::rfc3339")]
    pub fired_at: OffsetDateTime,
    /// The operator who fired by hand, or who skipped it before its time.
    pub fired_by: Option<String>,
    /// The number of missed nominal times before it that do not fire.
    pub passed_over: i32,
    /// The number of jobs that it enqueued.
    pub jobs: i32,
    /// Its first and its last job, by their ids.
    pub first_job: Option<String>,
    pub last_job: Option<String>,
    pub outcome: FireOutcome,
    /// Its jobs by their states.
    pub states: JobStates,
}

/// What came of a fire: the state of its jobs that needs most attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FireOutcome {
    /// It enqueued no job.
    NoJobs,
    /// A job is a dead letter.
    Dead,
    /// A job failed and waits for its next attempt.
    Retried,
    Running,
    Waiting,
    /// An operator cancelled a job; the others are done.
    Cancelled,
    Done,
    /// None of its jobs is known: finished jobs are deleted after a day, and earlier releases recorded no ids.
    NotKnown,
}

impl FireOutcome {
    /// All outcomes.
    pub const ALL: [Self; 8] = [
        Self::NoJobs,
        Self::Dead,
        Self::Retried,
        Self::Running,
        Self::Waiting,
        Self::Cancelled,
        Self::Done,
        Self::NotKnown,
    ];

    /// The word that operators see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoJobs => "no jobs",
            Self::Dead => "dead",
            Self::Retried => "retried",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Cancelled => "cancelled",
            Self::Done => "done",
            Self::NotKnown => "not known",
        }
    }
}

/// The jobs of a fire by their states. Deleted jobs are not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct JobStates {
    /// Without those that failed before.
    pub waiting: i64,
    /// They failed and wait for their next attempt.
    pub retried: i64,
    pub running: i64,
    pub done: i64,
    pub dead: i64,
    pub cancelled: i64,
}

impl JobStates {
    fn outcome(self, jobs: i32) -> FireOutcome {
        let by_attention = [
            (self.dead, FireOutcome::Dead),
            (self.retried, FireOutcome::Retried),
            (self.running, FireOutcome::Running),
            (self.waiting, FireOutcome::Waiting),
            (self.cancelled, FireOutcome::Cancelled),
            (self.done, FireOutcome::Done),
        ];
        match by_attention.into_iter().find(|(count, _)| *count > 0) {
            Some((_, outcome)) => outcome,
            None if jobs == 0 => FireOutcome::NoJobs,
            None => FireOutcome::NotKnown,
        }
    }
}

impl From<store::Recorded> for Fired {
    fn from(row: store::Recorded) -> Self {
        let store::Recorded { waiting, retried, running, done, dead, cancelled, .. } = row;
        let states = JobStates { waiting, retried, running, done, dead, cancelled };
        Self {
            schedule: row.schedule,
            fire_time: row.fire_time.into(),
            kind: row.kind,
            fired_at: row.fired_at.into(),
            fired_by: row.fired_by,
            passed_over: row.passed_over,
            jobs: row.jobs,
            first_job: row.first_job,
            last_job: row.last_job,
            outcome: states.outcome(row.jobs),
            states,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_is_the_state_that_needs_most_attention() {
        let none = JobStates::default();
        let done = JobStates { done: 11, ..none };
        for (states, jobs, outcome) in [
            (none, 0, FireOutcome::NoJobs),
            (none, 12, FireOutcome::NotKnown),
            (done, 12, FireOutcome::Done),
            (JobStates { cancelled: 1, ..done }, 12, FireOutcome::Cancelled),
            (JobStates { waiting: 1, ..done }, 12, FireOutcome::Waiting),
            (JobStates { running: 1, waiting: 1, ..done }, 12, FireOutcome::Running),
            (JobStates { retried: 1, running: 1, ..done }, 12, FireOutcome::Retried),
            (JobStates { dead: 1, retried: 1, ..done }, 12, FireOutcome::Dead),
        ] {
            assert_eq!(states.outcome(jobs), outcome, "{states:?}");
        }
    }
}
