//! Which other sites' pages may call from a browser: none, unless `CORS_ORIGINS` names them.
//!
//! Poem's own middleware would not do: it answers 403 to a foreign origin, whose request is none of our business to
//! refuse; it offers every path the same methods; its preflights pass by the correlation id, the log and the metrics;
//! and it sends no `Vary` with an origin that it repeats, so that a shared cache would answer one site with the
//! permission of another.

use jobs::config::{EnvReader, Environment};
use poem::{
    Request, Response,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
};

/// What a page may send: every header that we read.
const REQUEST_HEADERS: &str = "Authorization, Content-Type, api_key, X-API-Key, Idempotency-Key, If-Match, \
    If-None-Match, X-Correlation-Id, traceparent";
/// What a page may see of an answer, beside what every page may.
const RESPONSE_HEADERS: &str = "X-Correlation-Id, Location, Link, ETag, Retry-After, RateLimit, RateLimit-Policy, \
    X-Total-Count, Idempotency-Replayed, Idempotency-Conflict";
/// How long a browser may remember a preflight, in seconds: as long as Chromium does at most.
const MAX_AGE: &str = "7200";

/// Whose pages may call. There are no cookies to protect: credentials are headers, which a page has to know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Origins {
    /// Nobody's but those that come from here; no answer says anything about origins.
    #[default]
    None,
    /// Those of these origins, each as browsers write it.
    These(Vec<String>),
    /// Everybody's.
    Any,
}

impl Origins {
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
            origins.collect::<Option<Vec<_>>>().map(Self::These).ok_or_else(|| {
                format!("must be origins as browsers send them, in lower case and without a path, {EXAMPLE}")
            })
        })
    }
}

/// Completes what is said of a wrong value.
const EXAMPLE: &str = "several separated by commas, such as CORS_ORIGINS=https://app.example.com,http://localhost:3000";

/// A browser compares byte by byte, and so do we: what it would never send is a mistake that would stay unnoticed.
fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return false };
    let (host, port) = (authority.host(), authority.port_u16());
    let default_port = match scheme {
        "https" => 443,
        "http" => 80,
        _ => return false,
    };
    let written = port.map_or_else(|| format!("{scheme}://{host}"), |port| format!("{scheme}://{host}:{port}"));
    let in_host = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._:[]".contains(&byte);
    !host.is_empty() && host.bytes().all(in_host) && port != Some(default_port) && written == text
}

/// What answers say to browsers when some origins may call.
#[derive(Debug, Clone)]
pub struct Cors {
    /// None: any.
    origins: Option<Vec<HeaderValue>>,
}

/// What an answer has to say about the origin of its request.
pub struct Permission {
    /// The value of `Access-Control-Allow-Origin`; none for a foreign origin, and for a request without one.
    origin: Option<HeaderValue>,
    preflight: bool,
    varies: bool,
}

impl Cors {
    /// None when no origin may call: then no request costs anything.
    pub fn new(origins: &Origins) -> Option<Self> {
        let origins = match origins {
            Origins::None => return None,
            Origins::Any => None,
            Origins::These(origins) => {
                Some(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect())
            }
        };
        Some(Self { origins })
    }

    /// What the answer to this request has to say.
    pub fn permission(&self, request: &Request) -> Permission {
        let mut lines = request.headers().get_all(header::ORIGIN).iter();
        // Two origins are none: a browser sends one.
        let given = lines.next().filter(|_| lines.next().is_none());
        let origin = given.and_then(|given| match &self.origins {
            None => Some(HeaderValue::from_static("*")),
            Some(origins) => origins.iter().find(|origin| *origin == given).cloned(),
        });
        let asks = request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        Permission { origin, preflight: asks && request.method() == Method::OPTIONS, varies: self.origins.is_some() }
    }
}

impl Permission {
    /// Says it. A preflight is what any OPTIONS is: answered by the path's edge, with the methods of that path.
    pub fn tell(self, response: &mut Response) {
        let found = response.status() == StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        if self.varies {
            // Of every answer: a cache must not give one without permission to an origin that has it.
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        let Some(origin) = self.origin else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.preflight && found {
            tell_preflight(headers);
        } else {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(RESPONSE_HEADERS));
        }
    }
}

fn tell_preflight(headers: &mut HeaderMap) {
    if let Some(methods) = headers.get(header::ALLOW).cloned() {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(REQUEST_HEADERS));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
}

#[cfg(test)]
mod tests;
