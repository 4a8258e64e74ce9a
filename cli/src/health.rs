//! `millrace health`: a health check over HTTP, for images that have no `curl`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Result, bail};
use clap::Args;
use runtime::config::EnvReader;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Longer than a readiness check may take, and shorter than the 5 s time-out of the health check in the Dockerfile.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Health responses are short; the rest of a longer one is not read.
const MAX_RESPONSE_BYTES: u64 = 16 * 1024;

#[derive(Args)]
#[command(after_help = "\
Exits with 0 if the response is 200, else prints the reason and exits with 1.

Examples:
  millrace health                                  the API on this machine, at HOST and PORT; if nothing
                                                   listens there, the worker at WORKER_HEALTH_PORT
  millrace health http://127.0.0.1:9100/readyz     a worker with WORKER_HEALTH_PORT=9100")]
pub(crate) struct Arguments {
    /// The URL to check [default: /livez of the API at HOST and PORT, else of the worker at WORKER_HEALTH_PORT]
    url: Option<String>,
}

/// Checks the URL once.
///
/// # Errors
/// When the response is not 200, or does not arrive within 4 s.
pub(crate) async fn program(Arguments { url }: Arguments) -> Result<()> {
    if let Some(url) = url {
        return Ok(check(&url).await?);
    }
    let mut vars = EnvReader::from_env();
    let host = connect_address(vars.host());
    let port = vars.number("PORT", 8000, 0..=u16::MAX);
    let worker_port: Option<u16> = vars.text("WORKER_HEALTH_PORT").and_then(|port| port.parse().ok());
    let url = |port| format!("http://{}/livez", SocketAddr::new(host, port));
    let (api, worker) = vars.finish((url(port), worker_port.map(url)))?;
    match (check(&api).await, worker) {
        // The image has one health check for both programs. If no API listens, this is the container of a worker.
        (Err(failure), Some(worker)) if failure.is_refused => match check(&worker).await {
            Err(other) => bail!("{failure}; {other}"),
            Ok(()) => Ok(()),
        },
        (checked, _) => Ok(checked?),
    }
}

/// Why a health check failed.
#[derive(Debug, thiserror::Error)]
#[error("{url}: {problem}")]
struct Failure {
    url: String,
    problem: String,
    /// The connection was refused: no process listens there.
    is_refused: bool,
}

/// Sends one request to one process.
async fn check(url: &str) -> Result<(), Failure> {
    let failed = |problem: String, is_refused| Failure { url: url.to_owned(), problem, is_refused };
    let (authority, path) = split_url(url).map_err(|problem| failed(problem, false))?;
    match timeout(TIMEOUT, get(authority, path)).await {
        Ok(Ok(response)) => check_status(&response).map_err(|problem| failed(problem, false)),
        Ok(Err(error)) => Err(failed(error.to_string(), error.kind() == std::io::ErrorKind::ConnectionRefused)),
        Err(_) => Err(failed(format!("no response within {} s", TIMEOUT.as_secs()), false)),
    }
}

/// The address at which a server that listens on `host` can be reached: loopback for an unspecified address.
fn connect_address(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        host => host,
    }
}

/// Splits a URL into `HOST:PORT` and its path.
fn split_url(url: &str) -> Result<(&str, &str), String> {
    let rest = url.strip_prefix("http://").unwrap_or_default();
    let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let port = authority.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    let plain = url.bytes().all(|byte| byte.is_ascii_graphic());
    if !plain || !matches!(port, Some(Ok(_))) {
        return Err("URL: must be http://HOST:PORT/PATH, such as http://127.0.0.1:8000/readyz".into());
    }
    Ok((authority, path))
}

async fn get(authority: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(authority).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = Vec::new();
    stream.take(MAX_RESPONSE_BYTES).read_to_end(&mut response).await?;
    Ok(String::from_utf8_lossy(&response).into_owned())
}

/// Fails unless the response is 200; the error is the status and the body in one line.
fn check_status(response: &str) -> Result<(), String> {
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((response, ""));
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|line| line.lines().next());
    match status {
        Some(status) if status.starts_with("200") => Ok(()),
        Some(status) => Err(format!("{} {}", status.trim(), body.split_whitespace().collect::<Vec<_>>().join(" "))),
        None => Err("the server does not speak HTTP".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_split_into_authority_and_path() {
        assert_eq!(split_url("http://127.0.0.1:8000/readyz"), Ok(("127.0.0.1:8000", "/readyz")));
        assert_eq!(split_url("http://[::1]:9100"), Ok(("[::1]:9100", "/")));
        for wrong in
            ["", "127.0.0.1:8000", "https://a:1/", "http://a/", "http://:1/", "http://a:99999/", "http://a:1/\r\nX: y"]
        {
            assert!(split_url(wrong).is_err_and(|problem| problem.starts_with("URL: must be ")), "{wrong:?}");
        }
    }

    #[test]
    fn only_200_is_healthy() {
        assert_eq!(check_status("HTTP/1.1 200 OK\r\nA: b\r\n\r\n{}"), Ok(()));
        assert_eq!(
            check_status("HTTP/1.1 503 Service Unavailable\r\n\r\nnot\r\nready"),
            Err("503 Service Unavailable not ready".into())
        );
        assert!(check_status("").is_err() && check_status("SSH-2.0-x\r\n").is_err());
    }

    #[test]
    fn an_unspecified_address_is_checked_on_loopback() {
        for (host, expected) in [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.1.2.3", "10.1.2.3")] {
            assert_eq!(connect_address(host.parse().expect("an address")).to_string(), expected);
        }
    }
}
