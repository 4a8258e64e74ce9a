//! The search: visits every state within the limits, breadth first, so that a counterexample is as short as possible.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    hash::BuildHasherDefault,
};

use super::{
    guard::Rules,
    invariants,
    key::KeyHasher,
    state::{Action, Limits, State},
    step::next_fair_step,
};

/// What a search visited.
#[derive(Debug)]
pub(super) struct Explored {
    /// One of each that count as the same.
    pub states: Vec<State>,
    /// Steps from one state to another one, or to itself.
    pub transitions: usize,
}

/// The shortest way to something that must not happen.
#[derive(Debug)]
pub(super) struct Counterexample {
    pub broken: &'static str,
    pub trace: Vec<Action>,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}:", self.broken)?;
        self.trace.iter().zip(1..).try_for_each(|(action, number)| writeln!(f, "  {number:2}. {action:?}"))
    }
}

/// Visits every state.
///
/// # Errors
/// The first step that breaks an invariant, or the first state from which a job cannot end.
pub(super) fn explore(limits: Limits, rules: Rules) -> Result<Explored, Counterexample> {
    let mut search = Search { limits, rules, actions: State::actions(limits), before: HashMap::default() };
    let mut known = HashSet::default();
    let mut explored = Explored { states: vec![State::new()], transitions: 0 };
    search.before.extend(explored.states.iter().map(|start| (start.key(rules), start.key(rules))));
    let mut at = 0;
    while let Some(state) = explored.states.get(at).copied() {
        let from = state.key(rules);
        for action in &search.actions {
            let Some(next) = state.apply(*action, limits, rules) else { continue };
            explored.transitions += 1;
            if let Some(broken) = invariants::check(&state, *action, &next, rules) {
                return Err(search.counterexample(broken, &state, *action));
            }
            let key = next.key(rules);
            if search.before.contains_key(&key) {
                continue;
            }
            if !completes(next, rules, &mut known) {
                let broken = "a job cannot end although nothing fails any more";
                return Err(search.counterexample(broken, &state, *action));
            }
            search.before.insert(key, from);
            explored.states.push(next);
        }
        at += 1;
    }
    Ok(explored)
}

struct Search {
    limits: Limits,
    rules: Rules,
    actions: Vec<Action>,
    /// The visited states by their keys, each with the one before it.
    before: HashMap<u64, u64, BuildHasherDefault<KeyHasher>>,
}

impl Search {
    /// The way to a visited state, and one more action.
    fn counterexample(&self, broken: &'static str, state: &State, last: Action) -> Counterexample {
        let mut keys = vec![state.key(self.rules)];
        while let Some(before) = keys.last().and_then(|key| self.before.get(key).filter(|before| *before != key)) {
            keys.push(*before);
        }
        let mut current = State::new();
        let mut trace = Vec::new();
        for key in keys.into_iter().rev().skip(1) {
            let (action, next) = self.step_to(&current, key).expect("each state follows from the one before it");
            trace.push(action);
            current = next;
        }
        trace.push(last);
        Counterexample { broken, trace }
    }

    fn step_to(&self, state: &State, key: u64) -> Option<(Action, State)> {
        self.actions.iter().find_map(|action| {
            let next = state.apply(*action, self.limits, self.rules)?;
            (next.key(self.rules) == key).then_some((*action, next))
        })
    }
}

/// Whether every job ends if nothing fails any more, workers are restarted, and no operator acts. `known` has the
/// states of which this is known.
fn completes(state: State, rules: Rules, known: &mut HashSet<u64, BuildHasherDefault<KeyHasher>>) -> bool {
    // The longest way of two jobs takes fewer steps.
    const MOST_STEPS: usize = 60;
    let mut way = Vec::new();
    let mut current = state;
    for _ in 0..MOST_STEPS {
        let key = current.key(rules);
        if known.contains(&key) || !current.jobs().any(|job| job.is_live()) {
            known.extend(way);
            return true;
        }
        way.push(key);
        let Some(next) = next_fair_step(&current, rules) else { return false };
        current = next;
    }
    false
}
