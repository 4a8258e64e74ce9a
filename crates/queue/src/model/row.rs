//! One job, as the statements of the store read and write it. Each function is one statement and returns the row after
//! it; `None` if the statement does not change the row.

use super::guard::{Guard, Rules};

/// The number of a worker.
pub(super) type Name = u8;

/// The column `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Status {
    Pending,
    Running,
    Done,
    Killed,
    Cancelled,
}

/// The column `run_at`, compared with the database's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    Now,
    /// Within the next 2.5 s.
    Soon,
    Later,
}

/// The column `done_at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ended {
    No,
    Recently,
    /// Longer ago than the retention of its status.
    LongAgo,
}

/// What a run's result does to its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    Done,
    Retry,
    Snooze,
    Dead,
    GivenBack,
    Cancelled,
}

impl Outcome {
    pub(super) const ALL: [Self; 6] =
        [Self::Done, Self::Retry, Self::Snooze, Self::Dead, Self::GivenBack, Self::Cancelled];
}

/// The fencing token of a run, without the job's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub worker: Name,
    pub attempt: u8,
}

/// The columns of a job that statements decide by. `cancel_requested` is its row in `cancellations`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Job {
    pub status: Status,
    /// The column `lock_by`. It stays after the run has ended.
    pub holder: Option<Name>,
    pub attempts: u8,
    pub failures: u8,
    pub crashes: u8,
    pub replays: u8,
    pub due: Due,
    pub ended: Ended,
    pub has_key: bool,
    pub cancel_requested: bool,
}

impl Job {
    /// A job that `insert` or `insert_unique` creates.
    pub(super) fn new(due: Due, has_key: bool) -> Self {
        Self {
            status: Status::Pending,
            holder: None,
            attempts: 0,
            failures: 0,
            crashes: 0,
            replays: 0,
            due,
            ended: Ended::No,
            has_key,
            cancel_requested: false,
        }
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.status, Status::Pending | Status::Running)
    }

    /// Whether this run holds the job.
    pub(super) fn is_held_by(&self, token: Token) -> bool {
        self.status == Status::Running && self.holder == Some(token.worker) && self.attempts == token.attempt
    }

    /// `claim`.
    pub(super) fn claim(self, worker: Name, is_paused: bool, rules: Rules) -> Option<Self> {
        let may = rules.allow(Guard::ClaimPending, self.status == Status::Pending)
            && rules.allow(Guard::ClaimDue, self.due == Due::Now)
            && rules.allow(Guard::ClaimPause, !is_paused);
        let attempts = self.attempts + u8::from(rules.has(Guard::ClaimCounts));
        may.then_some(Self { status: Status::Running, holder: Some(worker), attempts, ..self })
    }

    /// Whether a result with this token changes the row.
    pub(super) fn accepts(&self, token: Token, rules: Rules) -> bool {
        rules.allow(Guard::ResultRunning, self.status == Status::Running)
            && rules.allow(Guard::ResultHolder, self.holder == Some(token.worker))
            && rules.allow(Guard::ResultAttempt, self.attempts == token.attempt)
    }

    /// `finish` for a run that is done, else `put_back`.
    pub(super) fn write(self, token: Token, outcome: Outcome, survived: bool, rules: Rules) -> Option<Self> {
        let status = match outcome {
            Outcome::Done => Status::Done,
            Outcome::Retry | Outcome::Snooze | Outcome::GivenBack => Status::Pending,
            Outcome::Dead => Status::Killed,
            Outcome::Cancelled => Status::Cancelled,
        };
        let failed = matches!(outcome, Outcome::Retry | Outcome::Dead | Outcome::Cancelled);
        let waits = matches!(outcome, Outcome::Retry | Outcome::Snooze);
        let written = Self {
            status,
            failures: self.failures + u8::from(failed),
            crashes: if survived { 0 } else { self.crashes },
            due: match outcome {
                Outcome::Done => self.due,
                _ if waits => Due::Later,
                _ => Due::Now,
            },
            ended: if status == Status::Pending { Ended::No } else { Ended::Recently },
            ..self
        };
        self.accepts(token, rules).then_some(written)
    }

    /// `rescue` of a silent worker. `is_renewed` says that the worker has renewed its lease since the check.
    pub(super) fn rescue(self, worker: Name, is_renewed: bool, rules: Rules) -> Option<Self> {
        let may = rules.allow(Guard::RescueRunning, self.status == Status::Running)
            && rules.allow(Guard::RescueHolder, self.holder == Some(worker))
            && rules.allow(Guard::RescueVersion, !is_renewed);
        let due = if self.crashes > 0 { Due::Soon } else { Due::Now };
        let crashes = self.crashes + u8::from(rules.has(Guard::RescueCounts));
        may.then_some(Self { status: Status::Pending, crashes, due, ..self })
    }

    /// Whether `find_lost_claims` returns it. `is_known` says that the worker knows its current run.
    pub(super) fn is_lost(&self, worker: Name, is_known: bool, rules: Rules) -> bool {
        rules.allow(Guard::GiveBackRunning, self.status == Status::Running)
            && rules.allow(Guard::GiveBackHolder, self.holder == Some(worker))
            && rules.allow(Guard::GiveBackUnknown, !is_known)
    }

    /// `give_back_lost_claims` for a run that `find_lost_claims` has returned.
    pub(super) fn give_back(self, lost: Token, rules: Rules) -> Option<Self> {
        let may = rules.allow(Guard::GiveBackRunning, self.status == Status::Running)
            && rules.allow(Guard::GiveBackHolder, self.holder == Some(lost.worker))
            && rules.allow(Guard::GiveBackAttempt, self.attempts == lost.attempt);
        may.then_some(Self { status: Status::Pending, due: Due::Now, ..self })
    }

    /// `cancel`, of a waiting job.
    pub(super) fn cancel(self, rules: Rules) -> Option<Self> {
        let may = rules.allow(Guard::CancelPending, self.status == Status::Pending);
        may.then_some(Self { status: Status::Cancelled, ended: Ended::Recently, ..self })
    }

    /// `replay`, which withdraws a request to cancel the job also if it changes nothing else. Operators call it only for
    /// ended jobs. `key_is_taken` says that another job with its key waits or runs.
    pub(super) fn replay(self, key_is_taken: bool, rules: Rules) -> Option<Self> {
        let cancel_requested = self.cancel_requested && !rules.has(Guard::ReplayWithdraws);
        if !self.may_be_replayed(rules) || !rules.allow(Guard::ReplayKey, !key_is_taken) {
            return (cancel_requested != self.cancel_requested).then_some(Self { cancel_requested, ..self });
        }
        Some(Self {
            status: Status::Pending,
            due: Due::Now,
            ended: Ended::No,
            failures: 0,
            crashes: 0,
            replays: self.replays + 1,
            cancel_requested,
            ..self
        })
    }

    pub(super) fn may_be_replayed(&self, rules: Rules) -> bool {
        rules.allow(Guard::ReplayDead, matches!(self.status, Status::Killed | Status::Cancelled))
    }

    /// `discard`, of a dead letter.
    pub(super) fn discard(self, rules: Rules) -> Option<Self> {
        let may = rules.allow(Guard::DiscardKilled, self.status == Status::Killed);
        may.then_some(Self { status: Status::Cancelled, ended: Ended::Recently, ..self })
    }

    /// Whether `delete_expired` deletes it.
    pub(super) fn is_expired(&self, rules: Rules) -> bool {
        rules.allow(Guard::DeleteEnded, !self.is_live()) && rules.allow(Guard::DeleteOld, self.ended == Ended::LongAgo)
    }

    /// `cancellations`, which deletes the requests of ended jobs.
    pub(super) fn tidy(self, rules: Rules) -> Option<Self> {
        let may = self.cancel_requested && rules.allow(Guard::TidyEnded, !self.is_live());
        may.then_some(Self { cancel_requested: false, ..self })
    }
}
