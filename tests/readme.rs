//! The commands of README.md and docs/tour.md, typed into a real shell against a real all-in-one process: the output must match
//! the document.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use crate::harness::{clock, fake_providers::FakeProviders, needs, process::Process, scratch::Scratch};

/// Limit of one step; longer than the longest `?wait=` of a command.
const STEP_TIMEOUT: Duration = Duration::from_secs(90);
/// How long a read-only step is repeated until its output matches.
const RETRY_TIMEOUT: Duration = Duration::from_secs(20);
/// Matches any text.
const WILDCARD: char = '…';
const ADDRESS: &str = "localhost:8000";

/// Commands and their expected output.
struct Step {
    commands: String,
    prints: Option<String>,
}

const README: &str = include_str!("../README.md");
const TOUR: &str = include_str!("../docs/tour.md");

/// The steps of the section with this title.
fn section(document: &str, title: &str) -> Vec<Step> {
    let (_, section) = document.split_once(&format!("\n## {title}\n")).unwrap_or_else(|| panic!("no section {title}"));
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut steps: Vec<Step> = Vec::new();
    let mut fences = section.split("\n```");
    let _ = fences.next();
    while let (Some(block), Some(_)) = (fences.next(), fences.next()) {
        let (language, text) = block.split_once('\n').expect("a block of several lines");
        match language {
            "sh" => steps.push(Step { commands: text.to_owned(), prints: None }),
            "text" => {
                let step = steps.last_mut().filter(|step| step.prints.is_none());
                step.expect("a block of sh before a block of text").prints = Some(text.to_owned());
            }
            _ => {}
        }
    }
    steps
}

/// Whether a line matches a pattern, in which `…` matches any text.
fn line_matches(line: &str, pattern: &str) -> bool {
    let mut rest = line.trim_end();
    let mut pieces = pattern.split(WILDCARD).peekable();
    if let Some(first) = pieces.next() {
        let Some(after) = rest.strip_prefix(first) else { return false };
        rest = after;
        if pieces.peek().is_none() {
            return rest.is_empty();
        }
    }
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return rest.ends_with(piece);
        }
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    true
}

/// The expected lines that are missing from the output; they must appear in the same order.
fn missing<'e>(printed: &str, expected: &'e str) -> Vec<&'e str> {
    let mut lines = printed.lines();
    expected
        .lines()
        .filter(|pattern| {
            let matches = |line: &str| line_matches(line, pattern);
            !lines.clone().any(matches) || !lines.any(matches)
        })
        .collect()
}

/// Whether the commands change nothing, so that they can be repeated.
fn is_read_only(commands: &str) -> bool {
    ![" -d ", " -X ", "=$("].iter().any(|change| commands.contains(change))
}

struct Shell {
    child: Child,
    lines: Receiver<String>,
    address: String,
}

impl Shell {
    fn open(home: &Scratch, address: &str, variables: &[(&str, &str)]) -> Self {
        let mut shell = Command::new("bash");
        shell.env_clear().env("PATH", std::env::var("PATH").unwrap_or_default()).env("HOME", &**home);
        shell.envs(clock::moved_clock()).envs(variables.iter().copied()).current_dir(&**home);
        let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("bash");
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().expect("its output"));
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut shell = Self { child, lines, address: address.to_owned() };
        shell.run("exec 2>&1");
        shell
    }

    /// Runs commands and returns their output.
    fn run(&mut self, commands: &str) -> String {
        const END: &str = "--- that was all ---";
        let input = self.child.stdin.as_mut().expect("its input");
        let commands = commands.replace(ADDRESS, &self.address);
        // Some responses end without a newline.
        let commands = commands.replace("\ncurl ", "\necho; curl ");
        writeln!(input, "{commands}\nprintf '\\n%s\\n' '{END}'").expect("a running shell");
        let begun = Instant::now();
        let mut printed = Vec::new();
        loop {
            let left = STEP_TIMEOUT.saturating_sub(begun.elapsed());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("no end of {commands}\n{printed:#?}"));
            if line == END {
                return printed.join("\n");
            }
            printed.push(line);
        }
    }

    /// Runs all steps and compares their output.
    fn follow(&mut self, steps: &[Step]) {
        for Step { commands, prints } in steps {
            let prints =
                prints.as_deref().unwrap_or_else(|| panic!("add a `text` block with the output of:\n{commands}"));
            let begun = Instant::now();
            let mut printed = self.run(commands);
            while !missing(&printed, prints).is_empty() && is_read_only(commands) && begun.elapsed() < RETRY_TIMEOUT {
                printed = self.run(commands);
            }
            assert!(
                missing(&printed, prints).is_empty(),
                "the output differs from README.md.\n{commands}\nprints\n{printed}\nMissing lines:\n{}",
                missing(&printed, prints).join("\n")
            );
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn are_installed(names: &[&str]) -> bool {
    names.iter().all(|name| needs::program(name).is_some())
}

async fn all_in_one(home: &Scratch, variables: &[(&str, &str)]) -> (Process, String) {
    let mut process = Process::start_in(home, &[], &[&[("PORT", "0")], variables].concat());
    let line = process.wait_for_line("API docs").await;
    let address = line.rsplit_once("http://").and_then(|(_, rest)| rest.strip_suffix("/docs")).expect("an address");
    (process, address.to_owned())
}

// Two threads: one blocks on the shell while the other serves the fake providers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tour_prints_the_documented_output() {
    if !are_installed(&["bash", "curl", "sed"]) {
        return;
    }
    let (first_steps, tour) = (section(README, "The first ten minutes"), section(TOUR, "Four services"));
    let (start, first_steps) = first_steps.split_first().expect("how to start it");
    let variables = start.commands.trim().strip_suffix(" cargo run").expect("variables and cargo run");
    let variables: Vec<_> = variables.split(' ').filter_map(|variable| variable.split_once('=')).collect();
    assert!(!variables.is_empty() && first_steps.len() >= 5 && tour.len() >= 6, "steps are missing");
    let home = Scratch::new();
    // Fake price providers: a test must not call the real ones.
    let providers = FakeProviders::start().await;
    let urls = providers.variables();
    let urls = urls.iter().map(|(name, url)| (*name, url.as_str()));
    let variables: Vec<_> = variables.into_iter().chain(urls).collect();
    let (_process, address) = all_in_one(&home, &variables).await;
    let mut shell = Shell::open(&home, &address, &[]);
    shell.follow(first_steps);
    shell.follow(&tour);
}

#[tokio::test]
async fn webhooks_are_signed_as_documented() {
    if !are_installed(&["bash", "curl", "openssl", "od"]) {
        return;
    }
    let steps = section(TOUR, "Signed webhooks");
    let (secret, signing) = steps.split_first().expect("how to make a secret");
    let home = Scratch::new();
    let mut shell = Shell::open(&home, "", &[]);
    shell.run(&secret.commands);
    let secret = shell.run("printf %s \"$WEBHOOK_SECRET\"").trim().to_owned();
    assert!(secret.starts_with("whsec_") && secret.len() > 40, "{secret}");
    let variables = [("WEBHOOK_SECRET", &*secret)];
    let (_process, address) = all_in_one(&home, &variables).await;
    Shell::open(&home, &address, &variables).follow(signing);
}

#[test]
fn output_is_matched_against_patterns_in_order() {
    for (line, pattern, expected) in [
        ("HTTP/1.1 202 Accepted\r", "HTTP/1.1 202 Accepted", true),
        ("HTTP/1.1 202 Accepted", "HTTP/1.1 20", false),
        (r#"{"a":1,"b":2}"#, r#"{"a":…,"b":2}"#, true),
        (r#"{"a":1,"b":2}"#, r#"{"b":…}"#, false),
        (r#"{"a":1,"b":2}"#, r#"…"b":3…"#, false),
        (r#"{"a":1,"b":2}"#, r#"…"b":2…"#, true),
        (r#"{"a":1,"b":2}"#, r#"…"b":2…"a"…"#, false),
        ("retry-after: 5", "retry-after: …", true),
        ("", "…", true),
    ] {
        assert_eq!(line_matches(line, pattern), expected, "{line} and {pattern}");
    }
    assert_eq!(missing("one\ntwo\nthree", "one\nthree"), [""; 0]);
    assert_eq!(missing("one\ntwo\nthree", "three\none"), ["one"], "the order counts");
    assert_eq!(missing("one", "two\none"), ["two"]);
}
