//! `.githooks/pre-commit`: which changes are refused, in a temporary repository.

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use super::root;
use crate::harness::{needs, scratch::Scratch};

struct Repository {
    scratch: Scratch,
}

impl Repository {
    /// A repository with one commit, the hooks, and a fake `cargo` that records its subcommand. It fails if a file
    /// `fail-SUBCOMMAND` exists.
    fn new() -> Option<Self> {
        needs::program("git")?;
        let repository = Self { scratch: Scratch::new() };
        repository.write("bin/cargo", "#!/bin/sh\necho \"$1\" >>cargo-calls\ntest ! -e \"fail-$1\"\n");
        std::fs::set_permissions(repository.scratch.join("bin/cargo"), PermissionsExt::from_mode(0o755)).unwrap();
        repository.git(&["init", "-q", "-b", "main", "."]);
        repository.git(&["config", "core.hooksPath", root().join(".githooks").to_str().unwrap()]);
        repository.write("README.md", "first\n");
        repository.write("jobs/mod.rs", "\n");
        let first = repository.commit(&["README.md", "jobs/mod.rs"], "jobs: begin");
        assert!(first.status.success(), "the initial commit: {}", stderr_of(&first));
        Some(repository)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.scratch.join(path);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let path = format!("{}:{}", self.scratch.join("bin").display(), std::env::var("PATH").unwrap_or_default());
        let mut git = Command::new("git");
        // Isolated from the configuration of the user who runs this test, and from a hook that runs it.
        git.env_clear().env("PATH", path).env("HOME", &*self.scratch).env("GIT_CONFIG_NOSYSTEM", "1");
        for role in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{role}_NAME"), "Ada").env(format!("GIT_{role}_EMAIL"), "ada@example.com");
        }
        git.args(arguments).current_dir(&*self.scratch).output().expect("git")
    }

    fn git(&self, arguments: &[&str]) {
        let output = self.run(arguments);
        assert!(output.status.success(), "git {arguments:?}: {}", stderr_of(&output));
    }

    fn commit(&self, paths: &[&str], message: &str) -> Output {
        self.git(&[&["add", "-f", "--"], paths].concat());
        self.run(&["commit", "-q", "-m", message])
    }

    /// Fails unless the commit is refused for this reason; then resets the repository.
    fn assert_refused(&self, path: &str, text: &str, reason: &str) {
        self.write(path, text);
        let output = self.commit(&[path], "jobs: add it");
        let stderr = stderr_of(&output);
        assert!(!output.status.success() && stderr.contains(reason), "{path}: {stderr:?} does not contain {reason:?}");
        self.git(&["reset", "-q", "--hard"]);
    }

    fn assert_accepted(&self, path: &str, text: &str) {
        self.write(path, text);
        let output = self.commit(&[path], "jobs: add it");
        assert!(output.status.success(), "{path}: {}", stderr_of(&output));
    }

    /// The subcommands of cargo that were run since the last call.
    fn cargo_calls(&self) -> String {
        let calls = std::fs::read_to_string(self.scratch.join("cargo-calls")).unwrap_or_default();
        let _ = std::fs::remove_file(self.scratch.join("cargo-calls"));
        calls.replace('\n', " ").trim_end().to_owned()
    }
}

fn stderr_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn secrets_leftovers_and_large_files_are_refused() {
    let Some(repository) = Repository::new() else { return };
    // Built from parts, so that secret scanners do not report this file.
    let aws = ["AKIA", "IOSFODNN7EXAMPLE"].concat();
    let pem = ["-----BEGIN RSA ", "PRIVATE KEY-----"].concat();
    let github = ["ghp_", &"a".repeat(36)].concat();
    for secret in [&aws, &pem, &github] {
        repository.assert_refused("jobs/notes.md", &format!("one\nkey {secret}\n"), "looks like a secret");
    }
    let refused = {
        repository.write("jobs/notes.md", &aws);
        repository.commit(&["jobs/notes.md"], "jobs: add it")
    };
    assert!(!stderr_of(&refused).contains(&aws), "the hook prints the secret");
    repository.git(&["reset", "-q", "--hard"]);
    repository.assert_refused(".env", "API_KEY=x\n", ".env.example");
    repository.assert_refused("deploy/.env", "API_KEY=x\n", ".env.example");
    repository.assert_refused("jobs/data.bin", &"x".repeat(1_048_577), "1048577 bytes");
    repository.assert_refused("jobs/a name.md", &format!("{}\n", ["<<<<<<<", " HEAD"].concat()), "leftovers");
    repository.assert_refused("jobs/notes.md", "blank at the end \n", "leftovers");
    repository.assert_accepted("jobs/data.bin", &"x".repeat(1_048_576));
    repository.assert_accepted(".env.example", "API_KEY=x\n");
    repository.assert_accepted("jobs/a name.md", "fine\n");
}

#[tokio::test]
async fn cargo_checks_only_commits_that_change_code() {
    let Some(repository) = Repository::new() else { return };
    assert_eq!(repository.cargo_calls(), "fmt check");
    repository.assert_accepted("README.md", "second\n");
    assert_eq!(repository.cargo_calls(), "");
    for path in ["Cargo.lock", "api/openapi.json", "migrations/20300101000000_a_b.up.sql", ".sqlx/query-1.json"] {
        repository.assert_accepted(path, "x\n");
        assert_eq!(repository.cargo_calls(), "fmt check", "{path}");
    }
    repository.write("fail-fmt", "");
    repository.assert_refused("jobs/new.rs", "fn  x () {}\n", "run `cargo fmt`");
    std::fs::remove_file(repository.scratch.join("fail-fmt")).unwrap();
    repository.write("fail-check", "");
    repository.assert_refused("jobs/new.rs", "fn x() -> {}\n", "does not compile");
}

#[tokio::test]
async fn a_released_migration_is_not_edited() {
    let Some(repository) = Repository::new() else { return };
    let path = "migrations/20300101000000_create_notes.up.sql";
    repository.assert_accepted(path, "CREATE TABLE notes ();\n");
    repository.assert_accepted(path, "CREATE TABLE notes (id bigint);\n");
    repository.git(&["tag", "v0.1.0"]);
    repository.assert_refused(path, "CREATE TABLE notes (id text);\n", "part of v0.1.0");
    repository.assert_accepted("migrations/20300101000001_change_notes.up.sql", "SELECT 1;\n");
}

#[tokio::test]
async fn the_message_is_checked_too() {
    let Some(repository) = Repository::new() else { return };
    repository.write("README.md", "second\n");
    let output = repository.commit(&["README.md"], "Second thoughts.");
    let stderr = stderr_of(&output);
    assert!(!output.status.success() && stderr.contains("commit-msg: there is no scope"), "{stderr}");
}
