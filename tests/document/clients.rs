//! Clients generated from the OpenAPI document: type-checked, then run against real processes.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::harness::{
    database::{self, TestDatabase},
    http::send,
    node,
    process::{self, Api, Process},
    python,
    scratch::Scratch,
};

const PYTHON: [&str; 3] = ["mypy==2.4.1", "openapi-python-client==0.29.1", "openapi-spec-validator==0.9.0"];
/// openapi-typescript needs the compiler API of TypeScript 5.
const TYPESCRIPT: [&str; 3] = ["openapi-fetch@0.17.0", "openapi-typescript@7.13.0", "typescript@5.9.3"];
const KEY: &str = "the-key-of-these-tests";

/// An API and a worker, and a folder with the API's document.
struct GeneratedClientHarness {
    api: Api,
    folder: Scratch,
    _worker: Process,
    _database: TestDatabase,
}

impl GeneratedClientHarness {
    async fn start() -> Self {
        let (database, folder) = (database::fresh().await, Scratch::new());
        let api = Api::start(&database.url, &[("API_KEY", KEY), ("PROCESSING_DELAY_SECONDS", "0.5")]).await;
        let worker = process::start_worker(&database.url, &[]).await;
        let document = send(process::http_client().get(format!("{}/openapi.json", api.url))).await;
        assert_eq!(document.status, 200, "{document:?}");
        std::fs::write(folder.join("openapi.json"), document.text).expect("a file");
        Self { api, folder, _worker: worker, _database: database }
    }

    /// Copies a file from tests/document into the folder, under another name.
    fn copy(&self, name: &str, to: &str) -> PathBuf {
        let (from, to) =
            (Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/document").join(name), self.folder.join(to));
        std::fs::copy(&from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        to
    }

    /// Runs a program in the folder. Returns its output.
    fn run(&self, command: &mut Command) -> String {
        let output = command.current_dir(&*self.folder).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {text}\n{}", self.api.process.log());
        text
    }
}

#[tokio::test]
async fn generated_python_client_is_typed_and_works() {
    let Some(packages) = python::packages(&PYTHON) else { return };
    let harness = GeneratedClientHarness::start().await;
    harness.run(packages.python().args(["-m", "openapi_spec_validator", "openapi.json"]));
    let generate = ["generate", "--path", "openapi.json", "--meta", "none", "--output-path", "client"];
    let output = harness.run(packages.program("openapi-python-client").args(generate));
    let warnings: Vec<_> = output.lines().filter(|line| line.starts_with("WARNING")).collect();
    // An export is a stream of lines, compressed or not. The generator has no model for it: callers read the bytes.
    assert_eq!(warnings, ["WARNING parsing GET /logs/export within logs."], "{output}");
    harness.copy("client_use.py", "client_use.py");
    // The generator's fixed part passes wider types to httpx than httpx accepts.
    std::fs::write(harness.folder.join("mypy.ini"), "[mypy]\n[mypy-client.client]\nignore_errors = True\n")
        .expect("a file");
    harness.run(packages.python().args(["-m", "mypy", "--strict", "--no-incremental", "client_use.py", "client"]));
    let printed = harness.run(packages.python().args(["client_use.py", &harness.api.url, KEY]));
    assert!(printed.contains("all checks passed"), "{printed}");
}

#[tokio::test]
async fn generated_typescript_types_are_valid_and_work() {
    let Some(packages) = node::packages(&TYPESCRIPT) else { return };
    let harness = GeneratedClientHarness::start().await;
    let modules = packages.join("node_modules");
    std::os::unix::fs::symlink(&modules, harness.folder.join("node_modules")).expect("a link");
    let program = |name: &str| Command::new(modules.join(".bin").join(name));
    harness.run(program("openapi-typescript").args(["openapi.json", "-o", "schema.d.ts"]));
    harness.copy("client_use.ts", "client_use.mts");
    let strict = ["--strict", "--noUncheckedIndexedAccess", "--module", "nodenext", "--target", "es2022"];
    harness.run(program("tsc").args(strict).args(["--lib", "es2022,dom,dom.iterable", "client_use.mts"]));
    let printed = harness.run(Command::new("node").args(["client_use.mjs", &harness.api.url, KEY]));
    assert!(printed.contains("all checks passed"), "{printed}");
}
