//! The name of an SQL statement: what it does and to which table, never with a value.

/// The operation of a statement, and the table that it names first.
#[derive(Debug, PartialEq, Eq)]
pub struct Summary<'a> {
    /// `SELECT`, `INSERT`, `UPDATE`, `DELETE`, or the first word of anything else.
    pub operation: String,
    /// `apalis.jobs`; nothing when no table is named.
    pub table: Option<&'a str>,
}

impl<'a> Summary<'a> {
    /// Reads a statement as far as that takes.
    pub fn of(sql: &'a str) -> Self {
        let words = || sql.split_ascii_whitespace();
        let first = words().next().unwrap_or_default().trim_matches(|c: char| !c.is_ascii_alphabetic());
        let operation = if first.eq_ignore_ascii_case("WITH") { changes(words()) } else { first.to_ascii_uppercase() };
        let table = words().zip(words().skip(1)).find_map(|(before, name)| {
            let leads =
                ["FROM", "INTO", "UPDATE"].iter().any(|word| before.trim_matches('(').eq_ignore_ascii_case(word));
            let name = name.trim_end_matches([',', ';', ')']);
            let named =
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._".contains(&byte));
            (leads && named && !name.is_empty()).then_some(name)
        });
        Self { operation, table }
    }

    /// `INSERT apalis.jobs`, the summary of the semantic conventions.
    pub fn text(&self) -> String {
        match self.table {
            Some(table) => format!("{} {table}", self.operation),
            None => self.operation.clone(),
        }
    }
}

/// What a statement that begins with WITH does in the end: it changes something, or reads.
fn changes<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut before = "";
    for word in words {
        let word = word.trim_matches('(');
        // Not FOR UPDATE and not DO UPDATE.
        let begins = !before.eq_ignore_ascii_case("FOR") && !before.eq_ignore_ascii_case("DO");
        if begins && ["INSERT", "UPDATE", "DELETE"].iter().any(|change| word.eq_ignore_ascii_case(change)) {
            return word.to_ascii_uppercase();
        }
        before = word;
    }
    "SELECT".to_owned()
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
            ("DELETE FROM items WHERE id = $1", "DELETE items"),
            ("SELECT pg_notify($1, $2)", "SELECT"),
            ("", ""),
            ("COMMIT", "COMMIT"),
        ] {
            assert_eq!(Summary::of(sql).text(), name, "{sql}");
        }
    }
}
