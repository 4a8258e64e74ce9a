//! The name of an SQL statement: its operation and its table, without values.

/// The operation of a statement, and the first table that it names.
#[derive(Debug, PartialEq, Eq)]
pub struct Summary<'a> {
    /// `SELECT`, `INSERT`, `UPDATE`, `DELETE`, or the first word of another statement.
    pub operation: String,
    /// Such as `apalis.jobs`; `None` if the statement names no table.
    pub table: Option<&'a str>,
}

impl<'a> Summary<'a> {
    /// Summarises a statement without parsing it completely.
    pub fn of(sql: &'a str) -> Self {
        let words: Vec<&str> = sql.split_ascii_whitespace().collect();
        let is_with = words.first().is_some_and(|first| is_word(first, "WITH"));
        let change = if is_with { first_change(&words) } else { Some(0) };
        let words = &words[change.unwrap_or(0)..];
        let operation = match change {
            Some(_) => bare(words.first().unwrap_or(&"")).to_ascii_uppercase(),
            None => "SELECT".to_owned(),
        };
        let table = words.windows(2).find_map(|pair| {
            let leads = ["FROM", "INTO", "UPDATE"].iter().any(|word| is_word(pair[0], word));
            let name = pair[1].trim_end_matches([',', ';', ')']);
            let named =
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._".contains(&byte));
            (leads && named && !name.is_empty()).then_some(name)
        });
        Self { operation, table }
    }

    /// The query summary of the semantic conventions, such as `INSERT apalis.jobs`.
    pub fn text(&self) -> String {
        match self.table {
            Some(table) => format!("{} {table}", self.operation),
            None => self.operation.clone(),
        }
    }
}

/// The place of the first change of data; `None` in a statement that only reads.
fn first_change(words: &[&str]) -> Option<usize> {
    (0..words.len()).find(|place| {
        // FOR UPDATE and DO UPDATE are parts of other operations.
        let continues = place.checked_sub(1).is_some_and(|before| {
            let before = words[before];
            is_word(before, "FOR") || is_word(before, "DO")
        });
        !continues && ["INSERT", "UPDATE", "DELETE"].iter().any(|change| is_word(words[*place], change))
    })
}

/// A word without the punctuation around it.
fn bare(word: &str) -> &str {
    word.trim_matches(|c: char| !c.is_ascii_alphabetic())
}

fn is_word(word: &str, expected: &str) -> bool {
    word.trim_matches('(').eq_ignore_ascii_case(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_have_names_without_values() {
        for (sql, name) in [
            ("INSERT INTO apalis.jobs (id) SELECT id FROM unnest($1::text[]) AS new (id)", "INSERT apalis.jobs"),
            ("SELECT extract(epoch FROM now()), status FROM transactions WHERE id = 'x'", "SELECT transactions"),
            (
                "WITH due AS (SELECT ctid FROM apalis.jobs FOR UPDATE SKIP LOCKED) UPDATE apalis.jobs SET x = 1",
                "UPDATE apalis.jobs",
            ),
            ("with a AS (SELECT 1) select * from a", "SELECT a"),
            ("WITH a AS (SELECT x FROM b), c AS (INSERT INTO items SELECT x FROM a) SELECT x FROM c", "INSERT items"),
            ("DELETE FROM items WHERE id = $1", "DELETE items"),
            ("SELECT pg_notify($1, $2)", "SELECT"),
            ("", ""),
            ("COMMIT", "COMMIT"),
        ] {
            assert_eq!(Summary::of(sql).text(), name, "{sql}");
        }
    }
}
