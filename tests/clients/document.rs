//! `docs/clients.md` shows the clients as they are: its code is quoted from their files.

use std::{collections::BTreeSet, fs};

use crate::architecture::source::{read, root};

/// The files of a language, by the name of its code blocks.
const FILES: [(&str, &[&str]); 4] = [
    ("python", &["python/sender.py", "python/receiver.py"]),
    ("typescript", &["typescript/sender.mts", "typescript/receiver.mts"]),
    ("rust", &["rust/sender.rs", "rust/receiver.rs"]),
    ("sh", &["curl/sender.sh"]),
];
const MOST_LINES: usize = 150;

/// The code blocks of the document, each with its language.
fn blocks(document: &str) -> Vec<(&str, &str)> {
    let mut parts = document.split("\n```");
    let _ = parts.next();
    let mut blocks = Vec::new();
    while let (Some(block), Some(_)) = (parts.next(), parts.next()) {
        blocks.push(block.split_once('\n').expect("a block of several lines"));
    }
    blocks
}

#[test]
fn the_document_quotes_the_files() {
    let document = read("docs/clients.md");
    let blocks = blocks(&document);
    for (language, files) in FILES {
        let texts: Vec<String> = files.iter().map(|file| read(&format!("docs/clients/{file}"))).collect();
        let quotes: Vec<&str> =
            blocks.iter().filter(|(name, _)| *name == language).map(|(_, quote)| quote.trim()).collect();
        for (file, text) in files.iter().zip(&texts) {
            assert!(document.contains(&format!("](clients/{file})")), "docs/clients.md has no link to {file}");
            assert!(quotes.iter().any(|quote| text.contains(quote)), "docs/clients.md quotes nothing of {file}");
            assert!(text.lines().count() <= MOST_LINES, "{file} has more than {MOST_LINES} lines");
        }
        for quote in quotes {
            assert!(texts.iter().any(|text| text.contains(quote)), "no file contains this code:\n{quote}");
        }
    }
    for (name, text) in blocks {
        let is_known = ["console", "toml"].contains(&name) || FILES.iter().any(|(language, _)| *language == name);
        assert!(is_known, "a block of {name:?}:\n{text}");
    }
}

#[test]
fn every_client_is_in_the_document() {
    let folders = fs::read_dir(root().join("docs/clients")).expect("a folder").map(|entry| entry.expect("a folder"));
    let mut found = BTreeSet::new();
    for folder in folders {
        for file in fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("a file")) {
            found.insert(format!("{}/{}", folder.file_name().display(), file.file_name().display()));
        }
    }
    let known: BTreeSet<String> = FILES.iter().flat_map(|(_, files)| *files).map(ToString::to_string).collect();
    assert_eq!(found, known);
}

/// The crates that the document names are those that the Rust clients are built with.
#[test]
fn the_crates_of_the_rust_client_have_the_versions_of_the_workspace() {
    let (document, workspace) = (read("docs/clients.md"), read("Cargo.toml"));
    let (_, crates) = *blocks(&document).iter().find(|(name, _)| *name == "toml").expect("a block of toml");
    let lines: Vec<&str> = crates.lines().filter(|line| line.contains(" = ")).collect();
    assert!(lines.len() >= 10, "{crates}");
    let sources = read("docs/clients/rust/sender.rs") + &read("docs/clients/rust/receiver.rs");
    for line in lines {
        let (name, rest) = line.split_once(" = ").expect("a name");
        let version = rest.split('"').nth(1).expect("a version");
        let declared = workspace.lines().find(|line| line.starts_with(&format!("{name} = "))).expect(name);
        assert_eq!(declared.split('"').nth(1), Some(version), "{name}");
        let path = format!("{name}::");
        assert!(sources.contains(&path), "{name} is not used");
    }
}
