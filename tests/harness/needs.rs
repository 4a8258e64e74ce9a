//! What a test needs and a machine may lack. Then the test is listed and counted as not run, at the end, instead of failing.
//!
//! With `REQUIRE_SERVERS=1` it fails: where everything must hold, nothing may be left out in silence.

use std::{
    collections::BTreeSet,
    io::Write,
    path::PathBuf,
    process::{ChildStdin, Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
};

/// The path of a program, or `None` and a line about it.
///
/// ```ignore
/// let Some(pgbouncer) = needs::program("pgbouncer") else { return };
/// ```
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps servers where only root looks.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let found = folders.map(|folder| folder.join(name)).find(|program| program.is_file());
    found.or_else(|| missing(name))
}

/// `None`, and a line about what is missing; a failure where servers are required.
pub fn missing<T>(name: &str) -> Option<T> {
    assert!(std::env::var_os("REQUIRE_SERVERS").is_none_or(|value| value != "1"), "needs {name}");
    lack(name);
    None
}

/// The value of a variable that names a server which no registry has, or `None` and a line about it; also where servers
/// are required.
pub fn optional_variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        lack(name);
    }
    value
}

/// Records that the present test does not run. Both are printed when this process ends, below the result: libtest swallows
/// what a test prints, and has no way to ignore a test that has begun.
fn lack(name: &str) {
    static LACKING: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    static REPORTER: OnceLock<ChildStdin> = OnceLock::new();
    // Its input ends with us, whatever way that is.
    let reporter = REPORTER.get_or_init(|| {
        let mut shell = Command::new("sh");
        shell.args(["-c", REPORT]).stdin(Stdio::piped()).stdout(Stdio::null());
        shell.spawn().expect("a shell").stdin.take().expect("its input")
    });
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("not run: {test} (needs {name})");
    if LACKING.lock().unwrap_or_else(PoisonError::into_inner).insert(line.clone()) {
        writeln!(&*reporter, "{line}").expect("a shell that reads");
    }
}

/// Prints what it reads, then one last line with the number of tests.
const REPORT: &str = r#"list=$(cat)
count=$(printf '%s\n' "$list" | cut -d' ' -f3 | sort -u | wc -l)
printf '%s\nnot run, wholly or in part: %s tests, which count as passed above\n' "$list" "$count" >&2"#;
