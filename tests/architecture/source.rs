//! Reads the repository as text: files, imports and manifests.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A file, by its path from the root of the repository.
pub(crate) struct File {
    pub path: String,
    pub text: String,
}

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the folder above cli/")
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
}

/// The crates of the workspace, as its manifest lists them.
pub(crate) fn crates() -> Vec<String> {
    let manifest = read("Cargo.toml");
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = ")).expect("a line of members");
    members.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Every Rust file in these folders; missing folders are skipped.
pub(crate) fn rust_files(folders: &[String]) -> Vec<File> {
    let mut found = Vec::new();
    folders.iter().for_each(|folder| walk(&root().join(folder), &mut found));
    found.sort();
    let relative = |path: &PathBuf| path.strip_prefix(root()).expect("within the root").display().to_string();
    let files: Vec<File> = found.iter().map(relative).map(|path| File { text: read(&path), path }).collect();
    assert!(!files.is_empty(), "no Rust files in {folders:?}");
    files
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path()) {
        if entry.is_dir() {
            walk(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push(entry);
        }
    }
}

/// The product code of every crate, without tests and comments.
pub(crate) fn product_code() -> Vec<File> {
    let folders: Vec<String> = crates().iter().map(|name| format!("{name}/src")).collect();
    let mut files = rust_files(&folders);
    files.retain(|file| !file.path.ends_with("/tests.rs"));
    for file in &mut files {
        let product = file.text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let code = product.lines().filter(|line| !line.trim_start().starts_with("//"));
        file.text = code.collect::<Vec<_>>().join("\n");
    }
    files
}

/// Whether the code contains this name as a whole word.
pub(crate) fn names(code: &str, word: &str) -> bool {
    let letter = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let (before, after) = (code[..at].chars().next_back(), code[at + word.len()..].chars().next());
        !(before.is_some_and(letter) || word.ends_with(letter) && after.is_some_and(letter))
    })
}

/// Every imported path: `use a::{b, c::d}` gives `a::b` and `a::c::d`.
pub(crate) fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for statement in code.split(';') {
        let start = statement.lines().position(|line| {
            let line = line.trim_start();
            line.starts_with("use ") || line.starts_with("pub use ") || line.starts_with("pub(crate) use ")
        });
        let Some(start) = start else { continue };
        let tree: String = statement.lines().skip(start).collect::<Vec<_>>().join(" ");
        expand("", tree.split_once("use ").map_or("", |(_, tree)| tree), &mut found);
    }
    found
}

fn expand(prefix: &str, tree: &str, found: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((head, rest)) = tree.split_once('{') else {
        if !tree.is_empty() {
            found.push(format!("{prefix}{}", tree.split(" as ").next().unwrap_or(tree).trim()));
        }
        return;
    };
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let (mut depth, mut from) = (0, 0);
    let prefix = format!("{prefix}{}", head.trim());
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&prefix, &inner[from..at], found);
                from = at + 1;
            }
            _ => {}
        }
    }
    expand(&prefix, &inner[from..], found);
}

/// A line of a manifest, with its section.
pub(crate) struct Entry {
    pub section: String,
    pub line: String,
}

impl Entry {
    /// The name of the dependency, if the line declares one.
    pub(crate) fn dependency(&self) -> Option<&str> {
        let name = self.line.split(['=', '.', ' ']).next()?;
        self.section.ends_with("dependencies").then_some(name)
    }
}

/// The lines of a crate's manifest. `[dependencies.x]` counts as a line `x` of `[dependencies]`.
pub(crate) fn manifest(name: &str) -> Vec<Entry> {
    let mut section = String::new();
    let mut entries = Vec::new();
    for line in read(&format!("{name}/Cargo.toml")).lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_matches(['[', ']']).to_owned();
            if let Some((before, dependency)) = section.clone().split_once("dependencies.") {
                section = format!("{before}dependencies");
                entries.push(Entry { section: section.clone(), line: dependency.to_owned() });
            }
        } else if !line.is_empty() && !line.starts_with('#') {
            entries.push(Entry { section: section.clone(), line: line.to_owned() });
        }
    }
    entries
}
