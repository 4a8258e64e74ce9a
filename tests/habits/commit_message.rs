//! `.githooks/commit-msg`: which commit messages are accepted.

use std::process::Command;

use super::root;
use crate::harness::scratch::Scratch;

/// The output of the hook for a message; empty if it is accepted.
fn check(scratch: &Scratch, message: &str) -> String {
    let file = scratch.join("message");
    std::fs::write(&file, message).unwrap();
    let hook = root().join(".githooks/commit-msg");
    let output = Command::new(hook).arg(&file).current_dir(root()).output().expect("a hook that runs");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.success(), stderr.is_empty(), "{message:?}: {stderr}");
    stderr
}

#[tokio::test]
async fn good_messages_are_accepted() {
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
        "jobs: round `amount`: keep six digits",
        // 72 characters, and some of them are two bytes.
        "jobs: größe größe größe größe größe größe größe größe größe größe größer",
        "Merge branch 'main' of elsewhere into something whose name is longer than a subject may be",
        "Revert \"jobs/queue: give back what is not held, and this one is as long as it was before\"",
        "fixup! jobs/queue: give back what is not held",
        "squash! anything at all.",
        "amend! Anything",
    ] {
        assert_eq!(check(&scratch, message), "", "{message:?}");
    }
}

#[tokio::test]
async fn bad_messages_are_refused_with_the_reason() {
    let scratch = Scratch::new();
    for (message, reason) in [
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
        let output = check(&scratch, message);
        assert!(output.contains(reason), "{message:?}: {output:?} does not contain {reason:?}");
        assert!(output.contains("scope/part: do something"), "{message:?}: {output}");
    }
}
