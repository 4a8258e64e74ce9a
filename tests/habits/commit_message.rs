//! `.githooks/commit-msg`: what a subject may be.

use std::process::Command;

use super::root;
use crate::harness::scratch::Scratch;

/// What the hook says to a message; empty when it lets it through.
fn said(scratch: &Scratch, message: &str) -> String {
    let file = scratch.join("message");
    std::fs::write(&file, message).unwrap();
    let hook = root().join(".githooks/commit-msg");
    let output = Command::new(hook).arg(&file).current_dir(root()).output().expect("a hook that runs");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.success(), said.is_empty(), "{message:?}: {said}");
    said
}

#[tokio::test]
async fn good_messages_pass() {
    let scratch = Scratch::new();
    for message in [
        "jobs/queue: give back what is not held",
        "jobs: bring apalis to its next version\n",
        "README, ARCHITECTURE: say how upgrades go",
        "jobs/rates, api/rates: average what is submitted",
        "tests: need a database\n\nBecause.\n",
        "# a comment of git's\nci: measure coverage\n# another one\n",
        "jobs/boot: say why\n# a comment\n\nBecause.",
        "jobs/boot: say why\n# ------------------------ >8 ------------------------\n# Do not modify\ndiff --git a/x b/x\n",
        ".githooks: check what a commit says",
        "jobs: cut `amount` to six digits, whatever: it came in",
        // 72 characters, and some of them are two bytes.
        "jobs: größe größe größe größe größe größe größe größe größe größe größer",
        "Merge branch 'main' of elsewhere into something whose name is longer than a subject may be",
        "Revert \"jobs/queue: give back what is not held, and this one is as long as it was before\"",
        "fixup! jobs/queue: give back what is not held",
        "squash! anything at all.",
        "amend! Anything",
    ] {
        assert_eq!(said(&scratch, message), "", "{message:?}");
    }
}

#[tokio::test]
async fn bad_messages_are_told_what_is_wrong() {
    let scratch = Scratch::new();
    for (message, why) in [
        ("", "there is no subject"),
        ("\n\n", "there is no subject"),
        ("# only a comment\n", "there is no subject"),
        ("fix things", "there is no scope"),
        ("feat(jobs): add a queue", "there is no scope"),
        ("jobs:add a queue", "there is no scope"),
        ("jobs:  add a queue", "there is no scope"),
        ("jobs: ", "there is no scope"),
        (": add a queue", "there is no scope"),
        ("jobs/: add a queue", "there is no scope"),
        ("nowhere/queue: add a queue", "there is no nowhere here"),
        ("jobs, nowhere: add a queue", "there is no nowhere here"),
        ("jobs: add a queue.", "without a full stop"),
        ("jobs: Add a queue", "small letters"),
        ("jobs: added a queue", "`added`"),
        ("jobs: adding a queue", "`adding`"),
        ("jobs: fixes a queue", "`fixes`"),
        ("jobs: größe größe größe größe größe größe größe größe größe größe größere", "73 characters"),
        ("jobs: add a queue\nbecause", "second line must be blank"),
        ("jobs: add a queue\n# a comment\nbecause", "second line must be blank"),
        ("merge branch", "there is no scope"),
    ] {
        let said = said(&scratch, message);
        assert!(said.contains(why), "{message:?}: {said:?} does not say {why:?}");
        assert!(said.contains("scope/part: do something"), "{message:?}: {said}");
    }
}
