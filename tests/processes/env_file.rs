//! The file `.env` and secrets in files: which file is read, how values are parsed, and what the start logs.

use std::{fs, str::FromStr};

use sqlx::{PgPool, postgres::PgConnectOptions};

use super::SOON;
use crate::harness::{
    database::{self, TestDatabase},
    http::send,
    process::{Process, http_client},
    scratch::Scratch,
};

/// The database's URL with user and password. The socket folder is a parameter instead of the host.
fn url_with_password(database: &TestDatabase) -> String {
    let options = PgConnectOptions::from_str(&database.url).unwrap();
    let (folder, port) = (options.get_socket().expect("a socket").display(), options.get_port());
    format!("postgres://{}:hunter2@/{}?host={folder}&port={port}", options.get_username(), database.name)
}

/// Starts an API in a folder, and returns its URL.
async fn start_api_in(folder: &Scratch, variables: &[(&str, &str)]) -> (Process, String) {
    let fixed = [("PORT", "0"), ("LOG_FORMAT", "json")];
    let mut process = Process::start_in(folder, &["api"], &[&fixed[..], variables].concat());
    let line: serde_json::Value =
        serde_json::from_str(&process.wait_for_line(r#""event":"listening""#).await).expect("a JSON line");
    let url = format!("http://{}", line["address"].as_str().expect("an address"));
    (process, url)
}

/// The status of a request with this API key: 403 for a wrong key.
async fn status_with_key(url: &str, key: &str) -> u16 {
    send(http_client().get(format!("{url}/interest_rate")).header("api_key", key)).await.status
}

#[tokio::test]
async fn an_env_file_of_a_parent_folder_is_not_read() {
    let database = database::fresh().await;
    let pool: PgPool = database.pool().await;
    sqlx::raw_sql("DROP SCHEMA apalis CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        .execute(&pool)
        .await
        .unwrap();
    let folder = Scratch::new();
    let below = folder.join("a/b");
    fs::create_dir_all(&below).unwrap();
    for above in [folder.to_path_buf(), folder.join("a")] {
        fs::write(above.join(".env"), format!("DATABASE_URL={}\nPORT=none\n", database.url)).unwrap();
    }
    for command in ["migrate", "api", "worker"] {
        let mut process = Process::start_in(&below, &[command], &[]);
        assert!(!process.wait_for_exit(SOON).await.success(), "{command}");
        let log = process.log();
        assert!(log.contains("DATABASE_URL: must be set") && !log.contains("PORT"), "{command}: {log}");
    }
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(tables, 0);
}

#[tokio::test]
async fn the_start_logs_the_env_file_and_the_database_without_passwords() {
    let database = database::fresh().await;
    let folder = Scratch::new();
    let text = format!(
        "DATABASE_URL='{}'\nexport API_KEY=pa$$word # a comment\nPROCESOR_URL=hunter2\n",
        url_with_password(&database)
    );
    fs::write(folder.join(".env"), text + "POSTGRES_PASSWORD=hunter2\nWITHOUT_LIKENESS=hunter2\n").unwrap();
    let (process, url) = start_api_in(&folder, &[("DATABSE_URL", "hunter2")]).await;
    let log = process.log();
    let file = folder.join(".env").display().to_string();
    let shown = format!(
        "postgres://{}@/{}?host=",
        PgConnectOptions::from_str(&database.url).unwrap().get_username(),
        database.name
    );
    for text in [
        &*file,
        &*shown,
        ".env line 3: PROCESOR_URL is not a variable of Millrace and is ignored; did you mean PROCESSOR_URL?",
        ".env line 5: WITHOUT_LIKENESS is not a variable of Millrace and is ignored",
        "DATABSE_URL is not a variable of Millrace; did you mean DATABASE_URL?",
    ] {
        assert!(log.contains(text), "{text}: {log}");
    }
    assert!(!log.contains("hunter2") && !log.contains("POSTGRES_PASSWORD"), "{log}");
    // `$` is not expanded.
    assert_eq!((status_with_key(&url, "pa$$word").await, status_with_key(&url, "pa").await), (404, 403));
}

#[tokio::test]
async fn every_error_in_the_env_file_is_reported_with_its_line_and_all_others() {
    let folder = Scratch::new();
    fs::write(folder.join(".env"), "# a comment\n\nhunter2\nPORT=http\nAPI_KEY=\"hunter2\nPORT=1\nENV=\u{fc}\n")
        .unwrap();
    for (command, others) in [("api", &["PORT", "DATABASE_URL", "ENV"][..]), ("worker", &["DATABASE_URL", "ENV"])] {
        let mut process = Process::start_in(&folder, &[command], &[]);
        assert!(!process.wait_for_exit(SOON).await.success(), "{command}");
        let log = process.log();
        let lines = [
            ".env line 3: must read NAME=value",
            ".env line 5: must end the value",
            ".env line 6: PORT is set on line 4",
        ];
        for text in lines.iter().chain(others) {
            assert!(log.lines().any(|line| line.trim().starts_with(text)), "{command}: {text}: {log}");
        }
        assert!(!log.contains("hunter2"), "{command}: {log}");
    }
    // An unreadable file is an error, other than a missing file or a folder of this name.
    fs::remove_file(folder.join(".env")).unwrap();
    std::os::unix::fs::symlink("/proc/self/mem", folder.join(".env")).unwrap();
    let mut process = Process::start_in(&folder, &["api"], &[]);
    assert!(!process.wait_for_exit(SOON).await.success());
    assert!(process.log().contains("  .env: cannot be read"), "{}", process.log());
    fs::remove_file(folder.join(".env")).unwrap();
    fs::create_dir(folder.join(".env")).unwrap();
    let mut process = Process::start_in(&folder, &["api"], &[]);
    assert!(!process.wait_for_exit(SOON).await.success());
    assert!(!process.log().contains(".env"), "{}", process.log());
}

#[tokio::test]
async fn secrets_can_be_in_files() {
    let database = database::fresh().await;
    let folder = Scratch::new();
    let (url, key) = (folder.join("url"), folder.join("key"));
    fs::write(&url, format!("{}\n", url_with_password(&database))).unwrap();
    fs::write(&key, "  hunter2-pa$$word\r\n").unwrap();
    let (url, key) = (url.to_str().unwrap(), key.to_str().unwrap());
    fs::write(folder.join(".env"), format!("DATABASE_URL_FILE={url}\n")).unwrap();
    let (process, address) = start_api_in(&folder, &[("API_KEY_FILE", key)]).await;
    assert_eq!((status_with_key(&address, "hunter2-pa$$word").await, status_with_key(&address, key).await), (404, 403));
    assert!(!process.log().contains("hunter2") && !process.log().contains("unknown variable"), "{}", process.log());

    // A variable set twice and a missing file are reported together with all other errors.
    let wrong = [("API_KEY_FILE", key), ("API_KEY", "x"), ("JWT_SECRET_FILE", "/nowhere/hunter2"), ("PORT", "x")];
    let mut refused = Process::start_in(&folder, &["api"], &wrong);
    assert!(!refused.wait_for_exit(SOON).await.success());
    let log = refused.log();
    for text in
        ["  API_KEY: must not be set together with API_KEY_FILE", "  JWT_SECRET_FILE: must name a file", "  PORT: "]
    {
        assert!(log.contains(text), "{text}: {log}");
    }
    assert!(!log.contains("hunter2"), "{log}");
}
