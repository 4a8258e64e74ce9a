//! Plain English: comments, doc comments and Markdown of the listed folders use none of the refused words.

use std::{fs, path::Path};

use super::{assert_none, source};

/// Every folder and file with prose, except the migrations: a released migration keeps its checksum.
const CHECKED: [&str; 35] = [
    ".cargo",
    ".ci",
    ".dockerignore",
    ".env.example",
    ".githooks",
    ".github",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.toml",
    "Dockerfile",
    "Procfile",
    "README.md",
    "SECURITY.md",
    "api",
    "cli",
    "clippy.toml",
    "contracts",
    "crates",
    "deny.toml",
    "deploy",
    "docker-compose.dev.yml",
    "docker-compose.prod.yml",
    "docker-compose.test.yml",
    "docker-compose.yml",
    "docs",
    "jobs",
    "justfile",
    "migrations/README.md",
    "migrations/new",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "tests",
    "worker",
];

/// Words and phrases that a reader stumbles over: archaic, vague, or personal words for programs.
const REFUSED: [&str; 26] = [
    "nobody",
    "whoever",
    "whomever",
    "whatever",
    "whichever",
    "somebody",
    "told",
    "for ever",
    "forever",
    "beside",
    "besides",
    "to be had",
    "is none",
    "what is left of",
    "answer",
    "answers",
    "answered",
    "answering",
    "anew",
    "thereby",
    "hence",
    "whence",
    "lest",
    "thus",
    "is said",
    "such as never",
];

/// Stands for inline code, so that no phrase matches across it.
const CODE: &str = "`";

/// How comments begin in a file; `Some("")` if all text is prose, `None` if the file has no comments.
fn comment_marker(path: &Path) -> Option<&'static str> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("md") => Some(""),
        Some("rs" | "java" | "js" | "sol") => Some("//"),
        Some("sql") => Some("--"),
        Some("env" | "example" | "py" | "sh" | "toml" | "yaml" | "yml") | None => Some("#"),
        Some(_) => None,
    }
}

/// The prose of a line: the part after the comment marker, which a blank must precede.
fn prose<'l>(line: &'l str, marker: &str) -> Option<&'l str> {
    let starts_comment = |at: &usize| line[..*at].chars().next_back().is_none_or(char::is_whitespace);
    let start = line.match_indices(marker).map(|(at, _)| at).find(starts_comment)?;
    Some(&line[start + marker.len()..])
}

/// The words of a text's comments in lower case, each with its line number.
fn words(text: &str, marker: &str) -> Vec<(usize, String)> {
    let mut words = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let Some(prose) = prose(line, marker) else { continue };
        for (index, part) in prose.split('`').enumerate() {
            if index % 2 == 1 {
                words.push((number, CODE.to_owned()));
                continue;
            }
            let is_letter = |c: char| c.is_alphanumeric() || c == '_';
            let found = part.split(|c| !is_letter(c)).filter(|word| !word.is_empty());
            words.extend(found.map(|word| (number, word.to_lowercase())));
        }
    }
    words
}

/// The refused words and phrases in a text, each with its line number; a phrase may continue on the next line.
fn refused(text: &str, marker: &str) -> Vec<(usize, &'static str)> {
    let words = words(text, marker);
    let mut found = Vec::new();
    for phrase in REFUSED {
        let parts: Vec<&str> = phrase.split(' ').collect();
        let matches = words.windows(parts.len()).filter(|window| window.iter().map(|(_, word)| word).eq(&parts));
        found.extend(matches.map(|window| (window[0].0, phrase)));
    }
    found.sort_unstable();
    found
}

/// Checks a file or the files of a folder; returns how many files have comments.
fn check(path: &Path, violations: &mut Vec<String>) -> usize {
    if path.is_dir() {
        let entries = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
        let mut paths: Vec<_> = entries.filter(|path| !path.ends_with("node_modules")).collect();
        paths.sort();
        return paths.iter().map(|path| check(path, violations)).sum();
    }
    let Some(marker) = comment_marker(path) else { return 0 };
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    let name = path.strip_prefix(source::root()).unwrap_or(path).display().to_string();
    violations.extend(refused(&text, marker).into_iter().map(|(line, word)| format!("{name}:{line}: {word:?}")));
    1
}

#[test]
fn comments_and_documents_use_plain_words() {
    let mut violations = Vec::new();
    for path in CHECKED {
        assert!(check(&source::root().join(path), &mut violations) > 0, "{path}: no file to check; correct the list");
    }
    assert_none("write plain English (subject, verb, object) without these words", violations);
}

#[test]
fn refused_words_are_found_in_comments_only() {
    for (text, marker, expected) in [
        ("//! Nobody is Told.", "//", &[(1, "nobody"), (1, "told")][..]),
        ("a: 1 # what is left\n# of it", "#", &[(1, "what is left of")]),
        ("let answer = \"nobody\";", "//", &[]),
        ("// the host http://answer/ and `answer`", "//", &[(1, "answer")]),
        ("let url = \"http://answer/\";", "//", &[]),
        ("// is `x` none", "//", &[]),
        ("// answer_of, retold, unanswered", "//", &[]),
        ("key: told # nobody's", "#", &[(1, "nobody")]),
        ("One stands\nbeside it.", "", &[(2, "beside")]),
    ] {
        assert_eq!(refused(text, marker), expected, "{text}");
    }
}
