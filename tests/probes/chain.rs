//! Many at once on one probe, through two processes: what was accepted happened one after the other.
//!
//! A command leads back as surely as forth, so each accepted one is an edge from the state before it, worked out
//! backwards from its answer, to the state that it answered. An order of all accepted commands from the first state to
//! the last exists if and only if these edges make an Eulerian trail between the two.

use std::collections::{HashMap, HashSet};

use futures_util::future::join_all;
use jobs::mars_probes::grid::{Commands, Direction, Grid, Position, apply};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::System;
use crate::harness::http::send;

const TASKS: usize = 12;
const COMMANDS: usize = 25;

/// A random letter at a time, the same ones for the same seed.
struct Letters(u64);

impl Letters {
    fn next(&mut self, most: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % most
    }

    fn command(&mut self) -> String {
        (0..=self.next(6)).map(|_| ['M', 'M', 'L', 'R'][usize::try_from(self.next(4)).unwrap()]).collect()
    }
}

fn stand(probe: &Value) -> Position {
    let at = |name: &str| i32::try_from(probe[name].as_i64().expect("a coordinate")).expect("a small one");
    let direction = Direction::parse(probe["direction"].as_str().expect("a text")).expect("a direction");
    Position { x: at("x"), y: at("y"), direction }
}

/// Where a probe stood that this command has led there; `None` when no place on the grid leads there.
fn before(grid: Grid, command: &str, answered: Position) -> Option<Position> {
    // Turned round, the last command first and the turns the other way.
    let back: String = command
        .chars()
        .rev()
        .map(|c| match c {
            'L' => 'R',
            'R' => 'L',
            c => c,
        })
        .collect();
    let turn = |stand| apply(grid, stand, &Commands::parse("LL").expect("commands")).expect("a turn");
    let start = turn(apply(grid, turn(answered), &Commands::parse(&back).expect("commands")).ok()?);
    let forth = apply(grid, start, &Commands::parse(command).expect("commands"));
    (forth == Ok(answered)).then_some(start)
}

/// Whether these edges make one trail from `first` to `last` that has each of them once.
fn is_trail(edges: &[(Position, Position)], first: Position, last: Position) -> bool {
    let mut balance: HashMap<Position, i64> = HashMap::new();
    let mut neighbours: HashMap<Position, Vec<Position>> = HashMap::new();
    *balance.entry(first).or_default() -= 1;
    *balance.entry(last).or_default() += 1;
    for (from, to) in edges {
        *balance.entry(*from).or_default() += 1;
        *balance.entry(*to).or_default() -= 1;
        neighbours.entry(*from).or_default().push(*to);
    }
    let (mut reached, mut open) = (HashSet::from([first]), vec![first]);
    while let Some(at) = open.pop() {
        let new: Vec<_> = neighbours.get(&at).into_iter().flatten().filter(|to| reached.insert(**to)).collect();
        open.extend(new);
    }
    balance.values().all(|balance| *balance == 0) && edges.iter().all(|(from, _)| reached.contains(from))
}

#[test]
fn a_lost_move_is_no_trail() {
    let at = |x| Position { x, y: 0, direction: Direction::East };
    assert!(is_trail(&[(at(0), at(1)), (at(1), at(2))], at(0), at(2)));
    assert!(is_trail(&[(at(0), at(1)), (at(1), at(0)), (at(0), at(0))], at(0), at(0)));
    assert!(is_trail(&[], at(0), at(0)));
    // Two looked at the same state; the second wrote over the first.
    assert!(!is_trail(&[(at(0), at(1)), (at(0), at(1))], at(0), at(1)));
    assert!(!is_trail(&[(at(0), at(1))], at(0), at(2)));
    assert!(!is_trail(&[(at(0), at(0)), (at(5), at(5))], at(0), at(0)), "apart from the others");
}

#[tokio::test]
async fn moves_at_once_take_place_one_after_the_other() {
    let system = System::start(2).await;
    for grid in [Grid { x: 3, y: 2 }, Grid { x: 1000, y: 1000 }] {
        let seed = Uuid::new_v4().as_u64_pair().0;
        let id = system.probe(grid.x, grid.y, "NORTH").await;
        let first = Position { x: 0, y: 0, direction: Direction::North };
        let tasks = (0..TASKS).map(|task| {
            let (client, url) = (system.client.clone(), system.apis[task % 2].url.clone());
            let (id, mut letters) = (id.clone(), Letters(seed.wrapping_add(u64::try_from(task).unwrap())));
            tokio::spawn(async move {
                let mut answers = Vec::new();
                for _ in 0..COMMANDS {
                    let command = letters.command();
                    let body = json!({"id": id, "command": command}).to_string();
                    let answer = client.request(Method::PATCH, format!("{url}/api/v1/move")).body(body);
                    answers.push((command, send(answer).await));
                }
                answers
            })
        });
        let answers: Vec<_> = join_all(tasks).await.into_iter().flat_map(|task| task.expect("a task")).collect();
        let last =
            stand(&system.check("").await.json()["probes"].as_array().expect("a list").last().expect("it").clone());
        let (mut edges, mut refused) = (Vec::new(), Vec::new());
        for (command, answer) in &answers {
            match answer.status {
                200 => {
                    let answered = stand(&answer.json());
                    let from = before(grid, command, answered);
                    edges.push((from.unwrap_or_else(|| panic!("{command} cannot lead to {answered:?}")), answered));
                }
                422 => refused.push(command),
                _ => panic!("{command}: {answer:?}"),
            }
        }
        assert!(is_trail(&edges, first, last), "seed {seed}: no order of these leads to {last:?}: {edges:?}");
        // And each that was refused would have hit a wall at one of the places on the way.
        let visited: HashSet<Position> = edges.iter().map(|(_, to)| *to).chain([first]).collect();
        for command in &refused {
            let commands = Commands::parse(command).expect("commands");
            assert!(visited.iter().any(|at| apply(grid, *at, &commands).is_err()), "seed {seed}: {command} was free");
        }
        let counted = edges.len() + refused.len();
        assert_eq!(counted, TASKS * COMMANDS);
        assert!(edges.len() > TASKS, "enough to tell: {} accepted", edges.len());
    }
}
