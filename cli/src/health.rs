//! `millrace health`: asks a process whether it lives, for health checks in images that have no `curl`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use clap::Args;
use jobs::{boot::process, config::EnvReader};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Longer than a readiness check may take, shorter than the patience of those who check.
const WITHIN: Duration = Duration::from_secs(4);
/// An answer is as long as the reason for it; more is not read.
const LONGEST: u64 = 16 * 1024;

#[derive(Args)]
#[command(after_help = "\
Exits with 0 when the answer is 200, and with 1 and the reason otherwise.
Examples:
  millrace health                                  the API of this machine, at HOST and PORT; where nothing
                                                   listens there, the worker at WORKER_HEALTH_PORT
  millrace health http://127.0.0.1:9100/readyz     a worker with WORKER_HEALTH_PORT=9100")]
pub struct Arguments {
    /// What to ask; unset, /livez of the API at HOST and PORT, else of the worker at WORKER_HEALTH_PORT
    url: Option<String>,
}

/// Asks, once.
///
/// # Errors
/// Anything but 200, and no answer within 4 s.
pub async fn program(Arguments { url }: Arguments) -> Result<(), String> {
    if let Some(url) = url {
        return check(&url).await.map_err(|failure| failure.to_string());
    }
    let mut vars = EnvReader::from_env();
    let host = reachable(vars.host());
    let port = vars.number("PORT", 8000, 0..=u16::MAX);
    let worker_port: Option<u16> = vars.text("WORKER_HEALTH_PORT").and_then(|port| port.parse().ok());
    let url = |port| format!("http://{}/livez", SocketAddr::new(host, port));
    let (api, worker) = vars.finish((url(port), worker_port.map(url))).map_err(process::text)?;
    match (check(&api).await, worker) {
        // One image, and so one health check, serves both: where no API listens, this is a worker's container.
        (Err(failure), Some(worker)) if failure.is_refused => {
            check(&worker).await.map_err(|other| format!("{failure}; {other}"))
        }
        (checked, _) => checked.map_err(|failure| failure.to_string()),
    }
}

/// Why a process is not well.
#[derive(Debug)]
struct Failure {
    url: String,
    problem: String,
    /// Nothing listens there.
    is_refused: bool,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.url, self.problem)
    }
}

/// Asks one process, once.
async fn check(url: &str) -> Result<(), Failure> {
    let failed = |problem: String, is_refused| Failure { url: url.to_owned(), problem, is_refused };
    let (authority, path) = split(url).map_err(|problem| failed(problem, false))?;
    match timeout(WITHIN, ask(authority, path)).await {
        Ok(Ok(answer)) => judge(&answer).map_err(|problem| failed(problem, false)),
        Ok(Err(error)) => Err(failed(error.to_string(), error.kind() == std::io::ErrorKind::ConnectionRefused)),
        Err(_) => Err(failed(format!("no answer within {} s", WITHIN.as_secs()), false)),
    }
}

/// An address to ask at what listens on `host`: one that listens everywhere is asked on this machine.
fn reachable(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        host => host,
    }
}

/// `HOST:PORT` and the path of a URL.
fn split(url: &str) -> Result<(&str, &str), String> {
    let rest = url.strip_prefix("http://").unwrap_or_default();
    let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let port = authority.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    let plain = url.bytes().all(|byte| byte.is_ascii_graphic());
    if !plain || !matches!(port, Some(Ok(_))) {
        return Err("URL: must be http://HOST:PORT/PATH, such as http://127.0.0.1:8000/readyz".into());
    }
    Ok((authority, path))
}

async fn ask(authority: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(authority).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Whether this answer is 200; else what it is, in one line.
fn judge(answer: &str) -> Result<(), String> {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|line| line.lines().next());
    match status {
        Some(status) if status.starts_with("200") => Ok(()),
        Some(status) => Err(format!("{} {}", status.trim(), body.split_whitespace().collect::<Vec<_>>().join(" "))),
        None => Err("what answers there does not speak HTTP".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_addresses_apart() {
        assert_eq!(split("http://127.0.0.1:8000/readyz"), Ok(("127.0.0.1:8000", "/readyz")));
        assert_eq!(split("http://[::1]:9100"), Ok(("[::1]:9100", "/")));
        for wrong in
            ["", "127.0.0.1:8000", "https://a:1/", "http://a/", "http://:1/", "http://a:99999/", "http://a:1/\r\nX: y"]
        {
            assert!(split(wrong).is_err_and(|problem| problem.starts_with("URL: must be ")), "{wrong:?}");
        }
    }

    #[test]
    fn only_200_is_well() {
        assert_eq!(judge("HTTP/1.1 200 OK\r\nA: b\r\n\r\n{}"), Ok(()));
        assert_eq!(
            judge("HTTP/1.1 503 Service Unavailable\r\n\r\nnot\r\nready"),
            Err("503 Service Unavailable not ready".into())
        );
        assert!(judge("").is_err() && judge("SSH-2.0-x\r\n").is_err());
    }

    #[test]
    fn what_listens_everywhere_is_asked_here() {
        for (host, asked) in [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.1.2.3", "10.1.2.3")] {
            assert_eq!(reachable(host.parse().expect("an address")).to_string(), asked);
        }
    }
}
