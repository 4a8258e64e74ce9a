//! Concurrent moves of one probe through two API processes: the accepted ones take effect one by one.
//!
//! A command is invertible. So each accepted command is an edge from the position before it, computed backwards from the
//! response, to the position in the response. The accepted commands have a serial order from the first position to the
//! last if and only if these edges form an Eulerian trail between the two.

use std::collections::{HashMap, HashSet};

use futures_util::future::join_all;
use jobs::mars_probes::grid::{Commands, Direction, Grid, Position, apply};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::ProbeHarness;
use crate::harness::http::send;

const TASKS: usize = 12;
const COMMANDS: usize = 25;

/// Generates random commands, reproducible by the seed.
struct RandomCommands(u64);

impl RandomCommands {
    fn below(&mut self, limit: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit
    }

    fn command(&mut self) -> String {
        (0..=self.below(6)).map(|_| ['M', 'M', 'L', 'R'][usize::try_from(self.below(4)).unwrap()]).collect()
    }
}

fn position_of(probe: &Value) -> Position {
    let at = |name: &str| i32::try_from(probe[name].as_i64().expect("a coordinate")).expect("a small one");
    let direction = probe["direction"].as_str().expect("a text").parse::<Direction>().expect("a direction");
    Position { x: at("x"), y: at("y"), direction }
}

/// The position from which this command leads to `reached`; `None` if no position on the grid does.
fn position_before(grid: Grid, command: &str, reached: Position) -> Option<Position> {
    // Inverted: the last command comes first, and the turns are swapped.
    let back: String = command
        .chars()
        .rev()
        .map(|c| match c {
            'L' => 'R',
            'R' => 'L',
            c => c,
        })
        .collect();
    let turn = |position| apply(grid, position, &Commands::parse("LL").expect("commands")).expect("a turn");
    let start = turn(apply(grid, turn(reached), &Commands::parse(&back).expect("commands")).ok()?);
    let forth = apply(grid, start, &Commands::parse(command).expect("commands"));
    (forth == Ok(reached)).then_some(start)
}

/// Whether one trail from `first` to `last` uses each of these edges exactly once.
fn is_eulerian_trail(edges: &[(Position, Position)], first: Position, last: Position) -> bool {
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
fn a_lost_move_breaks_the_trail() {
    let at = |x| Position { x, y: 0, direction: Direction::East };
    assert!(is_eulerian_trail(&[(at(0), at(1)), (at(1), at(2))], at(0), at(2)));
    assert!(is_eulerian_trail(&[(at(0), at(1)), (at(1), at(0)), (at(0), at(0))], at(0), at(0)));
    assert!(is_eulerian_trail(&[], at(0), at(0)));
    // Two moves read the same position, and the second overwrote the first.
    assert!(!is_eulerian_trail(&[(at(0), at(1)), (at(0), at(1))], at(0), at(1)));
    assert!(!is_eulerian_trail(&[(at(0), at(1))], at(0), at(2)));
    assert!(!is_eulerian_trail(&[(at(0), at(0)), (at(5), at(5))], at(0), at(0)), "a disconnected edge");
}

#[tokio::test]
async fn concurrent_moves_take_effect_one_by_one() {
    let harness = ProbeHarness::start(2).await;
    for grid in [Grid { x: 3, y: 2 }, Grid { x: 1000, y: 1000 }] {
        let seed = Uuid::new_v4().as_u64_pair().0;
        let id = harness.create_probe(grid.x, grid.y, "NORTH").await;
        let first = Position { x: 0, y: 0, direction: Direction::North };
        let tasks = (0..TASKS).map(|task| {
            let (client, url) = (harness.client.clone(), harness.apis[task % 2].url.clone());
            let (id, mut random) = (id.clone(), RandomCommands(seed.wrapping_add(u64::try_from(task).unwrap())));
            tokio::spawn(async move {
                let mut responses = Vec::new();
                for _ in 0..COMMANDS {
                    let command = random.command();
                    let body = json!({"id": id, "command": command}).to_string();
                    let request = client.request(Method::PATCH, format!("{url}/api/v1/move")).body(body);
                    responses.push((command, send(request).await));
                }
                responses
            })
        });
        let responses: Vec<_> = join_all(tasks).await.into_iter().flat_map(|task| task.expect("a task")).collect();
        let last = position_of(
            &harness.list_probes("").await.json()["probes"]
                .as_array()
                .expect("a list")
                .last()
                .expect("the probe")
                .clone(),
        );
        let (mut edges, mut refused) = (Vec::new(), Vec::new());
        for (command, response) in &responses {
            match response.status {
                200 => {
                    let reached = position_of(&response.json());
                    let from = position_before(grid, command, reached);
                    edges.push((from.unwrap_or_else(|| panic!("{command} cannot lead to {reached:?}")), reached));
                }
                422 => refused.push(command),
                _ => panic!("{command}: {response:?}"),
            }
        }
        assert!(is_eulerian_trail(&edges, first, last), "seed {seed}: no serial order leads to {last:?}: {edges:?}");
        // Each refused command would have left the grid at one of the visited positions.
        let visited: HashSet<Position> = edges.iter().map(|(_, to)| *to).chain([first]).collect();
        for command in &refused {
            let commands = Commands::parse(command).expect("commands");
            assert!(
                visited.iter().any(|at| apply(grid, *at, &commands).is_err()),
                "seed {seed}: {command} never leaves the grid"
            );
        }
        let total = edges.len() + refused.len();
        assert_eq!(total, TASKS * COMMANDS);
        assert!(edges.len() > TASKS, "too few commands accepted for a test: {}", edges.len());
    }
}
