//! The justfile, the scripts and the CI workflow: recipes are documented, and referenced recipes exist.

use std::process::Command;

use runtime::sabotage::Bug;

use super::root;

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names of the recipes.
fn recipes(justfile: &str) -> Vec<&str> {
    let heads =
        justfile.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()) && line.contains(':'));
    heads.filter_map(|line| line.split([' ', ':']).next()).collect()
}

#[test]
fn every_recipe_has_a_description() {
    let justfile = read("justfile");
    let names = recipes(&justfile);
    for wanted in ["setup", "hooks", "dev", "test", "check", "ci", "fmt", "migrate", "migration", "bench", "coverage"] {
        assert!(names.contains(&wanted), "{wanted}: {names:?}");
    }
    let lines: Vec<&str> = justfile.lines().collect();
    for pair in lines.windows(2) {
        let is_recipe = names.iter().any(|name| pair[1].starts_with(name)) && pair[1].contains(':');
        assert!(!is_recipe || pair[0].starts_with(['#', '[']), "{}: add a comment above that describes it", pair[1]);
    }
}

#[test]
fn documents_and_scripts_name_recipes_that_exist() {
    let justfile = read("justfile");
    let names = recipes(&justfile);
    for document in
        ["CONTRIBUTING.md", "ARCHITECTURE.md", "migrations/README.md", "migrations/new", ".githooks/pre-commit"]
    {
        let text = read(document);
        for rest in text.split("`just ").skip(1) {
            let name = rest.split([' ', '`']).next().unwrap_or_default();
            assert!(names.contains(&name), "{document}: the justfile has no recipe {name}");
        }
    }
}

#[test]
fn scripts_are_executable() {
    for script in [
        ".ci/run",
        ".ci/archive",
        ".ci/containers/run",
        ".ci/high-availability/run",
        ".ci/postgres-majors",
        ".ci/prepare-sqlx",
        ".ci/release-notes",
        ".githooks/commit-msg",
        ".githooks/pre-commit",
        "migrations/new",
    ] {
        assert_executable(script);
    }
}

fn assert_executable(script: &str) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(root().join(script)).unwrap_or_else(|error| panic!("{script}: {error}")).permissions();
    assert_eq!(mode.mode() & 0o111, 0o111, "{script}: git update-index --chmod=+x {script}");
}

#[test]
fn workflows_and_checks_call_scripts_and_options_that_exist() {
    const CI: &str = ".github/workflows/ci.yml";
    const NIGHTLY: &str = ".github/workflows/nightly.yml";
    let help = Command::new(env!("CARGO_BIN_EXE_millrace")).args(["prove", "--help"]).output().expect("its help");
    let help = String::from_utf8(help.stdout).expect("UTF-8");
    let mut scripts = 0;
    for file in [CI, NIGHTLY, ".ci/run", ".ci/upgrade", ".ci/sabotage"] {
        let text = read(file);
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            for script in line.split([' ', '(', ')']).filter(|word| word.starts_with(".ci/")) {
                assert_executable(script);
                scripts += 1;
            }
            let options = line.split_once(" prove ").map_or("", |(_, options)| options);
            for option in options.split_whitespace().filter(|word| word.starts_with("--")) {
                assert!(help.contains(&format!("{option} <")), "{file}: millrace prove has no {option}\n{help}");
            }
        }
    }
    assert!(scripts > 3, "only {scripts} scripts");
    let nightly = read(NIGHTLY);
    for bug in Bug::NAMES {
        assert!(nightly.contains(&format!("          - {bug}\n")), "the nightly job does not plant {bug}");
    }
}

/// Coverage includes the processes that the tests start, although these do not inherit the environment.
#[test]
fn coverage_uses_a_pinned_tool() {
    let workflow = read(".github/workflows/ci.yml");
    let tool = workflow.lines().find_map(|line| line.trim().strip_prefix("tool: cargo-llvm-cov@")).expect("a version");
    assert!(tool.split('.').count() == 3 && tool.split('.').all(|part| part.parse::<u32>().is_ok()), "{tool}");
    assert!(workflow.contains("cargo llvm-cov report --summary-only"), "the job prints the summary");
    assert!(read("tests/harness/process.rs").contains("LLVM_PROFILE_FILE"));
}
