//! Receives the callbacks of Millrace, each settlement once. Copy what you need.
//!
//! ```text
//! callback_receiver PORT FOLDER
//! ```
//!
//! `CALLBACK_SECRET` is the secret of the callbacks; two, separated by a comma, while one replaces the other.

use std::{
    env,
    fs::{self, File},
    io::Write,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Error, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use poem::{Body, EndpointExt, Server, handler, http::HeaderMap, http::StatusCode, listener::TcpAcceptor, web::Data};
use sha2::Sha256;
use time::OffsetDateTime;
use tokio::{net::TcpListener, task::block_in_place};

/// The greatest difference between a signature's time and now, in seconds. It limits how long a message can be reused.
const TOLERANCE: u64 = 300;
const LONGEST_BODY: usize = 100_000;

fn read_secret(secret: &str) -> Result<Vec<u8>> {
    let key = STANDARD.decode(secret.trim().trim_start_matches("whsec_"))?;
    ensure!(key.len() >= 24, "a secret is whsec_ and at least 24 bytes in base64");
    Ok(key)
}

/// A header as text; empty if it is missing.
fn header<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Whether the holder of one of the keys signed exactly these bytes a short time ago.
fn verify(headers: &HeaderMap, body: &[u8], keys: &[Vec<u8>], now: i64) -> Result<bool> {
    let (id, timestamp) = (header(headers, "webhook-id"), header(headers, "webhook-timestamp"));
    if !timestamp.parse::<i64>().is_ok_and(|at| now.abs_diff(at) <= TOLERANCE) {
        return Ok(false);
    }
    let entries = header(headers, "webhook-signature").split(' ').filter_map(|entry| entry.strip_prefix("v1,"));
    let given: Vec<Vec<u8>> = entries.filter_map(|signature| STANDARD.decode(signature).ok()).collect();
    for key in keys {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(Error::msg)?;
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        // `verify_slice` takes the same time for every wrong signature.
        if given.iter().any(|signature| mac.clone().verify_slice(signature).is_ok()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Stores each message once. The folder stands for your database: insert the id there under a unique key, in the same
/// transaction as everything that the message causes.
struct Inbox {
    folder: PathBuf,
    keys: Vec<Vec<u8>>,
    lock: Mutex<()>,
}

impl Inbox {
    /// Returns 204 once a message is stored. After any other status, Millrace sends it again.
    fn receive(&self, headers: &HeaderMap, body: &[u8]) -> Result<StatusCode> {
        if !verify(headers, body, &self.keys, OffsetDateTime::now_utc().unix_timestamp())? {
            return Ok(StatusCode::UNAUTHORIZED);
        }
        if self.store(header(headers, "webhook-id"), body)? {
            println!("received {}", String::from_utf8_lossy(body));
        }
        Ok(StatusCode::NO_CONTENT)
    }

    /// Returns false if the message is stored already.
    fn store(&self, id: &str, body: &[u8]) -> Result<bool> {
        ensure!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "the id is no file name: {id}");
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.folder.join(format!("{id}.json"));
        if path.exists() {
            return Ok(false);
        }
        let unfinished = path.with_extension("new");
        let mut file = File::create(&unfinished)?;
        file.write_all(body)?;
        file.sync_all()?;
        fs::rename(unfinished, path)?;
        Ok(true)
    }
}

#[handler]
async fn receive(inbox: Data<&Arc<Inbox>>, headers: &HeaderMap, body: Body) -> poem::Result<StatusCode> {
    let body = body.into_bytes_limit(LONGEST_BODY).await?;
    let received = block_in_place(|| inbox.receive(headers, &body));
    Ok(received.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        StatusCode::INTERNAL_SERVER_ERROR
    }))
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let (port, folder) = arguments.next().zip(arguments.next()).context("usage: PORT FOLDER")?;
    fs::create_dir_all(&folder)?;
    let secrets = env::var("CALLBACK_SECRET").context("CALLBACK_SECRET")?;
    let keys = secrets.split(',').map(read_secret).collect::<Result<Vec<_>>>()?;
    let inbox = Arc::new(Inbox { folder: folder.into(), keys, lock: Mutex::new(()) });
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    Server::new_with_acceptor(TcpAcceptor::from_tokio(listener)?).run(receive.data(inbox)).await?;
    Ok(())
}
