//! Without `CALLBACK_ALLOW_PRIVATE`, callbacks reach no address of this machine or its network. The unit tests of the client
//! have more forms of hosts.

use std::net::ToSocketAddrs;

use tokio::net::TcpListener;

use super::{NEW, SOON, System, secret};
use crate::harness::process::Process;

#[tokio::test]
async fn a_url_with_a_private_host_is_refused_at_start() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let secrets = secret(NEW);
    for host in [
        "localhost.",
        "127.0.0.1",
        "2130706433",
        "0177.0.0.1",
        "0x7f.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "user@127.0.0.1",
        "user:hunter2@receiver.example.com",
    ] {
        let url = format!("http://{host}:{port}/hook");
        let variables =
            [("DATABASE_URL", "postgres://nowhere.invalid/x"), ("CALLBACK_URL", &*url), ("CALLBACK_SECRET", &secrets)];
        let mut worker = Process::start(&["worker"], &variables);
        assert!(!worker.wait_for_exit(SOON).await.success(), "{host}");
        let log = worker.log();
        assert!(log.contains("CALLBACK_URL: must be ") && !log.contains("hunter2"), "{host}: {log}");
    }
    assert_no_connection(&listener).await;
}

/// Uses the name of this machine, which mostly resolves to a private address.
#[tokio::test]
async fn no_connection_is_made_to_a_name_with_a_private_address() {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    let is_private = |address: std::net::SocketAddr| match address.ip() {
        std::net::IpAddr::V4(address) => address.is_private() || address.is_loopback(),
        std::net::IpAddr::V6(address) => address.is_unique_local() || address.is_loopback(),
    };
    let mut addresses = (name.as_str(), 0).to_socket_addrs().into_iter().flatten();
    if !addresses.any(is_private) {
        println!("the name {name:?} of this machine has no private address");
        return;
    }
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let url = format!("http://{name}:{}/hook", listener.local_addr().unwrap().port());
    let secrets = secret(NEW);
    let variables = [("CALLBACK_URL", &*url), ("CALLBACK_SECRET", &secrets), ("PROCESSING_DELAY_SECONDS", "0")];
    let system = System::start(&variables).await;
    let _worker = system.start_worker(&variables).await;
    system.send_webhook("t").await;
    system.wait_for_count("SELECT count(*) FROM callbacks WHERE last_error LIKE '%is not a public address%'", 1).await;
    assert_no_connection(&listener).await;
}

/// A connection, if one was made, would be in the queue of the listener by now.
async fn assert_no_connection(listener: &TcpListener) {
    let accepted = tokio::time::timeout(std::time::Duration::from_millis(100), listener.accept()).await;
    assert!(accepted.is_err(), "a connection was made");
}
