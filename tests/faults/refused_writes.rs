//! The database refuses writes because its disk is full or its transaction ids have run out.
//!
//! Senders get 503, readiness reports the reason, and all processes recover afterwards.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
    process::{Command, Stdio},
};

use reqwest::Client;

use super::{
    QUICK, SOON,
    clients::{post_webhook, webhook},
    server,
};
use crate::harness::{
    database, eventually, needs,
    process::{Api, http_client},
    scratch::Scratch,
};

async fn post(http: &Client, api: &Api, id: &str) -> u16 {
    post_webhook(http, &api.url, &webhook(id)).await.expect("a response").status().as_u16()
}

async fn readiness(http: &Client, api: &Api) -> u16 {
    http.get(format!("{}/readyz", api.url)).send().await.expect("a response").status().as_u16()
}

#[tokio::test]
async fn on_a_full_disk_a_process_is_not_ready_until_it_can_write() {
    let database = database::fresh().await;
    let pool = database.pool().await;
    let api = Api::start(&database.url, &QUICK).await;
    let http = http_client();
    // Raises the server's error for a table that cannot grow.
    let full = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$;
                CREATE TRIGGER full_disk BEFORE INSERT ON transactions EXECUTE FUNCTION full_disk()";
    sqlx::raw_sql(full).execute(&pool).await.expect("a trigger");
    assert_eq!(post(&http, &api, "txn_1").await, 503);
    assert_eq!(readiness(&http, &api).await, 503);
    sqlx::raw_sql("DROP FUNCTION full_disk CASCADE").execute(&pool).await.expect("no trigger");
    assert_eq!(post(&http, &api, "txn_1").await, 202, "the disk has room again");
    // A refusal counts for 5 s. A check that takes 2 s on a busy machine fails as well.
    eventually("the API is ready again", SOON, async || readiness(&http, &api).await == 200).await;
}

#[tokio::test]
async fn at_the_limit_of_transaction_ids_senders_get_503() {
    let scratch = Scratch::new();
    let (cluster, url) = server::start(&scratch).await;
    let pool = server::prepare(&cluster, &url).await;
    let oldest: i64 = sqlx::query_scalar("SELECT min(datfrozenxid::text::int8) FROM pg_database")
        .fetch_one(&pool)
        .await
        .expect("an id");
    let bin: String = sqlx::query_scalar("SELECT setting FROM pg_config WHERE name = 'BINDIR'")
        .fetch_one(&pool)
        .await
        .expect("a folder");
    pool.close().await;
    cluster.stop().await.expect("a stop");
    let reset = Path::new(&bin).join("pg_resetwal");
    if !reset.is_file() {
        needs::missing::<()>("pg_resetwal");
        return;
    }
    // The server assigns no more ids when three million are left before they wrap around.
    advance(&reset, &scratch.join("data"), oldest + (1 << 31) - 3_000_000 + 10).await;

    let (cluster, _) = server::start(&scratch).await;
    let api = Api::start(&url, &QUICK).await;
    let http = http_client();
    assert_eq!(post(&http, &api, "txn_1").await, 503, "{}", api.process.log());
    assert_eq!(readiness(&http, &api).await, 503);
    eventually("reads still work", SOON, async || {
        let read = http.get(format!("{}/v1/transactions?limit=1", api.url)).send().await.expect("a response");
        read.status() == 200
    })
    .await;
    drop(api);
    cluster.stop().await.expect("a stop");
}

/// Sets the next transaction id of a stopped server.
async fn advance(reset: &Path, data: &Path, next: i64) {
    // The status file of that id: four transactions per byte, 256 KiB per file.
    let status_file = data.join("pg_xact").join(format!("{:04X}", next / (4 * 256 * 1024)));
    fs::write(&status_file, vec![0; 256 * 1024]).expect("a file");
    fs::set_permissions(&status_file, fs::Permissions::from_mode(0o600)).expect("permissions");
    let owner = fs::metadata(data).expect("a folder");
    chown(&status_file, Some(owner.uid()), Some(owner.gid())).expect("an owner");
    let mut command = Command::new(reset);
    command.arg("--next-transaction-id").arg(next.to_string()).arg("--pgdata").arg(data);
    command.stdin(Stdio::null()).stdout(Stdio::null()).current_dir("/");
    if nix::unistd::geteuid().is_root() {
        use std::os::unix::process::CommandExt;
        command.uid(owner.uid()).gid(owner.gid());
    }
    let status = tokio::task::spawn_blocking(move || command.status()).await.expect("a thread").expect("pg_resetwal");
    assert!(status.success(), "pg_resetwal: {status}");
}
