//! A node that is away or silent, an address without our contract, and secrets that nobody sees.

use std::time::{Duration, Instant};

use jobs::interest_rates::chain::{ChainError, Hash};
use serde_json::json;

use super::{ONE, Setup, chain_of, id, rate};
use crate::harness::anvil::{OTHER, OWNER_KEY};

/// The limit of one call, and what a busy machine adds.
const LIMIT: Duration = Duration::from_secs(8);

fn unreachable<T: std::fmt::Debug>(result: Result<T, ChainError>) -> String {
    match result {
        Err(error @ ChainError::Unreachable(_)) => error.to_string(),
        other => panic!("not unreachable: {other:?}"),
    }
}

fn misconfigured<T: std::fmt::Debug>(result: Result<T, ChainError>) -> String {
    match result {
        Err(error @ ChainError::Misconfigured(_)) => error.to_string(),
        other => panic!("not misconfigured: {other:?}"),
    }
}

#[tokio::test]
async fn a_node_that_is_away_or_silent_is_unreachable_and_no_secret_is_told() {
    let Some(mut setup) = Setup::new().await else { return };
    let url = setup.node.url.replace("http://", "http://user:secret@") + "/?key=secret";
    let chain = chain_of(&url, OWNER_KEY, &setup.contract);
    chain.ready().await.expect("the node asks for no password");
    let prepared = chain.prepare(id(1), rate(ONE)).await.unwrap();

    setup.node.freeze();
    let begun = Instant::now();
    let (ready, sent) = tokio::join!(chain.ready(), chain.send(&prepared.raw));
    assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
    let mut told = vec![unreachable(ready), unreachable(sent)];
    setup.node.thaw();

    setup.node.stop().await;
    let begun = Instant::now();
    told.push(unreachable(chain.ready().await));
    told.push(unreachable(chain.current().await));
    told.push(unreachable(chain.page(None, 10).await));
    told.push(unreachable(chain.prepare(id(1), rate(ONE)).await));
    told.push(unreachable(chain.send(&prepared.raw).await));
    told.push(unreachable(chain.outcome(&[]).await));
    told.push(unreachable(chain.await_receipt(Hash([1; 32]), Duration::from_millis(200)).await));
    assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
    told.push(format!("{chain:?} {prepared:?}"));
    for text in &told {
        let text = text.to_lowercase();
        assert!(!text.contains("secret") && !text.contains(&OWNER_KEY[2..20]), "{text}");
    }
    assert!(told[0].contains("did not respond within 5 s"), "{}", told[0]);
    // The call before this one may still have met the connection that the node was closing.
    assert!(told[3].contains("refused"), "{}", told[3]);

    setup.node.start_again().await;
    chain.ready().await.expect("it is back");
    chain.current().await.expect("it is back");
}

#[tokio::test]
async fn an_address_without_our_contract_is_misconfigured() {
    let Some(setup) = Setup::new().await else { return };
    // Where nothing is, everything would be taken and nothing kept.
    let nothing = chain_of(&setup.node.url, OWNER_KEY, OTHER);
    for told in [
        misconfigured(nothing.ready().await),
        misconfigured(nothing.current().await),
        misconfigured(nothing.find(id(1)).await),
        misconfigured(nothing.page(None, 1).await),
        misconfigured(nothing.prepare(id(1), rate(ONE)).await),
    ] {
        assert!(told.contains("CONTRACT_ADDRESS"), "{told}");
    }
    // Another contract, which refuses whatever it is asked.
    setup.node.call("anvil_setCode", json!([OTHER, "0x60006000fd"])).await;
    misconfigured(nothing.ready().await);
    misconfigured(nothing.current().await);
}

#[tokio::test]
async fn a_server_that_is_no_node_is_told_by_its_answer() {
    let server = server::start().await;
    for (path, is_passing) in [
        ("/503", true),
        ("/429", true),
        ("/html", true),
        ("/endless", true),
        ("/401", false),
        ("/404", false),
        ("/307", false),
    ] {
        let chain = chain_of(&format!("{server}{path}"), OWNER_KEY, OTHER);
        let told = if is_passing { unreachable(chain.ready().await) } else { misconfigured(chain.ready().await) };
        assert!(!told.contains("secret"), "{told}");
    }
}

mod server {
    use poem::{EndpointExt as _, Response, Server, http::StatusCode, listener::TcpAcceptor};

    /// Answers each path by its name.
    pub async fn start() -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = poem::endpoint::make_sync(|request| {
            let status = request.uri().path()[1..].parse().unwrap_or(StatusCode::OK);
            if request.uri().path() == "/endless" {
                let chunks = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 1 << 16]));
                return Response::builder().body(poem::Body::from_bytes_stream(chunks));
            }
            Response::builder().status(status).header("Location", "/secret").body("<p>secret</p>")
        });
        let acceptor = TcpAcceptor::from_tokio(listener).unwrap();
        tokio::spawn(Server::new_with_acceptor(acceptor).run(answer.boxed()));
        url
    }
}
