//! A stand-in for the search engine, which can be gone. It finds nothing, and records which items it was given.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Result;
use poem::{
    EndpointExt as _, Request, Response, Route, Server, handler,
    http::{Method, StatusCode},
    listener::TcpAcceptor,
    web::Data,
};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::history::{Event, History};

/// A running engine. It is gone when this is dropped.
pub(crate) struct Engine {
    pub address: SocketAddr,
    server: JoinHandle<()>,
}

impl Engine {
    /// Starts the engine, at this address if it had one before.
    ///
    /// # Errors
    /// When no port can be bound.
    pub(crate) async fn start(history: Arc<History>, address: Option<SocketAddr>) -> Result<Self> {
        let listener = match address {
            Some(address) => TcpListener::bind(address).await?,
            None => TcpListener::bind("127.0.0.1:0").await?,
        };
        let address = listener.local_addr()?;
        let server = Server::new_with_acceptor(TcpAcceptor::from_tokio(listener)?);
        let server = server.run(Route::new().at("/*path", respond).data(history));
        Ok(Self { address, server: tokio::spawn(async move { drop(server.await) }) })
    }

    /// Closes the port.
    pub(crate) async fn stop(self) {
        self.server.abort();
        // It ends with an error that says so.
        let _ = self.server.await;
    }
}

#[handler]
fn respond(request: &Request, Data(history): Data<&Arc<History>>) -> Response {
    let path = request.uri().path();
    if let Some((_, item)) = path.split_once("/_doc/")
        && let (&Method::PUT, Ok(item)) = (request.method(), item.parse())
    {
        history.record(Event::Indexed { item });
    }
    let body = if path.ends_with("/_search") {
        json!({ "hits": { "total": { "value": 0 }, "hits": [] } })
    } else {
        json!({ "status": "green" })
    };
    let text = if request.method() == Method::HEAD { String::new() } else { body.to_string() };
    Response::builder().status(StatusCode::OK).content_type("application/json").body(text)
}
