//! Property tests with hostile input, for the tests of parsers: a corpus is replayed, then generated and mutated input
//! follows.
//!
//! Each base input comes from the corpus or from a grammar of the format. It is then changed up to four times: parts are
//! deleted, repeated, swapped, spliced with another input, or replaced by special characters. A quarter of the inputs
//! stays unchanged, so that valid ones are tested as well.
//!
//! `PROPTEST_CASES` sets the number of cases of a round; proptest reads it. With `HOSTILE_SECONDS` each test goes on with
//! further rounds until this time is over. `HOSTILE_SEED`, a number, chooses other inputs.

mod corpus;
mod mutation;

use std::{
    fmt::{self, Debug},
    time::{Duration, Instant},
};

use proptest::{
    prelude::{BoxedStrategy, ProptestConfig, Strategy},
    sample,
    test_runner::{RngAlgorithm, TestCaseError, TestCaseResult, TestError, TestRng, TestRunner},
};

use mutation::{mutated, special_bytes, special_text};

pub use proptest;

/// The result of a property for one input.
pub type Property = TestCaseResult;

/// Why a property does not hold: the input, and what was expected.
pub struct Failure(String);

impl Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks a parser of texts. `corpus` is the content of a file of `tests/corpora/`.
///
/// # Errors
/// When the property does not hold. The failure has the smallest input that was found; add it to the corpus.
pub fn check_text(
    corpus: &str,
    grammar: impl Strategy<Value = String> + 'static,
    property: impl Fn(&str) -> Property,
) -> Result<(), Failure> {
    let entries: Vec<String> =
        corpus::entries(corpus).into_iter().map(|entry| String::from_utf8_lossy(&entry).into_owned()).collect();
    let chosen = sample::select(entries.clone());
    let base = proptest::prop_oneof![chosen, grammar].prop_map(|text| text.chars().collect::<Vec<char>>()).boxed();
    let inputs = mutated(base, special_text()).prop_map(String::from_iter).boxed();
    run(entries, inputs, |text| format!("{text:?}"), property)
}

/// Checks a parser of bytes. `corpus` is the content of a file of `tests/corpora/`.
///
/// # Errors
/// As [`check_text`].
pub fn check_bytes(
    corpus: &str,
    grammar: impl Strategy<Value = Vec<u8>> + 'static,
    property: impl Fn(&[u8]) -> Property,
) -> Result<(), Failure> {
    let entries = corpus::entries(corpus);
    let base = proptest::prop_oneof![sample::select(entries.clone()), grammar].boxed();
    let inputs = mutated(base, special_bytes()).boxed();
    run(entries, inputs, |bytes| format!("b\"{}\"", bytes.escape_ascii()), property)
}

/// Checks a property of structured input, which has no corpus.
///
/// # Errors
/// As [`check_text`].
pub fn check<T: Debug + Clone + 'static>(
    inputs: impl Strategy<Value = T> + 'static,
    property: impl Fn(&T) -> Property,
) -> Result<(), Failure> {
    run(Vec::new(), inputs.boxed(), |input| format!("{input:?}"), property)
}

fn run<T, B: ?Sized>(
    entries: Vec<T>,
    inputs: BoxedStrategy<T>,
    describe: impl Fn(&T) -> String,
    property: impl Fn(&B) -> Property,
) -> Result<(), Failure>
where
    T: Debug + Clone + std::borrow::Borrow<B>,
{
    let begun = Instant::now();
    let failure = |input: &T, reason: &str| Failure(format!("{}: {reason}", describe(input)));
    for entry in &entries {
        property(entry.borrow()).map_err(|error| failure(entry, &reason(error)))?;
    }
    // A failing input is added to the corpus by hand, where it stays readable.
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let (cases, time) = (u64::from(config.cases), Duration::from_secs(read_number("HOSTILE_SECONDS")));
    // The same inputs in every run, so that a new failure comes from a change of the code. Another seed explores further.
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&read_number("HOSTILE_SEED").to_le_bytes());
    let mut tested = 0;
    for round in 0_u64.. {
        // A runner runs its cases once, so each round has its own.
        seed[8..16].copy_from_slice(&round.to_le_bytes());
        let mut runner = TestRunner::new_with_rng(config.clone(), TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
        runner.run(&inputs, |input| property(input.borrow())).map_err(|error| match error {
            TestError::Fail(reason, input) => failure(&input, reason.message()),
            TestError::Abort(reason) => Failure(reason.message().to_owned()),
        })?;
        tested += cases;
        if begun.elapsed() >= time {
            break;
        }
    }
    let rate = tested as f64 / begun.elapsed().as_secs_f64();
    let test = std::thread::current();
    println!("{}: {} entries, {tested} cases, {rate:.0} cases/s", test.name().unwrap_or_default(), entries.len());
    Ok(())
}

/// The number in an environment variable; zero without it.
fn read_number(variable: &str) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn reason(error: TestCaseError) -> String {
    match error {
        TestCaseError::Fail(reason) | TestCaseError::Reject(reason) => reason.message().to_owned(),
    }
}

#[cfg(test)]
mod tests;
