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
        let words = || sql.split_ascii_whitespace();
        let first = words().next().unwrap_or_default().trim_matches(|c: char| !c.is_ascii_alphabetic());
        let operation =
            if first.eq_ignore_ascii_case("WITH") { operation_after_with(words()) } else { first.to_ascii_uppercase() };
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

    /// The query summary of the semantic conventions, such as `INSERT apalis.jobs`.
    pub fn text(&self) -> String {
        match self.table {
            Some(table) => format!("{} {table}", self.operation),
            None => self.operation.clone(),
        }
    }
}

/// The operation of a statement that begins with WITH: its first change of data, else `SELECT`.
fn operation_after_with<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut before = "";
    for word in words {
        let word = word.trim_matches('(');
        // FOR UPDATE and DO UPDATE are parts of other operations.
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
