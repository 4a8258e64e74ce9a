//! The HTTP client of callbacks: signs and sends one message, and classifies what came of it.

use std::time::Duration;

use reqwest::{Client, StatusCode, header};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    destinations::Destination,
    limits::MOST,
    resolver::{Resolver, check_host},
};
use crate::transactions::signature;
use runtime::{
    clients::{http, retry_after::retry_after, send::send},
    error::{Error, causes},
};

/// The limit of one try: connection, request, headers and body together.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection stays open without a call. There are as many for a receiver as it had calls at once.
const IDLE: Duration = Duration::from_secs(30);

/// A message, as every try of it is sent.
#[derive(Debug)]
pub(super) struct Message {
    /// The same in every try, so that the receiver recognises a repetition.
    pub id: Uuid,
    /// The time of this try.
    pub at: OffsetDateTime,
    pub body: Vec<u8>,
}

/// What came of one try. The texts are for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TryResult {
    /// The receiver has the message.
    Delivered {
        status: u16,
    },
    /// The receiver wants no further message (410).
    Gone {
        error: String,
    },
    Failed(TryFailure),
}

/// A failed try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TryFailure {
    /// `None` without a response.
    pub status: Option<u16>,
    pub error: String,
    /// The next try comes at the earliest after this time.
    pub not_before: Duration,
    /// Whether the receiver is down or overloaded, so that another message would fail as well.
    pub is_outage: bool,
}

impl TryResult {
    /// Whether the receiver is up.
    pub(super) fn is_up(&self) -> bool {
        !matches!(self, Self::Failed(TryFailure { is_outage: true, .. }))
    }

    /// Adds the beginning of the response's body, which often contains the reason.
    fn with_body(mut self, body: &str) -> Self {
        match &mut self {
            Self::Gone { error } | Self::Failed(TryFailure { error, .. }) if !body.is_empty() => {
                error.push_str(": ");
                error.push_str(body);
            }
            _ => {}
        }
        self
    }
}

/// Classifies a response by its status. `retry_after` is set if the header is present.
fn classify(status: StatusCode, retry_after: Option<Duration>) -> TryResult {
    let code = status.as_u16();
    let note = if status.is_redirection() { ", and redirects are not followed" } else { "" };
    let error = format!("callback returned {status}{note}");
    match status {
        status if status.is_success() => TryResult::Delivered { status: code },
        StatusCode::GONE => TryResult::Gone { error },
        _ => TryResult::Failed(TryFailure {
            status: Some(code),
            error,
            not_before: retry_after.unwrap_or_default(),
            is_outage: status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS,
        }),
    }
}

/// A failure without a response.
fn no_response(error: String, is_outage: bool) -> TryResult {
    TryResult::Failed(TryFailure { status: None, error, not_before: Duration::ZERO, is_outage })
}

/// The client of all destinations.
pub(super) struct CallbackClient {
    http: Client,
    allow_private: bool,
}

impl CallbackClient {
    /// Creates the client. It follows no redirect and uses no proxy: the checked address is the one that it connects to.
    ///
    /// # Errors
    /// [`Error::Internal`] when the HTTP client cannot be built.
    pub(super) fn new(allow_private: bool) -> Result<Self, Error> {
        let http = http::client(|client| {
            let client = client.timeout(TIMEOUT).no_proxy().pool_max_idle_per_host(MOST).pool_idle_timeout(IDLE);
            client.dns_resolver(Resolver::new(allow_private))
        })?;
        Ok(Self { http, allow_private })
    }

    /// POSTs a message, signed with every secret of the destination. At most the first 20 kB of the response are read.
    pub(super) async fn send(&self, destination: &Destination, message: &Message) -> TryResult {
        let url = destination.config.url.expose();
        // The resolver does not see a host that is an address.
        if !self.allow_private
            && let Err(refused) = check_host(url)
        {
            return no_response(format!("callback was not sent: {refused}"), false);
        }
        let (id, timestamp) = (message.id.to_string(), message.at.unix_timestamp().to_string());
        let sign = |secret: &[u8]| signature::sign(secret, &id, &timestamp, &message.body);
        let signatures: Vec<String> = destination.config.secrets.iter().map(|secret| sign(secret.expose())).collect();
        let request = self
            .http
            .post(url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", &timestamp)
            .header("webhook-signature", signatures.join(" "))
            .body(message.body.clone());
        match send(request, "callback").await {
            Ok(response) => {
                let result = classify(response.status(), retry_after(response.headers()));
                result.with_body(&destination.secrets.excerpt(response).await)
            }
            Err(error) => {
                let what = if error.is_timeout() { "did not respond in time" } else { "cannot be reached" };
                // Without the URL, which may contain a token.
                let causes = destination.secrets.redact(&causes(&error.without_url()));
                no_response(format!("callback receiver {what}: {causes}"), true)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::ToSocketAddrs;

    use runtime::config::EnvReader;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::{
        super::{config::Config, destinations::Destinations, public_address::is_public},
        *,
    };

    const SECRETS: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw,whsec_YW5vdGhlciBzZWNyZXQgb2YgdGhlc2UgdGVzdHM=";

    /// The destination of a URL that the configuration allows, as after a change of its name's addresses.
    fn destinations(url: &str) -> Destinations {
        let private = ("CALLBACK_ALLOW_PRIVATE", "true");
        let mut vars = EnvReader::from_pairs(&[("CALLBACK_URL", url), ("CALLBACK_SECRET", SECRETS), private]);
        let config = Config::read(&mut vars);
        assert!(vars.finish(()).is_ok(), "{url}");
        Destinations::new(&config)
    }

    fn client(allow_private: bool) -> CallbackClient {
        let _ = rustls::crypto::ring::default_provider().install_default();
        CallbackClient::new(allow_private).expect("a client")
    }

    async fn send_to(url: &str, allow_private: bool) -> TryResult {
        let message = Message { id: Uuid::nil(), at: OffsetDateTime::UNIX_EPOCH, body: b"{}".to_vec() };
        client(allow_private).send(destinations(url).get("").expect("a destination"), &message).await
    }

    #[test]
    fn every_status_has_a_result() {
        let (pause, status) = (Duration::from_secs(7), |code| StatusCode::from_u16(code).expect("a status"));
        for code in [200, 201, 202, 204, 299] {
            assert_eq!(classify(status(code), Some(pause)), TryResult::Delivered { status: code });
        }
        assert_eq!(classify(status(410), Some(pause)), TryResult::Gone { error: "callback returned 410 Gone".into() });
        for code in [301, 302, 303, 307, 308, 400, 401, 403, 404, 409, 422, 429, 500, 502, 503, 504, 599] {
            for not_before in [None, Some(pause)] {
                let TryResult::Failed(failure) = classify(status(code), not_before) else { panic!("{code}") };
                assert_eq!(
                    (failure.status, failure.not_before),
                    (Some(code), not_before.unwrap_or_default()),
                    "{code}"
                );
                assert_eq!(failure.is_outage, code == 429 || code >= 500, "{code}");
                assert_eq!(failure.error.ends_with(", and redirects are not followed"), code < 400, "{code}");
            }
        }
    }

    #[tokio::test]
    async fn hosts_that_lead_to_this_machine_are_not_connected_to() {
        let listener = TcpListener::bind("0.0.0.0:0").await.expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        for host in [
            "127.0.0.1",
            "127.0.0.2",
            "127.1",
            "2130706433",
            "0177.0.0.1",
            "0x7f.1",
            "0x7f000001",
            "0.0.0.0",
            "0",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "localhost",
            "localhost.",
            "LOCALHOST",
            "receiver.localhost",
        ] {
            let TryResult::Failed(failure) = send_to(&format!("http://{host}:{port}/hook"), false).await else {
                panic!("{host}")
            };
            assert!(failure.error.starts_with("callback was not sent: "), "{host}: {}", failure.error);
            assert!(!failure.is_outage && failure.status.is_none(), "{host}");
        }
        // The name of this machine, where the system knows it.
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let addresses: Vec<_> = (name.trim(), 0).to_socket_addrs().into_iter().flatten().collect();
        if !addresses.is_empty() && !addresses.iter().any(|address| is_public(address.ip())) {
            let result = send_to(&format!("http://{}:{port}/hook", name.trim()), false).await;
            let TryResult::Failed(failure) = result else { panic!("{name}") };
            assert!(failure.error.contains("is not a public address"), "{name}: {}", failure.error);
        }
        let accepted = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(accepted.is_err(), "a connection was made");
    }

    #[tokio::test]
    async fn a_message_is_signed_with_every_secret_and_an_endless_body_is_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let url = format!("http://{}/hook?key=secret-key", listener.local_addr().expect("an address"));
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.expect("a request");
            let head = "HTTP/1.1 500 Internal Server Error\r\ntransfer-encoding: chunked\r\nretry-after: 9\r\n\r\n";
            stream.write_all(head.as_bytes()).await.expect("a head");
            let chunk = format!("400\r\n{}secret-key\r\n", "x".repeat(0x400 - 10));
            let mut sent = 0_usize;
            while stream.write_all(chunk.as_bytes()).await.is_ok() {
                sent += chunk.len();
            }
            (String::from_utf8_lossy(&request[..length]).into_owned(), sent)
        });
        let result = send_to(&url, true).await;
        let TryResult::Failed(failure) = result else { panic!("{result:?}") };
        assert_eq!((failure.status, failure.not_before), (Some(500), Duration::from_secs(9)));
        assert!(failure.error.starts_with("callback returned 500 Internal Server Error: xxx"), "{}", failure.error);
        assert!(failure.error.len() < 600 && !failure.error.contains("secret-key"), "{}", failure.error);
        let (request, sent) = served.await.expect("the end of the connection");
        // What fits into the buffers of the sockets is sent, but not read.
        assert!(sent < 32 << 20, "{sent}");
        let request = request.to_ascii_lowercase();
        for line in [
            "post /hook?key=secret-key http/1.1",
            "content-type: application/json",
            "user-agent: millrace/",
            "webhook-id: 0000",
        ] {
            assert!(request.contains(line), "{line}: {request}");
        }
        let signatures = request.lines().find_map(|line| line.strip_prefix("webhook-signature: ")).expect("signatures");
        assert_eq!(signatures.split(' ').filter(|signature| signature.starts_with("v1,")).count(), 2);
    }
}
