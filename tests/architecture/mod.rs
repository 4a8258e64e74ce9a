//! Rules of ARCHITECTURE.md that the compiler cannot check. Each failure says how to fix it.

mod circles;
mod documents;
mod language;
pub(crate) mod source;

use std::path::Path;

use source::{File, crates, imports, manifest, names, product_code, read, rust_files};

/// Fails with all violations of a rule, and how to fix them.
fn assert_none(fix: &str, violations: Vec<String>) {
    assert!(violations.is_empty(), "{fix}\n  {}", violations.join("\n  "));
}

/// Features: the folders of `jobs/src` that are not infrastructure.
fn features() -> Vec<String> {
    let folders = std::fs::read_dir(source::root().join("jobs/src")).expect("jobs/src").filter_map(Result::ok);
    let names = folders.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name().display().to_string());
    names.filter(|name| name != "text").collect()
}

#[test]
fn crates_depend_one_way() {
    let walls: [(&str, &[&str]); 9] = [
        ("api", &["sqlx", "apalis", "embedded-postgres", "worker", "millrace"]),
        ("worker", &["sqlx", "apalis", "embedded-postgres", "api", "millrace"]),
        ("cli", &["sqlx", "apalis"]),
        ("jobs", &["apalis", "embedded-postgres", "poem", "hyper", "api", "worker", "millrace"]),
        // Only tests use it, and it knows no parser.
        (
            "crates/hostile",
            &["poem", "hyper", "apalis", "embedded-postgres", "queue", "runtime", "jobs", "api", "worker", "millrace"],
        ),
        // Like the end-to-end tests, the proof looks at the product from outside.
        ("crates/prove", &["apalis", "api", "millrace"]),
        ("crates/queue", &["poem", "hyper", "reqwest", "jobs", "api", "worker", "millrace"]),
        ("crates/runtime", &["poem", "hyper", "queue", "jobs", "api", "worker", "millrace"]),
        (
            "crates/embedded-postgres",
            &["poem", "hyper", "apalis", "queue", "runtime", "jobs", "api", "worker", "millrace"],
        ),
    ];
    let mut broken = Vec::new();
    for name in crates() {
        let Some((_, forbidden)) = walls.iter().find(|(walled, _)| *walled == name) else {
            broken.push(format!("{name}: the crate has no rule; add one to this test"));
            continue;
        };
        for entry in manifest(&name) {
            // Tests and examples may start a PostgreSQL; the end-to-end tests belong to cli and query the database.
            let tests_own = entry.section == "dev-dependencies";
            let Some(dependency) = entry.dependency().filter(|_| !tests_own) else { continue };
            if forbidden.iter().any(|no| dependency == *no || dependency.starts_with(&format!("{no}-"))) {
                broken.push(format!("{name}/Cargo.toml: [{}] {dependency}", entry.section));
            }
        }
    }
    assert_none(
        "HTTP stays in api and worker, SQL in jobs and below, apalis in queue and runtime: give those a function that does it",
        broken,
    );
}

#[test]
fn sql_stays_in_stores() {
    const MACROS: [&str; 6] =
        ["query!", "query_as!", "query_scalar!", "query_file!", "query_file_as!", "query_file_scalar!"];
    const FUNCTIONS: [&str; 6] =
        ["sqlx::query", "sqlx::query_as", "sqlx::query_scalar", "sqlx::raw_sql", "QueryBuilder", "AssertSqlSafe"];
    let may_have_sql = |path: &str| {
        let store = Path::new(path).file_name().is_some_and(|name| name == "store.rs") || path.contains("/store/");
        store || path.starts_with("crates/")
    };
    let has_sql = |file: &File| MACROS.iter().chain(&FUNCTIONS).any(|sql| names(&file.text, sql));
    let strays = product_code().into_iter().filter(|file| !may_have_sql(&file.path) && has_sql(file));
    assert_none(
        "SQL is in the feature's store.rs or in crates/: move it there",
        strays.map(|file| file.path).collect(),
    );
}

#[test]
fn apalis_stays_behind_the_queue() {
    const HOME: [&str; 2] = ["crates/queue/src/engine.rs", "crates/runtime/src/migrate/mod.rs"];
    let named =
        |file: &File| ["apalis::", "apalis_core::", "apalis_postgres::"].iter().any(|name| names(&file.text, name));
    let strays = product_code().into_iter().filter(|file| !HOME.contains(&&*file.path) && named(file));
    assert_none(
        "only the engine and the migrations name apalis, so that an upgrade of apalis changes two files: use these instead",
        strays.map(|file| file.path).collect(),
    );
}

/// Every statement goes through `runtime::executor`, which gives it a time limit and a span. The types ensure that: `Pool`
/// and `Transaction` hide the types on which sqlx executes. This test finds code that bypasses them.
#[test]
fn statements_run_on_the_runtimes_executors() {
    const SQLX: [&str; 4] = ["PgPool", "PgConnection", "PoolConnection", "sqlx::Transaction"];
    /// The heartbeat has a session outside any pool, which it wraps in an executor.
    const HEARTBEAT: &str = "crates/queue/src/heartbeat/";
    let allowed = ["crates/runtime/", "crates/embedded-postgres/", "crates/prove/", "jobs/src/bench/", HEARTBEAT];
    let bypasses = product_code().into_iter().filter(|file| {
        SQLX.iter().any(|name| file.text.contains(name)) && !allowed.iter().any(|path| file.path.starts_with(path))
    });
    assert_none("use runtime::db::Pool and runtime::executor", bypasses.map(|file| file.path).collect());
}

#[test]
fn features_do_not_know_each_other() {
    let features = features();
    let mut broken = Vec::new();
    for file in product_code() {
        let Some(inside) = file.path.strip_prefix("jobs/src/").and_then(|path| path.split_once('/')) else { continue };
        for other in features.iter().filter(|other| *other != inside.0) {
            let path = format!("crate::{other}");
            let siblings: Vec<_> = imports(&file.text).into_iter().filter(|import| names(import, &path)).collect();
            // Ids may be shared, because they have no behaviour.
            let only_ids = !siblings.is_empty() && siblings.iter().all(|import| import.ends_with("Id"));
            let inline = file.text.lines().any(|line| !line.trim_start().starts_with("use ") && names(line, &path));
            if inline || (!siblings.is_empty() && !only_ids) {
                broken.push(format!("{} names {path}", file.path));
            }
        }
    }
    assert_none("features share ids and nothing else: pass what is needed from jobs/src/app.rs", broken);
}

#[test]
fn rules_are_pure() {
    // Files of pure rules and types, by name: they need no database, clock or runtime.
    const PURE: [&str; 12] = [
        "amount",
        "decimal",
        "email",
        "grid",
        "job",
        "model",
        "normalise",
        "public_address",
        "rate",
        "retry",
        "signature",
        "symbols",
    ];
    const DATA: [&str; 13] = [
        "std",
        "backoff",
        "base64",
        "bigdecimal",
        "hmac",
        "icu_normalizer",
        "icu_properties",
        "serde",
        "sha2",
        "strum",
        "time",
        "ulid",
        "uuid",
    ];
    // Pure code that several features share.
    const SHARED: [&str; 2] = ["crate::text", "crate::decimal"];
    const IMPURE: [&str; 7] = ["tokio::", "sqlx::", "reqwest::", "crate::", "SystemTime", "Instant::now", "now_utc"];
    let pure = |path: &str| {
        if path.starts_with("jobs/src/text/") {
            return true;
        }
        let path = path.strip_prefix("jobs/src/").or_else(|| path.strip_prefix("crates/queue/src/"));
        let module = path.and_then(|path| path.strip_suffix("/mod.rs").or_else(|| path.strip_suffix(".rs")));
        module.is_some_and(|module| PURE.contains(&module.rsplit('/').next().unwrap_or(module)))
    };
    let files: Vec<File> = product_code().into_iter().filter(|file| pure(&file.path)).collect();
    assert!(files.len() >= PURE.len(), "the list of this test names files that do not exist");
    let mut broken = Vec::new();
    for mut file in files {
        let in_text = file.path.starts_with("jobs/src/text/");
        for import in imports(&file.text).into_iter() {
            if SHARED.iter().any(|shared| import.starts_with(shared)) {
                continue;
            }
            let mut steps = import.split("::");
            let allowed = match (steps.next(), steps.next()) {
                (Some("super" | "self"), Some(sibling)) => in_text || PURE.contains(&sibling),
                (Some(root), _) => DATA.contains(&root),
                _ => false,
            };
            if !allowed {
                broken.push(format!("{} imports {import}", file.path));
            }
        }
        file.text = SHARED.iter().fold(file.text, |text, shared| text.replace(shared, "shared"));
        broken.extend(
            IMPURE.iter().filter(|word| names(&file.text, word)).map(|word| format!("{} names {word}", file.path)),
        );
    }
    assert_none("this file has pure rules only: take the time, the row or the response as an argument", broken);
}

#[test]
fn every_job_is_registered() {
    // The workers of the benchmark and of the proof run their own jobs.
    let registry =
        read("worker/src/registry.rs") + &read("cli/src/bench/noop.rs") + &read("crates/prove/src/worker.rs");
    // The queue adds the kind of replays itself.
    let app = read("jobs/src/app.rs") + &read("crates/queue/src/operator/mod.rs");
    let (mut broken, mut unrestored) = (Vec::new(), Vec::new());
    let mut jobs = 0;
    for file in product_code() {
        for (_, rest) in file.text.match_indices(" Job for ").map(|(at, found)| file.text.split_at(at + found.len())) {
            let job: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            jobs += 1;
            if !names(&registry, &format!("job::<{job}>")) {
                broken.push(format!("{}: {job}", file.path));
            }
            if names(rest, "fn on_discard") && !names(&app, &format!("kind::<{job}>")) {
                unrestored.push(format!("{}: {job}", file.path));
            }
        }
    }
    assert!(jobs > 0, "no job found: update the pattern of this test");
    assert_none("no worker runs this job: add a line `.job::<…>(app.…)` to worker/src/registry.rs", broken);
    assert_none(
        "this job gives up a record, and an operator's cancellation and replay must too: implement Replayable and add a line \
         `.kind::<…>(…)` to jobs/src/app.rs",
        unrestored,
    );
}

#[test]
fn versions_and_lints_are_the_workspaces() {
    let mut broken = Vec::new();
    for name in crates() {
        let entries = manifest(&name);
        for entry in &entries {
            let own = ["version =", "path =", "git =", "branch =", "= \""].iter().any(|own| entry.line.contains(own));
            if entry.dependency().is_some() && own {
                broken.push(format!("{name}/Cargo.toml: {}: write `workspace = true`", entry.line));
            }
        }
        if !entries.iter().any(|entry| entry.section == "lints" && entry.line == "workspace = true") {
            broken.push(format!("{name}/Cargo.toml: add `[lints] workspace = true`"));
        }
    }
    assert_none("declare versions and lints once, in the workspace's Cargo.toml", broken);
}

#[test]
fn tls_is_ring_only() {
    let lock = read("Cargo.lock");
    let found = ["aws-lc-sys", "aws-lc-rs", "openssl-sys", "native-tls"];
    let found = found.iter().filter(|name| lock.contains(&format!("name = \"{name}\"\n")));
    assert_none(
        "a second TLS library with a C build: disable the feature that adds it (cargo tree -i NAME)",
        found.map(ToString::to_string).collect(),
    );
}

#[test]
fn files_are_short_and_state_their_purpose() {
    const MOST_LINES: usize = 400;
    let folders: Vec<String> = crates().into_iter().chain(["tests".to_owned()]).collect();
    let mut broken = Vec::new();
    for File { path, text } in rust_files(&folders) {
        let lines = text.lines().count();
        if lines > MOST_LINES {
            broken.push(format!("{path} has {lines} lines, more than {MOST_LINES}: split it by purpose"));
        }
        if !text.starts_with("//! ") {
            broken.push(format!("{path}: its first line must be `//!` and its purpose"));
        }
    }
    assert_none("each file has one purpose and states it in its first line", broken);
}
