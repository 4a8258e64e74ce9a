//! A PostgreSQL server before version 15 is refused, and the error names its version.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::harness::process::Process;

/// A fake PostgreSQL 14: it accepts sessions without a password and reports its version.
async fn postgres_14() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut session, _)) = listener.accept().await {
            let mut length = [0; 4];
            if session.read_exact(&mut length).await.is_err() {
                continue;
            }
            let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
            session.read_exact(&mut startup).await.unwrap();
            let version = b"server_version\x0014.9 (Debian 14.9-1)\0";
            let status = [b"S", &(version.len() as u32 + 4).to_be_bytes()[..], version].concat();
            let hello =
                [b"R\0\0\0\x08\0\0\0\0", &status[..], b"K\0\0\0\x0c\0\0\0\x01\0\0\0\x02", b"Z\0\0\0\x05I"].concat();
            session.write_all(&hello).await.unwrap();
            // Every statement succeeds without an effect.
            tokio::spawn(async move {
                let mut input = [0; 4096];
                while session.read(&mut input).await.is_ok_and(|read| read > 0) {
                    if session.write_all(b"C\0\0\0\x0aBEGIN\0Z\0\0\0\x05T").await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    format!("postgres://me@{address}/x?sslmode=disable")
}

#[tokio::test]
async fn a_server_before_version_15_is_refused() {
    let url = postgres_14().await;
    for command in ["migrate", "api", "worker"] {
        let mut process = Process::start(&[command], &[("DATABASE_URL", &url), ("PORT", "0")]);
        assert_eq!(
            process.wait_for_exit(Duration::from_secs(30)).await.code(),
            Some(1),
            "{command}: {}",
            process.log()
        );
        let log = process.log();
        assert!(log.contains("is PostgreSQL 14, and Millrace needs 15 or newer"), "{command}: {log}");
    }
}
