//! Cross-origin resource sharing (CORS): lets pages of the origins in `CORS_ORIGINS` call the API. The default is no origin.
//!
//! Poem's own middleware is not used, for four reasons:
//! - it returns 403 to a foreign origin, although the browser enforces CORS and not the server;
//! - it lists the same methods for every path;
//! - its preflight responses have no correlation id, log line or metric;
//! - it sends no `Vary` with an echoed origin, so a shared cache could give one site the permission of another.

use poem::{
    Request, Response,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
};
use runtime::config::{EnvReader, Environment};

/// The request headers that a page may send: all headers that the API reads.
const REQUEST_HEADERS: &str = "Authorization, Content-Type, api_key, X-API-Key, X-Actor, Idempotency-Key, If-Match, \
    If-None-Match, webhook-id, webhook-timestamp, webhook-signature, X-Correlation-Id, traceparent";
/// The response headers that a page may read, in addition to those that CORS always allows.
const RESPONSE_HEADERS: &str = "X-Correlation-Id, Location, Link, ETag, Retry-After, RateLimit, RateLimit-Policy, \
    X-Total-Count, Idempotency-Replayed, Idempotency-Conflict, Searched-To, Searched-Back-To, Warning, \
    Content-Disposition, WWW-Authenticate";
/// The cache time of a preflight in seconds: Chromium's maximum.
const MAX_AGE: &str = "7200";

/// The origins whose pages may call the API. The API has no cookies: a page must know its credentials and send them in
/// headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// Only same-origin pages; responses have no CORS headers.
    #[default]
    None,
    /// These origins, in the form that browsers send.
    Listed(Vec<String>),
    /// Every origin.
    Any,
}

impl AllowedOrigins {
    /// Reads `CORS_ORIGINS`.
    pub fn read(vars: &mut EnvReader, environment: Environment) -> Self {
        vars.read("CORS_ORIGINS", Self::None, |text| {
            if text == "*" {
                return match environment {
                    Environment::Prod => Err(format!("must name its origins in prod, {EXAMPLE}")),
                    Environment::Dev | Environment::Test => Ok(Self::Any),
                };
            }
            let origins = text.split(',').map(|origin| is_origin(origin.trim()).then(|| origin.trim().to_owned()));
            origins.collect::<Option<Vec<_>>>().map(Self::Listed).ok_or_else(|| {
                format!("must be origins as browsers send them, in lower case and without a path, {EXAMPLE}")
            })
        })
    }
}

/// The end of an error text about `CORS_ORIGINS`.
const EXAMPLE: &str = "several separated by commas, such as CORS_ORIGINS=https://app.example.com,http://localhost:3000";

/// Whether a browser could send this origin. Origins are compared byte by byte, so any other value would never match.
fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return false };
    let (host, port) = (authority.host(), authority.port_u16());
    let default_port = match scheme {
        "https" => 443,
        "http" => 80,
        _ => return false,
    };
    let normalised = port.map_or_else(|| format!("{scheme}://{host}"), |port| format!("{scheme}://{host}:{port}"));
    let is_host_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._:[]".contains(&byte);
    !host.is_empty() && host.bytes().all(is_host_byte) && port != Some(default_port) && normalised == text
}

/// Decides the CORS headers of responses.
#[derive(Debug, Clone)]
pub struct CorsPolicy {
    /// The allowed origins; `None` allows all.
    origins: Option<Vec<HeaderValue>>,
}

/// The CORS headers of one response.
pub struct CorsHeaders {
    /// The value of `Access-Control-Allow-Origin`; `None` for a foreign origin and for a request without an origin.
    origin: Option<HeaderValue>,
    preflight: bool,
    varies: bool,
}

impl CorsPolicy {
    /// A policy for these origins; `None` if no origin is allowed, which costs no time per request.
    pub fn new(origins: &AllowedOrigins) -> Option<Self> {
        let origins = match origins {
            AllowedOrigins::None => return None,
            AllowedOrigins::Any => None,
            AllowedOrigins::Listed(origins) => {
                Some(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect())
            }
        };
        Some(Self { origins })
    }

    /// The CORS headers of the response to this request.
    pub fn headers_for(&self, request: &Request) -> CorsHeaders {
        let mut lines = request.headers().get_all(header::ORIGIN).iter();
        // A browser sends one origin; a repeated header is ignored.
        let given = lines.next().filter(|_| lines.next().is_none());
        let origin = given.and_then(|given| match &self.origins {
            None => Some(HeaderValue::from_static("*")),
            Some(origins) => origins.iter().find(|origin| *origin == given).cloned(),
        });
        let has_method = request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let preflight = has_method && request.method() == Method::OPTIONS;
        CorsHeaders { origin, preflight, varies: self.origins.is_some() }
    }
}

impl CorsHeaders {
    /// Adds the headers to the response. A preflight is an ordinary OPTIONS request: the path's `RouteService` has already
    /// responded with the methods of that path.
    pub fn apply_to(self, response: &mut Response) {
        let path_exists = response.status() == StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        if self.varies {
            // On every response: a cache must not serve a response without CORS headers to an allowed origin.
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        let Some(origin) = self.origin else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.preflight && path_exists {
            add_preflight_headers(headers);
        } else {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(RESPONSE_HEADERS));
        }
    }
}

fn add_preflight_headers(headers: &mut HeaderMap) {
    if let Some(methods) = headers.get(header::ALLOW).cloned() {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(REQUEST_HEADERS));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
}

#[cfg(test)]
mod tests;
