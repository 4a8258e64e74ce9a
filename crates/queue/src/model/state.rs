//! The states of the model, and what can happen in it.
//!
//! Time is left out: any step may happen at any moment, however late. So a worker that is frozen, slow or cut off needs no
//! state of its own. It is a worker that takes no step for a while.
//!
//! For the same reason some things are no state but part of a step:
//!
//! - Due times and pauses. A waiting job may become due at any time, and operators may pause and resume its queue.
//!   [`Moment`] says what was the case when a claim was executed.
//! - The age of an ended job. [`Action::DeleteExpired`] says whether its retention is over.
//! - A lease. Another process may find any worker silent at any time; [`Action::Rescue`] says whether that worker has
//!   renewed its lease since.
//! - A result that is not yet written. The run goes on until then.
//! - A result of a stale run, whose job was taken away or whose result is already written.
//!   [`invariants`](super::invariants) checks in each state that the job accepts no token but that of its current run. So
//!   a state only has to know that a worker still runs it, because the run may have effects.
//! - A lost claim that was found, and is given back late. The same checks show that it changes no later run.

use super::row::{Job, Name, Outcome};

pub(super) const WORKERS: [Name; 2] = [0, 1];
pub(super) const JOBS: usize = 2;
/// `MAX_CRASHES` of the runner.
pub(super) const MAX_CRASHES: u8 = 3;

/// A job, its record, and the runs of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Work {
    /// `None` before it is enqueued, and after it is deleted.
    pub job: Option<Job>,
    pub was_enqueued: bool,
    /// How often the effect of the job was recorded.
    pub effects: u8,
    /// Its holder runs it. `false` also if the response to the claim was lost, or the holder has crashed since.
    pub is_run: bool,
    /// Which workers run it although they no longer hold it.
    pub stale: [bool; WORKERS.len()],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub work: [Work; JOBS],
    /// Which workers are alive.
    pub workers: [bool; WORKERS.len()],
}

/// When a claim is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// The job is due, and its queue is not paused.
    Due,
    NotDue,
    /// The job is due, and its queue is paused.
    Paused,
}

impl Moment {
    const ALL: [Self; 3] = [Self::Due, Self::NotDue, Self::Paused];
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Enqueue {
        job: usize,
        unique: bool,
    },
    /// If the response is lost, the job is claimed and its worker does not know.
    Claim {
        worker: Name,
        job: usize,
        moment: Moment,
        response_lost: bool,
    },
    /// The current run records its effect, such as the settlement of a transaction.
    RecordEffect {
        job: usize,
    },
    WriteResult {
        job: usize,
        outcome: Outcome,
    },
    /// A run whose job was taken away records its effect.
    RecordStaleEffect {
        worker: Name,
        job: usize,
    },
    EndStaleRun {
        worker: Name,
        job: usize,
    },
    GiveBackLostClaims {
        worker: Name,
    },
    /// By any other process that has found the worker silent.
    Rescue {
        worker: Name,
        is_renewed: bool,
    },
    Crash {
        worker: Name,
    },
    Restart {
        worker: Name,
    },
    Cancel {
        job: usize,
    },
    Replay {
        job: usize,
    },
    Discard {
        job: usize,
    },
    DeleteOldRequests,
    /// By the cleaner. `is_old` says that the retention of the job is over.
    DeleteExpired {
        job: usize,
        is_old: bool,
    },
}

/// How far a search goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub jobs: usize,
    /// Claims of one job.
    pub claims: u8,
    /// Replays of one job.
    pub replays: u8,
    /// Whether ended jobs are deleted.
    pub deletes: bool,
}

impl Limits {
    /// More than a system needs in which nothing fails any more.
    pub(super) const NONE: Self = Self { jobs: JOBS, claims: 7, replays: 1, deletes: true };
}

impl State {
    pub(super) fn new() -> Self {
        let work = Work { job: None, was_enqueued: false, effects: 0, is_run: false, stale: [false; WORKERS.len()] };
        Self { work: [work; JOBS], workers: [true; WORKERS.len()] }
    }

    /// Everything that may be possible within these limits; [`State::apply`] says what is.
    pub(super) fn actions(limits: Limits) -> Vec<Action> {
        let mut actions = vec![Action::DeleteOldRequests];
        for job in 0..limits.jobs {
            actions.push(Action::Enqueue { job, unique: false });
            if limits.jobs > 1 {
                actions.push(Action::Enqueue { job, unique: true });
            }
            actions.push(Action::RecordEffect { job });
            actions.extend([Action::Cancel { job }, Action::Replay { job }, Action::Discard { job }]);
            actions.extend(Outcome::ALL.map(|outcome| Action::WriteResult { job, outcome }));
            if limits.deletes {
                actions.extend([false, true].map(|is_old| Action::DeleteExpired { job, is_old }));
            }
            for worker in WORKERS {
                for moment in Moment::ALL {
                    let claim = |response_lost| Action::Claim { worker, job, moment, response_lost };
                    actions.extend([false, true].map(claim));
                }
                actions.extend([Action::RecordStaleEffect { worker, job }, Action::EndStaleRun { worker, job }]);
            }
        }
        for worker in WORKERS {
            actions.extend([false, true].map(|is_renewed| Action::Rescue { worker, is_renewed }));
            actions.extend([Action::Crash { worker }, Action::Restart { worker }]);
            actions.push(Action::GiveBackLostClaims { worker });
        }
        actions
    }

    pub(super) fn jobs(&self) -> impl Iterator<Item = Job> {
        self.work.iter().filter_map(|work| work.job)
    }

    /// Whether another job with the key waits or runs.
    pub(super) fn is_key_taken(&self, job: usize) -> bool {
        let others = self.work.iter().enumerate().filter(|(other, _)| *other != job);
        others.filter_map(|(_, work)| work.job).any(|other| other.has_key && other.is_live())
    }
}
