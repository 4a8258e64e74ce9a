//! A proxy in front of the API that refuses some first tries, and loses the responses to others.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use poem::{
    Endpoint, EndpointExt, Request, Response, Server, endpoint::make, http::HeaderMap, http::StatusCode,
    listener::TcpAcceptor,
};
use reqwest::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use serde_json::Value;
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use crate::harness::{http::send, process::http_client};

/// What happens to the first try of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// 503 with `Retry-After` in seconds.
    Unavailable,
    /// 503 with a date in `Retry-After`.
    UnavailableUntil,
    /// 429 with `Retry-After`.
    TooMany,
    /// The API has recorded it, but the sender sees a 504.
    LostResponse,
}

impl Fault {
    /// The time that the sender must wait at least.
    pub(super) fn pause(self) -> Duration {
        if self == Self::LostResponse { Duration::ZERO } else { Duration::from_secs(1) }
    }

    fn response(self) -> Response {
        let (status, retry_after) = match self {
            Self::Unavailable => (503, Some("1".to_owned())),
            // A date has no fractions: this one is between one and two seconds from now.
            Self::UnavailableUntil => (503, Some(http_date(OffsetDateTime::now_utc() + Duration::from_secs(2)))),
            Self::TooMany => (429, Some("1".to_owned())),
            Self::LostResponse => (504, None),
        };
        let response = Response::builder().status(StatusCode::from_u16(status).unwrap());
        retry_after.into_iter().fold(response, |response, after| response.header("Retry-After", after)).finish()
    }
}

/// A time in the form of HTTP, such as `Sun, 29 Nov 2026 10:30:00 GMT`.
fn http_date(at: OffsetDateTime) -> String {
    const FORMAT: &[BorrowedFormatItem<'_>] =
        format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
    at.format(FORMAT).unwrap()
}

/// One request to send a transaction.
#[derive(Debug, Clone)]
pub(super) struct Try {
    pub at: Instant,
    pub transaction_id: String,
    pub headers: HeaderMap,
    pub body: String,
}

impl Try {
    /// The value of a header; empty if the header is missing.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII")).unwrap_or_default()
    }
}

#[derive(Default)]
struct Seen {
    tries: Vec<Try>,
    /// The number of requests that read a transaction.
    reads: usize,
}

/// The proxy. It ends with the test.
pub(super) struct FaultyProxy {
    /// `http://127.0.0.1:PORT`
    pub url: String,
    seen: Arc<Mutex<Seen>>,
}

impl FaultyProxy {
    /// Starts a proxy of this API. `fault` says what happens to the first try of a transaction.
    pub(super) async fn start(api: &str, fault: fn(&str) -> Option<Fault>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::<Mutex<Seen>>::default();
        let endpoint = endpoint(api.to_owned(), fault, seen.clone());
        tokio::spawn(Server::new_with_acceptor(TcpAcceptor::from_tokio(listener).unwrap()).run(endpoint));
        Self { url, seen }
    }

    /// The tries to send a transaction so far.
    pub(super) fn tries(&self, transaction_id: &str) -> Vec<Try> {
        let seen = self.seen.lock().unwrap();
        seen.tries.iter().filter(|one| one.transaction_id == transaction_id).cloned().collect()
    }

    /// The number of requests that read a transaction so far.
    pub(super) fn reads(&self) -> usize {
        self.seen.lock().unwrap().reads
    }
}

fn endpoint(api: String, fault: fn(&str) -> Option<Fault>, seen: Arc<Mutex<Seen>>) -> impl Endpoint + 'static {
    let client = http_client();
    make(move |mut request: Request| {
        let (api, seen, client) = (api.clone(), seen.clone(), client.clone());
        async move {
            let (at, method, path) = (Instant::now(), request.method().clone(), request.uri().to_string());
            let mut headers = request.headers().clone();
            let body = request.take_body().into_string().await.unwrap();
            let fault = if method == "POST" {
                let webhook: Value = serde_json::from_str(&body).unwrap();
                let transaction_id = webhook["transaction_id"].as_str().expect("an id").to_owned();
                let mut seen = seen.lock().unwrap();
                let is_first = !seen.tries.iter().any(|one| one.transaction_id == transaction_id);
                let fault = fault(&transaction_id).filter(|_| is_first);
                seen.tries.push(Try { at, transaction_id, headers: headers.clone(), body: body.clone() });
                fault
            } else {
                seen.lock().unwrap().reads += 1;
                None
            };
            if let Some(fault) = fault.filter(|fault| *fault != Fault::LostResponse) {
                return fault.response();
            }
            for name in [ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING] {
                headers.remove(name);
            }
            // A shorter wait than the client's, so that it sees a response that is not final.
            let url = format!("{api}{}", path.replace("wait=60", "wait=0.1"));
            let relayed = send(client.request(method, url).headers(headers).body(body)).await;
            if let Some(fault) = fault {
                return fault.response();
            }
            let mut response = Response::builder().status(StatusCode::from_u16(relayed.status).unwrap()).finish();
            *response.headers_mut() = relayed.headers;
            for name in [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
                response.headers_mut().remove(name);
            }
            response.set_body(relayed.text);
            response
        }
    })
    .map_to_response()
}
