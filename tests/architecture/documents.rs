//! The documents match the code: variables, endpoints, files and names.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use jobs::app;
use runtime::config::EnvReader;

use super::{
    assert_none,
    source::{crates, names, product_code, read, root, rust_files},
};

/// Variables of the user's environment, which are not settings of Millrace; cargo sets the first one.
const ENVIRONMENT: [&str; 6] = ["CARGO_MANIFEST_DIR", "HOME", "PATH", "TERM", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"];

/// Endpoints that openapi.json leaves out: those that describe it, and those of Prometheus.
const OUTSIDE_THE_DOCUMENT: [&str; 4] = ["/metrics", "/docs", "/redoc", "/openapi.json"];

/// The variables that the code reads.
fn variables_read() -> BTreeSet<String> {
    const READERS: [&str; 7] = [".text(", ".read(", ".number(", ".seconds(", "env::var(", "env::var_os(", "(vars, "];
    let mut found = BTreeSet::new();
    for file in product_code() {
        for reader in READERS {
            for (at, _) in file.text.match_indices(reader) {
                let literal = file.text[at + reader.len()..].trim_start().strip_prefix('"');
                let name = literal.and_then(|rest| rest.split('"').next()).unwrap_or_default();
                if name.len() > 1 && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_') {
                    found.insert(name.to_owned());
                }
            }
        }
    }
    found.into_iter().filter(|name| !ENVIRONMENT.contains(&name.as_str())).collect()
}

/// The variables of `.env.example`: those that are set to their defaults, and the commented examples.
fn example() -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let (mut set, mut unset) = (BTreeMap::new(), BTreeMap::new());
    for line in read(".env.example").lines() {
        let (variables, line) = match line.strip_prefix('#') {
            // Prose comments begin with a blank.
            Some(commented) if commented.starts_with(|c: char| c.is_ascii_uppercase()) => (&mut unset, commented),
            Some(_) => continue,
            None => (&mut set, line),
        };
        if let Some((name, value)) = line.split_once('=') {
            variables.insert(name.to_owned(), value.trim_matches('"').to_owned());
        }
    }
    (set, unset)
}

#[test]
fn every_variable_is_documented() {
    let (set, unset) = example();
    let documented: BTreeSet<String> = set.into_keys().chain(unset.into_keys()).collect();
    let read_by_us = variables_read();
    let table = read("docs/configuration.md");
    let mut broken = Vec::new();
    broken.extend(read_by_us.difference(&documented).map(|name| format!("{name} is read: add it to .env.example")));
    broken.extend(
        documented.difference(&read_by_us).map(|name| format!("{name} is not read: remove it from .env.example")),
    );
    let undocumented = documented.iter().filter(|name| !table.contains(&format!("`{name}`")));
    broken.extend(undocumented.map(|name| format!("{name}: add it to the table in docs/configuration.md")));
    let first_column = table.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    for name in first_column.flat_map(|cell| cell.split(", ")).map(|name| name.trim_matches('`')) {
        if !documented.contains(name) {
            broken.push(format!("{name} is not read: remove it from docs/configuration.md"));
        }
    }
    assert_none("the code, .env.example and docs/configuration.md must name the same variables", broken);
}

#[test]
fn the_example_environment_is_the_default() {
    let read = |pairs: &BTreeMap<String, String>| {
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (&**name, &**value)).collect();
        let mut vars = EnvReader::from_pairs(&pairs);
        let config = format!("{:#?}\n{:#?}", api::config::ApiConfig::read(&mut vars), app::Config::read(&mut vars));
        vars.finish(config).unwrap_or_else(|problems| panic!(".env.example has wrong values:\n{problems}"))
    };
    let (mut set, unset) = example();
    // Some variables have an effect only if another one is set, such as the limits of a processor.
    set.extend(unset.clone());
    let (given, default) = (read(&set), read(&unset));
    let differences = given.lines().zip(default.lines()).filter(|(given, default)| given != default);
    assert_none(
        "a variable that .env.example sets must have its default there; comment out the others with #",
        differences.map(|(given, default)| format!("{} instead of {}", given.trim(), default.trim())).collect(),
    );
}

#[test]
fn every_endpoint_is_documented() {
    let table = read("docs/endpoints.md");
    let document: serde_json::Value = serde_json::from_str(&read("api/openapi.json")).expect("openapi.json is JSON");
    let mut missing = Vec::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for method in operations.as_object().expect("operations").keys() {
            let endpoint = format!("`{} {path}`", method.to_uppercase());
            if !table.contains(&endpoint) {
                missing.push(endpoint);
            }
        }
    }
    assert_none("add the endpoint to the table in docs/endpoints.md, in exactly this form", missing);
    let mut unknown = Vec::new();
    for code in table.split('`').skip(1).step_by(2) {
        if let Some((method, path)) = code.split_once(' ')
            && path.starts_with('/')
            && document["paths"][path][method.to_lowercase()].is_null()
            && !OUTSIDE_THE_DOCUMENT.contains(&path)
        {
            unknown.push(code.to_owned());
        }
    }
    assert_none("the API has no such endpoint: remove it from docs/endpoints.md", unknown);
}

/// Every Markdown file for readers, by its path.
fn documents() -> Vec<String> {
    let mut found: Vec<String> = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "migrations/README.md",
        "crates/queue/README.md",
    ]
    .map(str::to_owned)
    .to_vec();
    for folder in ["docs", "docs/decisions"] {
        let entries = std::fs::read_dir(root().join(folder)).expect("a folder").filter_map(Result::ok);
        let names = entries.map(|entry| entry.file_name().display().to_string());
        found.extend(names.filter(|name| name.ends_with(".md")).map(|name| format!("{folder}/{name}")));
    }
    found
}

#[test]
fn links_lead_to_files_and_every_document_is_linked() {
    let (mut broken, mut linked) = (Vec::new(), BTreeSet::new());
    for document in documents() {
        let folder = Path::new(&document).parent().expect("a folder").to_owned();
        let text = read(&document);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("http") || target.starts_with('#') {
                continue;
            }
            match root().join(&folder).join(target).canonicalize() {
                Ok(path) => drop(linked.insert(path)),
                Err(_) => broken.push(format!("{document}: {target} does not exist")),
            }
        }
    }
    for document in documents() {
        let path = root().join(&document).canonicalize().expect("a document");
        if document != "README.md" && document != "crates/queue/README.md" && !linked.contains(&path) {
            broken.push(format!("no document has a link to {document}"));
        }
    }
    assert_none("correct the link, or add one to README.md", broken);
}

#[test]
fn the_readme_names_every_folder() {
    let readme = read("README.md");
    let tracked = std::process::Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().expect("git");
    let tracked = String::from_utf8(tracked.stdout).expect("UTF-8");
    let folders: BTreeSet<&str> =
        tracked.split('\0').filter_map(|path| path.split_once('/')).map(|(folder, _)| folder).collect();
    // Folders of tools; CONTRIBUTING.md describes their use.
    let folders = folders.into_iter().filter(|folder| !folder.starts_with('.') && *folder != "crates");
    let missing = folders.filter(|folder| !readme.contains(&format!("| `{folder}/` |")));
    assert_none("add the folder to the table of README.md", missing.map(str::to_owned).collect());
}

#[test]
fn every_subcommand_is_documented() {
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_millrace")).arg("--help").output().expect("its help");
    let help = String::from_utf8(help.stdout).expect("UTF-8");
    let commands = help.split_once("Commands:\n").expect("a list of commands").1;
    let names = commands.lines().map_while(|line| line.strip_prefix("  ")?.split_whitespace().next());
    let text: String = documents().iter().map(|document| read(document)).collect();
    let missing: Vec<String> = names
        .filter(|name| *name != "help" && !text.contains(&format!("millrace {name}")))
        .map(str::to_owned)
        .collect();
    assert_none("name the command in a document, such as docs/operating.md: `millrace NAME`", missing);
}

#[test]
fn documents_name_existing_files_and_items() {
    let folders: Vec<String> = crates().into_iter().chain(["tests".to_owned()]).collect();
    let sources: String = rust_files(&folders).into_iter().map(|file| file.text).collect();
    let mut broken = Vec::new();
    for document in documents() {
        let text = read(&document);
        // Outside fenced blocks, every second part between backticks is code.
        let prose: String = text.split("```").step_by(2).collect();
        for code in prose.split('`').skip(1).step_by(2) {
            let is_word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || c == '_');
            let path = code.trim_end_matches('/');
            if code.contains('/') && [".rs", ".sql", ".json", ".md", "/"].iter().any(|end| code.ends_with(end)) {
                if !code.starts_with('/') && !code.contains([' ', '*', '…']) && !root().join(path).exists() {
                    broken.push(format!("{document}: the file {code} does not exist"));
                }
            } else if code.contains("::") && code.split("::").all(is_word) {
                let last = code.rsplit("::").next().unwrap_or_default();
                if !names(&sources, last) {
                    broken.push(format!("{document}: no code has the name {last} ({code})"));
                }
            }
        }
    }
    assert_none("the documents are out of date: update them to the code", broken);
}
