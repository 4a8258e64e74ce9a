//! Splits a migration into its statements, to name the one that the database has refused. They are sent together: only
//! the message about a refusal depends on this.

/// The statements of a script in order, without comments around them.
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

/// A statement on one line, short enough for a message.
pub(super) fn one_line(statement: &str) -> String {
    const LONGEST: usize = 160;
    let lines = statement.lines().filter(|line| !line.trim_start().starts_with("--"));
    let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    let line = words.join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

fn without_comments(text: &str) -> &str {
    let mut rest = text.trim_start();
    while rest.starts_with("--") || rest.starts_with("/*") {
        rest = rest[skipped(rest)..].trim_start();
    }
    rest
}

/// Where the `;` is that ends this statement, or the end of the text.
fn end_of_statement(text: &str) -> usize {
    let mut at = 0;
    while let Some(next) = text[at..].chars().next() {
        if next == ';' {
            return at;
        }
        // A `$` in a name, such as in `a$b$`, begins no quotes.
        let in_name = text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') && next == '$';
        at += if in_name { next.len_utf8() } else { skipped(&text[at..]) };
    }
    at
}

/// The length of what stands here and cannot be taken apart: a comment, quoted text, or one character.
fn skipped(text: &str) -> usize {
    let up_to = |begin: usize, end: &str| text[begin..].find(end).map_or(text.len(), |at| begin + at + end.len());
    let dollar = || {
        let tag = &text[..=1 + text[1..].find('$')?];
        let is_tag = tag[1..tag.len() - 1].chars().all(|c| c.is_alphanumeric() || c == '_');
        is_tag.then(|| up_to(tag.len(), tag))
    };
    match text.as_bytes() {
        [b'-', b'-', ..] => up_to(2, "\n"),
        [b'/', b'*', ..] => up_to(2, "*/"),
        [b'E' | b'e', b'\'', ..] => escaped(text),
        [quote @ (b'\'' | b'"'), ..] => up_to(1, if *quote == b'"' { "\"" } else { "'" }),
        [b'$', ..] => dollar().unwrap_or(1),
        _ => text.chars().next().map_or(0, char::len_utf8),
    }
}

/// The length of a text such as `E'it\'s'`.
fn escaped(text: &str) -> usize {
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
    fn every_migration_is_made_of_statements() {
        const FIRST: [&str; 16] = [
            "ALTER", "COMMENT", "CREATE", "DELETE", "DO", "DROP", "INSERT", "SELECT", "SET", "UPDATE", "WITH", "LOCK",
            "ANALYZE", "REINDEX", "GRANT", "REVOKE",
        ];
        for migrator in [super::super::apalis(), super::super::ours()] {
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
