//! Checks the head of a request by RFC 9110, 9112 and 9113, where hyper is more tolerant.

use std::net::Ipv6Addr;

use poem::http::{HeaderMap, HeaderValue, Request, StatusCode, Version, header};

use crate::problem::Problem;

/// The largest size of the target and all headers together: four times what browsers send and common proxies accept.
/// hyper limits only its buffer, which may hold twice as much.
pub(super) const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Bytes per header in addition to its name and value: a colon, a blank and the line end.
const HEADER_OVERHEAD: usize = 4;

/// The reason to reject a request before its handler runs.
///
/// The connection attaches it to the request, so that the response has a correlation id and a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestRejection {
    /// The head is malformed.
    Malformed(&'static str),
    /// The target and headers are too large together.
    HeadTooLarge,
    /// The process has reached its connection limit. It still serves health checks.
    Overloaded,
}

impl RequestRejection {
    /// The problem response. It closes the connection.
    pub(crate) fn problem(self) -> Problem {
        let problem = match self {
            Self::Malformed(detail) => Problem::new(StatusCode::BAD_REQUEST, detail),
            Self::HeadTooLarge => Problem::new(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "The target and the headers of a request must not be larger than 64 KiB together.",
            ),
            Self::Overloaded => Problem::unavailable("the connection limit of this process is reached"),
        };
        problem.header(header::CONNECTION, HeaderValue::from_static("close"))
    }
}

/// Checks the head of a request; `None` if it is valid.
pub(super) fn check<B>(request: &Request<B>) -> Option<RequestRejection> {
    let headers = request.headers();
    let size = |(name, value): (&header::HeaderName, &HeaderValue)| name.as_str().len() + value.len() + HEADER_OVERHEAD;
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target + headers.iter().map(size).sum::<usize>() > MAX_HEAD_BYTES {
        return Some(RequestRejection::HeadTooLarge);
    }
    let hosts = headers.get_all(header::HOST);
    let mut lines = hosts.iter();
    let (host, second) = (lines.next(), lines.next());
    if second.is_some() {
        return Some(RequestRejection::Malformed("Host must be given once."));
    }
    if host.is_some_and(|host| !is_host(host.as_bytes())) {
        return Some(RequestRejection::Malformed("Host must be a host name or address, with a port if need be."));
    }
    match request.version() {
        Version::HTTP_2 => check_http2(request, host),
        Version::HTTP_11 if host.is_none() => Some(RequestRejection::Malformed("Host is missing.")),
        _ => check_transfer_encoding(headers),
    }
}

fn check_http2<B>(request: &Request<B>, host: Option<&HeaderValue>) -> Option<RequestRejection> {
    match (request.uri().authority(), host) {
        (None, None) => Some(RequestRejection::Malformed(":authority is missing.")),
        (Some(authority), Some(host)) if !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) => {
            Some(RequestRejection::Malformed("Host must be the same as :authority."))
        }
        _ => None,
    }
}

/// Accepts only a single `chunked`. With any other value, a proxy and this server could see different bodies (request
/// smuggling).
fn check_transfer_encoding(headers: &HeaderMap) -> Option<RequestRejection> {
    let mut lines = headers.get_all(header::TRANSFER_ENCODING).iter();
    let coding = lines.next()?;
    let chunked = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") && lines.next().is_none();
    (!chunked).then_some(RequestRejection::Malformed("Transfer-Encoding must be chunked, given once, or absent."))
}

/// `uri-host [":" port]` of RFC 9110 §7.2, not empty.
fn is_host(host: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(host) else { return false };
    let (name, port) = match text.strip_prefix('[') {
        Some(literal) => {
            let Some((address, rest)) = literal.split_once(']') else { return false };
            if address.parse::<Ipv6Addr>().is_err() {
                return false;
            }
            match rest.strip_prefix(':') {
                Some(port) => (None, port),
                None => return rest.is_empty(),
            }
        }
        None => match text.split_once(':') {
            Some((name, port)) => (Some(name), port),
            None => (Some(text), ""),
        },
    };
    name.is_none_or(is_name) && (port.is_empty() || is_port(port))
}

/// `reg-name` of RFC 3986 §3.2.2, which covers IPv4 addresses.
fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        let valid = match byte {
            b'%' => {
                [bytes.next(), bytes.next()].iter().all(|digit| digit.is_some_and(|digit| digit.is_ascii_hexdigit()))
            }
            byte => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte),
        };
        if !valid {
            return false;
        }
    }
    !name.is_empty()
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use hostile::proptest::prelude::*;

    use super::*;

    fn check_request(version: Version, uri: &str, headers: &[(&str, &[u8])]) -> Option<RequestRejection> {
        let request = Request::builder().version(version).uri(uri);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        check(&request.body(()).expect("a request"))
    }

    #[test]
    fn host_is_required_once_and_must_be_valid() {
        let http11 = |hosts: &[&[u8]]| {
            let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            check_request(Version::HTTP_11, "/", &headers)
        };
        for host in [
            "x",
            "example.com",
            "example.com:8000",
            "my_service:80",
            "10.0.0.7",
            "[::1]",
            "[2001:db8::1]:443",
            "x:",
            "%41",
        ] {
            assert_eq!(http11(&[host.as_bytes()]), None, "{host}");
        }
        let invalid: [&[u8]; 20] = [
            b"",
            b" ",
            b"a b",
            b"a/b",
            b"user@x",
            b"http://x",
            b"x:port",
            b"x:65536",
            b"x:80:80",
            b"::1",
            b"[::1",
            b"[x]",
            b"[::1]x",
            b"[]",
            b":80",
            b"%4",
            b"%zz",
            b"x\xff",
            "é".as_bytes(),
            b"x?y",
        ];
        for host in invalid {
            assert!(matches!(http11(&[host]), Some(RequestRejection::Malformed(_))), "{host:?}");
        }
        assert!(http11(&[]).is_some() && http11(&[b"x", b"x"]).is_some());
        assert_eq!(check_request(Version::HTTP_10, "/", &[]), None, "HTTP/1.0 does not require Host");
        assert!(check_request(Version::HTTP_10, "/", &[("host", b"a b")]).is_some());
    }

    #[test]
    fn http2_names_one_authority() {
        let http2 = |uri, headers: &[(&str, &[u8])]| check_request(Version::HTTP_2, uri, headers);
        assert_eq!(http2("http://x:80/", &[]), None);
        assert_eq!(http2("http://x:80/", &[("host", b"X:80")]), None);
        assert_eq!(http2("/", &[("host", b"x")]), None);
        assert!(http2("http://x/", &[("host", b"y")]).is_some());
        assert!(http2("/", &[]).is_some());
        let long = vec![b'x'; MAX_HEAD_BYTES];
        assert_eq!(http2("http://x/", &[("x", &long)]), Some(RequestRejection::HeadTooLarge));
        assert_eq!(
            check_request(Version::HTTP_11, "/", &[("host", b"x"), ("x", &long)]),
            Some(RequestRejection::HeadTooLarge)
        );
    }

    #[test]
    fn chunked_is_the_only_transfer_coding() {
        let coded = |codings: &[&'static [u8]]| {
            let codings = codings.iter().map(|coding| ("transfer-encoding", *coding));
            let headers: Vec<(&str, &[u8])> = [("host", &b"x"[..])].into_iter().chain(codings).collect();
            check_request(Version::HTTP_11, "/", &headers)
        };
        assert_eq!(coded(&[]), None);
        assert_eq!(coded(&[b"chunked"]), None);
        assert_eq!(coded(&[b"Chunked"]), None);
        let wrong: [&[&[u8]]; 8] = [
            &[b"foo, chunked"],
            &[b"identity", b"chunked"],
            &[b"chunked", b"chunked"],
            &[b"chunked, chunked"],
            &[b"gzip, chunked"],
            &[b"chunked;q=1"],
            &[b"", b"chunked"],
            &[b", chunked"],
        ];
        for codings in wrong {
            assert!(coded(codings).is_some(), "{codings:?}");
        }
    }

    #[test]
    fn hostile_hosts_are_refused_or_read_alike_by_others() -> Result<(), hostile::Failure> {
        let corpus = include_str!("../../../tests/corpora/host.txt");
        let grammar = "([a-z0-9._~%-]{1,12}|\\[[0-9a-f:]{2,12}\\])(:[0-9]{0,6})?".prop_map(String::into_bytes);
        hostile::check_bytes(corpus, grammar, |host| {
            if !is_host(host) {
                return Ok(());
            }
            let text = std::str::from_utf8(host).expect("ASCII");
            prop_assert!(text.is_ascii() && !text.contains(|c: char| c.is_whitespace() || c.is_control()), "{}", text);
            prop_assert!(!text.contains(['/', '@', '?', '#', '\\', '"', '<', '>']), "{}", text);
            // A URL with this host has no other parts: no user, no path.
            if let Ok(uri) = format!("http://{text}/").parse::<poem::http::Uri>() {
                prop_assert_eq!(uri.authority().map(|authority| authority.as_str()), Some(text));
                prop_assert_eq!(uri.path(), "/");
            }
            let name_ends = text.rfind(']').unwrap_or(0);
            prop_assert!(text[name_ends..].matches(':').count() <= 1 && !text.starts_with(':'), "{}", text);
            Ok(())
        })
    }
}
