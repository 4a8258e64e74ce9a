//! Failures of the node: stopped or silent nodes, a wrong contract address, other servers, and no leaked secret.

use std::time::{Duration, Instant};

use jobs::interest_rates::chain::{ChainError, Hash};
use serde_json::json;

use super::{ContractHarness, ONE, chain_of, id, rate};
use crate::harness::anvil::{OTHER, OWNER_KEY};

/// The time-out of one call is 5 s. The rest is for a machine that stalls.
const LIMIT: Duration = Duration::from_secs(15);

fn expect_unreachable<T: std::fmt::Debug>(result: Result<T, ChainError>) -> String {
    match result {
        Err(error @ ChainError::Unreachable(_)) => error.to_string(),
        other => panic!("not unreachable: {other:?}"),
    }
}

fn expect_misconfigured<T: std::fmt::Debug>(result: Result<T, ChainError>) -> String {
    match result {
        Err(error @ ChainError::Misconfigured(_)) => error.to_string(),
        other => panic!("not misconfigured: {other:?}"),
    }
}

#[tokio::test]
async fn a_stopped_or_silent_node_is_unreachable_and_leaks_no_secret() {
    let Some(mut harness) = ContractHarness::new().await else { return };
    let url = harness.node.url.replace("http://", "http://user:secret@") + "/?key=secret";
    let chain = chain_of(&url, OWNER_KEY, &harness.contract);
    chain.ready().await.expect("the node asks for no password");
    let prepared = chain.prepare(id(1), rate(ONE)).await.unwrap();

    harness.node.freeze();
    let begun = Instant::now();
    let (ready, sent) = tokio::join!(chain.ready(), chain.send(&prepared.raw));
    assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
    let mut messages = vec![expect_unreachable(ready), expect_unreachable(sent)];
    harness.node.thaw();

    harness.node.stop().await;
    let begun = Instant::now();
    messages.push(expect_unreachable(chain.ready().await));
    messages.push(expect_unreachable(chain.current().await));
    messages.push(expect_unreachable(chain.page(None, 10).await));
    messages.push(expect_unreachable(chain.prepare(id(1), rate(ONE)).await));
    messages.push(expect_unreachable(chain.send(&prepared.raw).await));
    messages.push(expect_unreachable(chain.outcome(&[]).await));
    messages.push(expect_unreachable(chain.await_receipt(Hash::repeat_byte(1), Duration::from_millis(200)).await));
    assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
    messages.push(format!("{chain:?} {prepared:?}"));
    for text in &messages {
        let text = text.to_lowercase();
        assert!(!text.contains("secret") && !text.contains(&OWNER_KEY[2..20]), "{text}");
    }
    assert!(messages[0].contains("did not respond within 5 s"), "{}", messages[0]);
    // The call before this one may still have met the connection that the node was closing.
    assert!(messages[3].contains("refused"), "{}", messages[3]);

    harness.node.start_again().await;
    chain.ready().await.expect("the node is back");
    chain.current().await.expect("the node is back");
}

#[tokio::test]
async fn an_address_without_our_contract_is_misconfigured() {
    let Some(harness) = ContractHarness::new().await else { return };
    // An address without code accepts every call and stores nothing.
    let chain = chain_of(&harness.node.url, OWNER_KEY, OTHER);
    for message in [
        expect_misconfigured(chain.ready().await),
        expect_misconfigured(chain.current().await),
        expect_misconfigured(chain.find(id(1)).await),
        expect_misconfigured(chain.page(None, 1).await),
        expect_misconfigured(chain.prepare(id(1), rate(ONE)).await),
    ] {
        assert!(message.contains("CONTRACT_ADDRESS"), "{message}");
    }
    // Another contract, which reverts every call.
    harness.node.call("anvil_setCode", json!([OTHER, "0x60006000fd"])).await;
    expect_misconfigured(chain.ready().await);
    expect_misconfigured(chain.current().await);
}

#[tokio::test]
async fn a_server_that_is_not_a_node_is_recognised() {
    let server = server::start().await;
    for (path, is_temporary) in [
        ("/503", true),
        ("/429", true),
        ("/html", true),
        ("/endless", true),
        ("/401", false),
        ("/404", false),
        ("/307", false),
    ] {
        let chain = chain_of(&format!("{server}{path}"), OWNER_KEY, OTHER);
        let message = if is_temporary {
            expect_unreachable(chain.ready().await)
        } else {
            expect_misconfigured(chain.ready().await)
        };
        assert!(!message.contains("secret"), "{message}");
    }
}

/// A web server that is not an Ethereum node.
mod server {
    use poem::{EndpointExt as _, Response, Server, http::StatusCode, listener::TcpAcceptor};

    /// Responds with the status in the path, with HTML, or with an endless body.
    pub(super) async fn start() -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let endpoint = poem::endpoint::make_sync(|request| {
            let status = request.uri().path()[1..].parse().unwrap_or(StatusCode::OK);
            if request.uri().path() == "/endless" {
                let chunks = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 1 << 16]));
                return Response::builder().body(poem::Body::from_bytes_stream(chunks));
            }
            Response::builder().status(status).header("Location", "/secret").body("<p>secret</p>")
        });
        let acceptor = TcpAcceptor::from_tokio(listener).unwrap();
        tokio::spawn(Server::new_with_acceptor(acceptor).run(endpoint.boxed()));
        url
    }
}
