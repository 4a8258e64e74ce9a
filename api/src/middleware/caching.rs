//! The `Cache-Control` header (RFC 9111). Every response has one, so that caches apply no heuristics.

use poem::http::{HeaderMap, HeaderValue, header};

/// For responses to one caller, and for states that will soon change.
pub const PRIVATE_NO_STORE: &str = "private, no-store";
/// For responses that a cache may store, but must revalidate by `ETag` before each use.
pub const NO_CACHE: &str = "no-cache";
const NO_STORE: &str = "no-store";
/// The request headers that select the response for a caller.
const CREDENTIAL_HEADERS: HeaderValue = HeaderValue::from_static("Authorization, X-API-Key, api_key");

/// Sets `Cache-Control` and `Vary`. `private` is true when the operation requires a credential or the request has one.
pub fn set_cache_control(headers: &mut HeaderMap, private: bool) {
    if private {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(PRIVATE_NO_STORE));
        headers.append(header::VARY, CREDENTIAL_HEADERS);
    } else if !headers.contains_key(header::CACHE_CONTROL) {
        let directive = if headers.contains_key(header::ETAG) { NO_CACHE } else { NO_STORE };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(directive));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_override_an_etag_and_no_store_is_the_default() {
        let cache_headers = |private, given: &[(header::HeaderName, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in given {
                headers.insert(name, HeaderValue::from_static(value));
            }
            set_cache_control(&mut headers, private);
            let value = headers.get(header::CACHE_CONTROL).and_then(|value| value.to_str().ok());
            (value.unwrap_or_default().to_owned(), headers.contains_key(header::VARY))
        };
        let tag = (header::ETAG, "\"1\"");
        assert_eq!(cache_headers(false, &[]), ("no-store".into(), false));
        assert_eq!(cache_headers(false, std::slice::from_ref(&tag)), ("no-cache".into(), false));
        assert_eq!(
            cache_headers(false, &[tag.clone(), (header::CACHE_CONTROL, PRIVATE_NO_STORE)]),
            (PRIVATE_NO_STORE.into(), false)
        );
        assert_eq!(cache_headers(true, &[tag, (header::CACHE_CONTROL, "no-cache")]), (PRIVATE_NO_STORE.into(), true));
    }
}
