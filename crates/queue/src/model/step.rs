//! The steps of the model: the state after each action.

use super::{
    guard::{Guard, Rules},
    row::{Due, Ended, Job, Name, Outcome, Status, Token},
    state::{Action, Limits, MAX_CRASHES, Moment, State, WORKERS, Work},
};

/// Failures that a job may have; the last one makes it a dead letter.
const ATTEMPTS: u8 = 2;

impl State {
    /// The state after an action; `None` if it is impossible or changes nothing.
    pub(super) fn apply(&self, action: Action, limits: Limits, rules: Rules) -> Option<Self> {
        let mut next = *self;
        let is_possible = match action {
            Action::Enqueue { job, unique } => {
                let is_free = !unique || rules.allow(Guard::InsertKey, !self.is_key_taken(job));
                let may = !self.work[job].was_enqueued && is_free;
                next.work[job] = Work { was_enqueued: true, job: Some(Job::new(Due::Later, unique)), ..self.work[job] };
                may
            }
            Action::Claim { worker, job, moment, response_lost } => {
                let due = if moment == Moment::NotDue { Due::Later } else { Due::Now };
                // A claim that a worker sent before its end may be executed after it.
                (response_lost || self.is_alive(worker))
                    && next.change(job, |_, job| Job { due, ..job }.claim(worker, moment == Moment::Paused, rules))
                    && {
                        next.work[job].is_run = !response_lost;
                        next.work[job].job.is_some_and(|claimed| claimed.attempts <= limits.claims)
                    }
            }
            Action::RecordEffect { job } => {
                self.work[job].is_run && self.work[job].may_run(rules) && next.work[job].record_effect(rules)
            }
            Action::WriteResult { job, outcome } => {
                next.work[job].is_run = false;
                self.work[job].may_end(outcome, rules)
                    && next.change(job, |_, job| {
                        let token = Token { worker: job.holder?, attempt: job.attempts };
                        job.write(token, outcome, job.survives(outcome), rules)
                    })
            }
            Action::RecordStaleEffect { worker, job } => {
                self.work[job].stale[usize::from(worker)] && next.work[job].record_effect(rules)
            }
            Action::EndStaleRun { worker, job } => std::mem::take(&mut next.work[job].stale[usize::from(worker)]),
            Action::GiveBackLostClaims { worker } => {
                self.is_alive(worker)
                    && rules.has(Guard::GiveBack)
                    && next.change_all(|work, job| {
                        let lost = Token { worker, attempt: job.attempts };
                        let is_lost = job.is_lost(worker, work.is_known_to(worker), rules);
                        is_lost.then(|| job.give_back(lost, rules)).flatten()
                    })
            }
            Action::Rescue { worker, is_renewed } => {
                rules.has(Guard::Rescue)
                    && (self.is_alive(worker) || !is_renewed)
                    && next.change_all(|_, job| job.rescue(worker, is_renewed, rules))
            }
            Action::Crash { worker } => next.crash(worker),
            // A new process has a new name. Here it takes over a name under which no job runs.
            Action::Restart { worker } => {
                let holds = |job: Job| job.status == Status::Running && job.holder == Some(worker);
                next.workers[usize::from(worker)] = true;
                !self.is_alive(worker) && !self.jobs().any(holds)
            }
            // The operator locks the row, and reads the status to choose the statement.
            Action::Cancel { job } => next.change(job, |_, job| {
                if job.status == Status::Running && rules.has(Guard::CancelPending) {
                    return (!job.cancel_requested).then_some(Job { cancel_requested: true, ..job });
                }
                job.cancel(rules)
            }),
            Action::Replay { job } => {
                let is_key_taken = self.is_key_taken(job);
                next.change(job, |_, job| {
                    let may = job.replays < limits.replays && job.may_be_replayed(rules);
                    job.replay(job.has_key && is_key_taken, rules).filter(|_| may)
                })
            }
            Action::Discard { job } => next.change(job, |_, job| job.discard(rules)),
            Action::DeleteOldRequests => next.change_all(|_, job| job.tidy(rules)),
            Action::DeleteExpired { job, is_old } => {
                let aged = |job: Job| match job.ended {
                    Ended::Recently if is_old => Job { ended: Ended::LongAgo, ..job },
                    _ => job,
                };
                next.work[job].job.take_if(|job| aged(*job).is_expired(rules)).is_some()
            }
        };
        is_possible.then_some(next)
    }

    pub(super) fn is_alive(&self, worker: Name) -> bool {
        self.workers[usize::from(worker)]
    }

    /// Ends a process, and with it all its runs. A result that it has sent was written before, or counts as lost.
    fn crash(&mut self, worker: Name) -> bool {
        for work in &mut self.work {
            work.stale[usize::from(worker)] = false;
            work.is_run &= work.job.is_some_and(|job| job.holder != Some(worker));
        }
        std::mem::take(&mut self.workers[usize::from(worker)])
    }

    /// Changes a job if `change` returns one. Returns whether it did.
    fn change(&mut self, job: usize, change: impl Fn(&Work, Job) -> Option<Job>) -> bool {
        let work = &mut self.work[job];
        let Some((before, after)) = work.job.and_then(|job| Some((job, change(work, job)?))) else { return false };
        work.job = Some(after);
        let token = |job: Job| (job.status, job.holder, job.attempts);
        if before.status == Status::Running && token(before) != token(after) {
            let was_run = std::mem::take(&mut work.is_run);
            if let Some(holder) = before.holder.filter(|_| was_run) {
                work.stale[usize::from(holder)] = true;
            }
        }
        true
    }

    /// Changes every job for which `change` returns one. Returns whether there is one.
    fn change_all(&mut self, change: impl Fn(&Work, Job) -> Option<Job>) -> bool {
        (0..self.work.len()).fold(false, |any, job| self.change(job, &change) | any)
    }
}

impl Work {
    /// Records the effect, unless it is recorded. Returns whether it did.
    fn record_effect(&mut self, rules: Rules) -> bool {
        let may = rules.allow(Guard::ConditionalEffect, self.effects == 0);
        self.effects = (self.effects + u8::from(may)).min(2);
        may
    }

    /// Whether the worker knows the current run, so that it is no lost claim.
    fn is_known_to(&self, worker: Name) -> bool {
        self.is_run && self.job.is_some_and(|job| job.holder == Some(worker))
    }

    /// Whether the current run may have effects. A job with three crashes is not run.
    fn may_run(&self, rules: Rules) -> bool {
        self.job.is_some_and(|job| rules.allow(Guard::Quarantine, job.crashes < MAX_CRASHES))
    }

    /// Whether the current run may have this result.
    fn may_end(&self, outcome: Outcome, rules: Rules) -> bool {
        let Some(job) = self.job.filter(|_| self.is_run) else { return false };
        match outcome {
            // A run is done if it has recorded its effect, or has found it recorded.
            Outcome::Done => self.may_run(rules) && self.effects > 0,
            Outcome::Snooze => self.may_run(rules),
            // `on_discard` of a quarantined job may fail, which is retried.
            Outcome::Retry => job.failures + 1 < ATTEMPTS || job.crashes >= MAX_CRASHES,
            Outcome::Dead | Outcome::GivenBack => true,
            Outcome::Cancelled => job.cancel_requested,
        }
    }
}

impl Job {
    /// Whether the runner reports that the run ended without a crash.
    fn survives(&self, outcome: Outcome) -> bool {
        self.crashes < MAX_CRASHES && matches!(outcome, Outcome::Retry | Outcome::Snooze)
    }
}

/// The next step of a system in which nothing fails any more; `None` if there is no step.
pub(super) fn next_fair_step(state: &State, rules: Rules) -> Option<State> {
    let mut steps = Vec::new();
    for worker in WORKERS {
        steps.push(Action::Restart { worker });
        if !state.is_alive(worker) {
            steps.push(Action::Rescue { worker, is_renewed: false });
        }
    }
    for (job, work) in state.work.iter().enumerate() {
        if work.is_run {
            let outcome = if work.may_run(Rules::ALL) { Outcome::Done } else { Outcome::Dead };
            steps.extend([Action::WriteResult { job, outcome }, Action::RecordEffect { job }]);
        }
        steps.extend(WORKERS.map(|worker| Action::EndStaleRun { worker, job }));
    }
    for job in 0..state.work.len() {
        let claim = |worker| Action::Claim { worker, job, moment: Moment::Due, response_lost: false };
        steps.extend(WORKERS.map(claim));
    }
    steps.extend(WORKERS.map(|worker| Action::GiveBackLostClaims { worker }));
    steps.into_iter().find_map(|action| state.apply(action, Limits::NONE, rules))
}
