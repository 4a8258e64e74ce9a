//! Parser for the file `.env` of the working folder. It expands nothing, and does not modify the process environment.
//!
//! A line is `NAME=value`, optionally after `export`. Blank lines and lines that begin with `#` are ignored.
//!
//! | value | meaning |
//! |---|---|
//! | `a b$c\d` | literal, without surrounding whitespace; a `#` after a blank begins a comment |
//! | `'a b$c\d # e'` | literal between the quotes |
//! | `"a b$c\\d # e"` | literal between the quotes, except for the escapes `\\`, `\"`, `\$`, `\n`, `\r` and `\t` |
//!
//! A value ends on its line, and each name occurs once. Errors contain the line number, but not the line: it may hold
//! a secret.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// Only the working folder is searched: a `.env` of a parent folder belongs to another project.
const NAME: &str = ".env";

/// A parsed `.env` file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct EnvFile {
    /// Its absolute path; `None` if the file does not exist.
    pub path: Option<PathBuf>,
    /// The variables, each with its line number and value.
    pub(super) values: BTreeMap<String, (usize, String)>,
    /// Its errors, one line each.
    pub(super) errors: Vec<String>,
}

impl EnvFile {
    /// The file of the working folder. It is read once per process.
    pub fn of_working_folder() -> &'static Self {
        static FILE: OnceLock<EnvFile> = OnceLock::new();
        FILE.get_or_init(|| Self::read(Path::new(NAME)))
    }

    /// The number of variables.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    fn read(path: &Path) -> Self {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            // A folder of this name is a Python virtual environment.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory) => {
                return Self::default();
            }
            Err(error) => {
                let error = format!("{NAME}: cannot be read: {error}; it must be readable, or removed");
                return Self { errors: vec![error], ..Self::default() };
            }
        };
        Self { path: Some(std::path::absolute(path).unwrap_or_else(|_| path.to_owned())), ..Self::parse(&bytes) }
    }

    fn parse(bytes: &[u8]) -> Self {
        let mut file = Self::default();
        // Windows editors write a byte order mark.
        let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
        for (line, number) in bytes.split(|byte| *byte == b'\n').zip(1..) {
            let read = match std::str::from_utf8(line) {
                Ok(line) => parse_line(line).map_err(str::to_owned),
                Err(_) => Err("must be text in UTF-8".to_owned()),
            };
            let read = read.and_then(|read| match read {
                Some((name, _)) if file.values.contains_key(name) => {
                    Err(format!("{name} is set on line {} as well; each name must stand once", file.values[name].0))
                }
                read => Ok(read),
            });
            match read {
                Ok(None) => {}
                Ok(Some((name, value))) => drop(file.values.insert(name.to_owned(), (number, value))),
                Err(error) => file.errors.push(format!("{NAME} line {number}: {error}")),
            }
        }
        file
    }
}

/// Parses one line into a name and a value; `None` for a blank line or a comment.
fn parse_line(line: &str) -> Result<Option<(&str, String)>, &'static str> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let line = line.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])).unwrap_or(line);
    let (name, value) = line.split_once('=').ok_or("must read NAME=value, such as PORT=8000, or begin with #")?;
    let name = name.trim();
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !begins_well || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err("must have a name of letters, digits and _ before the first =, such as PORT=8000");
    }
    parse_value(value).map(|value| Some((name, value)))
}

fn parse_value(text: &str) -> Result<String, &'static str> {
    let begin = text.trim_start();
    match begin.chars().next() {
        Some('\'') => {
            let (value, rest) =
                begin[1..].split_once('\'').ok_or("must end the value with the ' that it begins with")?;
            expect_comment_or_end(rest).map(|()| value.to_owned())
        }
        Some('"') => parse_double_quoted(&begin[1..]),
        // In `K= # comment` the blank before the comment is the one after `=`.
        _ => Ok(text[..comment_start(text).unwrap_or(text.len())].trim().to_owned()),
    }
}

/// The offset at which a comment begins: a `#` after a blank.
fn comment_start(text: &str) -> Option<usize> {
    text.match_indices('#').map(|(at, _)| at).find(|at| text[..*at].ends_with([' ', '\t']))
}

fn parse_double_quoted(text: &str) -> Result<String, &'static str> {
    let (mut value, mut characters) = (String::new(), text.chars());
    while let Some(character) = characters.next() {
        match character {
            '"' => return expect_comment_or_end(characters.as_str()).map(|()| value),
            '\\' => value.push(match characters.next() {
                Some(escaped @ ('\\' | '"' | '$')) => escaped,
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                _ => {
                    return Err(
                        "must have one of \\ \" $ n r t after a \\ in double quotes; '…' takes all as it stands",
                    );
                }
            }),
            other => value.push(other),
        }
    }
    Err("must end the value with the \" that it begins with")
}

fn expect_comment_or_end(rest: &str) -> Result<(), &'static str> {
    let blank = rest.trim().is_empty() || comment_start(rest).is_some_and(|at| rest[..at].trim().is_empty());
    if blank { Ok(()) } else { Err("must have nothing but a comment after the closing quote") }
}

#[cfg(test)]
mod tests {
    use hostile::proptest::prelude::*;

    use super::*;

    fn values(text: &str) -> Vec<(String, String)> {
        let file = EnvFile::parse(text.as_bytes());
        assert!(file.errors.is_empty(), "{text:?}: {:?}", file.errors);
        file.values.into_iter().map(|(name, (_, value))| (name, value)).collect()
    }

    #[test]
    fn values_are_not_expanded() {
        for (text, value) in [
            ("K=pa$$word", "pa$$word"),
            ("K=${HOME}/$PATH", "${HOME}/$PATH"),
            ("K=a\\nb\\", "a\\nb\\"),
            ("K=a b  c  ", "a b  c"),
            ("K = v", "v"),
            ("  export K=v\r", "v"),
            ("export\tK=v", "v"),
            ("K=", ""),
            ("K=   ", ""),
            ("K= # nothing", ""),
            ("K=#f00", "#f00"),
            ("K=a#b", "a#b"),
            ("K=a #b", "a"),
            ("K=a\t# b = c", "a"),
            ("K=a=b=c", "a=b=c"),
            ("K=a'b\"c", "a'b\"c"),
            ("K='pa$$\\word # \"x\"'", "pa$$\\word # \"x\""),
            ("K='a' # b", "a"),
            ("K=''", ""),
            ("K=\"pa$$word ${HOME} # x\"", "pa$$word ${HOME} # x"),
            (r#"K="a\"b\\c\$d\ne\tf""#, "a\"b\\c$d\ne\tf"),
            ("K=\"ü€\" ", "ü€"),
            ("K=0 15 0 * * *", "0 15 0 * * *"),
            ("\u{feff}K=v", "v"),
            ("# x\n\n  # y = z\nK=v\n", "v"),
        ] {
            assert_eq!(values(text), [("K".to_owned(), value.to_owned())], "{text:?}");
        }
    }

    #[test]
    fn the_example_file_is_valid() {
        let file = EnvFile::parse(include_bytes!("../../../../.env.example"));
        assert!(file.errors.is_empty() && file.len() > 20, "{file:?}");
        assert_eq!(file.values["CRYPTO_FETCH_CRON"].1, "0 15 0 * * *");
        assert!(file.values.keys().all(|name| super::super::names::unknown_in_file(name).is_none()), "{file:?}");
    }

    #[test]
    fn an_error_names_the_line_number_without_the_line() {
        for (line, expected) in [
            ("hunter2", "NAME=value"),
            ("=hunter2", "name of letters"),
            ("1K=hunter2", "name of letters"),
            ("a-b=hunter2", "name of letters"),
            ("a b=hunter2", "name of letters"),
            ("K='hunter2", "the ' that it begins with"),
            ("K=\"hunter2", "the \" that it begins with"),
            ("K=\"hunter2\\", "after a \\"),
            ("K=\"hunter2\\w\"", "after a \\"),
            ("K=\"a\" hunter2", "nothing but a comment"),
            ("K='a'#hunter2", "nothing but a comment"),
            ("A=hunter2", "A is set on line 1 as well"),
        ] {
            let file = EnvFile::parse(format!("A=1\n\n{line}\nexport B=2\r\n").as_bytes());
            let errors = file.errors.join("\n");
            assert!(errors.starts_with(".env line 3: ") && file.errors.len() == 1, "{line}: {errors}");
            assert!(errors.contains(expected) && !errors.contains("hunter2"), "{line}: {errors}");
            assert_eq!(file.values["B"], (4, "2".to_owned()), "{line}: later lines are read");
        }
        let file = EnvFile::parse(b"A=\xff\nB\nC=\"\n");
        assert_eq!(file.errors.len(), 3, "all errors are reported: {:?}", file.errors);
        assert!(file.errors[0].contains("line 1: must be text in UTF-8"), "{:?}", file.errors);
    }

    #[test]
    fn hostile_files_give_plain_names_and_quiet_errors() -> Result<(), hostile::Failure> {
        let grammar = "((export )?[A-Z_]{1,4} ?= ?([a-z #$]{0,6}|'[a-z #]{0,6}'|\"[a-z #\\\\n]{0,6}\"?)\r?\n){0,6}";
        let corpus = include_str!("../../../../tests/corpora/env_file.txt");
        hostile::check_bytes(corpus, grammar.prop_map(String::into_bytes), |bytes| {
            let file = EnvFile::parse(bytes);
            let lines = bytes.split(|byte| *byte == b'\n').count();
            prop_assert!(file.len() + file.errors.len() <= lines, "one result for each line");
            for (name, (line, value)) in &file.values {
                prop_assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{}", name);
                prop_assert!(!name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()), "{}", name);
                prop_assert!((1..=lines).contains(line));
                prop_assert!(value.len() <= bytes.len());
            }
            let line_errors = file.errors.iter().all(|error| error.starts_with(".env line "));
            prop_assert!(line_errors, "{:?}", file.errors);
            Ok(())
        })
    }

    #[test]
    fn hostile_values_survive_their_quotes() -> Result<(), hostile::Failure> {
        hostile::check("[^\n\u{0}]{0,30}|[\\\\\"'$#= a\r\t]{0,12}", |value| {
            let escaped = value.chars().fold(String::new(), |mut text, c| {
                match c {
                    '\\' | '"' | '$' => text.extend(['\\', c]),
                    '\r' => text.push_str("\\r"),
                    c => text.push(c),
                }
                text
            });
            prop_assert_eq!(values(&format!("K=\"{escaped}\" # comment")), [("K".to_owned(), value.clone())]);
            if !value.contains('\'') {
                let [_, (_, read)] = &values(&format!("A=1\nK='{value}'\n"))[..] else { panic!("two variables") };
                prop_assert_eq!(read, value);
            }
            Ok(())
        })
    }
}
