//! Splits a migration into its statements, so that an error message can quote the refused one. The statements are sent
//! together, so only the message depends on this split.

/// Returns the statements of a script in order, without the comments around them.
pub(super) fn split(script: &str) -> Vec<&str> {
    let (mut statements, mut rest) = (Vec::new(), script);
    loop {
        rest = without_comments(rest);
        if rest.is_empty() {
            return statements;
        }
        let end = end_of_statement(rest);
        statements.push(rest[..end].trim_end());
        rest = rest[end..].strip_prefix(';').unwrap_or_default();
    }
}

/// Shortens a statement to one line of at most 160 characters, for an error message.
pub(super) fn one_line(statement: &str) -> String {
    const MAX_LENGTH: usize = 160;
    let lines = statement.lines().filter(|line| !line.trim_start().starts_with("--"));
    let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    let line = words.join(" ");
    match line.char_indices().nth(MAX_LENGTH) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

/// Removes blanks and comments at the start of a text.
fn without_comments(text: &str) -> &str {
    let mut rest = text.trim_start();
    while rest.starts_with("--") || rest.starts_with("/*") {
        rest = rest[token_length(rest)..].trim_start();
    }
    rest
}

/// The position of the `;` that ends the first statement, or the end of the text.
fn end_of_statement(text: &str) -> usize {
    let mut at = 0;
    while let Some(next) = text[at..].chars().next() {
        if next == ';' {
            return at;
        }
        // A `$` inside a name, as in `a$b$`, does not start a quoted text.
        let in_name = text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') && next == '$';
        at += if in_name { next.len_utf8() } else { token_length(&text[at..]) };
    }
    at
}

/// The length of the token at the start: a comment, a quoted text, or one character.
fn token_length(text: &str) -> usize {
    let length_until =
        |begin: usize, end: &str| text[begin..].find(end).map_or(text.len(), |at| begin + at + end.len());
    let dollar = || {
        let tag = &text[..=1 + text[1..].find('$')?];
        let is_tag = tag[1..tag.len() - 1].chars().all(|c| c.is_alphanumeric() || c == '_');
        is_tag.then(|| length_until(tag.len(), tag))
    };
    match text.as_bytes() {
        [b'-', b'-', ..] => length_until(2, "\n"),
        [b'/', b'*', ..] => length_until(2, "*/"),
        [b'E' | b'e', b'\'', ..] => escape_string_length(text),
        [quote @ (b'\'' | b'"'), ..] => length_until(1, if *quote == b'"' { "\"" } else { "'" }),
        [b'$', ..] => dollar().unwrap_or(1),
        _ => text.chars().next().map_or(0, char::len_utf8),
    }
}

/// The length of a string with backslash escapes, such as `E'it\'s'`.
fn escape_string_length(text: &str) -> usize {
    let mut characters = text.char_indices().skip(2);
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => drop(characters.next()),
            '\'' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_semicolon_ends_a_statement_unless_it_is_quoted() {
        for (script, statements) in [
            ("", &[][..]),
            (" -- nothing; here\n/* or; here */ ", &[]),
            ("SELECT 1", &["SELECT 1"]),
            ("SELECT 1;", &["SELECT 1"]),
            ("-- why\nSELECT 1 ;\n\n SELECT 2; -- end", &["SELECT 1", "SELECT 2"]),
            ("SELECT ';', 'it''s;' ; SELECT 2", &["SELECT ';', 'it''s;'", "SELECT 2"]),
            (r"SELECT E'\';', 3; SELECT 2", &[r"SELECT E'\';', 3", "SELECT 2"]),
            ("SELECT 1 AS \"a;b\"; SELECT 2", &["SELECT 1 AS \"a;b\"", "SELECT 2"]),
            ("DO $$ BEGIN; END $$; SELECT $1; SELECT 2", &["DO $$ BEGIN; END $$", "SELECT $1", "SELECT 2"]),
            (
                "DO $a$ $$;$$ ; $a$; SELECT 'ü'; SELECT a$b; SELECT 3",
                &["DO $a$ $$;$$ ; $a$", "SELECT 'ü'", "SELECT a$b", "SELECT 3"],
            ),
            ("SELECT 1 -- why;\n + 1; SELECT 2 /* ; */ + 1", &["SELECT 1 -- why;\n + 1", "SELECT 2 /* ; */ + 1"]),
            ("SELECT 'open; SELECT 2", &["SELECT 'open; SELECT 2"]),
        ] {
            assert_eq!(split(script), statements, "{script}");
        }
        assert_eq!(one_line("SELECT 1 -- why;\n  -- more\n  + 1"), "SELECT 1 -- why; + 1");
        assert_eq!(one_line(&"ü ".repeat(200)).chars().count(), 161);
    }

    #[test]
    fn every_migration_splits_into_known_statements() {
        const FIRST: [&str; 16] = [
            "ALTER", "COMMENT", "CREATE", "DELETE", "DO", "DROP", "INSERT", "SELECT", "SET", "UPDATE", "WITH", "LOCK",
            "ANALYZE", "REINDEX", "GRANT", "REVOKE",
        ];
        for migrator in [super::super::apalis_migrations(), super::super::millrace_migrations()] {
            for migration in migrator.iter() {
                let statements = split(migration.sql.as_str());
                assert!(!statements.is_empty(), "{}", migration.version);
                for statement in statements {
                    let first = statement.split_whitespace().next().unwrap_or_default().to_uppercase();
                    assert!(FIRST.contains(&&*first), "{}: {statement}", migration.version);
                }
            }
        }
    }
}
