//! Query plans in a newly migrated database, whose tables are empty and not analysed.

use std::{fs, path::Path};

use runtime::db::Database;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor};

use crate::harness::database;

/// Parts of statements of `millrace bench`, which read whole tables on purpose.
const BENCH_STATEMENTS: [&str; 3] = ["\"once!\"", "\"p50!\"", "created_at >= to_timestamp($1)"];

#[tokio::test]
async fn no_statement_reads_all_jobs_or_all_transactions() {
    let database = database::fresh().await;
    let mut session = Database::parse(&database.url).expect("a URL").connect("test").await.expect("a session");
    let queries = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.sqlx");
    let mut explained = 0;
    for file in fs::read_dir(queries).expect("the folder of all queries") {
        let text = fs::read_to_string(file.expect("a file").path()).expect("a query");
        let query: Value = serde_json::from_str(&text).expect("JSON");
        let sql = query["query"].as_str().expect("a text");
        let is_ours = sql.contains("apalis.jobs") || sql.contains("transactions");
        let can_be_planned =
            ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "("].iter().any(|word| sql.starts_with(word));
        if !is_ours || !can_be_planned || BENCH_STATEMENTS.iter().any(|part| sql.contains(part)) {
            continue;
        }
        let parameters = query["describe"]["parameters"]["Left"].as_array().map_or(0, Vec::len);
        let values = vec!["NULL"; parameters].join(", ");
        let values = if parameters == 0 { values } else { format!("({values})") };
        let prepare = AssertSqlSafe(format!("PREPARE statement AS {sql}"));
        session.execute(prepare).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let explain = AssertSqlSafe(format!("EXPLAIN EXECUTE statement{values}"));
        let plan: Vec<String> = sqlx::query_scalar(explain).persistent(false).fetch_all(&mut session).await.expect(sql);
        session.execute("DEALLOCATE statement").await.expect("a prepared statement");
        let table_scan =
            plan.iter().find(|line| line.contains("Seq Scan on jobs") || line.contains("Seq Scan on transactions"));
        assert!(table_scan.is_none(), "{sql}\n{}", plan.join("\n"));
        explained += 1;
    }
    assert!(explained > 30, "only {explained} statements");
}
