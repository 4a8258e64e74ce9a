//! The workflow of a release, and its script.

use std::{fs, process::Command};

use super::root;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A tag of an action can be moved by its owner; a commit cannot.
#[test]
fn workflows_use_actions_by_commit() {
    let mut actions = 0;
    for entry in fs::read_dir(root().join(".github/workflows")).expect("the workflows") {
        let path = entry.expect("a file").path();
        let text = fs::read_to_string(&path).expect("a workflow");
        for action in text.lines().filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix("uses: ")) {
            let case = format!("{}: {action}", path.display());
            let (name, version) = action.split_once(" # v").unwrap_or_else(|| panic!("the version is missing: {case}"));
            let (_, commit) = name.split_once('@').unwrap_or_else(|| panic!("the commit is missing: {case}"));
            assert!(commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()), "no commit: {case}");
            assert!(version.starts_with(|c: char| c.is_ascii_digit()), "no version: {case}");
            actions += 1;
        }
    }
    assert!(actions > 5, "{actions}");
}

#[test]
fn the_release_is_built_with_the_rust_of_the_workspace() {
    let workflow = fs::read_to_string(root().join(".github/workflows/release.yml")).expect("a workflow");
    assert!(workflow.contains(&format!("RUST_IMAGE=rust:{}.", env!("CARGO_PKG_RUST_VERSION"))));
}

fn notes(version: &str) -> (bool, String) {
    let output = Command::new("bash").arg(root().join(".ci/release-notes")).arg(version).output().expect("bash");
    (output.status.success(), String::from_utf8(output.stdout).expect("UTF-8"))
}

#[test]
fn the_changelog_has_notes_of_this_version_only() {
    let (succeeded, text) = notes(VERSION);
    assert!(succeeded && text.contains("### Added"), "{text}");
    assert!(!text.contains("\n## "), "another release is in it: {text}");
    let (succeeded, text) = notes("99.0.0");
    assert!(!succeeded && text.is_empty(), "{text}");
}
