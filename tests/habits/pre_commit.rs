//! `.githooks/pre-commit`: what is not let into the history, in a repository of the test's own.

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
    /// One commit, our hooks, and a `cargo` that notes what it is asked and fails when told to.
    fn new() -> Option<Self> {
        needs::program("git")?;
        let repository = Self { scratch: Scratch::new() };
        repository.write("bin/cargo", "#!/bin/sh\necho \"$1\" >>asked\ntest ! -e \"fail-$1\"\n");
        std::fs::set_permissions(repository.scratch.join("bin/cargo"), PermissionsExt::from_mode(0o755)).unwrap();
        repository.git(&["init", "-q", "-b", "main", "."]);
        repository.git(&["config", "core.hooksPath", root().join(".githooks").to_str().unwrap()]);
        repository.write("README.md", "first\n");
        repository.write("jobs/mod.rs", "\n");
        let first = repository.commit(&["README.md", "jobs/mod.rs"], "jobs: begin");
        assert!(first.status.success(), "the first commit of all: {}", said(&first));
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
        // Nothing of whoever runs this test, nor of a hook that runs it.
        git.env_clear().env("PATH", path).env("HOME", &*self.scratch).env("GIT_CONFIG_NOSYSTEM", "1");
        for role in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{role}_NAME"), "Ada").env(format!("GIT_{role}_EMAIL"), "ada@example.com");
        }
        git.args(arguments).current_dir(&*self.scratch).output().expect("git")
    }

    fn git(&self, arguments: &[&str]) {
        let output = self.run(arguments);
        assert!(output.status.success(), "git {arguments:?}: {}", said(&output));
    }

    fn commit(&self, paths: &[&str], message: &str) -> Output {
        self.git(&[&["add", "-f", "--"], paths].concat());
        self.run(&["commit", "-q", "-m", message])
    }

    /// Fails unless the commit is refused for this reason; then takes the file back.
    fn refuses(&self, path: &str, text: &str, why: &str) {
        self.write(path, text);
        let output = self.commit(&[path], "jobs: add it");
        let said = said(&output);
        assert!(!output.status.success() && said.contains(why), "{path}: {said:?} does not say {why:?}");
        self.git(&["reset", "-q", "--hard"]);
    }

    fn accepts(&self, path: &str, text: &str) {
        self.write(path, text);
        let output = self.commit(&[path], "jobs: add it");
        assert!(output.status.success(), "{path}: {}", said(&output));
    }

    /// What cargo was asked since the last time.
    fn asked(&self) -> String {
        let asked = std::fs::read_to_string(self.scratch.join("asked")).unwrap_or_default();
        let _ = std::fs::remove_file(self.scratch.join("asked"));
        asked.replace('\n', " ").trim_end().to_owned()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn secrets_leftovers_and_large_files_stay_out() {
    let Some(repository) = Repository::new() else { return };
    // Put together here: whoever looks for secrets need not find this file.
    let aws = ["AKIA", "IOSFODNN7EXAMPLE"].concat();
    let pem = ["-----BEGIN RSA ", "PRIVATE KEY-----"].concat();
    let github = ["ghp_", &"a".repeat(36)].concat();
    for secret in [&aws, &pem, &github] {
        repository.refuses("jobs/notes.md", &format!("one\nkey {secret}\n"), "looks like a secret");
    }
    let refused = {
        repository.write("jobs/notes.md", &aws);
        repository.commit(&["jobs/notes.md"], "jobs: add it")
    };
    assert!(!said(&refused).contains(&aws), "the secret is repeated");
    repository.git(&["reset", "-q", "--hard"]);
    repository.refuses(".env", "API_KEY=x\n", ".env.example");
    repository.refuses("deploy/.env", "API_KEY=x\n", ".env.example");
    repository.refuses("jobs/data.bin", &"x".repeat(1_048_577), "1048577 bytes");
    repository.refuses("jobs/a name.md", &format!("{}\n", ["<<<<<<<", " HEAD"].concat()), "leftovers");
    repository.refuses("jobs/notes.md", "blank at the end \n", "leftovers");
    repository.accepts("jobs/data.bin", &"x".repeat(1_048_576));
    repository.accepts(".env.example", "API_KEY=x\n");
    repository.accepts("jobs/a name.md", "fine\n");
}

#[tokio::test]
async fn code_is_formatted_and_compiles_and_the_rest_waits_for_no_compiler() {
    let Some(repository) = Repository::new() else { return };
    assert_eq!(repository.asked(), "fmt check");
    repository.accepts("README.md", "second\n");
    assert_eq!(repository.asked(), "");
    for path in ["Cargo.lock", "api/openapi.json", "migrations/20300101000000_a_b.up.sql", ".sqlx/query-1.json"] {
        repository.accepts(path, "x\n");
        assert_eq!(repository.asked(), "fmt check", "{path}");
    }
    repository.write("fail-fmt", "");
    repository.refuses("jobs/new.rs", "fn  x () {}\n", "run `cargo fmt`");
    std::fs::remove_file(repository.scratch.join("fail-fmt")).unwrap();
    repository.write("fail-check", "");
    repository.refuses("jobs/new.rs", "fn x() -> {}\n", "does not compile");
}

#[tokio::test]
async fn a_released_migration_is_not_edited() {
    let Some(repository) = Repository::new() else { return };
    let path = "migrations/20300101000000_create_notes.up.sql";
    repository.accepts(path, "CREATE TABLE notes ();\n");
    repository.accepts(path, "CREATE TABLE notes (id bigint);\n");
    repository.git(&["tag", "v0.1.0"]);
    repository.refuses(path, "CREATE TABLE notes (id text);\n", "part of v0.1.0");
    repository.accepts("migrations/20300101000001_change_notes.up.sql", "SELECT 1;\n");
}

#[tokio::test]
async fn the_message_is_checked_too() {
    let Some(repository) = Repository::new() else { return };
    repository.write("README.md", "second\n");
    let output = repository.commit(&["README.md"], "Second thoughts.");
    assert!(!output.status.success() && said(&output).contains("commit-msg: there is no scope"), "{}", said(&output));
}
