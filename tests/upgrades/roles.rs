//! Database roles: `migrate` and the processes need only the documented privileges, and work with any `search_path`.

use std::{str::FromStr, time::Duration};

use sqlx::{PgPool, postgres::PgConnectOptions};

use super::{empty_database, execute, fill, read_migrator, value, versions};
use crate::harness::{
    database::TestDatabase,
    process::{Api, Process, start_worker},
};

const SOON: Duration = Duration::from_secs(30);
const SCRIPT: &str = include_str!("../../deploy/postgres/roles.sql");

/// The two roles of one test. Roles are shared by the whole server, so their names are unique.
struct Roles {
    owner: String,
    runtime: String,
}

impl Roles {
    /// Runs the documented script with the names of this test.
    async fn create(database: &TestDatabase, pool: &PgPool) -> Self {
        let roles =
            Self { owner: format!("owner_of_{}", database.name), runtime: format!("runtime_of_{}", database.name) };
        roles.run_script(pool).await;
        roles
    }

    async fn run_script(&self, pool: &PgPool) {
        let script = SCRIPT.replace("millrace_owner", &self.owner).replace("millrace_runtime", &self.runtime);
        execute(pool, &script).await;
    }

    async fn drop(self, pool: &PgPool) {
        for role in [self.owner, self.runtime] {
            execute(pool, &format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await;
        }
    }
}

/// The database's URL for another role.
fn url_as(database: &TestDatabase, role: &str) -> String {
    let options = PgConnectOptions::from_str(&database.url).unwrap();
    let (folder, port) = (options.get_socket().expect("a socket").display(), options.get_port());
    format!("postgres://{role}:any@/{}?host={folder}&port={port}", database.name)
}

async fn migrate(url: &str, arguments: &[&str]) -> (bool, String) {
    let mut process = Process::start(&[&["migrate"], arguments].concat(), &[("DATABASE_URL", url)]);
    (process.wait_for_exit(SOON).await.success(), process.log())
}

#[tokio::test]
async fn the_owner_migrates_and_the_runtime_role_does_everything_else() {
    let (database, pool) = empty_database().await;
    let roles = Roles::create(&database, &pool).await;
    let (owner, runtime) = (url_as(&database, &roles.owner), url_as(&database, &roles.runtime));
    let (migrated, log) = migrate(&runtime, &[]).await;
    assert!(!migrated && log.contains("`CREATE SCHEMA apalis`: permission denied"), "{log}");
    assert!(log.contains("deploy/postgres/roles.sql grants what is needed"), "{log}");
    let (migrated, log) = migrate(&owner, &[]).await;
    assert!(migrated, "{log}");
    roles.run_script(&pool).await;

    // Every feature works with the runtime role, in both processes.
    let by_runtime = TestDatabase { url: runtime.clone(), name: String::new() };
    fill::fill(&by_runtime, &pool).await;
    for arguments in [&["queues", "pause", "process_transaction", "--reason", "a test"][..], &["queues"], &["reindex"]]
    {
        let mut command = Process::start(arguments, &[("DATABASE_URL", &runtime)]);
        assert!(command.wait_for_exit(SOON).await.success(), "{arguments:?}: {}", command.log());
    }
    drop((Api::start(&runtime, &[]).await, start_worker(&runtime, &[]).await));

    // Without a missing migration, and for a status, read access is enough.
    for arguments in [&[][..], &["--status"]] {
        let (succeeded, log) = migrate(&runtime, arguments).await;
        assert!(succeeded, "{arguments:?}: {log}");
    }
    let migrations = read_migrator().await;
    // The newest migration that changes the schema: the runtime role may change rows.
    let sql =
        |version: i64| migrations.iter().find(|one| one.version == version && one.migration_type.is_up_migration());
    let changes_the_schema = |version: i64| {
        sql(version).is_some_and(|one| ["CREATE ", "ALTER "].iter().any(|word| one.sql.as_str().contains(word)))
    };
    let refused = versions().await.into_iter().rev().find(|version| changes_the_schema(*version)).expect("a change");
    execute(&pool, &format!("DELETE FROM _sqlx_migrations WHERE version >= {refused}")).await;
    let (migrated, log) = migrate(&runtime, &[]).await;
    assert!(!migrated && log.contains(&format!("migration {refused}: the database refused the statement `")), "{log}");
    assert!(["permission denied", "must be owner"].iter().any(|reason| log.contains(reason)), "{log}");
    roles.drop(&pool).await;
}

#[tokio::test]
async fn migrations_do_not_depend_on_the_search_path() {
    for path in ["elsewhere", "", "\"$user\"", "elsewhere, public"] {
        let (database, pool) = empty_database().await;
        let path = if path.is_empty() { "''".to_owned() } else { path.to_owned() };
        let name = &database.name;
        execute(&pool, &format!("CREATE SCHEMA elsewhere; ALTER DATABASE {name} SET search_path = {path}")).await;
        for arguments in [&[][..], &["--status"], &[]] {
            let (succeeded, log) = migrate(&database.url, arguments).await;
            assert!(succeeded, "{path} {arguments:?}: {log}");
        }
        let strays = "(SELECT count(*) FROM pg_class WHERE relnamespace = 'elsewhere'::regnamespace)";
        assert_eq!(value(&pool, strays).await, "0", "{path}");
        let tables =
            "(SELECT count(*) > 10 FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace)";
        assert_eq!(value(&pool, tables).await, "true", "{path}");
    }
}
