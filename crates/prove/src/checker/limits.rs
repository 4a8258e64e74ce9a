//! The rule about limited keys: no two runs of a key are at work at once.

use std::collections::{HashMap, HashSet};

use crate::history::Event;

/// A run at work.
struct AtWork {
    job: String,
    run: i32,
    pid: u32,
}

/// The state of this rule.
#[derive(Default)]
pub(super) struct Limits {
    /// By key.
    at_work: HashMap<String, AtWork>,
    /// Processes that were killed.
    killed: HashSet<u32>,
}

impl Limits {
    /// Reads an event. Returns the promise that it breaks.
    pub(super) fn add(&mut self, event: &Event) -> Option<String> {
        match event {
            // The system may give the number of an ended process to a new one.
            Event::Worker { pid, .. } => drop(self.killed.remove(pid)),
            Event::Killed { pid } => {
                self.killed.insert(*pid);
                self.at_work.retain(|_, at_work| at_work.pid != *pid);
            }
            // The report was under way when its process was killed.
            Event::Entered { pid, .. } if self.killed.contains(pid) => {}
            Event::Entered { key, job, run, pid } => {
                let entered = AtWork { job: job.clone(), run: *run, pid: *pid };
                let other = self.at_work.insert(key.clone(), entered)?;
                return Some(format!(
                    "the run {run} of the job {job} and the run {} of the job {} of {key} were at work at once",
                    other.run, other.job
                ));
            }
            Event::Left { key, job, run }
                if self.at_work.get(key).is_some_and(|at_work| at_work.job == *job && at_work.run == *run) =>
            {
                self.at_work.remove(key);
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entered(key: &str, job: &str, run: i32, pid: u32) -> Event {
        Event::Entered { key: key.into(), job: job.into(), run, pid }
    }

    fn left(key: &str, job: &str, run: i32) -> Event {
        Event::Left { key: key.into(), job: job.into(), run }
    }

    fn started(pid: u32) -> Event {
        Event::Worker { role: "r".into(), pid }
    }

    #[test]
    fn one_run_of_a_key_is_at_work() {
        let killed = |pid| Event::Killed { pid };
        for (case, events, broken) in [
            ("one after the other", vec![entered("k", "a", 1, 7), left("k", "a", 1), entered("k", "b", 1, 8)], 0),
            ("of two keys", vec![entered("k", "a", 1, 7), entered("l", "b", 1, 8)], 0),
            ("at once", vec![entered("k", "a", 1, 7), entered("k", "b", 1, 8)], 1),
            ("at once in one worker", vec![entered("k", "a", 1, 7), entered("k", "b", 1, 7)], 1),
            ("of one job at once", vec![entered("k", "a", 1, 7), entered("k", "a", 2, 8)], 1),
            ("after a kill", vec![entered("k", "a", 1, 7), killed(7), entered("k", "a", 2, 8)], 0),
            ("after a kill of another", vec![entered("k", "a", 1, 7), killed(9), entered("k", "a", 2, 8)], 1),
            ("a late report", vec![killed(7), entered("k", "a", 1, 7), entered("k", "a", 2, 8)], 0),
            ("a reused number", vec![killed(7), started(7), entered("k", "a", 1, 7), entered("k", "b", 1, 8)], 1),
            ("the end of another run", vec![entered("k", "a", 2, 7), left("k", "a", 1), entered("k", "b", 1, 8)], 1),
        ] {
            let mut limits = Limits::default();
            let found: Vec<String> = events.iter().filter_map(|event| limits.add(event)).collect();
            assert_eq!(found.len(), broken, "{case}: {found:?}");
        }
    }
}
