//! The checker: reads a history once, from first to last, and counts the broken promises.

mod limits;
mod runs;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    io,
};

use serde::Serialize;

use self::{limits::Limits, runs::Runs};
use crate::history::{Event, Line, Outcome, State};

/// How many broken promises of one kind are named; the others are only counted.
const NAMED: usize = 5;
/// The number of contradicting payloads that are kept for one transaction.
const KEPT_CONFLICTS: usize = 20;

/// The result of a check.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Webhooks that got a 202.
    pub acknowledged: usize,
    /// Responses 503, each with a `Retry-After`.
    pub unavailable: usize,
    /// Requests without a response.
    pub unanswered: usize,
    /// Acknowledged transactions that do not exist or were not settled.
    pub lost: usize,
    /// Effects that happened twice: settlements, jobs, calls with another key, fires of a schedule.
    pub doubled: usize,
    /// Other broken promises.
    pub broken: usize,
    /// The first broken promises of each kind, for people.
    pub examples: Vec<String>,
}

impl Verdict {
    /// Whether every promise was kept.
    pub fn is_kept(&self) -> bool {
        self.lost + self.doubled + self.broken == 0
    }

    fn lose(&mut self, example: String) {
        self.lost += 1;
        self.name(self.lost, "lost", example);
    }

    fn double(&mut self, example: String) {
        self.doubled += 1;
        self.name(self.doubled, "doubled", example);
    }

    fn break_promise(&mut self, example: String) {
        self.broken += 1;
        self.name(self.broken, "broken", example);
    }

    fn name(&mut self, number: usize, kind: &str, example: String) {
        if number <= NAMED {
            self.examples.push(format!("{kind}: {example}"));
        }
    }
}

/// What is known of one transaction.
#[derive(Default)]
struct Known {
    acknowledged: bool,
    /// Payloads whose contradiction was acknowledged.
    conflicts: HashSet<u32>,
    /// The state that each client saw last.
    seen: HashMap<usize, State>,
    /// The idempotency key of the calls.
    key: Option<String>,
    recorded: bool,
}

/// Checks a history in one pass. It needs memory for each transaction, and time for each event.
///
/// # Errors
/// When an event cannot be read.
pub(crate) fn check(history: impl Iterator<Item = io::Result<Line>>) -> io::Result<Verdict> {
    let mut checker = Checker::default();
    for line in history {
        let Line { at_ms, event } = line?;
        checker.read(at_ms, event);
    }
    Ok(checker.finish())
}

/// Checks a history that goes on, and the state of the database at one moment of it. The first `before` events were
/// recorded before that moment. Later ones of clients are left out, because the state does not have what they saw. What may
/// still come until `now_ms` is over counts as no broken promise.
///
/// # Errors
/// When an event cannot be read.
pub(crate) fn check_so_far(
    history: impl Iterator<Item = io::Result<Line>>,
    before: usize,
    now_ms: u64,
    state: Vec<Event>,
) -> io::Result<Verdict> {
    let mut checker = Checker { goes_on_at_ms: Some(now_ms), ..Checker::default() };
    for (number, line) in history.enumerate() {
        let Line { at_ms, event } = line?;
        let is_later = number >= before && matches!(event, Event::Acknowledged { .. } | Event::Seen { .. });
        if !is_later {
            checker.read(at_ms, event);
        }
    }
    for event in state {
        checker.read(now_ms, event);
    }
    Ok(checker.finish())
}

#[derive(Default)]
struct Checker {
    /// Set while the history goes on: the milliseconds since it began.
    goes_on_at_ms: Option<u64>,
    verdict: Verdict,
    transactions: HashMap<String, Known>,
    /// The process ids of each role's workers.
    workers: HashMap<String, HashSet<u32>>,
    /// The jobs of each fire of the schedule.
    fires: HashMap<i64, String>,
    completed: HashSet<String>,
    /// The items that were created, and whether the search engine has them.
    items: BTreeMap<i64, bool>,
    runs: Runs,
    limits: Limits,
}

impl Checker {
    fn read(&mut self, at_ms: u64, event: Event) {
        for example in [self.runs.add(at_ms, &event), self.limits.add(&event)].into_iter().flatten() {
            self.verdict.break_promise(example);
        }
        self.add(event);
    }

    fn add(&mut self, event: Event) {
        let verdict = &mut self.verdict;
        match event {
            Event::Worker { role, pid } => drop(self.workers.entry(role).or_default().insert(pid)),
            Event::Sent { .. } | Event::Fault { .. } => {}
            Event::Created { item } => drop(self.items.entry(item).or_default()),
            Event::Indexed { item } => drop(self.items.insert(item, true)),
            // The rules about runs read these.
            Event::Started { .. } | Event::Failed { .. } | Event::Ended { .. } | Event::Expected { .. } => {}
            // The rule about limits reads these.
            Event::Entered { .. } | Event::Left { .. } | Event::Killed { .. } => {}
            Event::Renewed { .. } | Event::Claimed { .. } | Event::Rescued { .. } | Event::Retried { .. } => {}
            Event::Unavailable { .. } => verdict.unavailable += 1,
            Event::Unanswered { .. } => verdict.unanswered += 1,
            Event::Refused { id, reason } => verdict.break_promise(format!("{id}: {reason}")),
            Event::Broken { what } => verdict.break_promise(what),
            Event::Acknowledged { id, payload, outcome } => self.acknowledge(id, payload, outcome),
            Event::Seen { client, id, state } => self.see(client, id, state),
            Event::Called { id, key } => self.call(id, key),
            Event::Fired { fire_time, job } => {
                if let Some(other) = self.fires.insert(fire_time, job.clone()).filter(|other| *other != job) {
                    self.verdict.double(format!("the schedule fired twice at {fire_time}: jobs {other} and {job}"));
                }
            }
            Event::Completed { job, role, claimed_by, .. } => self.complete(job, &role, &claimed_by),
            Event::Recorded { id, state, settlements, jobs, conflicts } => {
                self.record(id, state, settlements, jobs, conflicts);
            }
        }
    }

    fn acknowledge(&mut self, id: String, payload: u32, outcome: Outcome) {
        self.verdict.acknowledged += 1;
        let known = self.transactions.entry(id.clone()).or_default();
        known.acknowledged = true;
        match (payload, outcome) {
            (0, Outcome::Conflict) => self.verdict.break_promise(format!("{id}: its own payload was a conflict")),
            (0, _) => {}
            (_, Outcome::Conflict) => drop(known.conflicts.insert(payload)),
            (_, _) => self.verdict.break_promise(format!("{id}: a contradicting payload was accepted as its own")),
        }
    }

    fn see(&mut self, client: usize, id: String, state: State) {
        let known = self.transactions.entry(id.clone()).or_default();
        if let Some(before) = known.seen.insert(client, state.clone()).filter(|before| before.is_settled())
            && before != state
        {
            self.verdict.break_promise(format!("{id} went from {before:?} to {state:?}"));
        }
    }

    fn call(&mut self, id: String, key: String) {
        let known = self.transactions.entry(id.clone()).or_default();
        if let Some(other) = known.key.replace(key.clone()).filter(|other| *other != key) {
            self.verdict.double(format!("{id}: called with the keys {other} and {key}"));
        }
    }

    /// The role must be that of the worker that held the job: another one was stale.
    fn complete(&mut self, job: String, role: &str, claimed_by: &str) {
        let pid = claimed_by.rsplit('-').nth(1).and_then(|pid| pid.parse().ok());
        let is_own = pid.is_some_and(|pid: u32| self.workers.get(role).is_some_and(|pids| pids.contains(&pid)));
        if !is_own {
            self.verdict.break_promise(format!("{role} completed the job {job}, which {claimed_by} held"));
        }
        if !self.completed.insert(job.clone()) {
            self.verdict.double(format!("the job {job} was completed twice"));
        }
    }

    fn record(&mut self, id: String, state: State, settlements: u32, jobs: u32, conflicts: u32) {
        let known = self.transactions.entry(id.clone()).or_default();
        if known.recorded {
            self.verdict.double(format!("{id} has two rows"));
        }
        known.recorded = true;
        match state.is_settled() {
            false if self.goes_on_at_ms.is_some() => {}
            false if known.acknowledged => self.verdict.lose(format!("{id} was acknowledged and is not settled")),
            false => self.verdict.break_promise(format!("{id} is not settled")),
            true if known.key.is_none() => self.verdict.break_promise(format!("{id} was settled without a call")),
            true => {}
        }
        for seen in known.seen.values().filter(|seen| seen.is_settled() && **seen != state) {
            self.verdict.break_promise(format!("{id}: a client saw {seen:?}, and the database has {state:?}"));
        }
        if settlements > 1 {
            self.verdict.double(format!("{id} was settled {settlements} times"));
        }
        if jobs > 1 {
            self.verdict.double(format!("{id} has {jobs} jobs"));
        }
        let expected = known.conflicts.len().min(KEPT_CONFLICTS);
        if (conflicts as usize) < expected {
            self.verdict
                .break_promise(format!("{id}: {expected} conflicts were acknowledged, {conflicts} are recorded"));
        }
    }

    fn finish(mut self) -> Verdict {
        let mut lost: Vec<&String> =
            self.transactions.iter().filter(|(_, t)| t.acknowledged && !t.recorded).map(|(id, _)| id).collect();
        lost.sort();
        for id in lost {
            self.verdict.lose(format!("{id} was acknowledged and does not exist"));
        }
        for example in self.runs.finish(self.goes_on_at_ms) {
            self.verdict.break_promise(example);
        }
        if self.goes_on_at_ms.is_some() {
            return self.verdict;
        }
        for (item, _) in self.items.iter().filter(|(_, is_indexed)| !**is_indexed) {
            self.verdict.lose(format!("the item {item} was created and never given to the search engine"));
        }
        // The schedule has a fire in every second, and makes up those that it missed.
        let times: BTreeSet<i64> = self.fires.keys().copied().collect();
        if let (Some(first), Some(last)) = (times.first(), times.last()) {
            for missing in (*first..=*last).filter(|second| !times.contains(second)) {
                self.verdict.break_promise(format!("the schedule did not fire at {missing}"));
            }
        }
        self.verdict
    }
}

#[cfg(test)]
mod tests;
