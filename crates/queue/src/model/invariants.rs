//! What must hold in every step, written without the guards that ensure it.

use super::{
    guard::Rules,
    row::{Job, Outcome, Status, Token},
    state::{Action, MAX_CRASHES, Moment, State, WORKERS, Work},
};

/// Returns what a step has broken.
pub(super) fn check(before: &State, action: Action, after: &State, rules: Rules) -> Option<&'static str> {
    if after.jobs().filter(|job| job.has_key && job.is_live()).count() > 1 {
        return Some("two jobs with one key wait or run");
    }
    let mut numbers = 0..before.work.len();
    numbers.find_map(|number| {
        let (old, new) = (&before.work[number], &after.work[number]);
        check_work(action, old, new).or_else(|| check_job(before, action, number, rules, new.job?))
    })
}

fn check_work(action: Action, old: &Work, new: &Work) -> Option<&'static str> {
    if new.effects > 1 {
        return Some("the effect of a job was recorded twice");
    }
    match (old.job, new.job) {
        (Some(deleted), None) if deleted.is_live() => Some("a job that waits or runs was deleted"),
        (Some(_), None) if !matches!(action, Action::DeleteExpired { is_old: true, .. }) => {
            Some("a job was deleted before its retention")
        }
        (_, Some(job)) if job.status == Status::Done && new.effects == 0 => Some("a job is done without its effect"),
        _ => None,
    }
}

fn check_job(state: &State, action: Action, number: usize, rules: Rules, after: Job) -> Option<&'static str> {
    if accepts_stale_token(after, rules) {
        return Some("the result of a stale run would change its job");
    }
    if gives_back_later_run(after, rules) {
        return Some("a lost claim that is given back late would take the job from a later run");
    }
    let before = state.work[number].job?;
    if after.attempts < before.attempts {
        return Some("the attempts of a job fell");
    }
    match action {
        Action::Claim { job, moment, .. } if job == number => check_claim(moment, before, after),
        Action::RecordEffect { job } | Action::WriteResult { job, outcome: Outcome::Done | Outcome::Snooze }
            if job == number && before.crashes >= MAX_CRASHES =>
        {
            Some("a job with three crashes ran again")
        }
        // Its token is that of the current run, as `accepts_stale_token` has checked.
        Action::WriteResult { .. } => None,
        _ if before == after => None,
        _ => check_change(state, action, number, before, after),
    }
}

/// Whether the job accepts a token that an earlier run had, or that of its last run after that has ended.
fn accepts_stale_token(job: Job, rules: Rules) -> bool {
    let earlier = (1..job.attempts).flat_map(|attempt| WORKERS.map(|worker| Token { worker, attempt }));
    let last = job.holder.map(|worker| Token { worker, attempt: job.attempts });
    earlier.chain(last).any(|token| job.accepts(token, rules) && !job.is_held_by(token))
}

/// Whether a worker that has found an earlier run lost, and gives it back only now, would change the job.
fn gives_back_later_run(job: Job, rules: Rules) -> bool {
    let mut earlier = (1..job.attempts).flat_map(|attempt| WORKERS.map(|worker| Token { worker, attempt }));
    earlier.any(|lost| job.give_back(lost, rules).is_some())
}

fn check_claim(moment: Moment, before: Job, after: Job) -> Option<&'static str> {
    match before.status {
        Status::Pending if moment == Moment::Paused => Some("a paused queue was claimed from"),
        Status::Pending if moment == Moment::NotDue => Some("a job was claimed before it is due"),
        Status::Pending if after.attempts == before.attempts => Some("two runs have the same token"),
        Status::Pending => None,
        Status::Running => Some("a running job was claimed"),
        Status::Done => Some("a job that is done runs again"),
        Status::Killed | Status::Cancelled => Some("a dead or cancelled job was claimed"),
    }
}

/// Checks a change of a row by anything but a claim or a result.
fn check_change(state: &State, action: Action, number: usize, before: Job, after: Job) -> Option<&'static str> {
    let by_replay = matches!(action, Action::Replay { .. });
    if before.cancel_requested && !after.cancel_requested && before.is_live() {
        return Some("a request to cancel was lost");
    }
    if by_replay && after.cancel_requested {
        return Some("a replayed job would be cancelled at once");
    }
    if matches!(action, Action::Rescue { .. }) && after.crashes <= before.crashes {
        return Some("a rescue counted no crash");
    }
    if before.status == after.status {
        return None;
    }
    match before.status {
        Status::Done => Some("a job that is done changed"),
        Status::Killed if by_replay || matches!(action, Action::Discard { .. }) => None,
        Status::Cancelled if by_replay => None,
        Status::Killed | Status::Cancelled => Some("a dead or cancelled job changed without an order"),
        Status::Running if holder_keeps_it(state, action, number) => {
            Some("a job was taken from a live worker that runs it")
        }
        Status::Pending if matches!(action, Action::Discard { .. }) => Some("a waiting job was discarded"),
        Status::Running | Status::Pending => None,
    }
}

/// Whether the holder of a job runs it, and was not silent.
fn holder_keeps_it(state: &State, action: Action, number: usize) -> bool {
    let work = &state.work[number];
    let holder = work.job.and_then(|job| job.holder).filter(|_| work.is_run);
    let was_silent = |holder| matches!(action, Action::Rescue { worker, is_renewed: false } if worker == holder);
    holder.is_some_and(|holder| !was_silent(holder))
}
