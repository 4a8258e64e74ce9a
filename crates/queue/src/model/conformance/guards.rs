//! Removes each guard of the real statements, one at a time, and expects that a check notices it.
//!
//! The list of guards is in `docs/model.md`.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use super::{CHECKS, Check, conditions, rewriter::Change, server::LIMIT, world::World};

/// The document whose tables are the list of guards.
const DOCUMENT: &str = include_str!("../../../../../docs/model.md");

/// How often a check runs until it has sent its statement.
const MOST_TRIES: usize = 20;

/// A guard of a statement: a row of a table in the document.
struct Removal {
    /// The check that runs the statement.
    check: &'static str,
    /// The part of the statement before the guard, the guard, and the part after it. The whole occurs once.
    before: String,
    guard: String,
    after: String,
    /// What takes its place.
    instead: String,
    /// Whether the check must become red.
    is_guard: bool,
}

/// Reads the tables of the document.
fn removals() -> Vec<Removal> {
    let mut removals = Vec::new();
    let mut is_guard = true;
    for line in DOCUMENT.lines() {
        is_guard &= !line.starts_with("| stays green |");
        let Some((check, rest)) = line.strip_prefix("| `").and_then(|row| row.split_once("` | `")) else { continue };
        let Some((text, instead)) = rest.trim_end_matches(" |").split_once("` | ") else { continue };
        let unescaped = text.replace("\\|", "|");
        let parts: Vec<&str> = unescaped.split(['«', '»']).collect();
        let [before, guard, after] = parts[..] else { continue };
        let [before, guard, after] = [before, guard, after].map(str::to_owned);
        let instead = if instead == "nothing" { String::new() } else { instead.trim_matches('`').to_owned() };
        removals.push(Removal { check, before, guard, after, instead, is_guard });
    }
    removals
}

impl Removal {
    fn part(&self) -> String {
        [&*self.before, &*self.guard, &*self.after].concat()
    }

    fn change(&self) -> Change {
        Change { from: self.part(), to: [&*self.before, &*self.instead, &*self.after].concat() }
    }

    /// The time limit of the statements. Without the end of its recursion, a statement runs until then.
    fn limit(&self) -> Duration {
        if self.guard.contains("holder.lock_by") { Duration::from_millis(500) } else { LIMIT }
    }

    /// Where the guard is in a statement, if the statement contains the part once.
    fn position(&self, statement: &str) -> Option<Range<usize>> {
        let part = self.part();
        let start = statement.find(&part).filter(|first| statement.rfind(&part) == Some(*first))? + self.before.len();
        Some(start..start + self.guard.len())
    }
}

fn check_of(name: &str) -> Check {
    CHECKS.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no check {name}")).1
}

#[tokio::test]
async fn every_removed_guard_is_noticed() {
    let mut world = World::create().await;
    let mut wrong = Vec::new();
    let removals = removals();
    assert!(removals.len() > 100, "only {} guards were read", removals.len());
    for removal in &removals {
        let mut differences = Vec::new();
        // On a busy machine, a session may not open within a short limit. Then the statement was not sent.
        let tries = if removal.limit() < LIMIT { MOST_TRIES } else { 1 };
        for _ in 0..tries {
            world.rewrite(Some(removal.change()), removal.limit()).await;
            differences = check_of(removal.check)(&world).await;
            if world.rewriter.changed() > 0 {
                break;
            }
        }
        let first = differences.first().map_or("no difference", String::as_str);
        println!("{}: without {}: {} differences, {first}", removal.check, removal.guard, differences.len());
        if world.rewriter.changed() != 1 {
            wrong.push(format!("{}: {} statements contain {}", removal.check, world.rewriter.changed(), removal.guard));
        } else if differences.is_empty() == removal.is_guard || first.contains("syntax error") {
            wrong.push(format!("{}: without {}, {first}", removal.check, removal.guard));
        }
    }
    assert!(wrong.is_empty(), "{} rows of the list are wrong:\n  {}", wrong.len(), wrong.join("\n  "));
}

/// A new condition needs a line in the list, and so a check that fails without it.
#[tokio::test]
async fn every_condition_is_in_the_list() {
    let mut world = World::create().await;
    let mut statements = BTreeMap::<String, Vec<&str>>::new();
    for (name, check) in CHECKS {
        world.rewrite(None, LIMIT).await;
        assert_eq!(check(&world).await, [""; 0], "{name}");
        world.rewriter.statements().into_iter().for_each(|text| statements.entry(text).or_default().push(name));
    }
    let (removals, mut missing) = (removals(), Vec::new());
    for (statement, checks) in &statements {
        let listed = removals.iter().filter(|removal| checks.contains(&removal.check));
        let listed: Vec<_> = listed.filter_map(|removal| removal.position(statement)).collect();
        let unlisted = conditions::find(statement).into_iter().filter(|range| !listed.contains(range));
        missing.extend(unlisted.map(|range| format!("{}: {}", checks.join(", "), &statement[range])));
    }
    assert!(missing.is_empty(), "no test removes these conditions:\n  {}", missing.join("\n  "));
    assert!(statements.len() > 20, "only {} statements were seen", statements.len());
}
