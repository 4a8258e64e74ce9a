//! `millrace health`, the health check of the images.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::harness::{
    database, eventually,
    port::Port,
    process::{Api, Process, start_worker},
};

const SOON: Duration = Duration::from_secs(20);

async fn health(arguments: &[&str], variables: &[(&str, &str)]) -> (bool, String) {
    let mut process = Process::start(&[&["health"], arguments].concat(), variables);
    let status = process.wait_for_exit(SOON).await;
    assert!(status.code().is_some(), "{status}");
    (status.success(), process.log())
}

#[tokio::test]
async fn it_checks_api_and_worker() {
    let database = database::fresh().await;
    let api = Api::start(&database.url, &[]).await;
    let port = api.url.rsplit_once(':').unwrap().1;
    // As in the image, where the API listens on every address.
    assert_eq!(health(&[], &[("HOST", "0.0.0.0"), ("PORT", port)]).await, (true, String::new()));
    let ready = format!("{}/readyz", api.url);
    // Readiness has two seconds for the database.
    eventually("the API is ready", SOON, async || health(&[&ready], &[]).await == (true, String::new())).await;
    let mut worker = start_worker(&database.url, &[("WORKER_HEALTH_PORT", "0")]).await;
    let line: serde_json::Value = serde_json::from_str(&worker.wait_for_line("health and metrics").await).unwrap();
    let address = line["address"].as_str().unwrap();
    assert_eq!(health(&[&format!("http://{address}/livez")], &[]).await, (true, String::new()));
    // As in the container of a worker, where no API listens.
    let reserved = Port::free();
    let (closed, worker_port) = (reserved.to_string(), address.rsplit_once(':').unwrap().1);
    let variables = [("PORT", &*closed), ("WORKER_HEALTH_PORT", worker_port)];
    assert_eq!(health(&[], &variables).await, (true, String::new()));
    let (healthy, output) = health(&[&format!("{}/nowhere", api.url)], &[]).await;
    assert!(!healthy && output.contains("404"), "{output}");
}

#[tokio::test]
async fn an_api_without_its_database_is_alive_and_not_ready() {
    let closed = Port::free();
    let reserved = Port::free();
    let port = reserved.to_string();
    let url = format!("postgres://me:hunter2@127.0.0.1:{closed}/x");
    let mut api = Process::start(&["api"], &[("DATABASE_URL", &url), ("PORT", &port)]);
    api.wait_for_line("waiting for the database").await;
    assert_eq!(health(&[], &[("PORT", &port)]).await, (true, String::new()));
    let url = format!("http://127.0.0.1:{port}/readyz");
    // The API looks for the database for nearly three seconds, and the command waits for four.
    eventually("the API responds in time", SOON, async || {
        let (ready, output) = health(&[&url], &[]).await;
        assert!(!ready && !output.contains("hunter2"), "{output}");
        output.contains("503")
    })
    .await;
}

#[tokio::test]
async fn wrong_missing_and_refused_responses_are_unhealthy() {
    // No other test gets this port after its listener has gone.
    let port = Port::free();
    let listener = TcpListener::bind(port.address()).await.unwrap();
    let url = format!("http://{}/livez", port.address());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // Read the request first: closing a socket with unread data resets the connection and loses the response.
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
        }
        stream.write_all(b"SSH-2.0-server\r\n").await.unwrap();
        drop(stream);
        // Accepts a connection and sends nothing.
        let silent = listener.accept().await.unwrap();
        listener.accept().await.unwrap();
        drop(silent);
    });
    for expected in ["does not speak HTTP", "no response within 4 s"] {
        let (healthy, output) = health(&[&url], &[]).await;
        assert!(!healthy && output.contains(expected), "{expected}: {output}");
    }
    server.abort();
    let _ = server.await;
    let (healthy, output) = health(&[&url], &[]).await;
    assert!(!healthy && output.contains("refused"), "{output}");
    for (arguments, variables, named) in
        [(&["https://a:1/"][..], &[][..], "URL: must be "), (&[], &[("PORT", "x")], "PORT: must be ")]
    {
        let (healthy, output) = health(arguments, variables).await;
        assert!(!healthy && output.contains(named), "{arguments:?}: {output}");
    }
}
