//! Finds the conditions of a statement, so that none is missed when they are removed one by one.

use std::ops::Range;

/// Words after which the conditions of a `WHERE` or an `ON` have ended.
const ENDS: [&str; 13] =
    ["WHERE", "RETURNING", "ORDER", "GROUP", "FOR", "LIMIT", "OFFSET", "ON", "DO", "UNION", "LEFT", "CROSS", "JOIN"];

/// The ranges of all conditions of a statement in one line: those that `AND` connects after `WHERE` and `ON`, also in
/// inner statements; and each `FOR UPDATE` and `SKIP LOCKED`.
pub(super) fn find(statement: &str) -> Vec<Range<usize>> {
    let words = words(statement);
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let next = words.get(at + 1).map_or("", |next| &statement[next.clone()]);
        let next_but_one = words.get(at + 2).map_or("", |next| &statement[next.clone()]);
        match (&statement[word.clone()], next) {
            ("WHERE", _) => split(statement, &words[at + 1..], &mut found),
            ("ON", next) if next != "CONFLICT" => split(statement, &words[at + 1..], &mut found),
            ("SKIP", "LOCKED") => found.push(word.start..words[at + 1].end),
            ("FOR", "UPDATE") if !["SKIP", "OF"].contains(&next_but_one) => found.push(word.start..words[at + 1].end),
            _ => {}
        }
    }
    found
}

/// Splits the conditions at the beginning of these words.
fn split(statement: &str, words: &[Range<usize>], found: &mut Vec<Range<usize>>) {
    let Some(first) = words.first() else { return };
    let (mut depth, mut start, mut end) = (0, first.start, first.start);
    for word in words {
        let text = &statement[word.clone()];
        match text {
            ")" if depth == 0 => break,
            _ if depth == 0 && ENDS.contains(&text) => break,
            "AND" if depth == 0 => {
                found.push(start..end);
                start = word.end + 1;
            }
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        end = word.end;
    }
    found.push(start..end);
}

/// Words and parentheses. A text in quotes is one word.
fn words(statement: &str) -> Vec<Range<usize>> {
    let mut words: Vec<Range<usize>> = Vec::new();
    let (mut is_quoted, mut is_open) = (false, false);
    for (at, letter) in statement.char_indices() {
        is_quoted ^= letter == '\'';
        let is_alone = !is_quoted && ['(', ')'].contains(&letter);
        if letter == ' ' && !is_quoted {
            is_open = false;
            continue;
        }
        let end = at + letter.len_utf8();
        match words.last_mut() {
            Some(last) if is_open && !is_alone => last.end = end,
            _ => words.push(at..end),
        }
        is_open = !is_alone;
    }
    words
}

#[test]
fn conditions_are_found_at_every_depth() {
    let statement = "UPDATE t SET a = CASE WHEN b AND c THEN 1 END WHERE id = ANY(ARRAY(SELECT id FROM u JOIN v ON u.x = v.x \
                     AND v.y WHERE s = 'a AND (b' AND NOT EXISTS (SELECT FROM w WHERE n = $2) ORDER BY i FOR UPDATE SKIP \
                     LOCKED)) AND (c OR d) RETURNING id";
    let found: Vec<&str> = find(statement).into_iter().map(|range| &statement[range]).collect();
    let inner = &statement[statement.find("id = ANY").unwrap()..statement.find(" AND (c").unwrap()];
    assert_eq!(
        found,
        [
            inner,
            "(c OR d)",
            "u.x = v.x",
            "v.y",
            "s = 'a AND (b'",
            "NOT EXISTS (SELECT FROM w WHERE n = $2)",
            "n = $2",
            "SKIP LOCKED"
        ]
    );
    assert_eq!(find("SELECT FROM t WHERE a FOR UPDATE").len(), 2);
}
