//! Programs and servers that a test needs and that a machine may not have.
//!
//! If one is missing, the test does not fail: it is listed and counted as not run at the end of the test run.
//! With `REQUIRE_SERVERS=1` it fails, so that a complete run skips no test silently.

use std::{
    collections::BTreeSet,
    io::Write,
    path::PathBuf,
    process::{ChildStdin, Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
};

/// Returns the path of a program. If it is missing, records this test as not run.
///
/// ```ignore
/// let Some(pgbouncer) = needs::program("pgbouncer") else { return };
/// ```
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian installs servers in folders that are only in root's PATH.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let found = folders.map(|folder| folder.join(name)).find(|program| program.is_file());
    found.or_else(|| missing(name))
}

/// Records this test as not run and returns `None`.
///
/// # Panics
/// With `REQUIRE_SERVERS=1`.
pub(crate) fn missing<T>(name: &str) -> Option<T> {
    assert!(std::env::var_os("REQUIRE_SERVERS").is_none_or(|value| value != "1"), "needs {name}");
    record_missing(name);
    None
}

/// Returns the value of a variable that names a server which cannot be installed from a registry.
/// If it is not set, records this test as not run, even with `REQUIRE_SERVERS=1`.
pub(crate) fn optional_variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        record_missing(name);
    }
    value
}

/// Records that the current test does not run. The list is printed when this process ends, below the test result.
///
/// libtest captures the output of a test and cannot ignore a test that has started. A child process therefore prints the
/// list.
fn record_missing(name: &str) {
    static MISSING: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    static REPORTER: OnceLock<ChildStdin> = OnceLock::new();
    // The child's input ends when this process ends, also after a kill.
    let reporter = REPORTER.get_or_init(|| {
        let mut shell = Command::new("sh");
        shell.args(["-c", REPORT]).stdin(Stdio::piped()).stdout(Stdio::null());
        shell.spawn().expect("a shell").stdin.take().expect("its input")
    });
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("not run: {test} (needs {name})");
    if MISSING.lock().unwrap_or_else(PoisonError::into_inner).insert(line.clone()) {
        writeln!(&*reporter, "{line}").expect("a shell that reads");
    }
}

/// A shell script that prints its input, then one last line with the number of tests.
const REPORT: &str = r#"list=$(cat)
count=$(printf '%s\n' "$list" | cut -d' ' -f3 | sort -u | wc -l)
printf '%s\nnot run, wholly or in part: %s tests, which count as passed above\n' "$list" "$count" >&2"#;

/// Runs the ignored test below in a process of its own, and returns whether it passed and what was printed.
fn run_example(require_servers: &str) -> (bool, String) {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--ignored", "--exact", "harness::needs::an_example_that_needs_a_missing_program"]);
    let output = command.env("REQUIRE_SERVERS", require_servers).output().expect("a test run");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
#[ignore = "its program does not exist; another test runs it"]
fn an_example_that_needs_a_missing_program() {
    assert_eq!(program("no-such-server"), None);
}

#[test]
fn a_test_without_its_program_is_listed_and_counted_or_fails() {
    let (passed, printed) = run_example("0");
    let listed = "not run: harness::needs::an_example_that_needs_a_missing_program (needs no-such-server)";
    let counted = "not run, wholly or in part: 1 tests, which count as passed above";
    assert!(passed && printed.contains(listed) && printed.contains(counted), "{printed}");
    let (passed, printed) = run_example("1");
    assert!(!passed && printed.contains("needs no-such-server"), "{printed}");
}
