//! `millrace health`, which images ask instead of `curl`.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::harness::{
    database,
    port::Port,
    process::{Api, Process, worker},
};

const SOON: Duration = Duration::from_secs(20);

async fn health(arguments: &[&str], variables: &[(&str, &str)]) -> (bool, String) {
    let mut process = Process::start(&[&["health"], arguments].concat(), variables);
    let status = process.ended(SOON).await;
    assert!(status.code().is_some(), "{status}");
    (status.success(), process.log())
}

#[tokio::test]
async fn it_says_whether_api_and_worker_are_well() {
    let database = database::fresh().await;
    let api = Api::start(&database.url, &[]).await;
    let port = api.url.rsplit_once(':').unwrap().1;
    // As the image has it, where the API listens on every address.
    assert_eq!(health(&[], &[("HOST", "0.0.0.0"), ("PORT", port)]).await, (true, String::new()));
    assert_eq!(health(&[&format!("{}/readyz", api.url)], &[]).await, (true, String::new()));
    let mut worker = worker(&database.url, &[("WORKER_HEALTH_PORT", "0")]).await;
    let line: serde_json::Value = serde_json::from_str(&worker.printed("health and metrics").await).unwrap();
    let url = format!("http://{}/livez", line["address"].as_str().unwrap());
    assert_eq!(health(&[&url], &[]).await, (true, String::new()));
    let (well, said) = health(&[&format!("{}/nowhere", api.url)], &[]).await;
    assert!(!well && said.contains("404"), "{said}");
}

#[tokio::test]
async fn one_that_waits_for_its_database_lives_and_is_not_ready() {
    let closed = Port::free();
    let reserved = Port::free();
    let port = reserved.to_string();
    let url = format!("postgres://me:hunter2@127.0.0.1:{closed}/x");
    let mut api = Process::start(&["api"], &[("DATABASE_URL", &url), ("PORT", &port)]);
    api.printed("waiting for the database").await;
    assert_eq!(health(&[], &[("PORT", &port)]).await, (true, String::new()));
    let (ready, said) = health(&[&format!("http://127.0.0.1:{port}/readyz")], &[]).await;
    assert!(!ready && said.contains("503") && !said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn what_does_not_answer_rightly_is_not_well() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/livez", listener.local_addr().unwrap());
    let answers = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // Read first: unread, the question would reset the connection, answer and all.
        let mut question = Vec::new();
        while !question.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut question).await.unwrap(), 0);
        }
        stream.write_all(b"SSH-2.0-nobody\r\n").await.unwrap();
        drop(stream);
        // Accepts, and never says a word.
        let silent = listener.accept().await.unwrap();
        listener.accept().await.unwrap();
        drop(silent);
    });
    for expected in ["does not speak HTTP", "no response within 4 s"] {
        let (well, said) = health(&[&url], &[]).await;
        assert!(!well && said.contains(expected), "{expected}: {said}");
    }
    answers.abort();
    let _ = answers.await;
    let (well, said) = health(&[&url], &[]).await;
    assert!(!well && said.contains("refused"), "{said}");
    for (arguments, variables, named) in
        [(&["https://a:1/"][..], &[][..], "URL: must be "), (&[], &[("PORT", "x")], "PORT: must be ")]
    {
        let (well, said) = health(arguments, variables).await;
        assert!(!well && said.contains(named), "{arguments:?}: {said}");
    }
}
