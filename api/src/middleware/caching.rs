//! What caches may do with an answer (RFC 9111): every answer says it, so that none has to guess.

use poem::http::{HeaderMap, HeaderValue, header};

/// Of answers for one caller, and of states that are about to change.
pub const PRIVATE: &str = "private, no-store";
/// Of answers that may be kept, and are asked for again with their `ETag` before each use.
pub const REVALIDATED: &str = "no-cache";
const NOT_STORED: &str = "no-store";
/// What chooses an answer to a caller.
const CREDENTIALS: HeaderValue = HeaderValue::from_static("Authorization, X-API-Key, api_key");

/// Says it. `keyed` answers are those of operations that want a credential, and to requests that show one.
pub fn instruct(headers: &mut HeaderMap, keyed: bool) {
    if keyed {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(PRIVATE));
        headers.append(header::VARY, CREDENTIALS);
    } else if !headers.contains_key(header::CACHE_CONTROL) {
        let directive = if headers.contains_key(header::ETAG) { REVALIDATED } else { NOT_STORED };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(directive));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_wins_over_a_tag_and_a_tag_over_nothing() {
        let instructed = |keyed, given: &[(header::HeaderName, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in given {
                headers.insert(name, HeaderValue::from_static(value));
            }
            instruct(&mut headers, keyed);
            let said = headers.get(header::CACHE_CONTROL).and_then(|value| value.to_str().ok()).unwrap_or_default();
            (said.to_owned(), headers.contains_key(header::VARY))
        };
        let tag = (header::ETAG, "\"1\"");
        assert_eq!(instructed(false, &[]), ("no-store".into(), false));
        assert_eq!(instructed(false, std::slice::from_ref(&tag)), ("no-cache".into(), false));
        assert_eq!(instructed(false, &[tag.clone(), (header::CACHE_CONTROL, PRIVATE)]), (PRIVATE.into(), false));
        assert_eq!(instructed(true, &[tag, (header::CACHE_CONTROL, "no-cache")]), (PRIVATE.into(), true));
    }
}
