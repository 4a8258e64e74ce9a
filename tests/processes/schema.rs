//! Processes with an unmigrated, newer or changed schema, and migrations of filled tables.

use std::time::Duration;

use sqlx::AssertSqlSafe;

use super::{SOON, run};
use crate::harness::{
    database,
    port::Port,
    process::{Api, Process, start_worker},
};

#[tokio::test]
async fn an_unmigrated_database_is_refused_until_it_is_migrated() {
    let database = database::fresh().await;
    let url = [("DATABASE_URL", &*database.url)];
    let pool = database.pool().await;
    for statement in ["DROP SCHEMA apalis CASCADE", "DROP SCHEMA public CASCADE", "CREATE SCHEMA public"] {
        sqlx::query(AssertSqlSafe(statement)).execute(&pool).await.unwrap();
    }
    for command in ["api", "worker"] {
        let (succeeded, log) = run(&[command], &[url[0], ("PORT", "0")]).await;
        assert!(!succeeded && log.contains("not migrated") && log.contains("millrace migrate"), "{command}: {log}");
    }
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname IN ('public', 'apalis')";
    assert_eq!(
        sqlx::query_scalar::<_, i64>(tables).fetch_one(&pool).await.unwrap(),
        0,
        "no process migrates by itself"
    );

    let mut migrating: Vec<_> = (0..3).map(|_| Process::start(&["migrate"], &url)).collect();
    for process in &mut migrating {
        assert!(process.wait_for_exit(SOON).await.success(), "concurrent migration: {}", process.log());
    }
    let (succeeded, log) = run(&["migrate"], &url).await;
    assert!(succeeded, "repeated migration: {log}");
    drop((Api::start(&database.url, &[]).await, start_worker(&database.url, &[]).await));
}

/// A first migration that was interrupted, or that another process has just begun: apalis first creates a function in `public`,
/// and moves it in a later migration.
#[tokio::test]
async fn a_database_in_the_middle_of_its_first_migration_is_ours() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    // One session, because of the temporary table.
    let begun = "CREATE TEMPORARY TABLE first AS SELECT * FROM apalis._sqlx_migrations ORDER BY version LIMIT 5;
                 DROP SCHEMA apalis CASCADE;
                 DROP SCHEMA public CASCADE;
                 CREATE SCHEMA public;
                 CREATE SCHEMA apalis;
                 CREATE TABLE apalis._sqlx_migrations AS SELECT * FROM first;
                 CREATE FUNCTION public.generate_ulid() RETURNS text LANGUAGE sql AS $$ SELECT 'id' $$";
    sqlx::raw_sql(begun).execute(&pool).await.unwrap();
    let (_, log) = run(&["migrate", "--status"], &[("DATABASE_URL", &*database.url)]).await;
    assert!(log.contains("missing") && !log.contains("neither empty"), "{log}");
    // Without a migration of apalis, the function is another program's.
    sqlx::raw_sql("DROP SCHEMA apalis CASCADE").execute(&pool).await.unwrap();
    let (succeeded, log) = run(&["migrate", "--status"], &[("DATABASE_URL", &*database.url)]).await;
    assert!(!succeeded && log.contains("it has the function public.generate_ulid"), "{log}");
}

#[tokio::test]
async fn a_database_of_another_program_version_is_refused() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let find = "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables WHERE tablename LIKE '%sqlx_migrations%'";
    let ledgers: Vec<String> = sqlx::query_scalar(find).fetch_all(&pool).await.unwrap();
    assert!(!ledgers.is_empty());
    for ledger in ledgers {
        let newer = format!(
            "INSERT INTO {ledger} (version, description, success, checksum, execution_time)
             VALUES (20991231000000, 'from the future', true, '', 0)"
        );
        let older = format!("DELETE FROM {ledger} WHERE version = 20991231000000");
        let changed = format!("UPDATE {ledger} SET checksum = checksum || '\\x00'::bytea");
        for (case, statement, text) in
            [("newer", newer, "newer than this program"), ("changed", format!("{older}; {changed}"), "has changed")]
        {
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&pool).await.unwrap();
            for command in ["api", "worker"] {
                let (succeeded, log) = run(&[command], &[("DATABASE_URL", &database.url), ("PORT", "0")]).await;
                assert!(!succeeded && log.contains(text), "{case} {ledger}, {command}: {log}");
            }
            let (succeeded, log) = run(&["migrate"], &[("DATABASE_URL", &database.url)]).await;
            assert!(!succeeded && log.contains("migration"), "{case} {ledger}, migrate: {log}");
        }
        let restored = format!("UPDATE {ledger} SET checksum = substring(checksum FROM 1 FOR length(checksum) - 1)");
        sqlx::raw_sql(AssertSqlSafe(restored)).execute(&pool).await.unwrap();
    }
    drop(Api::start(&database.url, &[]).await);
}

/// Migrations that change filled tables and keep their rows, in the order in which they are applied.
const IN_PLACE: [&str; 2] = ["20261121090230_settle_in_place", "20261121090240_drop_unused_worker_indexes"];

/// Every index and the settings of every table.
async fn indexes_and_settings(pool: &sqlx::PgPool) -> Vec<String> {
    let query = "SELECT indexdef FROM pg_indexes WHERE schemaname IN ('public', 'apalis')
                 UNION ALL
                 SELECT relname || ' ' || reloptions::text FROM pg_class WHERE reloptions IS NOT NULL
                 ORDER BY 1";
    sqlx::query_scalar(query).fetch_all(pool).await.unwrap()
}

#[tokio::test]
async fn migrations_of_filled_tables_can_be_reverted_and_reapplied() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let fill = "INSERT INTO transactions (id, transaction_id, source_account, destination_account, amount, currency,
                                          status, error, created_at, due_at, processed_at)
                SELECT gen_random_uuid(), status || n, 'a', 'b', 1, 'INR', status, error, now(), now(),
                       CASE WHEN status <> 'PROCESSING' THEN now() END
                FROM generate_series(1, 1000) AS n
                CROSS JOIN (VALUES ('PROCESSED', NULL), ('PROCESSING', NULL), ('FAILED', 'refused')) AS s (status, error);
                INSERT INTO apalis.jobs (id, job_type, job) SELECT n::text, 'q', '' FROM generate_series(1, 1000) AS n;
                INSERT INTO apalis.workers (id, worker_type, storage_name) VALUES ('w', 'x', 'y'), ('v', 'x', 'y')";
    sqlx::raw_sql(fill).execute(&pool).await.unwrap();
    let rows = "SELECT md5(string_agg(t::text, '' ORDER BY id)) FROM transactions AS t";
    let rows: String = sqlx::query_scalar(rows).fetch_one(&pool).await.unwrap();
    let up = indexes_and_settings(&pool).await;
    let run = async |name: &str, direction: &str| {
        let path = format!("{}/../migrations/{name}.{direction}.sql", env!("CARGO_MANIFEST_DIR"));
        let sql = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut transaction = pool.begin().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
    };
    for name in IN_PLACE.iter().rev() {
        run(name, "down").await;
    }
    let down = indexes_and_settings(&pool).await;
    let only = |some: &[String], others: &[String]| -> Vec<String> {
        some.iter().filter(|one| !others.contains(one)).cloned().collect()
    };
    assert_eq!(
        only(&up, &down),
        [
            "CREATE INDEX transactions_failed ON public.transactions USING btree (id) WHERE (error IS NOT NULL)",
            "jobs {fillfactor=40}",
            "transactions {fillfactor=45}",
        ]
    );
    assert_eq!(
        only(&down, &up),
        [
            "CREATE INDEX idx_apalis_workers_last_seen ON apalis.workers USING btree (last_seen)",
            "CREATE INDEX idx_apalis_workers_worker_type ON apalis.workers USING btree (worker_type)",
            "CREATE INDEX lsidx ON apalis.workers USING btree (last_seen)",
            "CREATE INDEX transactions_newest ON public.transactions USING btree (status, created_at DESC, transaction_id DESC)",
            "CREATE INDEX wtidx ON apalis.workers USING btree (worker_type)",
            "CREATE UNIQUE INDEX unique_worker_id ON apalis.workers USING btree (id)",
        ]
    );
    for name in IN_PLACE {
        run(name, "up").await;
    }
    assert_eq!(indexes_and_settings(&pool).await, up);
    let same = "SELECT md5(string_agg(t::text, '' ORDER BY id)) FROM transactions AS t";
    assert_eq!(sqlx::query_scalar::<_, String>(same).fetch_one(&pool).await.unwrap(), rows);
}

#[tokio::test]
async fn a_process_waits_for_a_missing_database_and_can_be_stopped_meanwhile() {
    // No server listens there. The process waits, because a database may start after it.
    let port = Port::free();
    let url = format!("postgres://me:hunter2@127.0.0.1:{port}/x");
    for command in ["api", "worker"] {
        let variables = [("DATABASE_URL", &*url), ("PORT", "0"), ("LOG_FORMAT", "json")];
        let mut process = Process::start(&[command], &variables);
        process.wait_for_line("waiting for the database").await;
        process.signal(nix::sys::signal::Signal::SIGTERM);
        assert!(process.wait_for_exit(Duration::from_secs(10)).await.success(), "{}", process.log());
        assert!(!process.log().contains("hunter2"), "{}", process.log());
    }
}
